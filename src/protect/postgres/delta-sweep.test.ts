import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, readlink, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import type { TreeEntry } from '../../repository/tree.ts'
import { sweepDirectory } from './delta-sweep.ts'

const signal = new AbortController().signal
const owner = { mode: 0o600, uid: 0, gid: 0 }
const file = (path: string): TreeEntry => ({ ...owner, path, kind: 'file', sizeBytes: 0, content: { kind: 'empty' } })
const directory = (path: string): TreeEntry => ({ ...owner, path, kind: 'directory' })

async function place(t: TestContext, files: readonly string[]): Promise<{ home: string; data: string }> {
  const home = await mkdtemp(join(tmpdir(), 'resus-sweep-'))
  t.after(() => rm(home, { recursive: true, force: true }))
  const data = join(home, 'data')
  for (const path of files) {
    await mkdir(join(data, path, '..'), { recursive: true })
    await writeFile(join(data, path), path)
  }
  return { home, data }
}

async function sweep(data: string, entries: readonly TreeEntry[]): Promise<string[]> {
  const given = async function* () {
    yield* entries
  }
  await sweepDirectory({ directory: data, entries: given(), signal })
  const left = await readdir(data, { recursive: true, withFileTypes: true })
  return left
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(data.length + 1))
    .toSorted()
}

test('what the backup does not have goes, at every level, but for WAL', async (t) => {
  const files = ['PG_VERSION', 'standby.signal', 'base/1/10', 'base/1/11', 'base/2/10', 'pg_replslot/old/state', 'global/20']
  const wal = [
    'pg_wal/000000010000000000000001',
    'pg_wal/resus_recovery/plan.json',
    'pg_wal.before-2026/000000010000000000000001',
  ]
  const { data } = await place(t, [...files, ...wal])
  const backup = [
    file('PG_VERSION'),
    directory('base'),
    directory('base/1'),
    file('base/1/10'),
    directory('base/3'),
    file('base/3/1'),
  ]
  const rest = [
    directory('global'),
    file('global/20'),
    directory('pg_replslot'),
    directory('pg_wal'),
    directory('pg_wal/archive_status'),
  ]
  assert.deepEqual(
    await sweep(data, [...backup, ...rest]),
    ['PG_VERSION', 'base/1/10', 'global/20', ...wal.toSorted()].toSorted(),
  )
})

test('what is there as another kind of thing goes, and nothing is followed', async (t) => {
  const { home, data } = await place(t, ['base/1/10', 'conf/inner', '../outside/kept'])
  const outside = join(home, 'outside')
  await symlink(join(outside, 'kept'), join(data, 'postgresql.conf'))
  await symlink(outside, join(data, 'global'))
  const backup = [file('base'), file('conf'), directory('global'), file('global/20'), file('postgresql.conf')]
  assert.deepEqual(await sweep(data, backup), [])
  assert.deepEqual(await readdir(outside), ['kept'])
})

test('links of tablespaces are put right, and those swept behind them', async (t) => {
  const { home, data } = await place(t, [
    'pg_tblspc/1',
    '../space/PG_15_1/5/10',
    '../space/PG_15_1/5/11',
    '../space/PG_14_1/5/10',
    '../other/x',
  ])
  await rm(join(data, 'pg_tblspc/1'))
  await symlink(join(home, 'other'), join(data, 'pg_tblspc/1'))
  const target = join(home, 'space')
  const inside = ['pg_tblspc/1/PG_15_1', 'pg_tblspc/1/PG_15_1/5'].map(directory)
  const link: TreeEntry = { ...owner, path: 'pg_tblspc/1', kind: 'link', target }
  await sweep(data, [directory('pg_tblspc'), link, ...inside, file('pg_tblspc/1/PG_15_1/5/10')])
  assert.equal(await readlink(join(data, 'pg_tblspc/1')), target)
  assert.deepEqual(await readdir(join(target, 'PG_15_1/5')), ['10'])
  assert.deepEqual(await readdir(join(target, 'PG_14_1/5')), ['10'])
  assert.deepEqual(await readdir(join(home, 'other')), ['x'])
})
