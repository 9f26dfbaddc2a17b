import assert from 'node:assert/strict'
import { access, chmod, mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { formatLsn, parseLsn, type Lsn } from '../../src/postgres/lsn.ts'
import type { BackupReport } from '../../src/protect/postgres/backup.ts'
import type { RecoveryTarget } from '../../src/protect/postgres/recovery-target.ts'
import type { RestoreReport } from '../../src/protect/postgres/restore.ts'
import { AHEAD_DIRECTORY } from '../../src/protect/postgres/fetcher-lock.ts'
import { Secret } from '../../src/secret.ts'
import { assertRecoveryStops } from '../faults/stopped-recovery.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster, type RestoredCluster } from '../services/protected-cluster.ts'
import { connect, flushLsn, startStream, type RunningStream } from '../services/stream.ts'
import { msToMicros } from '../../src/postgres/timestamp.ts'

// One history for all targets: backup, rows "one" to "four" with an instant noted between each, another backup before "four".

interface Moment {
  readonly timeMs: number
  readonly lsn: Lsn
}

interface Past {
  readonly cluster: ProtectedCluster
  readonly tablespace: string
  readonly first: BackupReport
  readonly second: BackupReport
  /** After "one", after "two", ... */
  readonly moments: readonly Moment[]
}

const ROWS = ['one', 'two', 'three', 'four'] as const

for (const major of [18, 15]) {
  test(`PostgreSQL ${major}: every target restores to its instant`, { skip: await skipUnlessInstalled(major) }, async (t) => {
    const past = await makePast(t, major)
    const [, two, three] = past.moments
    await t.test('a target outside the window is refused before anything is written', () => assertRefused(past))
    await rename(past.tablespace, `${past.tablespace}-of-the-source`)
    const { first, second } = past
    await t.test('time', () => assertRestores(past, { kind: 'time', micros: msToMicros(two!.timeMs) }, ['one', 'two']))
    await t.test('LSN', () => assertRestores(past, { kind: 'lsn', lsn: three!.lsn }, ['one', 'two', 'three']))
    await t.test('an older backup', () => assertRestores(past, { kind: 'backup', backup: first.id }, []))
    await t.test('a newer backup', () => assertRestores(past, { kind: 'backup', backup: second.id }, ['one', 'two', 'three']))
    await t.test('a recovery whose WAL cannot be had stops, and goes on later', () => assertStopsAndGoesOn(past))
    await t.test('along a new timeline', (sub) => assertNewTimeline(sub, past))
  })
}

/** The source waits for a standby that is not there, and archives in vain: what is restored must do neither. */
async function makePast(t: TestContext, major: number): Promise<Past> {
  const cluster = await protectedCluster(t, { major, walSegmentMegabytes: 1 })
  const client = await connect(t, cluster.cluster.connectionString)
  const tablespace = join(cluster.cluster.home, 'tablespace')
  await mkdir(tablespace, { mode: 0o700 })
  await client.query(`alter system set archive_mode = 'on'`)
  await client.query(`alter system set archive_command = 'false'`)
  await client.query(`alter system set synchronous_standby_names = 'nobody_there'`)
  await cluster.cluster.stop()
  await cluster.cluster.start()
  const writer = await connect(t, cluster.cluster.connectionString)
  await writer.query('set synchronous_commit = local')
  await writer.query(`create tablespace elsewhere location '${tablespace}'`)
  await writer.query('create table visits (name text primary key)')
  await writer.query('create table scans (id int primary key, data text) tablespace elsewhere')
  await writer.query(`insert into scans select i, repeat(md5(i::text), 20) from generate_series(1, 2000) i`)
  const stream = startReceiver(t, cluster, cluster.cluster.connectionString)
  await stream.waitFor(({ kind }) => kind === 'connected')
  const first = await cluster.backup()
  const moments: Moment[] = []
  for (const name of ROWS.slice(0, 3)) moments.push(await writeRow(writer, name))
  const second = await cluster.backup()
  moments.push(await writeRow(writer, 'four'))
  const end = await flushLsn(writer)
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
  await stream.stop()
  await cluster.cluster.kill()
  return { cluster, tablespace, first, second, moments }
}

function startReceiver(t: TestContext, cluster: ProtectedCluster, connectionString: string): RunningStream {
  const { repository, repositoryDirectory } = cluster
  const stream = { ...cluster.component.stream, partialEverySeconds: 1 }
  const component = { ...cluster.component, connection: new Secret(connectionString), stream }
  // Each receiver has a spool of its own, that no restore looks into.
  const spoolDirectory = join(cluster.cluster.home, `spool-${new URL(connectionString).port}`)
  const home = { repository, repositoryDirectory, spoolDirectory, faults: () => undefined }
  return startStream(t, home, { connectionString, component })
}

/** Commits a row; gives an instant that is surely after that commit and before the next one. */
async function writeRow(client: pg.Client, name: string): Promise<Moment> {
  await client.query('insert into visits values ($1)', [name])
  // The target's time has milliseconds, the commit's has microseconds.
  await delay(20)
  const { rows } = await client.query<{ lsn: string; time: Date }>(
    'select pg_current_wal_lsn() as lsn, clock_timestamp() as time',
  )
  await delay(20)
  return { timeMs: rows[0]!.time.getTime(), lsn: parseLsn(rows[0]!.lsn) }
}

async function assertRefused({ cluster, first, moments }: Past): Promise<void> {
  const to = join(cluster.cluster.home, 'never-made')
  const outside: RecoveryTarget[] = [
    { kind: 'time', micros: msToMicros(Date.parse(first.startedAt) - 60_000) },
    { kind: 'time', micros: msToMicros(moments.at(-1)!.timeMs + 60_000) },
    { kind: 'time', micros: msToMicros(moments.at(-1)!.timeMs) },
    { kind: 'lsn', lsn: parseLsn(first.startLsn) },
    { kind: 'lsn', lsn: moments.at(-1)!.lsn + 16n * 1024n * 1024n },
  ]
  for (const target of outside) {
    await assert.rejects(cluster.restore(target, to), { code: 'TARGET_OUTSIDE_WINDOW' }, JSON.stringify(target, bigintText))
    await assert.rejects(access(to), { code: 'ENOENT' })
  }
  await assert.rejects(cluster.restore({ kind: 'backup', backup: '20200101T000000Z-abcdef' }, to), { code: 'BACKUP_UNKNOWN' })
  await assert.rejects(access(to), { code: 'ENOENT' })
  // The tablespace's place is still taken by the source's.
  await assert.rejects(cluster.restore({ kind: 'latest' }, to), { code: 'DIRECTORY_NOT_EMPTY' })
  await mkdir(to)
  await writeFile(join(to, 'somebody-elses'), '')
  await assert.rejects(cluster.restore({ kind: 'latest' }, to), { code: 'DIRECTORY_NOT_EMPTY' })
  assert.deepEqual(await readdir(to), ['somebody-elses'])
}

/** Restores, starts and compares; and the restored server commits, and archives nothing. */
async function assertRestores(past: Past, target: RecoveryTarget, expected: readonly string[]): Promise<void> {
  await assertStarts(past, await past.cluster.restore(target), expected)
}

/** Starts what was restored, compares, and removes it with its tablespace, so that the next one has room there. */
async function assertStarts(past: Past, report: RestoreReport, expected: readonly string[]): Promise<void> {
  try {
    await using restored = await past.cluster.startRestored(report)
    await assertContent(restored, expected)
  } finally {
    await rm(past.tablespace, { recursive: true, force: true })
  }
}

async function assertContent(restored: RestoredCluster, expected: readonly string[]): Promise<void> {
  const rows = await restored.query<{ name: string }>('select name from visits')
  assert.deepEqual(new Set(rows.map(({ name }) => name)), new Set(expected))
  assert.equal(rows.length, expected.length)
  assert.deepEqual(await restored.query('select count(*)::int, min(length(data)) from scans'), [{ count: 2000, min: 640 }])
  await restored.query(`set statement_timeout = '20s'`)
  await restored.query(`insert into visits values ('after recovery')`)
  await restored.query('select pg_switch_wal()')
  const [settings] = await restored.query(
    `select current_setting('archive_mode') as archive, current_setting('synchronous_standby_names') as standbys,
       (select archived_count + failed_count from pg_stat_archiver)::int as archived`,
  )
  assert.deepEqual(settings, { archive: 'off', standbys: '', archived: 0 })
}

/** PostgreSQL must never take "I cannot tell" for "there is no more": it stops, and goes on when the cause is mended. */
async function assertStopsAndGoesOn(past: Past): Promise<void> {
  const { cluster } = past
  const { home, installation } = cluster.cluster
  const report = await cluster.restore({ kind: 'latest' })
  // What the restore fetched for the beginning would carry recovery some way.
  await rm(join(dirname(report.plan), AHEAD_DIRECTORY), { recursive: true })
  const passphrase = join(cluster.configPath, '../passphrase')
  for (const path of [cluster.configPath, passphrase, cluster.repositoryDirectory]) {
    await rename(path, `${path}.away`)
    await assertRecoveryStops({ directory: report.directory, home, installation }, /resus: /)
    await rename(`${path}.away`, path)
  }
  await chmod(passphrase, 0o000)
  await assertRecoveryStops({ directory: report.directory, home, installation }, /resus: /)
  await chmod(passphrase, 0o600)
  await assertStarts(past, report, ROWS)
}

/** A restored cluster is protected as the same component, and restored along the timeline that it began. */
async function assertNewTimeline(t: TestContext, past: Past): Promise<void> {
  const { cluster } = past
  // Before the second backup ends: that one lies beyond the new timeline, and must not be chosen again.
  const report = await cluster.restore({ kind: 'lsn', lsn: past.moments[2]!.lsn })
  await using promoted = await cluster.startRestored(report)
  const connectionString = `postgres://postgres@127.0.0.1:${promoted.port}/postgres`
  const stream = startReceiver(t, cluster, connectionString)
  await stream.waitFor(({ kind }) => kind === 'connected')
  const client = await connect(t, connectionString)
  await writeRow(client, 'five')
  // The other restores put the tablespace at the same place.
  await client.query('alter table scans set tablespace pg_default')
  await client.query('drop tablespace elsewhere')
  await rm(past.tablespace, { recursive: true })
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
  await stream.stop()

  // From a backup of the old timeline across the switch.
  const across = await cluster.restore({ kind: 'latest' })
  assert.deepEqual({ backup: across.backup, timeline: across.timeline }, { backup: past.first.id, timeline: 2 })
  await assertStarts(past, across, [...ROWS.slice(0, 3), 'five'])

  // From a backup of the new one.
  const component = { ...cluster.component, dataDirectory: report.directory, connection: new Secret(connectionString) }
  const backup = await cluster.backup({ component })
  assert.deepEqual({ type: backup.type, timeline: backup.timeline }, { type: 'incremental', timeline: 2 })
  await promoted.stop()
  const newest = await cluster.restore({ kind: 'latest' })
  assert.deepEqual({ backup: newest.backup, timeline: newest.timeline }, { backup: backup.id, timeline: 2 })
  await assertStarts(past, newest, [...ROWS.slice(0, 3), 'five'])
}

function bigintText(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? formatLsn(value) : value
}
