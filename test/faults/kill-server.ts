import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import assert from 'node:assert/strict'
import type pg from 'pg'
import { connect } from '../services/stream.ts'
import { testCluster } from '../services/postgres.ts'
import { askRestored, assertNothingLost, resusHome, ResusProcess, runResus, Writers, type ResusHome } from './fault-scene.ts'
import { Random } from './random.ts'

const WRITERS = 4
const RUN_MS_MAX = 1000
const PAUSE_MS_MAX = 500
const RECEIVER_KILLS = 2

/** SIGKILL of the server, and its data directory with it, while a receiver is its synchronous standby: nothing acknowledged is lost. */
export async function killServers(t: TestContext, seeds: readonly number[]): Promise<void> {
  for (const seed of seeds) await loseServer(t, { seed, receiverKills: 0 })
}

/** The same, after SIGKILL of the receiver, again and again, while the writers go on. */
export async function killReceivers(t: TestContext, seeds: readonly number[]): Promise<void> {
  for (const seed of seeds) await loseServer(t, { seed, receiverKills: RECEIVER_KILLS })
}

async function loseServer(t: TestContext, { seed, receiverKills }: { seed: number; receiverKills: number }): Promise<void> {
  const random = new Random(seed)
  await using cluster = await testCluster(t, { major: 18 })
  const home = await resusHome(cluster, { synchronous: true, slot: 'resus', partialEverySeconds: 1 })
  const client = await connect(t, cluster.connectionString)
  let receiver = await startReceiver(t, home)
  await client.query(`alter system set synchronous_standby_names = 'FIRST 1 (resus)'`)
  await client.query('select pg_reload_conf()')
  await waitUntilSynchronous(client)
  const writers = await Writers.start(t, cluster, WRITERS)
  await runResus(t, home, ['backup', 'his-db'])
  for (let kill = 0; kill < receiverKills; kill++) {
    await delay(random.below(RUN_MS_MAX))
    await receiver.kill()
    await delay(random.below(PAUSE_MS_MAX))
    receiver = random.below(3) > 0 ? await startReceiver(t, home) : new ResusProcess(t, home, ['stream', 'his-db'])
  }
  if (receiverKills > 0) await waitUntilSynchronous(client)
  const before = writers.acknowledged()
  await delay(random.below(RUN_MS_MAX))
  // The receiver may die first, last, or live on.
  const fate = random.pick(['lives', 'dies first', 'dies last'] as const)
  if (fate === 'dies first') await receiver.kill()
  await cluster.kill()
  if (fate === 'dies last') await receiver.kill()
  const acknowledged = await writers.end()
  await rm(cluster.directory, { recursive: true })

  const to = join(cluster.home, 'restored')
  await runResus(t, home, ['restore', 'his-db', '--latest', '--to', to])
  await receiver.kill()
  await askRestored({ ...cluster, directory: to }, async (restored) => {
    const total = await assertNothingLost(restored, acknowledged)
    assert.ok(before.every((each, writer) => each <= acknowledged[writer]!) && total > 0, 'the writers have written')
    t.diagnostic(`seed ${seed}, the receiver ${fate}: ${total} writes were acknowledged, lost: 0`)
  })
}

async function startReceiver(t: TestContext, home: ResusHome): Promise<ResusProcess> {
  const receiver = new ResusProcess(t, home, ['stream', 'his-db'])
  await receiver.printed('connected:')
  return receiver
}

async function waitUntilSynchronous(client: pg.Client): Promise<void> {
  for (;;) {
    const { rowCount } = await client.query(`select 1 from pg_stat_replication where sync_state = 'sync'`)
    if (rowCount === 1) return
    await delay(20)
  }
}
