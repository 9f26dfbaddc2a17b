import assert from 'node:assert/strict'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { parseLsn } from '../../src/postgres/lsn.ts'
import { systemClock } from '../../src/clock.ts'
import { postgresComponentSchema } from '../../src/protect/postgres/component.ts'
import { readPostgresStatus } from '../../src/protect/postgres/status.ts'
import { Secret } from '../../src/secret.ts'
import { coverage } from '../../src/repository/wal-archive.ts'
import { listBranches } from '../../src/repository/wal-branch.ts'
import { askRestored, assertNothingLost, resusHome, ResusProcess, runResus, Writers } from '../faults/fault-scene.ts'
import { skipUnlessInstalled, testCluster, type TestCluster } from '../services/postgres.ts'
import { testStandby, waitForReplay, type TestStandby } from '../services/standby.ts'
import { compareWithServer, connect, flushLsn, startStream, streamHome, writeWal, type StreamHome } from '../services/stream.ts'

const KEEP_WAL = { wal_sender_timeout: '10s', min_wal_size: '2MB', max_wal_size: '4MB', wal_keep_size: '0', hot_standby: 'on' }

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(`PostgreSQL ${major}: status asks the member that is received from, whichever "connection" names`, { skip }, async (t) => {
    const { primary, standby, home } = await pair(t, major)
    const hosts = [standby.host, `127.0.0.1:${primary.port}`]
    const options = { connectionString: primary.connectionString, settings: { hosts }, membersEveryMs: 100 }
    const stream = startStream(t, home, options)
    await stream.waitFor(({ kind }) => kind === 'acknowledged')
    await untilSlotReaches(await connect(t, standby.connectionString), 0n)
    const connection = standby.connectionString
    const settings = { kind: 'postgres', tier: 'high', connection, dataDirectory: standby.directory, stream: { hosts } }
    const component = { ...postgresComponentSchema.parse(settings), name: 'db', connection: new Secret(connection) }
    const { signal } = new AbortController()
    const ask = async () => {
      const read = { spoolDirectory: home.spoolDirectory, clock: systemClock, signal }
      return (await readPostgresStatus(home.repository, component, read)).receiver
    }
    const receiving = await ask()
    assert.deepEqual([receiving.active, receiving.problem], [true, null])
    await stream.stop()
    const stopped = await ask()
    assert.equal(stopped.active, false)
    assert.match(stopped.problem!, /nobody receives through the slot "resus"/)
    await primary.kill()
    const alone = await ask()
    assert.equal(alone.active, false)
    assert.match(alone.problem!, /nobody receives.*; .*127\.0\.0\.1/)
  })

  test(
    `PostgreSQL ${major}: with hosts the receiver follows a failover without a gap, and leaves the old primary alone`,
    { skip },
    async (t) => {
      const { primary, standby, home } = await pair(t, major)
      const hosts = [standby.host, `127.0.0.1:${primary.port}`]
      const options = { connectionString: primary.connectionString, settings: { hosts }, membersEveryMs: 100 }
      const stream = startStream(t, home, options)
      await stream.waitFor(({ kind }) => kind === 'connected')
      const client = await connect(t, primary.connectionString)
      for (let round = 0; round < 3; round += 1) await writeWal(client)
      const before = await flushLsn(client)
      await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= before)
      const held = await connect(t, standby.connectionString)
      // The slot on the standby moves up to what the repository has, and never beyond.
      await untilSlotReaches(held, before)
      await waitForReplay(client, standby)
      await primary.kill()
      await standby.promote()
      const promoted = await connect(t, standby.connectionString)
      for (let round = 0; round < 3; round += 1) await writeWal(promoted)
      const end = await flushLsn(promoted)
      await stream.waitFor((event) => event.kind === 'archived' && event.branch.head.timeline === 2 && event.lsn >= end)

      // The old primary comes back and takes writes: it is told, and not one byte of it is taken.
      await primary.start()
      const stale = await connect(t, primary.connectionString)
      for (let round = 0; round < 3; round += 1) await writeWal(stale, 'lost')
      await stream.waitFor((event) => event.kind === 'alarm' && event.code === 'PRIMARY_UNCLEAR')
      await writeWal(promoted)
      const later = await flushLsn(promoted)
      await stream.waitFor((event) => event.kind === 'archived' && event.branch.head.timeline === 2 && event.lsn >= later)
      await stream.stop()
      const [first, second, ...more] = await listBranches(home.repository, 'db')
      assert.deepEqual(more, [])
      assert.deepEqual([first?.head.timeline, second?.head.timeline], [1, 2])
      const switchLsn = parseLsn(/^1\t(\S+)/.exec(second!.head.history)![1]!)
      const old = await coverage(home.repository, first!, first!.head.firstLsn)
      assert.deepEqual([old.endLsn, old.holes], [switchLsn, []])
      const covered = await coverage(home.repository, second!, second!.head.firstLsn)
      assert.ok(covered.endLsn >= later)
      assert.deepEqual(covered.holes, [])
      await compareWithServer(home.repository, second!, standby.directory)

      // Nor after a restart, when only the stale one answers.
      await standby.stop()
      const again = startStream(t, home, options)
      await again.waitFor((event) => event.kind === 'disconnected' && event.code === 'PRIMARY_UNCLEAR')
      await again.stop()
      assert.equal((await coverage(home.repository, first!, first!.head.firstLsn)).endLsn, switchLsn)
    },
  )

  test(
    `PostgreSQL ${major}: WAL that came while the receiver was dead is there after a promotion, from the standby's slot`,
    { skip },
    async (t) => {
      const { primary, standby, home } = await pair(t, major)
      const hosts = [`127.0.0.1:${primary.port}`, standby.host]
      const options = { connectionString: primary.connectionString, settings: { hosts }, membersEveryMs: 100 }
      const stream = startStream(t, home, options)
      await stream.waitFor(({ kind }) => kind === 'connected')
      const client = await connect(t, primary.connectionString)
      const before = await flushLsn(client)
      await untilSlotReaches(await connect(t, standby.connectionString), before)
      await stream.stop()
      // Far more than the servers keep by themselves.
      for (let round = 0; round < 12; round += 1) await writeWal(client)
      await client.query('checkpoint')
      await waitForReplay(client, standby)
      const follower = await connect(t, standby.connectionString)
      await follower.query('checkpoint')
      await primary.kill()
      await standby.promote()
      const promoted = await connect(t, standby.connectionString)
      await promoted.query('checkpoint')
      await writeWal(promoted)
      const end = await flushLsn(promoted)
      const again = startStream(t, home, options)
      await again.waitFor((event) => event.kind === 'archived' && event.branch.head.timeline === 2 && event.lsn >= end)
      await again.stop()
      assert.ok(again.events.every(({ kind }) => kind !== 'gap'))
      const [first, second] = await listBranches(home.repository, 'db')
      const switchLsn = parseLsn(/^1\t(\S+)/.exec(second!.head.history)![1]!)
      const old = await coverage(home.repository, first!, first!.head.firstLsn)
      assert.deepEqual([old.endLsn, old.holes], [switchLsn, []])
    },
  )

  test(
    `PostgreSQL ${major}: after a failover a restore to the latest has every write that was acknowledged on the new primary`,
    { skip },
    async (t) => {
      const { primary, standby } = await pair(t, major)
      const home = await resusHome(primary, { synchronous: true, hosts: [`127.0.0.1:${primary.port}`, standby.host] })
      const receiver = new ResusProcess(t, home, ['stream', 'his-db'])
      await receiver.printed('connected: timeline 1')
      const client = await connect(t, primary.connectionString)
      await client.query('create table marks (name text primary key)')
      await runResus(t, home, ['backup', 'his-db'])
      await client.query(`insert into marks values ('before')`)
      await waitForReplay(client, standby)
      await primary.kill()
      await standby.promote()
      const promoted = await connect(t, standby.connectionString)
      await receiver.printed('connected: timeline 2')
      await promoted.query(`alter system set synchronous_standby_names = 'FIRST 1 (resus)'`)
      await promoted.query('select pg_reload_conf()')
      await untilSynchronous(promoted)
      const writers = await Writers.start(t, { ...primary, connectionString: standby.connectionString }, 3)
      await writeWal(promoted)
      await delay(300)
      await standby.kill()
      const acknowledged = await writers.end()
      await receiver.kill()
      const to = join(primary.home, 'restored')
      await runResus(t, home, ['restore', 'his-db', '--latest', '--to', to])
      await askRestored({ ...primary, directory: to }, async (restored) => {
        assert.ok((await assertNothingLost(restored, acknowledged)) > 0)
        const { rows } = await restored.query<{ name: string }>('select name from marks')
        assert.deepEqual(rows, [{ name: 'before' }])
      })
    },
  )
}

test('two members that both say they are the primary, neither following the other, are refused', async (t) => {
  const { primary, standby, home } = await pair(t, 18)
  const other = await testStandby(t, primary, KEEP_WAL)
  const client = await connect(t, primary.connectionString)
  await waitForReplay(client, standby)
  await waitForReplay(client, other)
  await primary.kill()
  await standby.promote()
  await other.promote()
  const stream = startStream(t, home, {
    connectionString: primary.connectionString,
    settings: { hosts: [`127.0.0.1:${primary.port}`, standby.host, other.host] },
  })
  const refused = await stream.waitFor((event) => event.kind === 'disconnected' && event.code === 'PRIMARY_UNCLEAR')
  assert.ok(refused.kind === 'disconnected')
  assert.ok(refused.message.includes(standby.host) && refused.message.includes(other.host), refused.message)
  await other.kill()
  await stream.waitFor(({ kind }) => kind === 'connected')
  await stream.stop()
  const branches = await listBranches(home.repository, 'db')
  assert.deepEqual(
    branches.map(({ head }) => head.timeline),
    [2],
  )
})

test('a primary that was superseded while it still answers is left for the one that was promoted', async (t) => {
  const { primary, standby, home } = await pair(t, 18)
  const stream = startStream(t, home, {
    connectionString: primary.connectionString,
    settings: { hosts: [`127.0.0.1:${primary.port}`, standby.host] },
    membersEveryMs: 100,
  })
  await stream.waitFor(({ kind }) => kind === 'connected')
  const client = await connect(t, primary.connectionString)
  await writeWal(client)
  const before = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'acknowledged' && event.lsn >= before)
  await waitForReplay(client, standby)
  await standby.promote()
  await stream.waitFor((event) => event.kind === 'connected' && event.branch.head.timeline === 2)
  const promoted = await connect(t, standby.connectionString)
  await writeWal(promoted)
  const end = await flushLsn(promoted)
  await stream.waitFor((event) => event.kind === 'archived' && event.branch.head.timeline === 2 && event.lsn >= end)
  await stream.stop()
})

async function pair(t: TestContext, major: number): Promise<{ primary: TestCluster; standby: TestStandby; home: StreamHome }> {
  const primary = await testCluster(t, { major, walSegmentMegabytes: 1, settings: KEEP_WAL })
  return { primary, standby: await testStandby(t, primary, KEEP_WAL), home: await streamHome(t) }
}

async function untilSlotReaches(client: pg.Client, lsn: bigint): Promise<void> {
  for (;;) {
    const { rows } = await client.query<{ lsn: string | null }>(
      `select restart_lsn::text as lsn from pg_replication_slots where slot_name = 'resus'`,
    )
    const reached = rows[0]?.lsn ?? null
    if (reached !== null && parseLsn(reached) >= lsn) return
    await delay(50)
  }
}

async function untilSynchronous(client: pg.Client): Promise<void> {
  for (;;) {
    const { rowCount } = await client.query(`select 1 from pg_stat_replication where sync_state = 'sync'`)
    if (rowCount === 1) return
    await delay(20)
  }
}
