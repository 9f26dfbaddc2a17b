import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { parseSegmentName, segmentStart } from '../../src/postgres/wal-segment.ts'
import { joinRanges } from '../../src/protect/postgres/spool.ts'
import type { Branch } from '../../src/repository/wal-branch.ts'
import { askRestored, assertNothingLost, resusHome, ResusProcess, runResus, Writers } from '../faults/fault-scene.ts'
import { Random } from '../faults/random.ts'
import { skipUnlessInstalled, testCluster } from '../services/postgres.ts'
import { compareWithServer, connect, flushLsn, onlyBranch, startStream, streamHome, writeWal } from '../services/stream.ts'

const KEEP_WAL = { wal_keep_size: '1GB', wal_sender_timeout: '10s' }
const WRITERS = 4
const SYNCHRONOUS = { ...KEEP_WAL, synchronous_standby_names: 'FIRST 1 (resus)' }
const BY_REPOSITORY = { acknowledge: 'repository', synchronous: true } as const

for (const major of [18, 15]) {
  const name = `PostgreSQL ${major}: acknowledged by the repository, no commit is lost with the receiver's spool, host and server`
  test(name, { skip: await skipUnlessInstalled(major) }, async (t) => {
    const seed = randomInt(1_000_000)
    const random = new Random(seed)
    t.diagnostic(`seed ${seed}`)
    await using cluster = await testCluster(t, { major, walSegmentMegabytes: 1 })
    const home = await resusHome(cluster, { ...BY_REPOSITORY, slot: 'resus' })
    const client = await connect(t, cluster.connectionString)
    const receiver = new ResusProcess(t, home, ['stream', 'his-db'])
    await receiver.printed('connected:')
    await client.query(`alter system set synchronous_standby_names = 'FIRST 1 (resus)'`)
    await client.query('select pg_reload_conf()')
    await waitUntilSynchronous(client)
    const writers = await Writers.start(t, cluster, WRITERS)
    await runResus(t, home, ['backup', 'his-db'])
    // Enough for several segments, so that the kill may come while one is on its way whole.
    await writeWal(client)
    await delay(200 + random.below(1000))
    await receiver.kill()
    await cluster.kill()
    const acknowledged = await writers.end()
    await rm(join(home.directory, 'state'), { recursive: true })
    await rm(cluster.directory, { recursive: true })

    const to = join(cluster.home, 'restored')
    await runResus(t, home, ['restore', 'his-db', '--latest', '--to', to])
    await askRestored({ ...cluster, directory: to }, async (restored) => {
      const total = await assertNothingLost(restored, acknowledged)
      assert.ok(total > 0, 'the writers have written')
      t.diagnostic(`${total} writes were acknowledged, lost: 0`)
    })
  })
}

test('acknowledged by the repository, a commit waits while the storage is away, and returns when it is back', async (t) => {
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: SYNCHRONOUS })
  const home = await streamHome(t)
  const stream = startStream(t, home, { connectionString: cluster.connectionString, settings: BY_REPOSITORY })
  await stream.waitFor(({ kind }) => kind === 'connected')
  const client = await connect(t, cluster.connectionString)
  await writeWal(client)
  home.faults = ({ operation }) => (operation === 'put' ? 'error' : undefined)
  const before = await flushLsn(client)
  let returned = false
  const commit = writeWal(client, 'waiting').then(() => (returned = true))
  await stream.waitFor((event) => event.kind === 'alarm' && event.code === 'STORAGE_UNREACHABLE')
  const alarm = stream.events.find((event) => event.kind === 'alarm')
  assert.ok(alarm?.kind === 'alarm' && alarm.backlog !== undefined && alarm.backlog.waitingBytes > 0)
  assert.equal(returned, false)
  assert.ok(stream.events.every((event) => event.kind !== 'acknowledged' || event.lsn <= before))
  home.faults = () => undefined
  await commit
  const end = await flushLsn(client)
  await stream.waitFor((event) => event.kind === 'acknowledged' && event.lsn >= end)
  await stream.waitFor((event) => event.kind === 'cleared' && event.code === 'STORAGE_UNREACHABLE')
  await stream.stop()
  const branch = await onlyBranch(home.repository)
  assert.ok((await compareWithServer(home.repository, branch, cluster.directory)) >= 1)
})

test('acknowledged by the repository, nothing is acknowledged that the repository does not have at that instant', async (t) => {
  const cluster = await testCluster(t, { major: 18, walSegmentMegabytes: 1, settings: SYNCHRONOUS })
  const home = await streamHome(t)
  let checks = 0
  const beyond: string[] = []
  // Every third put of a piece fails: what comes behind it must not be stored before it.
  home.faults = ({ operation, key, call }) => (operation === 'put' && key.includes('.') && call % 3 === 0 ? 'torn' : undefined)
  const stream = startStream(t, home, {
    connectionString: cluster.connectionString,
    settings: BY_REPOSITORY,
    onEvent: (event) => {
      if (event.kind !== 'acknowledged') return
      checks += 1
      const stored = storedTo(home.repositoryDirectory, event.branch)
      if (stored < event.lsn) beyond.push(`${event.lsn} was acknowledged, the repository reaches to ${stored}`)
    },
  })
  const clients = await Promise.all(Array.from({ length: 4 }, () => connect(t, cluster.connectionString)))
  await clients[0]!.query('create table visit (id bigserial, filler text)')
  const write = async (client: pg.Client) => {
    for (let row = 0; row < 25; row += 1) await client.query(`insert into visit (filler) values (repeat('x', 20000))`)
  }
  await Promise.all(clients.map(write))
  const end = await flushLsn(clients[0]!)
  const { durableLsn, archivedTo } = await stream.stop()
  assert.deepEqual(beyond, [])
  assert.ok(checks > 10, `${checks} acknowledgements`)
  assert.ok(durableLsn >= end && archivedTo >= end)
  await compareWithServer(home.repository, await onlyBranch(home.repository), cluster.directory)
})

/** How far a directory storage has a branch without a hole, at this very instant. */
function storedTo(repositoryDirectory: string, { path, head }: Branch): bigint {
  const names = readdirSync(join(repositoryDirectory, 'wal', path.component, path.incarnation, path.branch))
  const ranges = names.flatMap((name) => {
    const [, segment, from, to] = /^([0-9A-F]{24})(?:\.([0-9a-f]{8})-([0-9a-f]{8}))?$/.exec(name) ?? []
    if (segment === undefined) return []
    const start = segmentStart(parseSegmentName(segment, head.segmentSize)!)
    const offset = (hex: string | undefined, whole: number) =>
      start + BigInt(hex === undefined ? whole : Number.parseInt(hex, 16))
    return [{ startLsn: offset(from, 0), endLsn: offset(to, head.segmentSize) }]
  })
  const [whole, ...more] = joinRanges(ranges)
  // Nothing lies behind a hole, at any instant: a crash now would leave a repository that restores to its latest.
  assert.deepEqual(more, [], 'stretches behind a hole')
  return whole === undefined ? head.firstLsn : whole.to
}

async function waitUntilSynchronous(client: pg.Client): Promise<void> {
  for (;;) {
    const { rowCount } = await client.query(`select 1 from pg_stat_replication where sync_state = 'sync'`)
    if (rowCount === 1) return
    await delay(20)
  }
}
