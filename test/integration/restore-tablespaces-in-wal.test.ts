import assert from 'node:assert/strict'
import { access, mkdir, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { parseLsn, type Lsn } from '../../src/postgres/lsn.ts'
import type { RecoveryTarget } from '../../src/protect/postgres/recovery-target.ts'
import { listBackups } from '../../src/repository/backups.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster, type RestoredCluster } from '../services/protected-cluster.ts'
import { connect, flushLsn, startStream } from '../services/stream.ts'

const COUNTS = 'select (select count(*)::int from visits) as visits, (select count(*)::int from scans) as scans'

interface Scene {
  readonly cluster: ProtectedCluster
  /** In the backup; dropped behind it. Something else lies there since. */
  readonly first: { readonly oid: string; readonly path: string; readonly stranger: string }
  /** Made behind the backup. */
  readonly later: string
}

for (const major of [15, 18]) {
  test(
    `PostgreSQL ${major}: a restore beside the living cluster refuses WAL that would write into its tablespaces`,
    { skip: await skipUnlessInstalled(major) },
    async (t) => {
      const scene = await makeScene(t, major)
      const { cluster, later } = scene
      const living = await contents(later)
      const lsn = await assertRefused(scene)
      await assertRestoredBefore(scene, lsn)
      await assertNewerBackup(scene)
      assert.deepEqual(await contents(later), living)
      assert.deepEqual(await cluster.query(COUNTS), [{ visits: 3000, scans: 3000 }])
      await assertAllowedWhereFree(scene)
    },
  )
}

async function makeScene(t: TestContext, major: number): Promise<Scene> {
  const cluster = await protectedCluster(t, { major, walSegmentMegabytes: 1, settings: { autovacuum: 'off' } })
  const { home, connectionString } = cluster.cluster
  const [first, later] = [join(home, 'first'), join(home, 'later')]
  for (const path of [first, later]) await mkdir(path, { mode: 0o700 })
  await cluster.query(`create tablespace first location '${first}'`)
  await cluster.query('create table visits tablespace first as select i as id, md5(i::text) from generate_series(1, 3000) i')
  const [oid] = await cluster.query<{ oid: string }>(`select oid::text from pg_tablespace where spcname = 'first'`)
  const version = (await readdir(first))[0]!
  const client = await connect(t, connectionString)
  const component = { ...cluster.component, stream: { ...cluster.component.stream, partialEverySeconds: 1 } }
  const home2 = { ...cluster, spoolDirectory: join(home, 'spool'), faults: () => undefined }
  const stream = startStream(t, home2, { connectionString, component })
  await stream.waitFor(({ kind }) => kind === 'connected')
  await cluster.backup()
  await cluster.query('alter table visits set tablespace pg_default')
  await cluster.query('drop tablespace first')
  // The place has gone to somebody else.
  const stranger = join(first, version, '1', '1')
  await mkdir(join(stranger, '..'), { recursive: true })
  await writeFile(stranger, 'not ours')
  await cluster.query(`create tablespace later location '${later}'`)
  await cluster.query('create table scans tablespace later as select i as id, md5(i::text) from generate_series(1, 3000) i')
  // Replayed beside the living cluster, this would have deleted the files that it has now.
  await cluster.query('create database copied tablespace later strategy file_copy')
  await cluster.query('drop database copied')
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
  await stream.stop()
  await cluster.query('checkpoint')
  return { cluster, first: { oid: oid!.oid, path: first, stranger }, later }
}

/** Gives the LSN that the refusal names. */
async function assertRefused({ cluster, first, later }: Scene): Promise<Lsn> {
  const to = join(cluster.cluster.home, 'refused')
  const tablespaceMappings = [{ old: first.oid, new: join(cluster.cluster.home, 'first-refused') }]
  const restoring = cluster.restore({ kind: 'latest' }, to, { tablespaceMappings })
  const failure = await restoring.then(
    () => assert.fail('it was restored'),
    (error: unknown) => error as { code: string; message: string; hint: string },
  )
  assert.equal(failure.code, 'TABLESPACE_IN_WAL')
  assert.ok(failure.message.includes(`"${later}"`) && failure.message.includes('of a running server'), failure.message)
  await assert.rejects(access(to), { code: 'ENOENT' })
  const preview = await cluster.preview({ kind: 'latest' }, to, { tablespaceMappings })
  assert.equal(preview.possible, false)
  assert.deepEqual(preview.problems, [`${failure.message}: ${failure.hint}`])
  const lsn = parseLsn(/--target-lsn ([0-9A-F/]+) --exclusive/.exec(failure.hint)![1]!)
  // Without --exclusive PostgreSQL replays the record that begins there.
  await assert.rejects(cluster.restore({ kind: 'lsn', lsn }, to, { tablespaceMappings }), { code: 'TABLESPACE_IN_WAL' })
  return lsn
}

/** Replays the dropping of a tablespace that is in the backup and is mapped: only what was restored goes. */
async function assertRestoredBefore(scene: Scene, lsn: Lsn): Promise<void> {
  const mapped = join(scene.cluster.cluster.home, 'first-before')
  const target: RecoveryTarget = { kind: 'lsn', lsn, exclusive: true }
  const tablespaceMappings = [{ old: scene.first.oid, new: mapped }]
  const report = await scene.cluster.restore(target, undefined, { tablespaceMappings })
  await using restored = await scene.cluster.startRestored(report)
  assert.deepEqual(await restored.query('select count(*)::int from visits'), [{ count: 3000 }])
  assert.deepEqual(await links(restored), [])
  assert.deepEqual(await readdir(mapped), [])
  assert.equal(await readFile(scene.first.stranger, 'utf8'), 'not ours')
}

async function assertNewerBackup({ cluster, later }: Scene): Promise<void> {
  await cluster.backup()
  const tablespaceMappings = [{ old: later, new: join(cluster.cluster.home, 'later-mapped') }]
  const report = await cluster.restore(undefined, undefined, { tablespaceMappings })
  await using restored = await cluster.startRestored(report)
  assert.deepEqual(await restored.query(COUNTS), [{ visits: 3000, scans: 3000 }])
  assert.deepEqual(await links(restored), [tablespaceMappings[0]!.new])
}

/** As on another host: what was there went with the cluster. The directory that recovery needs is made. */
async function assertAllowedWhereFree({ cluster, first, later }: Scene): Promise<void> {
  const from = (await cluster.query<{ oid: string }>(`select oid::text from pg_tablespace where spcname = 'later'`))[0]!.oid
  await cluster.cluster.kill()
  const [oldest] = await backups(cluster)
  const to = join(cluster.cluster.home, 'where-free')
  const options = { from: oldest!, tablespaceMappings: [{ old: first.oid, new: join(cluster.cluster.home, 'first-free') }] }
  // Files of a dead cluster are files still.
  await assert.rejects(cluster.restore({ kind: 'latest' }, to, options), { code: 'TABLESPACE_IN_WAL', message: /entries/ })
  await rm(later, { recursive: true })
  const notices: string[] = []
  const report = await cluster.restore({ kind: 'latest' }, to, { ...options, onNotice: (text) => notices.push(text) })
  assert.ok(
    notices.some((text) => text.includes(`makes tablespace ${from} in "${later}"`)),
    notices.join('\n'),
  )
  await using restored = await cluster.startRestored(report)
  assert.deepEqual(await restored.query(COUNTS), [{ visits: 3000, scans: 3000 }])
  assert.deepEqual(await links(restored), [later])
}

async function backups({ repository }: ProtectedCluster): Promise<string[]> {
  return (await listBackups(repository, 'his-db')).map(({ id }) => id).toSorted()
}

async function links({ directory }: RestoredCluster): Promise<string[]> {
  const names = await readdir(join(directory, 'pg_tblspc'))
  return await Promise.all(names.map((name) => readlink(join(directory, 'pg_tblspc', name))))
}

async function contents(directory: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const entry of await readdir(directory, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name)
    found[path] = entry.isFile() ? (await readFile(path)).toString('base64') : 'directory'
  }
  return found
}
