import assert from 'node:assert/strict'
import { watch } from 'node:fs'
import {
  access,
  appendFile,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { SAFETY_COPY_FILE } from '../../src/protect/postgres/safety-copy.ts'
import type { RestoreReport } from '../../src/protect/postgres/restore.ts'
import { ResusProcess } from '../faults/fault-scene.ts'
import { skipUnlessInstalled, testCluster } from '../services/postgres.ts'
import { proveRestored } from '../services/proof.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'

const SCHEMA = `
  create table patients (id bigint primary key, name text not null, noise bytea);
  create table scans (id int primary key, noise bytea) tablespace elsewhere;
  create unlogged table waiting_room (id int primary key);
  insert into patients select i, 'patient ' || i, decode(repeat(md5(i::text), 20), 'hex') from generate_series(1, 40000) i;
  insert into scans select i, decode(repeat(md5(i::text), 8), 'hex') from generate_series(1, 5000) i;
  insert into waiting_room select generate_series(1, 1000);`
const FINGERPRINT = `select (select md5(string_agg(md5(p::text), '' order by id)) from patients p) as patients,
  (select md5(string_agg(md5(s::text), '' order by id)) from scans s) as scans, (select count(*)::int from waiting_room) as waiting`

interface Scene {
  readonly cluster: ProtectedCluster
  readonly directory: string
  readonly tablespace: { readonly oid: string; readonly path: string }
  /** Paths of relations, relative to the data directory. */
  readonly patients: string
  readonly index: string
  readonly backup: string
  readonly expected: unknown
}

for (const major of [18, 15]) {
  test(
    `PostgreSQL ${major}: a delta makes a crashed cluster what was backed up`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      const scene = await makeScene(t, major)
      await assertRefusedWhileRunning(scene)
      await crashAndDamage(scene)
      await assertOthersRefused(t, scene, major)
      const was = await imageOf(scene)
      await killInTheMiddle(t, scene)
      await assertSafetyCopy(scene, was)
      const report = await delta(scene)
      assert.equal(report.safetyCopy, null, 'it was copied before')
      assert.equal((await copiesOf(scene)).length, 1)
      assert.ok(report.bytesKept > report.bytesWritten, `kept ${report.bytesKept}, wrote ${report.bytesWritten}`)
      await assertLikeFresh(scene)
      await assertWalAside(scene)
      await using restored = await scene.cluster.startRestored(report)
      assert.deepEqual(await restored.query(FINGERPRINT), scene.expected)
      await restored.query(`insert into patients values (-1, 'first after recovery', '')`)
      await proveRestored(t, { restored, report })
    },
  )
}

async function makeScene(t: TestContext, major: number): Promise<Scene> {
  const cluster = await protectedCluster(t, { major, settings: { autovacuum: 'off' } })
  const { directory, home } = cluster.cluster
  const path = join(home, 'tablespace')
  await mkdir(path, { mode: 0o700 })
  await cluster.query(`create tablespace elsewhere location '${path}'`)
  await cluster.query(SCHEMA)
  await cluster.query('vacuum (freeze) patients, scans')
  await cluster.backup()
  // Some pages lie in overlays.
  await cluster.query(`update patients set name = name || ' changed' where id % 500 = 0`)
  // Before the backup: whoever reads these pages next would set hint bits on them, and prune them.
  await cluster.query('vacuum (freeze) patients')
  const [expected] = await cluster.query<{ waiting: number }>(FINGERPRINT)
  const { id } = await cluster.backup()
  const [oid] = await cluster.query<{ oid: string }>(`select oid::text from pg_tablespace where spcname = 'elsewhere'`)
  const [paths] = await cluster.query<{ patients: string; index: string }>(
    `select pg_relation_filepath('patients') as patients, pg_relation_filepath('patients_pkey') as index`,
  )
  return {
    cluster,
    directory,
    tablespace: { oid: oid!.oid, path },
    ...paths!,
    backup: id,
    expected: [{ ...expected, waiting: 0 }],
  }
}

async function delta({ cluster, directory, backup }: Scene): Promise<RestoreReport> {
  return await cluster.restore({ kind: 'backup', backup }, directory, { delta: true })
}

async function assertRefusedWhileRunning(scene: Scene): Promise<void> {
  await assert.rejects(delta(scene), { code: 'DIRECTORY_IN_USE' })
  assert.deepEqual(await scene.cluster.query('select 1 as one'), [{ one: 1 }])
}

/** Commits what no backup has, cuts the power, and does to files what a bad disk and a hurried administrator do. */
async function crashAndDamage({ cluster, directory, patients, index, tablespace }: Scene): Promise<void> {
  await cluster.query(`delete from patients where id between 100 and 120; insert into scans values (-5, 'x'); checkpoint`)
  await cluster.query(`select pg_create_physical_replication_slot('left_over', true)`)
  await cluster.query(`create table not_known as select generate_series(1, 1000) i`)
  await cluster.cluster.kill()
  const flip = await open(join(directory, patients), 'r+')
  await flip.write(Buffer.from('flipped'), 0, 7, 77 * 8192 + 300)
  await flip.close()
  const { size } = await stat(join(directory, index))
  await truncate(join(directory, index), size - 3 * 8192 - 11)
  await appendFile(join(directory, patients), Buffer.alloc(5 * 8192, 7))
  await rm(join(directory, 'global/pg_filenode.map'))
  await writeFile(join(directory, 'standby.signal'), '')
  await mkdir(join(directory, 'base/99999'))
  await writeFile(join(directory, 'base/99999/1'), 'not ours')
  // Written through it, a restore would change a file of somebody else.
  const outside = join(cluster.cluster.home, 'outside')
  await rename(join(directory, 'PG_VERSION'), outside)
  await link(outside, join(directory, 'PG_VERSION'))
  await rm(join(directory, 'pg_hba.conf'))
  await symlink(outside, join(directory, 'pg_hba.conf'))
  const [version] = await readdir(tablespace.path)
  await writeFile(join(tablespace.path, version!, 'stray'), 'x')
}

async function assertOthersRefused(t: TestContext, { cluster, directory, backup }: Scene, major: number): Promise<void> {
  await assert.rejects(cluster.restore({ kind: 'backup', backup }, directory), { code: 'DIRECTORY_NOT_EMPTY' })
  const other = await testCluster(t, { major })
  await other.kill()
  const before = await readdir(other.directory)
  const into = (to: string) => cluster.restore({ kind: 'backup', backup }, to, { delta: true, tablespaceMappings: [] })
  await assert.rejects(into(other.directory), { code: 'DIRECTORY_NOT_EMPTY', message: /another cluster|tablespace/ })
  await assert.rejects(into(join(cluster.configPath, '..')), { code: 'DIRECTORY_NOT_EMPTY', message: /no cluster/ })
  assert.deepEqual(await readdir(other.directory), before)
}

/** SIGKILL as soon as pg_control is gone: what it leaves cannot be started. */
async function killInTheMiddle(t: TestContext, { cluster, directory, backup }: Scene): Promise<void> {
  const { configPath, repository } = cluster
  const gone = new Promise<void>((resolve) => {
    const watching = watch(join(directory, 'global'), (_, name) => {
      if (name !== 'pg_control') return
      watching.close()
      resolve()
    })
  })
  const home = { directory: join(configPath, '..'), configPath, repository }
  const killed = new ResusProcess(t, home, ['restore', 'his-db', '--backup', backup, '--to', directory, '--delta'])
  await Promise.race([gone, killed.exited.then(({ stderr }) => assert.fail(stderr))])
  await killed.kill()
  await assert.rejects(access(join(directory, 'global/pg_control')), { code: 'ENOENT' })
  await assert.rejects(cluster.cluster.start(), { code: 'POSTGRES_FAILED' })
}

type Image = Record<string, string>

/** All that a cluster is made of, whatever state it is in, wherever its links lead. */
async function imageOf({ directory, tablespace }: Scene): Promise<Image> {
  const image = await filesOf(directory)
  for (const [path, bytes] of Object.entries(await filesOf(tablespace.path))) image[`pg_tblspc/${tablespace.oid}/${path}`] = bytes
  return image
}

async function filesOf(directory: string): Promise<Image> {
  const found: Image = {}
  for (const entry of await readdir(directory, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name)
    if (entry.isFile()) found[path.slice(directory.length + 1)] = (await readFile(path)).toString('base64')
    else if (entry.isSymbolicLink() && !path.includes('/pg_tblspc/'))
      found[path.slice(directory.length + 1)] = await readlink(path)
  }
  return found
}

async function copiesOf({ directory }: Scene): Promise<string[]> {
  const parent = dirname(directory)
  const names = await readdir(parent)
  return names.filter((name) => name.startsWith(`${basename(directory)}.before-`)).map((name) => join(parent, name))
}

/** What was there, byte for byte, damage and all, with the tablespace in it, beside the directory. */
async function assertSafetyCopy(scene: Scene, was: Image): Promise<void> {
  const { directory } = scene
  const copies = await copiesOf(scene)
  assert.equal(copies.length, 1, copies.join(', '))
  const copy = copies[0]!
  assert.equal((await stat(copy)).mode, (await stat(directory)).mode)
  const { [SAFETY_COPY_FILE]: note, ...files } = await filesOf(copy)
  assert.deepEqual(files, was)
  const said = JSON.parse(Buffer.from(note!, 'base64').toString()) as { of: string; unreadable: unknown[] }
  assert.deepEqual([said.of, said.unreadable], [directory, []])
}

/** Byte for byte what a restore into an empty directory writes, and nothing besides. */
async function assertLikeFresh({ cluster, directory, tablespace, backup }: Scene): Promise<void> {
  const { home } = cluster.cluster
  const scans = join(home, 'scans-fresh')
  const fresh = join(home, 'fresh')
  const tablespaceMappings = [{ old: tablespace.oid, new: scans }]
  await cluster.restore({ kind: 'backup', backup }, fresh, { tablespaceMappings })
  assert.deepEqual(await contents(directory), await contents(fresh))
  assert.deepEqual(await contents(tablespace.path), await contents(scans))
  assert.equal(
    await readFile(join(home, 'outside'), 'utf8').then((text) => text.trim()),
    String(cluster.cluster.installation.major),
  )
}

async function contents(directory: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const entry of await readdir(directory, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name).slice(directory.length + 1)
    // The plan, WAL, what tells of the moment of the restore, and links that lead to other places.
    if (/^(pg_wal|backup_manifest$|tablespace_map$|pg_tblspc\/)/.test(path)) continue
    const { mode } = await stat(join(directory, path))
    const bytes = entry.isFile() ? await readFile(join(directory, path)) : undefined
    found[path] = `${mode.toString(8)} ${bytes === undefined ? 'directory' : bytes.toString('base64')}`
  }
  return found
}

async function assertWalAside({ directory }: Scene): Promise<void> {
  const aside = (await readdir(directory)).filter((name) => name.startsWith('pg_wal.before-'))
  assert.equal(aside.length, 1)
  const segments = (await readdir(join(directory, aside[0]!))).filter((name) => /^[0-9A-F]{24}$/.test(name))
  assert.ok(segments.length > 0)
}
