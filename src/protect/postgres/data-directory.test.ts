import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { comparePaths } from '../../repository/tree.ts'
import { walkDataDirectory } from './data-directory.ts'

async function directoryOf(t: TestContext, files: readonly string[]): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'resus-walk-'))
  t.after(() => rm(home, { recursive: true, force: true }))
  const root = join(home, 'data')
  for (const file of files) {
    await mkdir(dirname(join(root, file)), { recursive: true })
    await writeFile(join(root, file), 'content')
  }
  return root
}

function pathsOf(root: string): string[] {
  return [...walkDataDirectory(root)].map(({ path }) => path)
}

test('paths come in the order of their bytes, though a directory has a neighbour with a dot or a dash', async (t) => {
  const root = await directoryOf(t, ['conf/a', 'conf.d/b', 'conf-old', 'conf.d.bak', 'base/1/2', 'base/1/2.1', 'base.old/x', 'z'])
  const paths = pathsOf(root)
  assert.deepEqual(paths, paths.toSorted(comparePaths))
  for (const path of ['conf', 'conf/a', 'conf.d', 'conf.d/b', 'conf-old', 'base/1/2.1']) assert.ok(paths.includes(path), path)
})

test('a tablespace whose place is not there is not passed over', async (t) => {
  const root = await directoryOf(t, ['PG_VERSION', 'pg_tblspc/keep'])
  await symlink(join(root, '../not-mounted'), join(root, 'pg_tblspc/16400'))
  assert.throws(() => pathsOf(root), { code: 'DATA_DIRECTORY_UNREADABLE', message: /not-mounted/ })
})

test('a database that is dropped from a tablespace while it is walked is passed over, any other directory is not', async (t) => {
  const root = await directoryOf(t, ['PG_VERSION', 'pg_xact/0000'])
  const place = await directoryOf(t, ['PG_18_202506291/16384/1', 'PG_18_202506291/16385/1'])
  await mkdir(join(root, 'pg_tblspc'))
  await symlink(place, join(root, 'pg_tblspc/16400'))
  const dropped = []
  for (const { path } of walkDataDirectory(root)) {
    dropped.push(path)
    if (path === 'pg_tblspc/16400/PG_18_202506291/16384') await rm(join(place, 'PG_18_202506291/16384'), { recursive: true })
  }
  assert.ok(dropped.includes('pg_tblspc/16400/PG_18_202506291/16385/1'))
  assert.throws(
    () => {
      for (const { path } of walkDataDirectory(root)) if (path === 'pg_xact') rmSync(join(root, path), { recursive: true })
    },
    { code: 'DATA_DIRECTORY_UNREADABLE' },
  )
})
