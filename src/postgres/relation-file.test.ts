import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import pg from 'pg'
import { skipUnlessInstalled, testCluster } from '../../test/services/postgres.ts'
import { toolPath } from './installation.ts'
import { ordinaryUser } from './ordinary-user.ts'
import { classifyPath, isUnloggedFork, relationFile } from './relation-file.ts'

const file = (path: string) => classifyPath(path, { isDirectory: false })
const directory = (path: string) => classifyPath(path, { isDirectory: true })

test('what belongs to the running server is left out', () => {
  for (const path of [
    'postmaster.pid',
    'postmaster.opts',
    'postgresql.auto.conf.tmp',
    'current_logfiles.tmp',
    'backup_label',
    'backup_label.old',
    'tablespace_map',
    'backup_manifest',
    'backup_manifest.tmp',
    'recovery.signal',
    'standby.signal',
    'global/pg_control',
    'global/pg_internal.init',
    'base/5/pg_internal.init.1234',
    'base/pgsql_tmp/pgsql_tmp1.0',
    'pg_tblspc/16400/PG_15_202209061/pgsql_tmp/pgsql_tmp99.1',
    'base/5/t3_16400',
    'base/5/t12_16400_fsm.1',
    'pg_wal/000000010000000000000001',
    'pg_wal/archive_status/000000010000000000000001.done',
    'pg_replslot/resus/state',
    'pg_notify/0000',
    'pg_stat_tmp/global.stat',
  ]) {
    assert.equal(file(path), 'skip', path)
  }
  for (const path of ['base/pgsql_tmp', 'pg_replslot/resus', 'pg_wal/whatever']) assert.equal(directory(path), 'skip', path)
})

test('emptied directories stay, and everything else is copied', () => {
  for (const path of ['pg_replslot', 'pg_dynshmem', 'pg_notify', 'pg_serial', 'pg_snapshots', 'pg_stat_tmp', 'pg_subtrans']) {
    assert.equal(directory(path), 'directory-only', path)
  }
  assert.equal(directory('pg_wal/archive_status'), 'directory-only')
  assert.equal(directory('pg_wal/summaries'), 'directory-only')
  for (const path of ['pg_wal', 'base', 'base/5', 'global', 'pg_tblspc', 'pg_xact', 'pg_stat', 'pg_twophase', 'pg_logical']) {
    assert.equal(directory(path), 'copy', path)
  }
  for (const path of [
    'PG_VERSION',
    'postgresql.conf',
    'postgresql.auto.conf',
    'base/5/1259',
    'base/5/PG_VERSION',
    'base/5/pg_filenode.map',
    'global/1262_vm',
    'pg_xact/0000',
    'pg_twophase/000002F5',
    'pg_stat/pgstat.stat',
    'conf.d/backup_label',
    'pg_tblspc/16400/PG_15_202209061/5/16401.2',
  ]) {
    assert.equal(file(path), 'copy', path)
  }
})

test('the parts of a relation file are told from its path', () => {
  const plain = { databaseOid: 5, tablespaceOid: undefined, relfilenode: 16400, fork: 'main', segment: 0, temporary: false }
  assert.deepEqual(relationFile('base/5/16400'), plain)
  assert.deepEqual(relationFile('base/5/16400.12'), { ...plain, segment: 12 })
  assert.deepEqual(relationFile('base/5/16400_fsm'), { ...plain, fork: 'fsm' })
  assert.deepEqual(relationFile('base/5/16400_vm.1'), { ...plain, fork: 'vm', segment: 1 })
  assert.deepEqual(relationFile('base/5/16400_init'), { ...plain, fork: 'init' })
  assert.deepEqual(relationFile('base/5/t7_16400'), { ...plain, temporary: true })
  assert.deepEqual(relationFile('global/1262'), { ...plain, databaseOid: 0, relfilenode: 1262 })
  assert.deepEqual(relationFile('pg_tblspc/999/PG_18_202506291/5/16400.1'), { ...plain, tablespaceOid: 999, segment: 1 })
  for (const path of [
    'base/5/PG_VERSION',
    'base/5/16400.0',
    'base/5/16400_x',
    'base/x/1',
    'pg_xact/0000',
    'base/16400',
    'global/5/1',
    '',
  ]) {
    assert.equal(relationFile(path), undefined, path)
  }
})

test('every fork of an unlogged relation but init is left out', () => {
  const hasInit = (path: string) => path === 'base/5/16400_init'
  for (const path of ['base/5/16400', 'base/5/16400.1', 'base/5/16400_fsm', 'base/5/16400_vm']) {
    assert.equal(isUnloggedFork(path, hasInit), true, path)
  }
  for (const path of ['base/5/16400_init', 'base/5/16401', 'base/6/16400', 'base/5/PG_VERSION']) {
    assert.equal(isUnloggedFork(path, hasInit), false, path)
  }
})

test('what is copied is what pg_basebackup copies', { skip: await skipUnlessInstalled(15) }, async (t) => {
  const cluster = await testCluster(t, { major: 15 })
  const program = toolPath(cluster.installation, 'pg_basebackup')
  if (program === undefined) {
    t.skip('pg_basebackup is not installed')
    return
  }
  const tablespace = join(cluster.home, 'space')
  await mkdir(tablespace)
  const user = ordinaryUser()
  if (user !== undefined) await promisify(execFile)('chown', [`${user.uid}:${user.gid}`, tablespace])
  await chmod(tablespace, 0o700)
  const client = new pg.Client({ connectionString: cluster.connectionString })
  await client.connect()
  await client.query(`CREATE TABLESPACE space LOCATION '${tablespace}'`)
  await client.query(`CREATE UNLOGGED TABLE unlogged AS SELECT generate_series(1, 1000) AS id; CREATE INDEX ON unlogged (id);
    CREATE TEMPORARY TABLE temporary AS SELECT generate_series(1, 1000) AS id; CREATE TABLE logged TABLESPACE space AS SELECT 1 AS id;
    SELECT pg_create_physical_replication_slot('resus', true)`)
  await client.query('CHECKPOINT')
  const copy = join(cluster.home, 'copy')
  const args = [
    '-D',
    copy,
    '-d',
    cluster.connectionString,
    '-X',
    'none',
    '-c',
    'fast',
    '--no-sync',
    '-T',
    `${tablespace}=${copy}-space`,
  ]
  await promisify(execFile)(program, args)

  const list = async (root: string) => {
    const found = new Map<string, boolean>()
    const walk = async (from: string, prefix: string): Promise<void> => {
      for (const entry of await readdir(from, { withFileTypes: true })) {
        const path = join(prefix, entry.name)
        const isDirectory = entry.isDirectory() || entry.isSymbolicLink()
        found.set(path, isDirectory)
        if (isDirectory) await walk(join(from, entry.name), path)
      }
    }
    await walk(root, '')
    return found
  }
  const source = await list(cluster.directory)
  const ours = [...source].filter(([path, isDirectory]) => {
    const parents = path.split('/').map((_, index, names) => names.slice(0, index).join('/'))
    const inside = parents.slice(1).every((parent) => classifyPath(parent, { isDirectory: true }) === 'copy')
    return inside && classifyPath(path, { isDirectory }) !== 'skip' && !isUnloggedFork(path, (init) => source.has(init))
  })
  const theirs = [...(await list(copy)).keys()].filter(
    (path) => !['backup_label', 'backup_manifest', 'global/pg_control', 'tablespace_map'].includes(path),
  )
  await client.end()
  assert.deepEqual(ours.map(([path]) => path).sort(), theirs.sort())
  assert(ours.length > 900 && source.size > ours.length + 5)
})
