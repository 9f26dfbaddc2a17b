import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { findUse, findUsedDirectories, realPlace } from './running-clusters.ts'

const skip = process.platform === 'linux' ? false : 'only Linux tells where a process works'

async function home(t: TestContext): Promise<string> {
  const directory = await realpath(await mkdtemp(join(tmpdir(), 'resus-used-')))
  t.after(() => rm(directory, { recursive: true }))
  return directory
}

/** A process of the server's name that works in a directory, whatever is left in there. */
async function workIn(t: TestContext, at: { home: string; directory: string }): Promise<number> {
  const program = join(at.home, 'postgres')
  await copyFile('/bin/sleep', program)
  const child = spawn(program, ['600'], { cwd: at.directory, stdio: 'ignore' })
  const exited = once(child, 'exit')
  t.after(async () => {
    child.kill('SIGKILL')
    await exited
  })
  await once(child, 'spawn')
  return child.pid!
}

test('a server whose files were deleted still uses its directory, and nothing else', { skip }, async (t) => {
  const at = await home(t)
  const directory = join(at, 'data')
  await mkdir(directory)
  const pid = await workIn(t, { home: at, directory })
  const used = await findUsedDirectories()
  assert.deepEqual(await findUse(directory, used), { path: directory, pid, role: 'data directory', isCluster: false })
  assert.equal((await findUse(join(at, 'data/'), used))?.pid, pid)
  await symlink(directory, join(at, 'link'))
  assert.equal((await findUse(join(at, 'link'), used))?.pid, pid)
  for (const other of [at, join(directory, 'inside'), join(at, 'data-too')]) assert.equal(await findUse(other, used), undefined)
})

test(
  'of a cluster that runs, its tablespaces and its WAL directory are used, and what is around and in them',
  { skip },
  async (t) => {
    const at = await home(t)
    const [directory, tablespace, wal] = [join(at, 'pg/data'), join(at, 'space'), join(at, 'wal')]
    await mkdir(join(directory, 'pg_tblspc'), { recursive: true })
    for (const path of [tablespace, wal]) await mkdir(path)
    await symlink(tablespace, join(directory, 'pg_tblspc/16384'))
    await symlink(wal, join(directory, 'pg_wal'))
    await writeFile(join(directory, 'postmaster.pid'), '')
    const pid = await workIn(t, { home: at, directory })
    const used = await findUsedDirectories()
    const roles = async (...paths: string[]) => {
      const uses = await Promise.all(paths.map((path) => findUse(path, used)))
      return uses.map((use) => (use?.pid === pid ? use.role : undefined))
    }
    assert.deepEqual(await roles(join(at, 'pg'), directory, join(directory, 'new/deep')), Array(3).fill('data directory'))
    assert.deepEqual(await roles(tablespace, join(tablespace, 'new')), Array(2).fill('tablespace'))
    assert.deepEqual(await roles(wal), ['WAL directory'])
    assert.deepEqual(await roles(join(at, 'pg/other'), join(at, 'space2')), [undefined, undefined])
  },
)

test('the place of what is not there yet is known as far as it is there', async (t) => {
  const at = await home(t)
  await mkdir(join(at, 'real'))
  await symlink(join(at, 'real'), join(at, 'link'))
  assert.equal(await realPlace(join(at, 'link/new/deep')), join(at, 'real/new/deep'))
})
