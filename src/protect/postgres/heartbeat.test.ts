import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import pg from 'pg'
import { silentProxy } from '../../../test/services/silent-proxy.ts'
import { skipUnlessInstalled, testCluster, type TestCluster } from '../../../test/services/postgres.ts'
import { protectedCluster } from '../../../test/services/protected-cluster.ts'
import { testStandby, waitForReplay } from '../../../test/services/standby.ts'
import { connect, startStream, streamHome } from '../../../test/services/stream.ts'
import { waitUntil } from '../../../test/services/wait-until.ts'
import { systemClock, type Clock } from '../../clock.ts'
import type { Failure } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { WalDecoder } from '../../postgres/wal-decoder.ts'
import { segmentAt, segmentName, segmentStart } from '../../postgres/wal-segment.ts'
import { Secret } from '../../secret.ts'
import { streamSchema } from './component.ts'
import { HeartbeatSession, readHeartbeat, type Beat } from './heartbeat-session.ts'
import { heartbeatSetup } from './heartbeat-setup.ts'
import { HeartbeatTracker } from './heartbeat-tracker.ts'
import { runHeartbeat } from './heartbeat.ts'

const SEGMENT_BYTES = 16 * 1024 * 1024
/** The real one, but that nothing waits for long. */
const hasty: Clock = { now: () => systemClock.now(), sleep: (ms, signal) => systemClock.sleep(Math.min(ms, 50), signal) }

interface Running {
  readonly beats: Beat[]
  readonly troubles: Failure[]
  stop(): Promise<void>
}

/** A heartbeat in this process; stopped when the test ends. */
function startHeartbeat(t: TestContext, connectionString: string, hosts: string[] = []): Running {
  const stop = new AbortController()
  const [beats, troubles]: [Beat[], Failure[]] = [[], []]
  const running = runHeartbeat({
    component: { name: 'his-db', connection: new Secret(connectionString), stream: streamSchema.parse({ hosts }) },
    clock: hasty,
    signal: stop.signal,
    onBeat: (beat) => beats.push(beat),
    onTrouble: (failure) => troubles.push(failure),
  })
  const stopped = async () => {
    stop.abort()
    await running
  }
  t.after(stopped)
  return { beats, troubles, stop: stopped }
}

/** With the table, for a role of its own that is no superuser. */
async function heartbeatCluster(t: TestContext, major: number, settings: Record<string, string> = {}) {
  const cluster = await testCluster(t, { major, settings: { max_wal_senders: '10', ...settings } })
  const client = await connect(t, cluster.connectionString)
  await client.query('create role resus login replication; grant pg_monitor to resus')
  return { cluster, client, resus: cluster.connectionString.replace('postgres@', 'resus@') }
}

function session(connectionString: string): Promise<HeartbeatSession> {
  return HeartbeatSession.connect({ component: 'his-db', connectionString, signal: new AbortController().signal })
}

/** Where the record of a commit ends, read from the server's own WAL. */
async function commitEnd(cluster: TestCluster, xid: number, near: Lsn): Promise<Lsn | undefined> {
  const segment = segmentAt(near, 1, SEGMENT_BYTES)
  let found: Lsn | undefined
  const decoder = new WalDecoder({
    startLsn: segmentStart(segment),
    segmentSizeBytes: SEGMENT_BYTES,
    onFact: (fact, _lsn, endLsn) => {
      if (fact.kind === 'commit' && fact.xid === xid) found = endLsn
    },
  })
  decoder.feed(segmentStart(segment), await readFile(join(cluster.directory, 'pg_wal', segmentName(segment))))
  return found
}

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(`a beat’s commit lies before its LSN (PostgreSQL ${major})`, { skip }, async (t) => {
    const { cluster, client, resus } = await heartbeatCluster(t, major)
    await client.query(heartbeatSetup())
    await using beating = await session(resus)
    for (let round = 1; round <= 5; round += 1) {
      const beat = await beating.beat(systemClock)
      const { rows } = await client.query<{ xid: number; at: Date }>('select xmin::text::int as xid, at from resus.heartbeat')
      const end = await commitEnd(cluster, rows[0]!.xid, beat.lsn)
      assert.ok(end !== undefined && end <= beat.lsn, `commit ends at ${end && formatLsn(end)}, beat says ${formatLsn(beat.lsn)}`)
      assert.equal(beat.sequence, round)
      assert.equal(beat.at.getTime(), rows[0]!.at.getTime())
      assert.equal(beat.timeline, 1)
      assert.match(beat.systemIdentifier, /^\d{15,20}$/)
    }
  })

  test(`two thousand beats leave a table of few pages and little WAL (PostgreSQL ${major})`, { skip }, async (t) => {
    const { client, resus } = await heartbeatCluster(t, major, { autovacuum: 'off' })
    await client.query(heartbeatSetup())
    await using beating = await session(resus)
    const first = await beating.beat(systemClock)
    for (let count = 1; count < 2000; count += 1) await beating.beat(systemClock)
    const last = await beating.beat(systemClock)
    const { rows } = await client.query<{ heap: number; index: number }>(
      `select pg_relation_size('resus.heartbeat')::int as heap, pg_relation_size('resus.heartbeat_pkey')::int as index`,
    )
    t.diagnostic(`${Number(last.lsn - first.lsn) / 2000} bytes of WAL a beat; ${JSON.stringify(rows[0])}`)
    assert.ok(rows[0]!.heap <= 2 * 8192, `heap of ${rows[0]!.heap} bytes`)
    assert.ok(rows[0]!.index <= 2 * 8192, `index of ${rows[0]!.index} bytes`)
    assert.ok(Number(last.lsn - first.lsn) / 2000 < 400)
  })

  test(
    `a server without the table is told of with the SQL that makes it, and beats once it was run (PostgreSQL ${major})`,
    { skip },
    async (t) => {
      const { cluster, client, resus } = await heartbeatCluster(t, major)
      const heartbeat = startHeartbeat(t, resus)
      await waitUntil('it is told', () => heartbeat.troubles.length > 1)
      const [{ code, message, hint }] = heartbeat.troubles as [Failure]
      assert.equal(code, 'HEARTBEAT_MISSING')
      assert.match(message, /RPO is not proven/)
      assert.equal(heartbeat.beats.length, 0)
      assert.equal(await readHeartbeat(client), undefined)
      // A schema that somebody made, without the rights.
      await client.query(
        'create schema resus; create table resus.heartbeat (id smallint primary key, sequence bigint not null, at timestamptz not null)',
      )
      await waitUntil('the rights are missed', () => heartbeat.troubles.some((each) => /may not write/.test(each.message)))
      await client.query('drop schema resus cascade')
      // It costs nothing to be without it: no statement of ours fails.
      const log = await readFile(cluster.logFile, 'utf8')
      assert.doesNotMatch(log, /ERROR/)
      await client.query(hint!.slice(hint!.indexOf('begin isolation')))
      await waitUntil('it beats', () => heartbeat.beats.length > 2)
      await client.query(heartbeatSetup())
      assert.ok((await readHeartbeat(client))!.sequence >= 2, 'the SQL may be run again')
    },
  )

  test(
    `a synchronous receiver that is away neither stops the heart nor is made up for (PostgreSQL ${major})`,
    { skip },
    async (t) => {
      const { client, resus } = await heartbeatCluster(t, major)
      await client.query(heartbeatSetup())
      const home = await streamHome(t)
      const tracker = new HeartbeatTracker()
      const stream = startStream(t, home, { connectionString: resus, onEvent: (event) => tracker.noteEvent(event) })
      const heartbeat = startHeartbeat(t, resus)
      const follow = () => {
        for (const beat of heartbeat.beats.splice(0)) tracker.noteBeat(beat)
        return tracker.exposures(systemClock.now())
      }
      await waitUntil('a beat is in the repository', () => follow().repository.kind === 'measured')
      assert.equal(follow().spool.kind, 'measured')
      await stream.stop()
      await client.query(`alter system set synchronous_standby_names = 'resus'`)
      await client.query('select pg_reload_conf()')
      await waitUntil(
        'it is in force',
        async () =>
          (await client.query<{ synchronous_standby_names: string }>('show synchronous_standby_names')).rows[0]
            ?.synchronous_standby_names === 'resus',
      )
      const stopped = follow()
      assert.ok(stopped.newest !== null && stopped.repository.kind === 'measured')
      await waitUntil('it beats on', () => (follow().newest?.sequence ?? 0) > stopped.newest!.sequence + 20)
      const now = follow()
      assert.ok(now.beating && now.repository.kind === 'measured')
      assert.deepEqual(now.repository.beat, follow().repository.kind === 'measured' && now.repository.beat)
      assert.ok(now.repository.seconds > stopped.repository.seconds, `${now.repository.seconds} s`)
      assert.equal(heartbeat.troubles.length, 0)
      await client.query('alter system reset synchronous_standby_names')
      await client.query('select pg_reload_conf()')
    },
  )

  test(
    `a commit of the hospital does not wait for the heart, even while it waits itself (PostgreSQL ${major})`,
    { skip },
    async (t) => {
      const { client, resus, cluster } = await heartbeatCluster(t, major)
      await client.query(heartbeatSetup())
      const heartbeat = startHeartbeat(t, resus)
      await waitUntil('it beats', () => heartbeat.beats.length > 0)
      await client.query('create table visits (id int)')
      const locker = await connect(t, cluster.connectionString)
      await locker.query('begin; lock table resus.heartbeat in access exclusive mode')
      // The lock is waited for no longer than 2 s; meanwhile there is one connection of ours, and commits go on.
      await waitUntil('it is told', () => heartbeat.troubles.length > 0)
      assert.equal(heartbeat.troubles[0]?.code, 'POSTGRES_FAILED')
      assert.match(heartbeat.troubles[0].message, /timeout/)
      await client.query('insert into visits values (1)')
      const { rows } = await client.query(`select from pg_stat_activity where application_name = 'resus heartbeat'`)
      assert.ok(rows.length <= 1, `${rows.length} connections`)
      await locker.query('rollback')
      const before = heartbeat.beats.length
      await waitUntil('it beats again', () => heartbeat.beats.length > before + 1)
    },
  )

  test(
    `the heart is followed through a kill of the server and to the standby that was promoted (PostgreSQL ${major})`,
    { skip },
    async (t) => {
      const { cluster, client, resus } = await heartbeatCluster(t, major)
      await client.query(heartbeatSetup())
      const standby = await testStandby(t, cluster)
      await waitForReplay(client, standby)
      await assert.rejects(session(standby.connectionString.replace('postgres@', 'resus@')), {
        code: 'POSTGRES_UNREACHABLE',
        message: /is a standby/,
      })
      const heartbeat = startHeartbeat(t, resus, [standby.host, `127.0.0.1:${cluster.port}`])
      await waitUntil('it beats', () => heartbeat.beats.length > 3)
      await cluster.kill()
      await waitUntil('it is told', () => heartbeat.troubles.some(({ code }) => code === 'POSTGRES_UNREACHABLE'))
      const before = heartbeat.beats.length
      await cluster.start()
      await waitUntil('it beats again', () => heartbeat.beats.length > before + 2)
      assert.equal(heartbeat.beats.at(-1)?.timeline, 1)
      const again = await connect(t, cluster.connectionString)
      await waitForReplay(again, standby)
      await cluster.kill()
      await standby.promote()
      await waitUntil('it beats on the new primary', () => heartbeat.beats.at(-1)?.timeline === 2)
      const promoted = await connect(t, standby.connectionString)
      assert.ok((await readHeartbeat(promoted))!.sequence > heartbeat.beats[before]!.sequence)
      await heartbeat.stop()
      await standby.stop()
    },
  )
}

const skip18 = await skipUnlessInstalled(18)

test('a member that was promoted while the old primary still answers is gone after', { skip: skip18 }, async (t) => {
  const { cluster, client, resus } = await heartbeatCluster(t, 18)
  await client.query(heartbeatSetup())
  const standby = await testStandby(t, cluster)
  const heartbeat = startHeartbeat(t, resus, [`127.0.0.1:${cluster.port}`, standby.host])
  await waitUntil('it beats', () => heartbeat.beats.length > 1)
  await waitForReplay(client, standby)
  await standby.promote()
  await waitUntil('it beats on the new primary', () => heartbeat.beats.at(-1)?.timeline === 2)
  await heartbeat.stop()
  await standby.stop()
})

test('a server that stalls is told of within seconds, and left', { skip: skip18 }, async (t) => {
  const { cluster, client, resus } = await heartbeatCluster(t, 18)
  await client.query(heartbeatSetup())
  const proxy = await silentProxy(t, cluster.port)
  const heartbeat = startHeartbeat(t, resus.replace(String(cluster.port), String(proxy.port)))
  await waitUntil('it beats', () => heartbeat.beats.length > 0)
  proxy.silence()
  await waitUntil('it is told', () => heartbeat.troubles.length > 0)
  assert.equal(heartbeat.troubles[0]?.code, 'POSTGRES_UNREACHABLE')
  await heartbeat.stop()
})

test('a database that publishes all its tables is left as it is', { skip: skip18 }, async (t) => {
  const { client, cluster } = await heartbeatCluster(t, 18, { wal_level: 'logical' })
  await client.query('create publication everything for all tables')
  await assert.rejects(client.query(heartbeatSetup()), /subscribers would stop/)
  const other = await connect(t, cluster.connectionString)
  const { rows } = await other.query(`select from pg_namespace where nspname = 'resus'`)
  assert.equal(rows.length, 0)
})

test(
  'what a role that is no superuser has made beforehand is neither written to nor beaten into',
  { skip: skip18 },
  async (t) => {
    const { client, resus, cluster } = await heartbeatCluster(t, 18)
    await client.query('create role hospital login; grant create on database postgres to hospital')
    const owner = await connect(t, cluster.connectionString.replace('postgres@', 'hospital@'))
    const trap = `create function resus.trap() returns trigger language plpgsql as $$ begin
      execute format('create table public.ran_as_%I ()', current_user); return new; end $$;
    create trigger trap before insert or update on resus.heartbeat for each row execute function resus.trap()`
    await owner.query(`create schema resus; create table resus.heartbeat (id smallint primary key default 1, sequence bigint, at timestamptz);
    insert into resus.heartbeat values (1, 0, now()); grant usage on schema resus to resus; grant select, update on resus.heartbeat to resus; ${trap}`)
    await client.query('grant create on schema public to resus')
    const refused = /schema "resus" belongs to the role "hospital", and its code would run with our rights/
    await assert.rejects(client.query(heartbeatSetup()), refused)
    await client.query('rollback')
    await assert.rejects(session(resus), (failure: Failure) => {
      assert.equal(failure.code, 'HEARTBEAT_MISSING')
      assert.match(failure.message, /table "resus.heartbeat" belongs to the role "hospital"/)
      assert.match(failure.hint ?? '', /drop schema resus cascade/)
      return true
    })

    // The schema alone, with nothing in it yet, is as bad: its owner may drop our table and put another in its place.
    await client.query('drop schema resus cascade')
    await owner.query('create schema resus')
    await assert.rejects(client.query(heartbeatSetup()), refused)
    await client.query('rollback')
    const { rows } = await client.query("select relname from pg_class where relname ~ '^ran_as_' or relname = 'heartbeat'")
    assert.deepEqual(rows, [])
    await client.query('drop schema resus cascade')
    await client.query(heartbeatSetup())
    await using beating = await session(resus)
    assert.equal((await beating.beat(systemClock)).sequence, 1)
  },
)

test('a function in the search path of whoever runs the SQL is not called', { skip: skip18 }, async (t) => {
  const { client } = await heartbeatCluster(t, 18)
  await client.query(
    `create function public.clock_timestamp() returns timestamptz language plpgsql as $$ begin raise exception 'trapped'; end $$`,
  )
  await client.query('set search_path = public, pg_catalog')
  await client.query(heartbeatSetup())
})

test('a name of a role is never SQL', () => {
  assert.match(heartbeatSetup('re"sus; drop'), /to "re""sus; drop";/)
  assert.match(heartbeatSetup("re'sus$$"), /set local resus\.role = 're''sus\$\$';/)
})

test('a recovery has the beats that the repository was said to have', { skip: skip18 }, async (t) => {
  await using home = await protectedCluster(t, { major: 18 })
  await home.query(heartbeatSetup('postgres'))
  await home.backup()
  const tracker = new HeartbeatTracker()
  const { repository, component, stateDirectory } = home
  const stream = startStream(
    t,
    {
      repository,
      repositoryDirectory: home.repositoryDirectory,
      spoolDirectory: join(stateDirectory, 'stream'),
      faults: () => undefined,
    },
    {
      connectionString: home.cluster.connectionString,
      component: { ...component, stream: { ...component.stream, partialEverySeconds: 1 } },
      onEvent: (event) => tracker.noteEvent(event),
    },
  )
  const heartbeat = startHeartbeat(t, home.cluster.connectionString)
  const follow = () => {
    for (const beat of heartbeat.beats.splice(0)) tracker.noteBeat(beat)
    return tracker.exposures(systemClock.now()).repository
  }
  await waitUntil('thirty beats are in the repository', () => {
    const exposure = follow()
    return exposure.kind === 'measured' && exposure.beat.sequence >= 30
  })
  const promised = follow()
  assert.ok(promised.kind === 'measured')
  await home.cluster.kill()
  await stream.stop()
  await heartbeat.stop()
  await using restored = await home.startRestored(await home.restore())
  const client = new pg.Client({ connectionString: `postgres://postgres@127.0.0.1:${restored.port}/postgres` })
  await client.connect()
  const found = await readHeartbeat(client)
  await client.end()
  assert.ok(
    found !== undefined && found.sequence >= promised.beat.sequence,
    `${found?.sequence}, promised ${promised.beat.sequence}`,
  )
  assert.ok(found.at >= promised.beat.at)
})
