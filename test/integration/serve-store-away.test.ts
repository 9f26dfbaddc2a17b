import assert from 'node:assert/strict'
import { copyFile, readFile, rename, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import test, { after, type TestContext } from 'node:test'
import { controlPlane, lastingState, withoutSchedules, type ControlPlane } from '../services/control-plane.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'
import { storeProxy } from '../services/store-proxy.ts'
import { stopTestStore, testDatabase } from '../services/store.ts'
import { waitUntil } from '../services/wait-until.ts'

after(stopTestStore)
const skip = await skipUnlessInstalled(18)

async function acknowledge(cluster: ProtectedCluster, what: 'spool' | 'repository'): Promise<void> {
  await withoutSchedules(cluster.configPath)
  const configuration = JSON.parse(await readFile(cluster.configPath, 'utf8')) as {
    components: Record<string, { stream?: object }>
  }
  const component = configuration.components['his-db']!
  component.stream = { ...component.stream, acknowledge: what }
  await writeFile(cluster.configPath, JSON.stringify(configuration))
}

async function receiving(cluster: ProtectedCluster): Promise<number | undefined> {
  const [row] = await cluster.query<{ pid: number }>(
    "select pid from pg_stat_replication where application_name = 'resus' and state = 'streaming'",
  )
  return row?.pid
}

async function assertAnswers(plane: ControlPlane): Promise<void> {
  for (const path of ['/live', '/backup-dr/backups/status', '/backup-dr/backups']) {
    assert.equal((await plane.ask(`GET ${path}`)).status, 200, path)
  }
  for (const what of ['GET /backup-dr/tasks', 'POST /backup-dr/backups/database', 'GET /backup-dr/alarms']) {
    const answer = await plane.ask(what, what.startsWith('POST') ? { body: {} } : {})
    assert.deepEqual([answer.status, answer.body['code']], [503, 'STORE_UNREACHABLE'], what)
  }
}

for (const manner of ['refuse', 'stall'] as const) {
  test(
    `a start at which the store is away (${manner}): WAL is received at once, and work begins when it is there`,
    { skip },
    async (t) => {
      await using cluster = await protectedCluster(t, { major: 18 })
      await acknowledge(cluster, 'repository')
      const proxy = await storeProxy(t, await testDatabase())
      proxy.behave(manner)
      await using plane = await controlPlane(t, cluster.configPath, { databaseUrl: proxy.connectionString })
      await waitUntil('WAL is received', async () => (await receiving(cluster)) !== undefined)
      const pid = await receiving(cluster)
      await assertAnswers(plane)
      proxy.behave('pass')
      await waitUntil(
        'work is taken',
        async () => (await plane.ask('POST /backup-dr/backups/database', { body: {} })).status === 202,
      )
      await waitUntil('and done', async () => {
        const { body } = await plane.ask('GET /backup-dr/tasks?state=done')
        return (body['items'] as unknown[]).length > 0
      })
      assert.equal(await receiving(cluster), pid, 'the receiver was never disturbed')
    },
  )
}

test('what a spool has acknowledged waits for the store, unless this node received it before', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await acknowledge(cluster, 'spool')
  const state = await lastingState(t)
  const proxy = await storeProxy(t, await testDatabase())
  const options = { state, databaseUrl: proxy.connectionString }
  {
    proxy.behave('refuse')
    await using plane = await controlPlane(t, cluster.configPath, options)
    await waitUntil('it has looked around', async () => {
      const { body } = await plane.ask('GET /backup-dr/backups/status')
      return (body as { components: { reachedBy: string[] }[] }).components[0]?.reachedBy.length === 1
    })
    assert.equal(await receiving(cluster), undefined)
    proxy.behave('pass')
    await waitUntil('it receives', async () => (await receiving(cluster)) !== undefined)
  }
  proxy.behave('refuse')
  await using plane = await controlPlane(t, cluster.configPath, options)
  await waitUntil('it receives again', async () => (await receiving(cluster)) !== undefined)
  await assertAnswers(plane)
})

/** A cluster whose receiver acknowledges what its spool has, and a state for a control plane with a store of its own. */
async function ownStore(t: TestContext, cluster: ProtectedCluster): Promise<string> {
  await acknowledge(cluster, 'spool')
  const state = await lastingState(t)
  return state
}

test(
  'its own store does not start: WAL is received, and with the store moved away an empty one is filled',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    const state = await ownStore(t, cluster)
    let id = ''
    {
      await using plane = await controlPlane(t, cluster.configPath, { state })
      await waitUntil('it receives', async () => (await receiving(cluster)) !== undefined)
      id = String((await plane.ask('POST /backup-dr/backups/database', { body: {} })).body['id'])
      assert.equal((await plane.ended(id))['state'], 'done')
    }
    await truncate(join(state, 'store/global/pg_control'), 100)
    await using plane = await controlPlane(t, cluster.configPath, { state })
    await waitUntil('it receives again', async () => (await receiving(cluster)) !== undefined)
    await assertAnswers(plane)
    await rename(join(state, 'store'), join(state, 'store.broken'))
    await waitUntil('the store is there, and knows what was done', async () => {
      const { status, body } = await plane.ask(`GET /backup-dr/tasks/${id}`)
      return status === 200 && body['source'] === 'repository'
    })
  },
)

/** The file of the table that is read first. */
async function migrationsFile(state: string): Promise<string> {
  const client = new pg.Client({ connectionString: `postgres://postgres@/postgres?host=${await socketOf(state)}&port=5432` })
  await client.connect()
  try {
    await client.query('checkpoint')
    const { rows } = await client.query<{ path: string }>("select pg_relation_filepath('resus_control.migrations') as path")
    return join(state, 'store', rows[0]!.path)
  } finally {
    await client.end()
  }
}

async function socketOf(state: string): Promise<string> {
  const kept = await readFile(join(state, 'store.socket-directory'), 'utf8').catch(() => join(state, 'store.socket'))
  return encodeURIComponent(kept)
}

async function postmaster(state: string): Promise<number | undefined> {
  const text = await readFile(join(state, 'store/postmaster.pid'), 'utf8').catch(() => undefined)
  const lines = text?.split('\n') ?? []
  return lines[7]?.trim() === 'ready' ? Number(lines[0]) : undefined
}

test(
  'its own store starts and is damaged: WAL is received, its server is kept running, and mended it is used',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    const state = await ownStore(t, cluster)
    let file = ''
    {
      await using plane = await controlPlane(t, cluster.configPath, { state })
      await waitUntil('it receives', async () => (await receiving(cluster)) !== undefined)
      file = await migrationsFile(plane.state)
    }
    await copyFile(file, join(state, 'migrations.good'))
    await writeFile(file, Buffer.alloc(8192, 0x5a))
    await using plane = await controlPlane(t, cluster.configPath, { state })
    assert(plane.reports.some((text) => /store is away.*invalid page/.test(text)))
    await waitUntil('it receives again', async () => (await receiving(cluster)) !== undefined)
    await assertAnswers(plane)
    const before = await postmaster(state)
    process.kill(before!, 'SIGKILL')
    await waitUntil('the server of the store is there again', async () => {
      const now = await postmaster(state)
      return now !== undefined && now !== before
    })
    await copyFile(join(state, 'migrations.good'), file)
    await waitUntil(
      'work is taken',
      async () => (await plane.ask('POST /backup-dr/backups/database', { body: {} })).status === 202,
    )
  },
)
