import assert from 'node:assert/strict'
import { appendFile, open, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { checkFiles } from '../../src/protect/postgres/file-check.ts'
import { Random, testSeed } from '../faults/random.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'

test(
  'no byte of a restored file may be another, no file missing, and none added',
  { skip: await skipUnlessInstalled(18) },
  async (t) => {
    const random = new Random(testSeed(t))
    await using cluster = await protectedCluster(t, { major: 18, settings: { autovacuum: 'off' } })
    await cluster.query('create table patients as select i as id, md5(i::text) as name from generate_series(1, 50000) i')
    const [row] = await cluster.query<{ path: string }>(`select pg_relation_filepath('patients') as path`)
    await cluster.backup()
    const { directory } = await cluster.restore()
    const { signal } = new AbortController()
    const look = () => checkFiles({ directory, signal })
    assert.equal((await look()).verdict, 'verified')
    const files = [
      row!.path,
      'postgresql.conf',
      'PG_VERSION',
      'global/pg_control',
      'pg_xact/0000',
      'backup_label',
      'backup_manifest',
    ]
    for (const name of files) {
      const path = join(directory, name)
      const bytes = await readFile(path)
      const failed = async (what: string, pattern = new RegExp(name)) => {
        const finding = await look()
        assert.equal(finding.verdict, 'failed', `${name}: ${what}`)
        assert.match(finding.found, pattern, what)
        await writeFile(path, bytes)
      }
      const offset = random.below(bytes.length)
      const file = await open(path, 'r+')
      await file.write(Buffer.from([bytes[offset]! ^ (1 << random.below(8))]), 0, 1, offset)
      await file.close()
      // Of a manifest's line that became another path, that one is missing.
      await failed(`a bit of byte ${offset} flipped`, name === 'backup_manifest' ? /./ : undefined)
      await truncate(path, bytes.length - 1)
      await failed('cut off')
      if (name === 'backup_manifest') continue
      await appendFile(path, '\0')
      await failed('longer')
      await rm(path)
      await failed('gone')
    }
    const added = join(directory, 'base/1/99999')
    await writeFile(added, '')
    assert.match((await look()).found, /files are there, \d+ are listed/)
    await rm(added)
    assert.equal((await look()).verdict, 'verified')
  },
)
