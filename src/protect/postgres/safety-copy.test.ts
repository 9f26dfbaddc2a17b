import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { FileLock } from './restore-lock.ts'
import { SAFETY_COPY_FILE, takeSafetyCopy } from './safety-copy.ts'
import { safetyCopyPlace } from './safety-place.ts'

const NOW_MS = Date.parse('2026-11-22T03:00:00.000Z')
const LOCK_FILE = 'resus-safety-copy.lock'

interface Scene {
  readonly home: string
  readonly directory: string
}

async function scene(t: TestContext): Promise<Scene> {
  const home = await mkdtemp(join(tmpdir(), 'resus-safety-'))
  t.after(() => rm(home, { recursive: true, force: true }))
  const directory = join(home, 'main')
  for (const name of ['base/5', 'global', 'pg_tblspc']) await mkdir(join(directory, name), { recursive: true })
  await mkdir(join(home, 'wal'))
  await mkdir(join(home, 'space/PG_18_1/5'), { recursive: true })
  await writeFile(join(directory, 'PG_VERSION'), '18\n')
  await writeFile(join(directory, 'base/5/16384'), Buffer.alloc(100_000, 7))
  await writeFile(join(directory, 'global/pg_control'), 'control')
  await writeFile(join(home, 'wal/000000010000000000000001'), 'wal')
  await writeFile(join(home, 'space/PG_18_1/5/16385'), 'in a tablespace')
  await symlink(join(home, 'wal'), join(directory, 'pg_wal'))
  await symlink(join(home, 'space'), join(directory, 'pg_tblspc/16390'))
  return { home, directory }
}

function copyOf({ directory }: Scene, to: string, signal = new AbortController().signal) {
  return takeSafetyCopy({ directory, to, nowMs: NOW_MS, signal })
}

test('a copy holds tablespaces and WAL itself, keeps modes and times, and says what it is', async (t) => {
  const { home, directory } = await scene(t)
  await chmod(join(directory, 'base/5/16384'), 0o640)
  await chmod(directory, 0o750)
  await utimes(join(directory, 'base/5/16384'), 1000, 2000)
  await symlink('/etc/hostname', join(directory, 'pg_hba.conf'))
  await symlink('/nowhere', join(directory, 'pg_tblspc/16391'))
  await writeFile(join(directory, 'server.key'), 'key', { mode: 0o400 })
  const copy = await copyOf({ home, directory }, safetyCopyPlace(directory, undefined, NOW_MS))
  assert.equal(copy.path, join(home, 'main.before-20261122T030000000Z'))
  assert.deepEqual([copy.files, copy.bytes, copy.unreadable], [6, 100_031, []])
  assert.equal(await readFile(join(copy.path, 'pg_wal/000000010000000000000001'), 'utf8'), 'wal')
  assert.equal(await readFile(join(copy.path, 'pg_tblspc/16390/PG_18_1/5/16385'), 'utf8'), 'in a tablespace')
  assert.equal(await readlink(join(copy.path, 'pg_hba.conf')), '/etc/hostname')
  assert.equal(await readlink(join(copy.path, 'pg_tblspc/16391')), '/nowhere')
  assert.equal((await stat(join(copy.path, 'server.key'))).mode & 0o777, 0o400)
  const { mode, mtimeMs } = await stat(join(copy.path, 'base/5/16384'))
  assert.deepEqual([mode & 0o777, mtimeMs, (await stat(copy.path)).mode & 0o777], [0o640, 2_000_000, 0o750])
  const note = JSON.parse(await readFile(join(copy.path, SAFETY_COPY_FILE), 'utf8')) as Record<string, unknown>
  assert.deepEqual([note.of, note.links], [directory, { pg_wal: join(home, 'wal'), 'pg_tblspc/16390': join(home, 'space') }])
  assert.deepEqual((await readdir(copy.path)).toSorted(), (await readdir(directory)).concat(SAFETY_COPY_FILE).toSorted())
})

test('sockets are left out, and names that are no UTF-8 are kept', async (t) => {
  const { home, directory } = await scene(t)
  const socket = createServer().listen(join(directory, 'a-socket'))
  t.after(() => socket.close())
  const name = Buffer.concat([Buffer.from(`${directory}/`), Buffer.from([0x66, 0xff, 0xfe])])
  await writeFile(name, 'odd')
  const { path } = await copyOf({ home, directory }, join(home, 'copy'))
  const names = await readdir(path, { encoding: 'buffer' })
  assert.ok(names.some((each) => each.equals(Buffer.from([0x66, 0xff, 0xfe]))))
  assert.ok(!names.some((each) => each.toString() === 'a-socket'))
})

test('a copy never lies in what the restore changes, and never over anything', async (t) => {
  const { home, directory } = await scene(t)
  await symlink(directory, join(home, 'another-name'))
  for (const to of ['main/copy', 'main', 'space/copy', 'wal/copy', 'another-name/copy', '.']) {
    await assert.rejects(copyOf({ home, directory }, join(home, to)), { code: /ARGUMENTS_INVALID|DIRECTORY_NOT_EMPTY/ }, to)
  }
  await mkdir(join(home, 'full'))
  await writeFile(join(home, 'full/file'), 'mine')
  await assert.rejects(copyOf({ home, directory }, join(home, 'full')), { code: 'DIRECTORY_NOT_EMPTY' })
  await mkdir(join(home, 'empty'))
  assert.equal((await copyOf({ home, directory }, join(home, 'empty'))).files, 5)
  assert.deepEqual((await readdir(home)).toSorted(), ['another-name', 'empty', 'full', 'main', 'space', 'wal'])
})

test(
  'what cannot be read refuses, by name, and leaves no copy',
  { skip: process.getuid?.() === 0 && 'root reads everything' },
  async (t) => {
    const { home, directory } = await scene(t)
    await chmod(join(directory, 'base/5/16384'), 0)
    await assert.rejects(copyOf({ home, directory }, join(home, 'copy')), { code: 'SAFETY_COPY_FAILED', message: /16384/ })
    const stopped = AbortSignal.abort(new Error('stopped'))
    await assert.rejects(copyOf({ home, directory }, join(home, 'copy'), stopped), /stopped/)
    assert.deepEqual((await readdir(home)).toSorted(), ['main', 'space', 'wal'])
  },
)

test('a copy that was given up is removed, one that is being made is not', async (t) => {
  const { home, directory } = await scene(t)
  const abandoned = join(home, 'main.before-20261121T000000000Z.partial')
  await mkdir(join(abandoned, 'base'), { recursive: true })
  await writeFile(join(abandoned, LOCK_FILE), '')
  const strange = join(home, 'main.before-notes.partial')
  await mkdir(strange)
  await writeFile(join(strange, 'notes'), 'not ours')
  await copyOf({ home, directory }, join(home, 'copy'))
  assert.deepEqual((await readdir(home)).toSorted(), ['copy', 'main', 'main.before-notes.partial', 'space', 'wal'])
  await mkdir(abandoned)
  await using lock = await FileLock.take(join(abandoned, LOCK_FILE), () => undefined)
  assert.ok(lock !== undefined)
  await assert.rejects(copyOf({ home, directory }, join(home, 'copy-2')), { code: 'DIRECTORY_IN_USE' })
  assert.deepEqual(await readdir(abandoned), [LOCK_FILE])
})
