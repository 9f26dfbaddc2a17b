import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFile, readdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { skipUnlessInstalled, testCluster } from '../../test/services/postgres.ts'
import { BackupManifestWriter, type ManifestFile, type ManifestWalRange } from './backup-manifest.ts'
import { crc32c } from './crc32c.ts'
import { toolPath } from './installation.ts'
import { parseLsn } from './lsn.ts'

const execute = promisify(execFile)

function write(options: { major: number; files: readonly ManifestFile[]; ranges: readonly ManifestWalRange[] }): string {
  const manifest = new BackupManifestWriter({ major: options.major, systemIdentifier: 7_300_000_000_000_000_001n })
  return manifest.begin() + options.files.map((file) => manifest.addFile(file)).join('') + manifest.end(options.ranges)
}

const FILE: ManifestFile = {
  path: 'base/5/1259',
  sizeBytes: 8192,
  modified: new Date('2026-11-21T03:04:05.678Z'),
  crc32c: 0x12345678,
}

test('a manifest for PostgreSQL 15 has version 1, and one for 17 version 2 with the system identifier', () => {
  const ranges = [{ timeline: 1, startLsn: 0x2000028n, endLsn: 0x2000100n }]
  const text = write({ major: 15, files: [FILE], ranges })
  assert.deepEqual(JSON.parse(text), {
    'PostgreSQL-Backup-Manifest-Version': 1,
    Files: [
      {
        Path: 'base/5/1259',
        Size: 8192,
        'Last-Modified': '2026-11-21 03:04:05 GMT',
        'Checksum-Algorithm': 'CRC32C',
        Checksum: '78563412',
      },
    ],
    'WAL-Ranges': [{ Timeline: 1, 'Start-LSN': '0/2000028', 'End-LSN': '0/2000100' }],
    'Manifest-Checksum': createHash('sha256')
      .update(text.slice(0, text.indexOf('"Manifest-Checksum"')))
      .digest('hex'),
  })
  const newer = write({ major: 17, files: [], ranges: [] })
  assert.match(newer, /^\{ "PostgreSQL-Backup-Manifest-Version": 2,\n"System-Identifier": 7300000000000000001,\n/)
  assert.deepEqual(JSON.parse(newer)['Files'], [])
})

test('names that JSON has to escape are escaped, and those that are not UTF-8 are written in hexadecimal', () => {
  const path = (value: string | Uint8Array) =>
    JSON.parse(write({ major: 15, files: [{ ...FILE, path: value }], ranges: [] })).Files[0]
  assert.equal(path('conf/a "b"\\\nc').Path, 'conf/a "b"\\\nc')
  assert.equal(path(Buffer.from('é')).Path, 'é')
  assert.equal(path(Buffer.from([0x61, 0xff, 0x62]))['Encoded-Path'], '61ff62')
})

test('steps out of order are a bug of ours', () => {
  const manifest = new BackupManifestWriter({ major: 15, systemIdentifier: 1n })
  assert.throws(() => manifest.addFile(FILE), /between begin and end/)
  manifest.begin()
  assert.throws(() => manifest.begin(), /begins once/)
  manifest.end([])
  assert.throws(() => manifest.end([]), /ends once/)
})

test(
  'pg_verifybackup accepts our manifest, and finds a flipped byte and a missing file with it',
  { skip: await skipUnlessInstalled(15) },
  async (t) => {
    const cluster = await testCluster(t, { major: 15 })
    const basebackup = toolPath(cluster.installation, 'pg_basebackup')
    const verifybackup = toolPath(cluster.installation, 'pg_verifybackup')
    if (basebackup === undefined || verifybackup === undefined) {
      t.skip('pg_basebackup and pg_verifybackup are not installed')
      return
    }
    const copy = join(cluster.home, 'copy')
    await execute(basebackup, ['-D', copy, '-d', cluster.connectionString, '-X', 'none', '-c', 'fast', '--no-sync'])
    const theirs = JSON.parse(await readFile(join(copy, 'backup_manifest'), 'utf8')) as {
      Files: { Path: string; Checksum: string; Size: number }[]
      'WAL-Ranges': { Timeline: number; 'Start-LSN': string; 'End-LSN': string }[]
    }
    await writeFile(join(copy, 'odd "name" é\\'), 'odd')
    const entries = await readdir(copy, { recursive: true, withFileTypes: true })
    const files = await Promise.all(
      entries
        .filter((entry) => entry.isFile() && entry.name !== 'backup_manifest')
        .map(async (entry) => {
          const absolute = join(entry.parentPath, entry.name)
          const { size, mtime } = await stat(absolute)
          return {
            path: absolute.slice(copy.length + 1),
            sizeBytes: size,
            modified: mtime,
            crc32c: crc32c(await readFile(absolute)),
          }
        }),
    )
    const ranges = theirs['WAL-Ranges'].map((range) => ({
      timeline: range.Timeline,
      startLsn: parseLsn(range['Start-LSN']),
      endLsn: parseLsn(range['End-LSN']),
    }))
    const text = write({ major: 15, files, ranges })
    await writeFile(join(copy, 'backup_manifest'), text)
    const ours = JSON.parse(text) as typeof theirs
    const checksums = new Map(ours.Files.map((each) => [each.Path, each.Checksum]))
    for (const each of theirs.Files) assert.equal(checksums.get(each.Path), each.Checksum, each.Path)
    assert.deepEqual(ours['WAL-Ranges'], theirs['WAL-Ranges'])

    const { stdout } = await execute(verifybackup, ['-n', copy])
    assert.match(stdout, /backup successfully verified/)

    const victim = join(copy, 'base/5/1259')
    const bytes = await readFile(victim)
    bytes[100]! ^= 1
    await writeFile(victim, bytes)
    await assert.rejects(execute(verifybackup, ['-n', copy]), /checksum mismatch for file "base\/5\/1259"/)
    bytes[100]! ^= 1
    await writeFile(victim, bytes)
    await execute(verifybackup, ['-n', copy])

    await writeFile(join(copy, 'backup_manifest'), text.replace('"base/5/1259"', '"base/5/9999"'))
    await assert.rejects(execute(verifybackup, ['-n', copy]), /manifest checksum mismatch/)
  },
)
