import assert from 'node:assert/strict'
import { chmod, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { drainSpool } from '../../src/protect/postgres/drain.ts'
import type { StreamEvent } from '../../src/protect/postgres/stream-event.ts'
import { coverage, listGaps } from '../../src/repository/wal-archive.ts'
import { askRestored, assertNothingLost, resusHome, ResusProcess, runResus, Writers } from '../faults/fault-scene.ts'
import { skipUnlessInstalled, testCluster } from '../services/postgres.ts'
import { compareWithServer, connect, flushLsn, onlyBranch, startStream, streamHome, writeWal } from '../services/stream.ts'

const KEEP_WAL = { wal_keep_size: '1GB', wal_sender_timeout: '10s' }
const SMALL_WAL = { wal_keep_size: '0', min_wal_size: '2MB', max_wal_size: '2MB' }

test('told to stop while the storage stalls, the receiver ends, and what it acknowledged is in the spool', async (t) => {
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: KEEP_WAL })
  const home = await streamHome(t)
  const stream = startStream(t, home, { connectionString: cluster.connectionString })
  await stream.waitFor(({ kind }) => kind === 'connected')
  home.faults = ({ operation }) => (operation === 'put' ? 'stall' : undefined)
  const client = await connect(t, cluster.connectionString)
  for (let round = 0; round < 2; round += 1) await writeWal(client)
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'acknowledged' && event.lsn >= end)
  const { archivedTo } = await stream.stop()
  assert.ok(archivedTo < end)
  assert.ok(stream.events.some((event) => event.kind === 'alarm' && /the rest is in the spool/.test(event.message)))
  home.faults = () => undefined
  await drainSpool({ repository: home.repository, spoolDirectory: home.spoolDirectory, component: 'db' })
  const branch = await onlyBranch(home.repository)
  assert.ok((await coverage(home.repository, branch, branch.head.firstLsn)).endLsn >= end)
  await compareWithServer(home.repository, branch, cluster.directory)
})

test('a storage that never answers and heeds no signal is an alarm, also when the receiver starts, and does not keep it from ending', async (t) => {
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: KEEP_WAL })
  const home = await streamHome(t)
  const stalled = (event: StreamEvent) => event.kind === 'alarm' && event.code === 'STORAGE_STALLED'
  const first = startStream(t, home, { connectionString: cluster.connectionString, storageTimeoutMs: 2000 })
  await first.waitFor(({ kind }) => kind === 'connected')
  home.faults = ({ operation }) => (operation === 'put' ? 'deaf' : undefined)
  await writeWal(await connect(t, cluster.connectionString))
  await first.waitFor(stalled)
  await first.stop()
  for (const operation of ['put', 'list'] as const) {
    home.faults = (decision) => (decision.operation === operation ? 'deaf' : undefined)
    const again = startStream(t, home, { connectionString: cluster.connectionString, storageTimeoutMs: 100 })
    await again.waitFor(stalled)
    await again.stop()
  }
})

test('after a damaged spool file the rest of the spool is archived without a restart', async (t) => {
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: KEEP_WAL })
  const home = await streamHome(t)
  const client = await connect(t, cluster.connectionString)
  const stream = startStream(t, home, { connectionString: cluster.connectionString })
  await stream.waitFor(({ kind }) => kind === 'connected')
  home.faults = ({ operation }) => (operation === 'put' ? 'error' : undefined)
  // More than what is still in memory.
  for (let round = 0; round < 10; round += 1) await writeWal(client)
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'acknowledged' && event.lsn >= end)
  await stream.waitFor(({ kind }) => kind === 'alarm')
  const files = (await readdir(home.spoolDirectory)).filter((name) => name.endsWith('.spool')).toSorted()
  await flipByte(join(home.spoolDirectory, files[1]!), 50_000)
  home.faults = () => undefined
  await stream.waitFor((event) => event.kind === 'disconnected' && event.code === 'SPOOL_DAMAGED')
  await writeWal(client)
  const later = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= later)
  await stream.stop()
  const branch = await onlyBranch(home.repository)
  const { holes } = await coverage(home.repository, branch, branch.head.firstLsn)
  // One damaged frame, not all segments behind it.
  const size = BigInt(branch.head.segmentSize)
  assert.deepEqual(
    holes.map(({ from, to }) => [from / size - branch.head.firstLsn / size, to - from <= size]),
    [[1n, true]],
  )
})

test('a backup that is given up does not wait for the storage to take its WAL', async (t) => {
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: KEEP_WAL })
  const home = await streamHome(t)
  const stream = startStream(t, home, { connectionString: cluster.connectionString, temporarySlot: true })
  await stream.waitFor(({ kind }) => kind === 'connected')
  home.faults = ({ operation }) => (operation === 'put' ? 'stall' : undefined)
  const client = await connect(t, cluster.connectionString)
  await writeWal(client)
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'acknowledged' && event.lsn >= end)
  await stream.stop()
  // A receiver that waits for the storage in vain says so at the end.
  assert.deepEqual(
    stream.events.filter(({ kind }) => kind === 'alarm'),
    [],
  )
})

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(
    `PostgreSQL ${major}: SIGTERM while the storage refuses ends "resus stream", and no acknowledged write is lost`,
    { skip },
    async (t) => {
      await using cluster = await testCluster(t, { major, walSegmentMegabytes: 1 })
      const home = await resusHome(cluster, { synchronous: true, partialEverySeconds: 1 })
      const client = await connect(t, cluster.connectionString)
      const receiver = new ResusProcess(t, home, ['stream', 'his-db'])
      await receiver.printed('connected:')
      await client.query(`alter system set synchronous_standby_names = 'FIRST 1 (resus)'`)
      await client.query('select pg_reload_conf()')
      await untilSynchronous(client)
      await runResus(t, home, ['backup', 'his-db'])
      const closed = await closeDirectories(join(home.directory, 'repository'))
      const writers = await Writers.start(t, cluster, 3)
      await writeWal(client)
      await receiver.printed('wait in the spool')
      receiver.signal('SIGTERM')
      const { status, stdout, stderr } = await receiver.exited
      assert.equal(status, 0, stderr)
      assert.match((JSON.parse(stdout) as { acknowledged: string }).acknowledged, /^[0-9A-F]+\/[0-9A-F]+$/)
      await cluster.kill()
      const acknowledged = await writers.end()
      for (const path of closed) await chmod(path, 0o700)
      const to = join(cluster.home, 'restored')
      await runResus(t, home, ['restore', 'his-db', '--latest', '--to', to])
      await askRestored({ ...cluster, directory: to }, async (restored) => {
        assert.ok((await assertNothingLost(restored, acknowledged)) > 0)
      })
    },
  )

  test(
    `PostgreSQL ${major}: a slot that was dropped is made again; there is no gap while the server has the WAL`,
    { skip },
    async (t) => {
      const cluster = await testCluster(t, { major, walSegmentMegabytes: 1, settings: KEEP_WAL })
      const home = await streamHome(t)
      const client = await connect(t, cluster.connectionString)
      const first = startStream(t, home, { connectionString: cluster.connectionString })
      await first.waitFor(({ kind }) => kind === 'connected')
      await writeWal(client)
      await first.stop()
      await client.query(`select pg_drop_replication_slot('resus')`)
      for (let round = 0; round < 4; round += 1) await writeWal(client)
      await client.query('checkpoint')
      await assertNoGap(t, { home, client, cluster })
    },
  )

  test(`PostgreSQL ${major}: a slot that lost WAL to max_slot_wal_keep_size is a gap, recorded once`, { skip }, async (t) => {
    const settings = { ...SMALL_WAL, max_slot_wal_keep_size: '2MB' }
    const cluster = await testCluster(t, { major, walSegmentMegabytes: 1, settings })
    const home = await streamHome(t)
    const client = await connect(t, cluster.connectionString)
    const first = startStream(t, home, { connectionString: cluster.connectionString })
    await first.waitFor(({ kind }) => kind === 'connected')
    await writeWal(client)
    const { archivedTo } = await first.stop()
    for (let round = 0; round < 8; round += 1) await writeWal(client)
    await client.query('checkpoint')
    const { rows } = await client.query('select wal_status from pg_replication_slots')
    assert.deepEqual(rows, [{ wal_status: 'lost' }])
    const again = startStream(t, home, { connectionString: cluster.connectionString })
    const gap = await again.waitFor(({ kind }) => kind === 'gap')
    await writeWal(client)
    const end = await flushLsn(client)
    await again.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
    await again.stop()
    const branch = await onlyBranch(home.repository)
    const gaps = await listGaps(home.repository, branch)
    assert.ok(gap.kind === 'gap')
    assert.deepEqual(
      gaps.map(({ from, to }) => ({ from, to })),
      [{ from: archivedTo, to: gap.to }],
    )
    assert.ok((await coverage(home.repository, branch, gap.to)).endLsn >= end)
  })
}

test(
  'a slot that PostgreSQL 18 has invalidated for being idle is made again, without a gap',
  { skip: await skipUnlessInstalled(18) },
  async (t) => {
    const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: KEEP_WAL })
    const home = await streamHome(t)
    const client = await connect(t, cluster.connectionString)
    const first = startStream(t, home, { connectionString: cluster.connectionString })
    await first.waitFor(({ kind }) => kind === 'connected')
    await writeWal(client)
    await first.stop()
    await client.query(`alter system set idle_replication_slot_timeout = '1s'`)
    await client.query('select pg_reload_conf()')
    for (;;) {
      await writeWal(client)
      await client.query('checkpoint')
      const { rows } = await client.query<{ reason: string | null }>(
        'select invalidation_reason as reason from pg_replication_slots',
      )
      if (rows[0]?.reason === 'idle_timeout') break
      await delay(200)
    }
    await client.query('alter system reset idle_replication_slot_timeout')
    await client.query('select pg_reload_conf()')
    await assertNoGap(t, { home, client, cluster })
  },
)

interface Scene {
  readonly home: Awaited<ReturnType<typeof streamHome>>
  readonly client: pg.Client
  readonly cluster: Awaited<ReturnType<typeof testCluster>>
}

/** A receiver that starts now brings everything, from the first byte to the last. */
async function assertNoGap(t: Parameters<typeof streamHome>[0], { home, client, cluster }: Scene): Promise<void> {
  const stream = startStream(t, home, { connectionString: cluster.connectionString })
  await stream.waitFor(({ kind }) => kind === 'connected')
  await writeWal(client)
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'archived' && event.lsn >= end)
  await stream.stop()
  const branch = await onlyBranch(home.repository)
  assert.deepEqual(await listGaps(home.repository, branch), [])
  const { endLsn, holes } = await coverage(home.repository, branch, branch.head.firstLsn)
  assert.ok(endLsn >= end)
  assert.deepEqual(holes, [])
  await compareWithServer(home.repository, branch, cluster.directory)
}

/** A repository that takes nothing more: no directory of it may be written. Gives those that it closed. */
async function closeDirectories(root: string): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true })
  const closed = [root, ...entries.filter((entry) => entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name))]
  for (const path of closed) await chmod(path, 0o500)
  return closed
}

async function flipByte(path: string, offset: number): Promise<void> {
  const bytes = await readFile(path)
  bytes[offset] = bytes[offset]! ^ 1
  await writeFile(path, bytes)
}

async function untilSynchronous(client: pg.Client): Promise<void> {
  for (;;) {
    const { rowCount } = await client.query(`select 1 from pg_stat_replication where sync_state = 'sync'`)
    if (rowCount === 1) return
    await delay(20)
  }
}
