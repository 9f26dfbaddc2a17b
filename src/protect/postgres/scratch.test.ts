import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, realpath, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { processStart } from '../../postgres/process-start.ts'
import { assertOutside, assertScratchRoom, removeAbandoned, ScratchDirectory } from './scratch.ts'

async function temporary(t: TestContext): Promise<string> {
  const path = await realpath(await mkdtemp(join(tmpdir(), 'resus-scratch-')))
  t.after(() => rm(path, { recursive: true, force: true }))
  return path
}

const OPTIONS = {
  purpose: 'resus dump' as const,
  component: 'db',
  backup: 'b',
  account: { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 },
  nowMs: 0,
}

/** A process that has ended, whose number and start a dead verification would have left. */
async function deadProcess(): Promise<{ pid: number; started: string }> {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'])
  await once(child, 'spawn')
  const [pid, started] = [child.pid!, await processStart(child.pid!)]
  child.kill('SIGKILL')
  await once(child, 'exit')
  return { pid, started: started! }
}

/** What a verification that was killed has left: a scratch directory whose marker names a dead process. */
async function abandoned(
  root: string,
  more: Record<string, unknown> = {},
): Promise<{ scratch: ScratchDirectory; marker: string }> {
  const scratch = await ScratchDirectory.make({ ...OPTIONS, root })
  await mkdir(scratch.dataDirectory)
  await writeFile(join(scratch.dataDirectory, 'PG_VERSION'), '18')
  const marker = `${scratch.path}.json`
  const content = JSON.parse(await readFile(marker, 'utf8')) as Record<string, unknown>
  await writeFile(marker, JSON.stringify({ ...content, ...(await deadProcess()), ...more }))
  return { scratch, marker }
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}

test('a scratch directory is closed to others, and gone when it is disposed of', async (t) => {
  const root = join(await temporary(t), 'scratch')
  const scratch = await ScratchDirectory.make({ ...OPTIONS, root })
  for (const path of [scratch.path, scratch.socketDirectory]) assert.equal((await stat(path)).mode & 0o777, 0o700)
  await mkdir(scratch.dataDirectory)
  await scratch[Symbol.asyncDispose]()
  assert.deepEqual(await readdir(root), [])
  assert.equal(await isThere(scratch.socketDirectory), false)
})

test('what a dead process left is removed, with its socket directory, and said', async (t) => {
  const root = await temporary(t)
  const { scratch } = await abandoned(root)
  const [notice, ...others] = await removeAbandoned(root)
  assert.match(notice ?? '', /^removed ".*verify-[0-9a-f]{16}", which a "resus dump" that was killed had left/)
  assert.deepEqual([others, await readdir(root), await isThere(scratch.socketDirectory)], [[], [], false])
  assert.deepEqual(await removeAbandoned(root), [])
  assert.deepEqual(await removeAbandoned(join(root, 'not there')), [])
})

test('the number of a dead process that somebody else has now does not keep what it left', async (t) => {
  const root = await temporary(t)
  await abandoned(root, { pid: process.pid })
  assert.match((await removeAbandoned(root)).join(), /^removed/)
})

test('nothing else is removed: what is in use, was moved, is of another host, or is not ours', async (t) => {
  const root = await temporary(t)
  const cases: Record<string, (name: string) => Promise<readonly string[]>> = {
    'of a process that runs': async () => {
      const scratch = await ScratchDirectory.make({ ...OPTIONS, root })
      t.after(() => scratch[Symbol.asyncDispose]())
      return [scratch.path, scratch.socketDirectory]
    },
    'of another host': async () => {
      const { scratch, marker } = await abandoned(root, { host: 'elsewhere' })
      t.after(() => rm(scratch.socketDirectory, { recursive: true }))
      return [scratch.path, marker, scratch.socketDirectory]
    },
    'whose marker names another directory': async () => {
      const other = join(root, 'production')
      await mkdir(other)
      const { scratch, marker } = await abandoned(root, { directory: other })
      t.after(() => rm(scratch.socketDirectory, { recursive: true }))
      return [other, scratch.path, marker]
    },
    'whose marker names another socket directory': async () => {
      const other = join(root, 'sockets')
      await mkdir(other)
      const { scratch } = await abandoned(root, { socketDirectory: other })
      t.after(() => rm(scratch.socketDirectory, { recursive: true }))
      return [other, scratch.path]
    },
    'whose marker is torn': async () => {
      const { scratch, marker } = await abandoned(root)
      t.after(() => rm(scratch.socketDirectory, { recursive: true }))
      await writeFile(marker, '{"format": 1,')
      return [scratch.path, marker]
    },
    'whose directory is a link to another': async () => {
      const { scratch, marker } = await abandoned(root)
      t.after(() => rm(scratch.socketDirectory, { recursive: true }))
      const moved = join(root, 'moved')
      await rename(scratch.path, moved)
      await symlink(moved, scratch.path)
      return [moved, join(moved, 'data/PG_VERSION'), marker]
    },
    'that has no marker': async () => {
      const path = join(root, 'verify-0123456789abcdef')
      await mkdir(path)
      return [path]
    },
    'a file of a like name': async () => {
      const path = join(root, 'verify-of-the-auditor.json')
      await writeFile(path, '{}')
      return [path]
    },
  }
  for (const [name, make] of Object.entries(cases)) {
    await t.test(name, async () => {
      const kept = await make(name)
      const notices = await removeAbandoned(root)
      assert.ok(!notices.some((notice) => notice.startsWith('removed')), notices.join())
      for (const path of kept) assert.ok(await isThere(path), path)
    })
  }
})

test('a scratch directory inside a data directory, a tablespace or a storage is refused, also through a link', async (t) => {
  const home = await temporary(t)
  const data = join(home, 'data')
  await mkdir(join(data, 'global'), { recursive: true })
  const forbidden = [{ path: data, what: 'the data directory of "db"' }]
  await assertOutside(join(home, 'scratch'), forbidden)
  await assertOutside(join(home, 'data-of-mine'), forbidden)
  await symlink(data, join(home, 'link'))
  for (const root of [data, join(data, 'scratch'), join(home, 'link', 'scratch'), join(home, 'x/../data/y')]) {
    await assert.rejects(assertOutside(root, forbidden), {
      code: 'ARGUMENTS_INVALID',
      message: /inside the data directory of "db"/,
    })
  }
  await writeFile(join(data, 'PG_VERSION'), '18')
  await assert.rejects(assertOutside(join(data, 'scratch'), []), {
    code: 'ARGUMENTS_INVALID',
    message: /inside the data directory/,
  })
  const tablespace = join(home, 'space/PG_18_202506291')
  await mkdir(tablespace, { recursive: true })
  await assert.rejects(assertOutside(join(tablespace, 'scratch'), []), {
    code: 'ARGUMENTS_INVALID',
    message: /inside the tablespace/,
  })
})

test('room is checked before anything is written', async (t) => {
  const root = join(await temporary(t), 'not/made/yet')
  await assertScratchRoom(root, 1)
  await assert.rejects(assertScratchRoom(root, 2 ** 62), { code: 'DISK_FULL', message: /MiB are free/ })
  assert.equal(await isThere(root), false)
})
