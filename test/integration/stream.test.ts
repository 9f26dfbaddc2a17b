import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { chown, cp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { endCluster, freePort, startCluster } from '../../src/postgres/cluster-process.ts'
import { segmentAt, segmentName } from '../../src/postgres/wal-segment.ts'
import { drainSpool } from '../../src/protect/postgres/drain.ts'
import { coverage, listGaps } from '../../src/repository/wal-archive.ts'
import { listBranches } from '../../src/repository/wal-branch.ts'
import { skipUnlessInstalled, testCluster, type TestCluster } from '../services/postgres.ts'
import { waitUntil } from '../services/wait-until.ts'
import {
  compareWithServer,
  connect,
  flushLsn,
  onlyBranch,
  recoveredCommits,
  startReceiverProcess,
  startStream,
  streamHome,
  writeWal,
} from '../services/stream.ts'

const MAJORS = [18, 15]
const KEEP_WAL = { wal_keep_size: '1GB', wal_sender_timeout: '10s' }
const SYNCHRONOUS = { ...KEEP_WAL, synchronous_standby_names: 'FIRST 1 (resus)' }

for (const major of MAJORS) {
  test(`PostgreSQL ${major}: what is streamed is what the server has, byte for byte`, { skip: await skip(major) }, async (t) => {
    const cluster = await testCluster(t, { major, walSegmentMegabytes: 1, settings: KEEP_WAL })
    const home = await streamHome(t)
    const client = await connect(t, cluster.connectionString)
    await writeWal(client)
    const stream = startStream(t, home, { connectionString: cluster.connectionString })
    await stream.waitFor(({ kind }) => kind === 'connected')
    for (let round = 0; round < 8; round += 1) await writeWal(client)
    await client.query("SELECT pg_create_restore_point('a point'), pg_switch_wal()")
    await writeWal(client)
    const end = await flushLsn(client)
    await stream.waitFor((event) => event.kind === 'acknowledged' && event.lsn >= end)
    const { archivedTo } = await stream.stop()
    assert.ok(archivedTo >= end)
    const branch = await onlyBranch(home.repository)
    assert.equal((await coverage(home.repository, branch, branch.head.firstLsn)).endLsn, archivedTo)
    assert.ok((await compareWithServer(home.repository, branch, cluster.directory)) >= 8)
    const slots = await client.query('SELECT 1 FROM pg_replication_slots WHERE slot_name = $1 AND NOT active', ['resus'])
    assert.equal(slots.rowCount, 1)
  })

  test(
    `PostgreSQL ${major}: what a client was told is committed survives the server's and the receiver's end`,
    {
      skip: await skip(major),
    },
    async (t) => {
      const seed = randomInt(1_000_000)
      t.diagnostic(`seed ${seed}`)
      const cluster = await testCluster(t, { major, walSegmentMegabytes: 1, settings: KEEP_WAL })
      const home = await streamHome(t)
      const setup = await connect(t, cluster.connectionString)
      await setup.query('CREATE TABLE visit (id bigserial, filler text)')
      const receiver = startReceiverProcess(t, home, cluster.connectionString)
      await receiver.printed('connected')
      await setup.query("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (resus)'")
      await setup.query('SELECT pg_reload_conf()')
      await waitUntilSynchronous(setup)
      const writers = await startWriters(t, cluster, 4)
      await delay(300 + (seed % 700))
      await cluster.kill()
      await receiver.kill()
      const told = await writers.end()
      await rm(cluster.directory, { recursive: true })
      await drainSpool({ repository: home.repository, spoolDirectory: home.spoolDirectory, component: 'db' })
      const again = await drainSpool({ repository: home.repository, spoolDirectory: home.spoolDirectory, component: 'db' })
      assert.deepEqual(again.stored, [])
      const { xids } = await recoveredCommits(home.repository, await onlyBranch(home.repository))
      t.diagnostic(`${told.length} transactions were acknowledged, ${xids.size} recovered`)
      assert.ok(told.length > 0)
      assert.deepEqual(
        told.filter((xid) => !xids.has(xid)),
        [],
      )
    },
  )

  test(`PostgreSQL ${major}: a receiver killed at any moment goes on without a gap`, { skip: await skip(major) }, async (t) => {
    const seed = randomInt(1_000_000)
    t.diagnostic(`seed ${seed}`)
    const random = seeded(seed)
    const cluster = await testCluster(t, { major, walSegmentMegabytes: 1, settings: KEEP_WAL })
    const home = await streamHome(t)
    const setup = await connect(t, cluster.connectionString)
    await setup.query('CREATE TABLE visit (id bigserial, filler text)')
    const first = startReceiverProcess(t, home, cluster.connectionString)
    await first.printed('connected')
    await setup.query("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (resus)'")
    await setup.query('SELECT pg_reload_conf()')
    await waitUntilSynchronous(setup)
    const writers = await startWriters(t, cluster, 3)
    await delay(100 + random(400))
    await first.kill()
    for (let round = 0; round < 4; round += 1) {
      const receiver = startReceiverProcess(t, home, cluster.connectionString)
      if (random(3) > 0) await receiver.printed('connected')
      await delay(random(600))
      await receiver.kill()
    }
    const last = startStream(t, home, { connectionString: cluster.connectionString })
    await last.waitFor(({ kind }) => kind === 'acknowledged')
    await delay(200)
    const told = await writers.end()
    const end = await flushLsn(setup)
    await last.waitFor((event) => event.kind === 'acknowledged' && event.lsn >= end)
    await last.stop()
    await setup.query('ALTER SYSTEM RESET synchronous_standby_names')
    await setup.query('SELECT pg_reload_conf()')
    const branch = await onlyBranch(home.repository)
    const { holes } = await coverage(home.repository, branch, branch.head.firstLsn)
    assert.deepEqual(holes, [])
    const { xids, endLsn } = await recoveredCommits(home.repository, branch)
    assert.ok(endLsn >= end)
    t.diagnostic(`${told.length} transactions were acknowledged, ${xids.size} recovered`)
    assert.deepEqual(
      told.filter((xid) => !xids.has(xid)),
      [],
    )
    await compareWithServer(home.repository, branch, cluster.directory)
  })
}

for (const major of MAJORS) {
  test(
    `PostgreSQL ${major}: a cluster that was rolled back and has grown past the archived WAL, which ends with a segment, gets another branch, with all commits`,
    { skip: await skip(major) },
    async (t) => {
      const cluster = await testCluster(t, { major, walSegmentMegabytes: 1, settings: KEEP_WAL })
      const home = await streamHome(t)
      const { archivedTo: rolledBackTo } = await streamToBoundary(t, { cluster, home })
      await cluster.kill()
      const snapshot = join(cluster.home, 'snapshot')
      await cp(cluster.directory, snapshot, { recursive: true, preserveTimestamps: true })
      await chownLike(cluster.directory, snapshot)
      await cluster.start()
      const { archivedTo: end } = await streamToBoundary(t, { cluster, home, rounds: 4 })
      await cluster.kill()
      await rm(cluster.directory, { recursive: true })
      await cp(snapshot, cluster.directory, { recursive: true, preserveTimestamps: true })
      await chownLike(snapshot, cluster.directory)
      await cluster.start()
      const client = await connect(t, cluster.connectionString)
      const xids: number[] = []
      while ((await flushLsn(client)) < end + 3n * 1_048_576n) {
        const { rows } = await client.query<{ xid: string }>('SELECT pg_current_xact_id()::text AS xid')
        xids.push(Number(rows[0]!.xid))
        await writeWal(client, 'otherwise')
      }
      const stream = startStream(t, home, { connectionString: cluster.connectionString })
      await stream.waitFor(({ kind }) => kind === 'diverged')
      const last = await flushLsn(client)
      await stream.waitFor((event) => event.kind === 'archived' && event.branch.head.ordinal === 1 && event.lsn >= last)
      await stream.stop()
      const [first, second] = await listBranches(home.repository, 'db')
      // Nothing of the new way is joined to the old one.
      assert.equal((await coverage(home.repository, first!, first!.head.firstLsn)).endLsn, end)
      assert.ok(second!.head.firstLsn <= rolledBackTo)
      const recovered = await recoveredCommits(home.repository, second!)
      assert.ok(recovered.endLsn >= last)
      assert.deepEqual(
        xids.filter((xid) => !recovered.xids.has(xid)),
        [],
      )
    },
  )
}

test('a segment that is asked for only to be compared, and that the server has removed, is no gap', async (t) => {
  const settings = { wal_keep_size: '0', min_wal_size: '2MB', max_wal_size: '2MB' }
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings })
  const home = await streamHome(t)
  const { archivedTo } = await streamToBoundary(t, { cluster, home })
  const client = await connect(t, cluster.connectionString)
  const before = segmentName(segmentAt(archivedTo - 1n, 1, 1_048_576))
  while ((await readdir(join(cluster.directory, 'pg_wal'))).includes(before)) {
    await writeWal(client)
    await client.query('CHECKPOINT')
  }
  const stream = startStream(t, home, { connectionString: cluster.connectionString })
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
  await stream.stop()
  assert.ok(stream.events.some((event) => event.kind === 'disconnected' && event.code === 'SLOT_LOST'))
  const branch = await onlyBranch(home.repository)
  assert.deepEqual(await listGaps(home.repository, branch), [])
  assert.deepEqual((await coverage(home.repository, branch, branch.head.firstLsn)).holes, [])
})

test('while the storage fails, WAL is acknowledged, kept, and stored when it is back', async (t) => {
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: SYNCHRONOUS })
  const home = await streamHome(t)
  const stream = startStream(t, home, { connectionString: cluster.connectionString })
  await stream.waitFor(({ kind }) => kind === 'connected')
  const client = await connect(t, cluster.connectionString)
  await writeWal(client)
  home.faults = ({ operation, call }) => (operation === 'put' ? (['error', 'torn', 'full'] as const)[call % 3] : undefined)
  // Each of these commits waits for an acknowledgement: none would come if the receiver waited for the storage.
  for (let round = 0; round < 6; round += 1) await writeWal(client)
  const end = await flushLsn(client)
  await stream.waitFor(({ kind }) => kind === 'alarm')
  // A server that comes back meanwhile is streamed from, too.
  await cluster.stop('fast')
  await cluster.start()
  const again = await connect(t, cluster.connectionString)
  await writeWal(again)
  const later = await flushLsn(again)
  assert.ok(stream.events.every((event) => event.kind !== 'archived' || event.lsn < end))
  home.faults = () => undefined
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= later)
  await stream.stop()
  await compareWithServer(home.repository, await onlyBranch(home.repository), cluster.directory)
})

test('a storage that stalls is an alarm, and is tried again', async (t) => {
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: KEEP_WAL })
  const home = await streamHome(t)
  const stream = startStream(t, home, { connectionString: cluster.connectionString, storageTimeoutMs: 200 })
  await stream.waitFor(({ kind }) => kind === 'connected')
  home.faults = ({ operation }) => (operation === 'put' ? 'stall' : undefined)
  const client = await connect(t, cluster.connectionString)
  await writeWal(client)
  await stream.waitFor((event) => event.kind === 'alarm' && event.code === 'STORAGE_STALLED')
  home.faults = () => undefined
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
  await stream.stop()
  assert.ok(stream.events.some((event) => event.kind === 'cleared' && event.code === 'STORAGE_STALLED'))
})

test('a full spool stops the reading, not the server, and goes on when the storage is back', async (t) => {
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: KEEP_WAL })
  const home = await streamHome(t)
  const stream = startStream(t, home, { connectionString: cluster.connectionString, spoolBytesMax: 1 })
  await stream.waitFor(({ kind }) => kind === 'connected')
  home.faults = ({ operation }) => (operation === 'put' ? 'error' : undefined)
  const client = await connect(t, cluster.connectionString)
  for (let round = 0; round < 10; round += 1) await writeWal(client)
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'alarm' && event.code === 'SPOOL_FULL')
  assert.ok(stream.events.every((event) => event.kind !== 'acknowledged' || event.lsn < end))
  home.faults = () => undefined
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
  await stream.stop()
  await compareWithServer(home.repository, await onlyBranch(home.repository), cluster.directory)
})

test('a slot that another receiver uses is SLOT_BUSY, and the other goes on', async (t) => {
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: KEEP_WAL })
  const [home, other] = [await streamHome(t), await streamHome(t)]
  const stream = startStream(t, home, { connectionString: cluster.connectionString })
  await stream.waitFor(({ kind }) => kind === 'connected')
  const second = startStream(t, other, { connectionString: cluster.connectionString })
  await assert.rejects(second.result, {
    code: 'SLOT_BUSY',
    message: /"resus" is in use by a living receiver: process \d+ of the server serves "resus" at 127\.0\.0\.1:\d+/,
  })
  const client = await connect(t, cluster.connectionString)
  await writeWal(client)
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'acknowledged' && event.lsn >= end)
})

test('a server that restarts, and one that is killed, is streamed on from', async (t) => {
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: KEEP_WAL })
  const home = await streamHome(t)
  const stream = startStream(t, home, { connectionString: cluster.connectionString })
  await stream.waitFor(({ kind }) => kind === 'connected')
  let end = 0n
  for (const how of ['stop', 'kill', 'kill'] as const) {
    const client = await connect(t, cluster.connectionString)
    for (let round = 0; round < 3; round += 1) await writeWal(client)
    await (how === 'stop' ? cluster.stop('fast') : cluster.kill())
    await cluster.start()
    const after = await connect(t, cluster.connectionString)
    await writeWal(after)
    end = await flushLsn(after)
    await stream.waitFor((event) => event.kind === 'acknowledged' && event.lsn >= end)
  }
  await stream.stop()
  assert.ok(stream.events.filter(({ kind }) => kind === 'disconnected').length >= 3)
  const branch = await onlyBranch(home.repository)
  assert.ok((await coverage(home.repository, branch, branch.head.firstLsn)).endLsn >= end)
  await compareWithServer(home.repository, branch, cluster.directory)
})

test('a promotion is followed to the next timeline, whose branch begins with the segment of the switch', async (t) => {
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: KEEP_WAL })
  await writeWal(await connect(t, cluster.connectionString))
  await cluster.stop('fast')
  const standby = await startStandby(t, cluster)
  const home = await streamHome(t)
  const stream = startStream(t, home, { connectionString: standby.connectionString })
  await stream.waitFor(({ kind }) => kind === 'connected')
  const client = await connect(t, standby.connectionString)
  await client.query('SELECT pg_promote(true)')
  const switched = await stream.waitFor(({ kind }) => kind === 'switched')
  assert.ok(switched.kind === 'switched' && switched.timeline === 2)
  for (let round = 0; round < 3; round += 1) await writeWal(client)
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'archived' && event.branch.head.timeline === 2 && event.lsn >= end)
  await stream.stop()
  const [first, second] = await listBranches(home.repository, 'db')
  assert.equal(first?.head.timeline, 1)
  assert.equal(second?.head.timeline, 2)
  assert.match(second.head.history, /^1\t/)
  assert.equal(second.head.firstLsn, switched.lsn - (switched.lsn % 1_048_576n))
  assert.equal((await coverage(home.repository, first, first.head.firstLsn)).endLsn, switched.lsn)
  assert.ok((await compareWithServer(home.repository, second, standby.directory)) >= 2)
})

test('WAL that the server no longer has is recorded as a gap, and the stream goes on behind it', async (t) => {
  const settings = { wal_keep_size: '0', min_wal_size: '2MB', max_wal_size: '2MB' }
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings })
  const home = await streamHome(t)
  const stream = startStream(t, home, { connectionString: cluster.connectionString })
  await stream.waitFor(({ kind }) => kind === 'connected')
  const client = await connect(t, cluster.connectionString)
  await writeWal(client)
  const { archivedTo } = await stream.stop()
  await client.query("SELECT pg_drop_replication_slot('resus')")
  for (let round = 0; round < 6; round += 1) await writeWal(client)
  await client.query('CHECKPOINT')
  await client.query('CHECKPOINT')
  const again = startStream(t, home, { connectionString: cluster.connectionString })
  const gap = await again.waitFor(({ kind }) => kind === 'gap')
  await writeWal(client)
  const end = await flushLsn(client)
  await again.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
  await again.stop()
  const branch = await onlyBranch(home.repository)
  const [recorded] = await listGaps(home.repository, branch)
  assert.ok(gap.kind === 'gap' && recorded !== undefined)
  assert.deepEqual({ from: recorded.from, to: recorded.to }, { from: gap.from, to: gap.to })
  assert.equal(gap.from, archivedTo)
  const covered = await coverage(home.repository, branch, branch.head.firstLsn)
  assert.deepEqual(covered.holes, [{ from: gap.from, to: gap.to }])
  assert.ok((await coverage(home.repository, branch, gap.to)).endLsn >= end)
})

test('a cluster that was rolled back and went another way gets another branch', async (t) => {
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: KEEP_WAL })
  const home = await streamHome(t)
  const stream = startStream(t, home, { connectionString: cluster.connectionString })
  await stream.waitFor(({ kind }) => kind === 'connected')
  await writeWal(await connect(t, cluster.connectionString))
  await cluster.kill()
  const snapshot = join(cluster.home, 'snapshot')
  await cp(cluster.directory, snapshot, { recursive: true, preserveTimestamps: true })
  await chownLike(cluster.directory, snapshot)
  await cluster.start()
  const client = await connect(t, cluster.connectionString)
  for (let round = 0; round < 3; round += 1) await writeWal(client)
  const firstEnd = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= firstEnd)
  await cluster.kill()
  await rm(cluster.directory, { recursive: true })
  await cp(snapshot, cluster.directory, { recursive: true, preserveTimestamps: true })
  await chownLike(snapshot, cluster.directory)
  await cluster.start()
  const other = await connect(t, cluster.connectionString)
  for (let round = 0; round < 3; round += 1) await writeWal(other, 'otherwise')
  await stream.waitFor(({ kind }) => kind === 'diverged')
  const end = await flushLsn(other)
  await stream.waitFor((event) => event.kind === 'archived' && event.branch.head.ordinal === 1 && event.lsn >= end)
  await stream.stop()
  const [first, second] = await listBranches(home.repository, 'db')
  assert.deepEqual([first?.head.ordinal, second?.head.ordinal], [0, 1])
  assert.ok((await coverage(home.repository, first!, first!.head.firstLsn)).endLsn >= firstEnd)
  await compareWithServer(home.repository, second!, cluster.directory)
})

test('a backup brings its own WAL through a temporary slot and ends when it is archived', async (t) => {
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: KEEP_WAL })
  const home = await streamHome(t)
  const client = await connect(t, cluster.connectionString)
  await writeWal(client)
  const startLsn = await flushLsn(client)
  let target: bigint | null = null
  const stream = startStream(t, home, {
    connectionString: cluster.connectionString,
    temporarySlot: true,
    startLsn,
    stopWhenArchived: () => target,
  })
  await stream.waitFor(({ kind }) => kind === 'connected')
  for (let round = 0; round < 3; round += 1) await writeWal(client)
  target = await flushLsn(client)
  const { archivedTo, branch } = await stream.result
  assert.ok(archivedTo >= target)
  assert.ok(branch !== undefined && branch.head.firstLsn <= startLsn)
  assert.ok((await coverage(home.repository, branch, startLsn)).endLsn >= target)
  const slots = await client.query('SELECT 1 FROM pg_replication_slots')
  assert.equal(slots.rowCount, 0)
})

async function skip(major: number): Promise<string | false> {
  return await skipUnlessInstalled(major)
}

/** Numbers below a bound, the same for the same seed (a linear congruential generator). */
function seeded(seed: number): (bound: number) => number {
  let state = seed
  return (bound) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * bound)
  }
}

async function waitUntilSynchronous(client: pg.Client): Promise<void> {
  for (;;) {
    const { rowCount } = await client.query("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
    if (rowCount === 1) return
    await delay(20)
  }
}

/** Clients that commit one row after the other; `end` gives the transactions that they were told are committed. */
async function startWriters(t: TestContext, cluster: TestCluster, count: number): Promise<{ end(): Promise<number[]> }> {
  let ended = false
  const told: number[] = []
  const write = async (client: pg.Client) => {
    while (!ended) {
      try {
        await client.query('BEGIN')
        await client.query("INSERT INTO visit (filler) VALUES (repeat('x', 500))")
        const { rows } = await client.query<{ xid: string }>('SELECT pg_current_xact_id()::text AS xid')
        await client.query('COMMIT')
        told.push(Number(rows[0]!.xid))
      } catch {
        // The server is gone: what was not confirmed does not count.
        return
      }
    }
  }
  const clients = await Promise.all(Array.from({ length: count }, () => connect(t, cluster.connectionString)))
  const writing = clients.map(write)
  await waitUntil('something is committed', () => told.length > 0)
  return {
    end: async () => {
      ended = true
      await Promise.all(writing)
      return told
    },
  }
}

/** Streams until what is archived ends with a segment, and stops. */
async function streamToBoundary(
  t: TestContext,
  { cluster, home, rounds = 1 }: { cluster: TestCluster; home: Awaited<ReturnType<typeof streamHome>>; rounds?: number },
): Promise<{ archivedTo: bigint }> {
  for (;;) {
    const stream = startStream(t, home, { connectionString: cluster.connectionString })
    await stream.waitFor(({ kind }) => kind === 'connected')
    const client = await connect(t, cluster.connectionString)
    for (let round = 0; round < rounds; round += 1) await writeWal(client)
    await client.query('SELECT pg_switch_wal()')
    const end = await flushLsn(client)
    await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
    const { archivedTo } = await stream.stop()
    // The server may have written a record of its own meanwhile.
    if (archivedTo % 1_048_576n === 0n) return { archivedTo }
  }
}

/** A standby on a copy of a stopped cluster; it follows nobody and can be promoted. */
async function startStandby(t: TestContext, cluster: TestCluster): Promise<{ connectionString: string; directory: string }> {
  const directory = join(cluster.home, 'standby')
  await cp(cluster.directory, directory, { recursive: true, preserveTimestamps: true })
  await writeFile(join(directory, 'standby.signal'), '')
  await chownLike(cluster.directory, directory)
  t.after(() => endCluster(directory))
  const port = await freePort()
  await startCluster({
    installation: cluster.installation,
    directory,
    port,
    socketDirectory: join(cluster.home, 'standby-socket'),
    logFile: join(cluster.home, 'standby.log'),
    settings: { ...KEEP_WAL, listen_addresses: '127.0.0.1', fsync: 'off', dynamic_shared_memory_type: 'mmap' },
  })
  return { connectionString: `postgres://postgres@127.0.0.1:${port}/postgres`, directory }
}

/** A copy made by root belongs to root: the server needs it to be its own. */
async function chownLike(source: string, target: string): Promise<void> {
  const { uid, gid } = await stat(source)
  const entries = await readdir(target, { recursive: true })
  for (const entry of ['', ...entries]) await chown(join(target, entry), uid, gid)
}
