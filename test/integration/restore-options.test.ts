import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { access, mkdir, open, readdir, readFile, readlink, rm, lstat } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type pg from 'pg'
import { systemClock } from '../../src/clock.ts'
import { Failure } from '../../src/errors.ts'
import { endCluster, isRunning } from '../../src/postgres/cluster-process.ts'
import { formatLsn, parseLsn, type Lsn } from '../../src/postgres/lsn.ts'
import { segmentAt, segmentEnd, segmentName, segmentStart } from '../../src/postgres/wal-segment.ts'
import type { BackupReport } from '../../src/protect/postgres/backup.ts'
import { streamSpool } from '../../src/protect/postgres/component.ts'
import { planRecovery, type PlanOptions } from '../../src/protect/postgres/recovery-plan.ts'
import type { RecoveryTarget } from '../../src/protect/postgres/recovery-target.ts'
import type { RestorePreview } from '../../src/protect/postgres/restore-preview.ts'
import type { RestoreOptions, RestoreReport } from '../../src/protect/postgres/restore.ts'
import { readCatalogVersion } from '../../src/protect/postgres/installed-versions.ts'
import { Spool } from '../../src/protect/postgres/spool.ts'
import { repositoryWal } from '../../src/protect/postgres/wal-supply.ts'
import { readManifest } from '../../src/repository/backups.ts'
import { listBranches } from '../../src/repository/wal-branch.ts'
import { Secret } from '../../src/secret.ts'
import { startRestoredDirectory } from '../faults/stopped-recovery.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { proveManifest } from '../services/proof.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { connect, flushLsn, startStream, type RunningStream } from '../services/stream.ts'
import { msToMicros } from '../../src/postgres/timestamp.ts'

// The source runs all the time, tablespace included: what is restored goes elsewhere. Its history, a segment or more for each step:
// backup "first" - restore point - "one" - "two" - backup "second" - restore point of the same name - "three" - end of the repository's WAL
// - "four", which only the spool of a receiver that has died holds.

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))
const POINT = 'before the upgrade'

interface Past {
  readonly cluster: ProtectedCluster
  readonly client: pg.Client
  readonly tablespace: { readonly oid: string; readonly path: string }
  readonly first: BackupReport
  readonly second: BackupReport
  /** Of the two restore points. */
  readonly points: readonly [Lsn, Lsn]
  /** Of the table, which is older than the first backup, and of the rows. */
  readonly xids: { readonly table: number; readonly one: number; readonly two: number; readonly three: number }
  /** After "one" and before "two". */
  readonly between: number
}

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)
  test(`PostgreSQL ${major}: a restore is refused, previewed, and done as its options say`, { skip }, async (t) => {
    const past = await makePast(t, major)
    await t.test('a target outside is refused, with the window, before anything is written', () => assertRefused(past))
    await t.test('a backup whose WAL has a gap is passed over, and told', () => assertGap(past))
    await t.test('a preview tells what a restore would do and touches nothing', () => assertPreview(past))
    await t.test('what a running cluster uses is refused', () => assertInUse(past))
    await t.test('transaction, paused, tablespace by its oid', (sub) => assertPaused(sub, past))
    await t.test('before a transaction, interrupted, shut down, tablespace by its path', (sub) => assertShutDown(sub, past))
  })

  test(`PostgreSQL ${major}: a restore goes to a restore point, and along the timeline that is named`, { skip }, async (t) => {
    const past = await makePast(t, major)
    await leaveInSpool(past)
    await assertTimelines(t, past)
  })
}

async function makePast(t: TestContext, major: number): Promise<Past> {
  const cluster = await protectedCluster(t, { major, walSegmentMegabytes: 1, settings: { autovacuum: 'off' } })
  const client = await connect(t, cluster.cluster.connectionString)
  const path = join(cluster.cluster.home, 'tablespace')
  await mkdir(path, { mode: 0o700 })
  await client.query(`create tablespace elsewhere location '${path}'`)
  const table = await transaction(client, 'create table visits (name text primary key)')
  await client.query(`create table scans tablespace elsewhere as select i as id from generate_series(1, 2000) i`)
  const { rows } = await client.query<{ oid: string }>(`select oid::text from pg_tablespace where spcname = 'elsewhere'`)
  const stream = startReceiver(t, cluster, cluster.cluster.connectionString)
  await stream.waitFor(({ kind }) => kind === 'connected')
  const first = await cluster.backup()
  const point = await createPoint(client)
  const one = await transaction(client, `insert into visits values ('one')`)
  await delay(20)
  const between = Date.now()
  await delay(20)
  const two = await transaction(client, `insert into visits values ('two')`)
  const second = await cluster.backup()
  const later = await createPoint(client)
  const three = await transaction(client, `insert into visits values ('three')`)
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
  await stream.stop()
  const xids = { table, one, two, three }
  const tablespace = { oid: rows[0]!.oid, path }
  return { cluster, client, tablespace, first, second, points: [point, later], xids, between }
}

function startReceiver(t: TestContext, cluster: ProtectedCluster, connectionString: string): RunningStream {
  const { repository, repositoryDirectory } = cluster
  const stream = { ...cluster.component.stream, partialEverySeconds: 1 }
  const component = { ...cluster.component, connection: new Secret(connectionString), stream }
  const spoolDirectory = join(cluster.cluster.home, `spool-${new URL(connectionString).port}`)
  return startStream(
    t,
    { repository, repositoryDirectory, spoolDirectory, faults: () => undefined },
    { connectionString, component },
  )
}

/** Runs one statement as a transaction, and ends the WAL segment; gives the transaction's id. */
async function transaction(client: pg.Client, statement: string): Promise<number> {
  await client.query('begin')
  await client.query(statement)
  const { rows } = await client.query<{ xid: string }>('select pg_current_xact_id()::text as xid')
  await client.query('commit')
  await client.query('select pg_switch_wal()')
  return Number(rows[0]!.xid)
}

async function createPoint(client: pg.Client): Promise<Lsn> {
  const { rows } = await client.query<{ lsn: string }>('select pg_create_restore_point($1) as lsn', [POINT])
  await client.query('select pg_switch_wal()')
  return parseLsn(rows[0]!.lsn)
}

async function assertRefused({ cluster, first, second, xids, between }: Past): Promise<void> {
  const to = join(cluster.cluster.home, 'never-made')
  const window = `Along timeline 1, what can be restored: from .* \\(LSN ${first.stopLsn}\\) to LSN [0-9A-F]+/[0-9A-F]+ \\(last commit .*Z\\)`
  const outside: [RecoveryTarget, string, Partial<RestoreOptions>?][] = [
    [{ kind: 'xid', xid: xids.three + 1000 }, `no transaction of that id ends .*${window}`],
    [{ kind: 'xid', xid: xids.table }, `no transaction of that id ends .*${window}`],
    [{ kind: 'name', name: 'nowhere' }, `restore point "nowhere" .*${window}`],
    [{ kind: 'time', micros: msToMicros(Date.parse(first.startedAt) - 60_000) }, window],
    [{ kind: 'time', micros: msToMicros(Date.now()) }, `only by a later commit.*${window}`],
    [{ kind: 'lsn', lsn: parseLsn(first.startLsn) }, window],
    [{ kind: 'lsn', lsn: parseLsn(second.stopLsn) + 2n ** 32n }, `no WAL leads there.*${window}`],
    [{ kind: 'latest' }, 'there is no WAL of timeline 7; there is of 1', { timeline: 7 }],
    [{ kind: 'time', micros: msToMicros(between) }, `from .* \\(LSN ${second.stopLsn}\\)`, { from: second.id }],
    [{ kind: 'xid', xid: xids.two }, `from .* \\(LSN ${second.stopLsn}\\)`, { from: second.id }],
  ]
  for (const [target, message, more] of outside) {
    const refused = { code: 'TARGET_OUTSIDE_WINDOW', message: new RegExp(message) }
    await assert.rejects(cluster.restore(target, to, more), refused, message)
    await assert.rejects(access(to), { code: 'ENOENT' })
  }
}

async function assertPreview(past: Past): Promise<void> {
  const { cluster, tablespace, second } = past
  const { installation } = cluster.cluster
  const committing = Date.now()
  const end = await leaveInSpool(past)
  const to = join(cluster.cluster.home, 'never-made')
  const mapped = join(cluster.cluster.home, 'never-made-tablespace')
  const before = await listing(cluster.cluster.home)
  const { status, preview } = await runPreview(cluster, ['--to', to, '--tablespace-map', `${tablespace.oid}=${mapped}`])
  assert.deepEqual(preview.problems, [])
  assert.equal(status, 0)
  assert.equal(preview.backup.id, second.id)
  assert.ok(preview.bytesToWrite > 1e6 && preview.filesToWrite > 100 && preview.bytesFree > 0)
  // The spool counts, although it is not published.
  assert.equal(preview.wal.fromLsn, second.startLsn)
  assert.equal(parseLsn(preview.wal.endLsn), end)
  assert.equal(preview.wal.bytes, Number(end - parseLsn(second.startLsn)))
  assert.ok(preview.wal.segments >= 3)
  const [held] = preview.loss.spool
  assert.ok(held !== undefined && held.bytes > 0)
  assert.deepEqual(
    { timeline: held.timeline, acknowledged: held.acknowledgedLsn, lost: preview.loss.bytesNotReplayed },
    { timeline: 1, acknowledged: formatLsn(end), lost: 0 },
  )
  assert.ok(Date.parse(preview.wal.lastCommit!) >= committing - 1 && Date.parse(preview.wal.lastCommit!) <= Date.now())
  assert.equal(preview.directory.state, 'missing')
  assert.deepEqual(preview.tablespaces, [{ oid: tablespace.oid, source: tablespace.path, path: mapped, state: 'missing' }])
  assert.equal(preview.settings['synchronous_standby_names'], '')
  assert.equal(preview.settings['archive_mode'], 'off')
  assert.deepEqual(preview.installation, { version: installation.version, binDirectory: installation.binDirectory })
  assert.deepEqual(preview.differences, [])
  const manifest = await readManifest(cluster.repository, 'his-db', second.id)
  assert.equal(await readCatalogVersion(installation), manifest.server.catalogVersion)

  // What is in the way is told, and judged by the exit status.
  const refused = await runPreview(cluster, ['--to', cluster.cluster.directory])
  assert.deepEqual([refused.status, refused.preview.possible, refused.preview.directory.state], [1, false, 'in use'])
  assert.equal(refused.preview.problems.length, 2)
  assert.match(refused.preview.problems[1]!, /cannot restore tablespace \d+ into .* as its tablespace/)
  const occupied = await runPreview(cluster, [
    '--to',
    join(cluster.configPath, '..'),
    '--tablespace-map',
    `${tablespace.oid}=${mapped}`,
  ])
  assert.deepEqual([occupied.status, occupied.preview.directory.state], [1, 'occupied'])
  assert.deepEqual(await listing(cluster.cluster.home), before)
}

/** Commits "four", and puts the WAL since into the spool as a receiver leaves it that dies before the repository has it. */
async function leaveInSpool({ cluster, client }: Past): Promise<Lsn> {
  const { repository, stateDirectory } = cluster
  const [branch] = await listBranches(repository, 'his-db')
  const { segmentSize } = branch!.head
  const ranges = repositoryWal(repository, 'his-db').parts(branch!)
  const stored = (await ranges).at(-1)!.endLsn
  await client.query(`insert into visits values ('four')`)
  const end = await flushLsn(client)
  const directory = streamSpool(stateDirectory, 'his-db')
  const spool = await Spool.open({ directory, component: 'his-db', ring: repository.ring, bytesMax: 1e9 })
  const start = segmentStart(segmentAt(stored, 1, segmentSize))
  const writer = await spool.startWriting(branch!, start)
  for (let at = start; at < end;) {
    const segment = segmentAt(at, 1, segmentSize)
    const to = segmentEnd(segment) < end ? segmentEnd(segment) : end
    await using file = await open(join(cluster.cluster.directory, 'pg_wal', segmentName(segment)))
    const { buffer } = await file.read(Buffer.alloc(Number(to - at)), 0, Number(to - at), 0)
    writer.append(at, buffer)
    at = to
  }
  await writer.sync()
  await writer.close()
  return end
}

function runPreview(cluster: ProtectedCluster, args: string[]): Promise<{ status: number; preview: RestorePreview }> {
  const all = [MAIN, 'restore', 'his-db', '--preview', '--json', '--config', cluster.configPath, ...args]
  return new Promise((resolve, reject) => {
    execFile(process.execPath, all, (error, stdout, stderr) => {
      try {
        const status = typeof error?.code === 'number' ? error.code : 0
        resolve({ status, preview: JSON.parse(stdout) as RestorePreview })
      } catch {
        reject(new Error(`the preview printed "${stdout}" and "${stderr}"`))
      }
    })
  })
}

/** Everything below a directory that is not the running cluster's. */
async function listing(home: string): Promise<string[]> {
  const found: string[] = []
  const walk = async (path: string): Promise<void> => {
    const { size, mtimeMs, ctimeMs, ino, mode } = await lstat(path)
    found.push([path, size, mtimeMs, ctimeMs, ino, mode].join(' '))
    if ((mode & 0o170000) !== 0o040000) return
    for (const name of (await readdir(path)).toSorted()) await walk(join(path, name))
  }
  for (const name of (await readdir(home)).toSorted()) {
    if (!['data', 'tablespace', 'server.log', 'socket'].includes(name)) await walk(join(home, name))
  }
  return found
}

async function assertInUse({ cluster, tablespace }: Past): Promise<void> {
  const { directory, home } = cluster.cluster
  const elsewhere = { tablespaceMappings: [{ old: tablespace.oid, new: join(home, 'never-made-tablespace') }] }
  const refused = { code: 'DIRECTORY_IN_USE', message: /process \d+ of a running server uses/ }
  await assert.rejects(cluster.restore({ kind: 'latest' }, directory, elsewhere), refused)
  await assert.rejects(cluster.restore({ kind: 'latest' }, join(directory, 'inside'), elsewhere), refused)
  await assert.rejects(access(join(directory, 'inside')), { code: 'ENOENT' })
  const to = join(home, 'never-made')
  await assert.rejects(cluster.restore({ kind: 'latest' }, to), { ...refused, message: /cannot restore tablespace/ })
  await assert.rejects(access(to), { code: 'ENOENT' })
  const map = (path: string) => ({ tablespaceMappings: [{ old: tablespace.path, new: path }] })
  await assert.rejects(cluster.restore({ kind: 'latest' }, to, map(join(to, 'inside'))), { code: 'ARGUMENTS_INVALID' })
  await assert.rejects(cluster.restore({ kind: 'latest' }, to, map(join(cluster.configPath, '..'))), {
    code: 'DIRECTORY_NOT_EMPTY',
    message: /cannot restore tablespace/,
  })
  await assert.rejects(access(to), { code: 'ENOENT' })
}

async function assertPaused(t: TestContext, past: Past): Promise<void> {
  const { cluster, tablespace, xids, first } = past
  const place = join(cluster.cluster.home, 'scans of the restored')
  const tablespaceMappings = [{ old: tablespace.oid, new: place }]
  const report = await cluster.restore({ kind: 'xid', xid: xids.two }, undefined, { action: 'pause', tablespaceMappings })
  assert.equal(report.backup, first.id)
  assert.deepEqual(report.tablespaces, [{ oid: tablespace.oid, source: tablespace.path, path: place }])
  assert.equal(await readlink(join(report.directory, 'pg_tblspc', tablespace.oid)), place)
  assert.equal(await readFile(join(report.directory, 'tablespace_map'), 'utf8'), `${tablespace.oid} ${place}\n`)
  await proveManifest(t, { directory: report.directory, installation: cluster.cluster.installation })
  await withServer(t, past, { report }, async (server) => {
    await waitUntilPaused(server)
    assert.deepEqual(await namesOf(server), ['one', 'two'])
    assert.equal(await linkOf(server, tablespace.oid), place)
    await server.query('select pg_wal_replay_resume()')
    await waitUntilOpen(server)
    await server.query(`insert into visits values ('after recovery')`)
  })
  await rm(place, { recursive: true })
}

async function assertShutDown(t: TestContext, past: Past): Promise<void> {
  const { cluster, tablespace, xids } = past
  const { home, installation } = cluster.cluster
  const place = join(home, 'scans')
  const to = join(home, 'interrupted')
  const target: RecoveryTarget = { kind: 'xid', xid: xids.two, exclusive: true }
  const options = { action: 'shutdown', tablespaceMappings: [{ old: tablespace.path, new: place }] } as const
  const ending = new AbortController()
  const onProgress = () => ending.abort(new Error('told to end'))
  await assert.rejects(cluster.restore(target, to, { ...options, signal: ending.signal, onProgress }), /told to end/)
  const interrupted = await cluster.preview(target, to, options)
  assert.deepEqual([interrupted.directory.state, interrupted.tablespaces[0]!.state], ['interrupted', 'interrupted'])
  // Its tablespace belongs to this one directory.
  await assert.rejects(cluster.restore(target, join(home, 'another'), options), { code: 'DIRECTORY_NOT_EMPTY' })
  const report = await cluster.restore(target, to, options)
  const logFile = `${to}.log`
  try {
    await startRestoredDirectory({ directory: to, home, installation }, { logFile }).catch((error: unknown) => {
      // It may have ended before anybody could connect.
      if (!(error instanceof Failure && error.code === 'POSTGRES_FAILED')) throw error
    })
    while (await isRunning(to)) await delay(20)
    const log = await readFile(logFile, 'utf8')
    assert.match(log, new RegExp(`recovery stopping before commit of transaction ${xids.two}`))
    assert.match(log, /shutdown at recovery target/)
    await withServer(t, past, { report, settings: { recovery_target_action: 'promote' } }, async (server) => {
      await waitUntilOpen(server)
      assert.deepEqual(await namesOf(server), ['one'])
    })
  } finally {
    await rm(place, { recursive: true, force: true })
  }
}

async function assertTimelines(t: TestContext, past: Past): Promise<void> {
  const { cluster, tablespace, second, points } = past
  const to = join(cluster.cluster.home, 'by-name')
  const place = join(cluster.cluster.home, 'scans')
  const options = { tablespaceMappings: [{ old: tablespace.oid, new: place }] }
  const notices: string[] = []
  const restore = () => cluster.restore({ kind: 'name', name: POINT }, to, { ...options, onNotice: (text) => notices.push(text) })
  const both = await Promise.allSettled([restore(), restore()])
  const refused = both.filter((result) => result.status === 'rejected').map(({ reason }) => reason as Failure)
  assert.deepEqual(
    refused.map(({ code }) => code),
    ['DIRECTORY_IN_USE'],
    refused.map(String).join(),
  )
  assert.match(refused[0]!.message, /another restore is writing there/)
  const report = both.find((result) => result.status === 'fulfilled')!.value
  assert.equal(report.backup, second.id)
  assert.ok(notices.some((text) => text.includes(`(LSN ${formatLsn(points[1])})`)))
  await assertPlans(past, { before: true })
  await withServer(t, past, { report }, async (server, connectionString) => {
    await waitUntilOpen(server)
    assert.deepEqual(await namesOf(server), ['one', 'two'])
    const stream = startReceiver(t, cluster, connectionString)
    await stream.waitFor(({ kind }) => kind === 'connected')
    await server.query(`insert into visits values ('five')`)
    const end = await flushLsn(server)
    await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
    await stream.stop()
  })
  await rm(place, { recursive: true })
  await assertPlans(past, { before: false })

  // Without a target PostgreSQL would promote: the last record is the target.
  const latest = await cluster.restore({ kind: 'latest' }, undefined, { ...options, timeline: 1, action: 'pause' })
  assert.deepEqual([latest.backup, latest.timeline], [second.id, 1])
  await withServer(t, past, { report: latest }, async (server) => {
    await waitUntilPaused(server)
    assert.deepEqual(await namesOf(server), ['four', 'one', 'three', 'two'])
    await server.query('select pg_wal_replay_resume()')
    await waitUntilOpen(server)
    // The number of the other way is not used again.
    const { rows } = await server.query<{ name: string }>('select pg_walfile_name(pg_current_wal_lsn()) as name')
    assert.match(rows[0]!.name, /^00000003/)
  })
  await rm(place, { recursive: true })
}

/** What is planned along timelines, from the repository alone; `before` timeline 2 began. */
async function assertPlans(
  { cluster, first, second, points, xids, between }: Past,
  { before }: { before: boolean },
): Promise<void> {
  const { repository } = cluster
  const plan = (target: RecoveryTarget, more: Partial<PlanOptions> = {}) =>
    planRecovery({ repository, component: 'his-db', clock: systemClock, target, ...more })
  const newest = before ? 1 : 2
  assert.equal((await plan({ kind: 'latest' })).plan.timeline, newest)
  assert.equal((await plan({ kind: 'latest' }, { timeline: 1 })).plan.timeline, 1)
  // No record begins behind the start of the last one: PostgreSQL would fail to reach such an LSN, so that it is told of none.
  const { lastRecordEnd } = (await plan({ kind: 'latest' })).plan
  assert.deepEqual((await plan({ kind: 'lsn', lsn: lastRecordEnd! - 8n })).target, { kind: 'latest' })
  // From the first backup PostgreSQL stops at the first of the two points, from the second at the other.
  const point = { kind: 'name', name: POINT } as const
  for (const [from, at, told] of [
    [first.id, points[0], 2],
    [second.id, points[1], 1],
  ] as const) {
    const planned = await plan(point, { from, timeline: 1 })
    assert.deepEqual([planned.manifest.id, planned.endLsn], [from, at])
    assert.ok(planned.notices.length >= told, planned.notices.join())
  }
  assert.deepEqual([(await plan(point)).endLsn, (await plan(point)).manifest.id], [points[1], second.id])
  // Three was committed on timeline 1 only, after it was left.
  if (before) assert.equal((await plan({ kind: 'xid', xid: xids.three })).manifest.id, second.id)
  assert.equal((await plan({ kind: 'xid', xid: xids.three }, { timeline: 1 })).plan.timeline, 1)

  // A time on timeline 1 is reached there, and needs none of the WAL up to where it was left.
  const time = { kind: 'time', micros: msToMicros(between) } as const
  const whole = await plan(time)
  assert.deepEqual([whole.manifest.id, whole.plan.timeline], [first.id, 1])
  const stored = repositoryWal(repository, 'his-db')
  const { segmentSize } = whole.plan
  const cut = segmentEnd(segmentAt(whole.endLsn, 1, segmentSize))
  const parts: typeof stored.parts = async (branch) => (await stored.parts(branch)).filter(({ endLsn }) => endLsn <= cut)
  const short = await plan(time, { supply: { branches: stored.branches, parts } })
  assert.deepEqual([short.manifest.id, short.plan.timeline, short.endLsn], [first.id, 1, whole.endLsn])
}

/** WAL that is lost keeps nobody from what lies before it, and is never restored across. */
async function assertGap({ cluster, first, second, points }: Past): Promise<void> {
  const { repository } = cluster
  const stored = repositoryWal(repository, 'his-db')
  const lost = parseLsn(second.startLsn)
  const parts: typeof stored.parts = async (branch) =>
    (await stored.parts(branch)).filter(({ startLsn, endLsn }) => endLsn <= lost || startLsn > lost)
  const supply = { branches: stored.branches, parts }
  const plan = (target: RecoveryTarget) => planRecovery({ repository, component: 'his-db', clock: systemClock, target, supply })
  const planned = await plan({ kind: 'name', name: POINT })
  assert.deepEqual([planned.manifest.id, planned.endLsn], [first.id, points[0]])
  assert.match(planned.notices.join(), new RegExp(`backup ${second.id} is passed over: the WAL that backup .* is not whole`))
  for (const target of [{ kind: 'latest' }, { kind: 'lsn', lsn: points[1] }] as const) {
    await assert.rejects(plan(target), { code: 'WAL_GAP', message: /is not whole/ })
  }
}

interface Started {
  readonly report: RestoreReport
  readonly settings?: Readonly<Record<string, string>>
}

/** Starts a restored cluster, and removes it when the work is done. */
async function withServer(
  t: TestContext,
  { cluster }: Past,
  { report, settings = {} }: Started,
  work: (server: pg.Client, connectionString: string) => Promise<void>,
): Promise<void> {
  const { directory } = report
  const { home, installation } = cluster.cluster
  try {
    const port = await startRestoredDirectory({ directory, home, installation }, { logFile: `${directory}.log`, settings })
    const connectionString = `postgres://postgres@127.0.0.1:${port}/postgres`
    await work(await connect(t, connectionString), connectionString)
  } finally {
    await endCluster(directory)
    await rm(directory, { recursive: true, force: true })
  }
}

async function waitUntilPaused(server: pg.Client): Promise<void> {
  await waitFor(server, `select pg_get_wal_replay_pause_state() = 'paused' as reached`)
}

async function waitUntilOpen(server: pg.Client): Promise<void> {
  await waitFor(server, 'select not pg_is_in_recovery() as reached')
}

async function waitFor(server: pg.Client, question: string): Promise<void> {
  for (;;) {
    const { rows } = await server.query<{ reached: boolean }>(question)
    if (rows[0]?.reached === true) return
    await delay(20)
  }
}

async function namesOf(server: pg.Client): Promise<string[]> {
  const scans = await server.query('select count(*)::int as count from scans')
  assert.deepEqual(scans.rows, [{ count: 2000 }])
  const { rows } = await server.query<{ name: string }>('select name from visits order by name')
  return rows.map(({ name }) => name)
}

async function linkOf(server: pg.Client, oid: string): Promise<string> {
  const { rows } = await server.query<{ path: string }>('select pg_tablespace_location($1::oid) as path', [oid])
  return rows[0]!.path
}
