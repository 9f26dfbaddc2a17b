import assert from 'node:assert/strict'
import { readFile, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import test, { after } from 'node:test'
import pg from 'pg'
import { heartbeatSetup } from '../../src/protect/postgres/heartbeat-setup.ts'
import { assertNothingLost, askRestored, Writers } from '../faults/fault-scene.ts'
import { withoutSchedules } from '../services/control-plane.ts'
import { nodeProcess, type NodeProcess } from '../services/node-process.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { stopTestStore, testDatabase } from '../services/store.ts'
import { waitUntil } from '../services/wait-until.ts'

after(stopTestStore)
const skip = await skipUnlessInstalled(18)

interface Configuration extends Record<string, unknown> {
  readonly components: Readonly<Record<string, { stream: Record<string, unknown>; objectives?: object }>>
}

async function configurationOf(cluster: ProtectedCluster): Promise<Configuration> {
  await withoutSchedules(cluster.configPath)
  const configuration = JSON.parse(await readFile(cluster.configPath, 'utf8')) as Configuration
  const component = configuration.components['his-db']!
  component.stream = { ...component.stream, synchronous: true, acknowledge: 'repository' }
  component.objectives = { rpoMinutes: 0 }
  return configuration
}

/** Who receives, as the store has it. */
async function receiverOf(client: pg.Client): Promise<string | undefined> {
  const { rows } = await client.query<{ node: string }>('select node from resus_control.receiver_leases where not released')
  return rows[0]?.node
}

/** An objective of no loss at all (OBJ-04), as the node that receives sees it. */
async function zeroLossOn(node: NodeProcess): Promise<{ readonly verdict: string; readonly why: string }> {
  const { body } = await node.ask('GET /backup-dr/recovery-objectives')
  const { components } = body as unknown as { components: { judgements: { rpoMinutes: { verdict: string; why: string } } }[] }
  return components[0]!.judgements.rpoMinutes
}

async function isReceiving(cluster: ProtectedCluster): Promise<boolean> {
  const rows = await cluster.query("select from pg_stat_replication where application_name = 'resus' and state = 'streaming'")
  return rows.length === 1
}

test(
  'of three nodes the one that works dies with its spool: the others go on, and no acknowledged write is missing',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    const databaseUrl = await testDatabase()
    const home = dirname(cluster.configPath)
    const configuration = await configurationOf(cluster)
    const nodes: NodeProcess[] = []
    for (const name of ['one', 'two', 'three']) nodes.push(await nodeProcess(t, { name, home, configuration, databaseUrl }))
    await cluster.query(heartbeatSetup('postgres'))
    const store = new pg.Client({ connectionString: databaseUrl })
    await store.connect()
    t.after(async () => store.end())
    await waitUntil('somebody receives', async () => isReceiving(cluster))
    await cluster.query("alter system set synchronous_standby_names = 'FIRST 1 (resus)'")
    await cluster.query('select pg_reload_conf()')
    const first = (await receiverOf(store))!
    const asked = await nodes[0]!.ask('POST /backup-dr/backups/database', {})
    const id = String(asked.body['id'])
    const writers = await Writers.start(t, cluster.cluster, 4)
    const task = async (node: NodeProcess) => (await node.ask(`GET /backup-dr/tasks/${id}`)).body
    await waitUntil('the backup is done', async () => (await task(nodes[0]!))['state'] === 'done')

    await waitUntil('nothing that is acknowledged can be lost', async () => {
      const { verdict } = await zeroLossOn(nodes.find(({ name }) => name === first)!)
      return verdict === 'met'
    })

    // The next backup is being made, or not, when its node dies too.
    const again = String((await nodes[1]!.ask('POST /backup-dr/backups/database', {})).body['id'])
    const victim = nodes.find(({ name }) => name === first)!
    const survivor = nodes.find(({ name }) => name !== first)!
    await victim.kill()
    await rm(join(home, first, 'state'), { recursive: true, force: true })
    const atDeath = writers.acknowledged()
    await waitUntil('another node receives', async () => (await receiverOf(store)) !== first && (await isReceiving(cluster)))
    await waitUntil('commits go on', () => writers.acknowledged().every((count, writer) => count > (atDeath[writer] ?? 0) + 5))
    await waitUntil('the second backup is done by somebody', async () => {
      const { body } = await survivor.ask(`GET /backup-dr/tasks/${again}`)
      assert.notEqual(body['state'], 'failed', JSON.stringify(body))
      return body['state'] === 'done'
    })
    await cluster.cluster.kill()
    const acknowledged = await writers.end()
    for (const node of nodes) if (node !== victim) await node.stop()

    const restored = await cluster.restore({ kind: 'latest' })
    const { installation, home: clusterHome } = cluster.cluster
    await askRestored({ directory: restored.directory, installation, home: clusterHome }, async (client) => {
      const count = await assertNothingLost(client, acknowledged)
      t.diagnostic(
        `${count} writes were acknowledged, ${atDeath.reduce((sum, each) => sum + each, 0)} of them before the node died; lost: 0`,
      )
    })
  },
)

test('the store stops and starts again: WAL is received all the while, and work goes on', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await using store = await protectedCluster(t, { major: 18 })
  const home = dirname(cluster.configPath)
  const node = await nodeProcess(t, {
    name: 'one',
    home,
    configuration: await configurationOf(cluster),
    databaseUrl: store.cluster.connectionString,
  })
  await waitUntil('it receives', async () => isReceiving(cluster))
  const [{ pid } = { pid: 0 }] = await cluster.query<{ pid: number }>(
    "select pid from pg_stat_replication where application_name = 'resus'",
  )
  await store.cluster.stop()
  const away = await node.ask('POST /backup-dr/backups/database', {})
  assert.deepEqual([away.status, away.body['code']], [503, 'STORE_UNREACHABLE'])
  assert.equal((await node.ask('GET /backup-dr/backups/status')).status, 200)
  assert.equal((await node.ask('GET /live')).status, 200)
  await cluster.query('create table while_away (id int)')
  await store.cluster.start()
  await waitUntil('work is taken again', async () => (await node.ask('POST /backup-dr/backups/database', {})).status === 202)
  await waitUntil('and done', async () => {
    const { body } = await node.ask('GET /backup-dr/tasks?state=done')
    return (body['items'] as unknown[]).length > 0
  })
  const [{ now } = { now: 0 }] = await cluster.query<{ now: number }>(
    "select pid as now from pg_stat_replication where application_name = 'resus'",
  )
  assert.equal(now, pid, 'the receiver was never disturbed')
})
