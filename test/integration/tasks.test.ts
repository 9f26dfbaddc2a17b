import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import test, { after, type TestContext } from 'node:test'
import { renewNode } from '../../src/catalog/nodes.ts'
import type { Store } from '../../src/catalog/store.ts'
import { beginAttempt, eventsBehind, readTask, requestCancel, type Task } from '../../src/catalog/tasks.ts'
import { systemClock } from '../../src/clock.ts'
import { LANES, type TaskKind } from '../../src/server/task-kinds.ts'
import { TaskQueue } from '../../src/server/task-queue.ts'
import { TaskWorker } from '../../src/server/task-worker.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'
import { stopTestStore, testStore } from '../services/store.ts'
import { waitUntil } from '../services/wait-until.ts'

after(stopTestStore)
const skip = await skipUnlessInstalled(18)

interface Nodes {
  readonly store: Store
  readonly queue: TaskQueue
  readonly ended: string[]
  start(name: string): { stop(): Promise<void> }
  ask(kind: TaskKind, parameters?: Record<string, unknown>, component?: string): Promise<string>
  state(id: string): Promise<Task>
  until(id: string, ...states: string[]): Promise<Task>
}

async function nodesOn(t: TestContext, configPath: string): Promise<Nodes> {
  const ended: string[] = []
  const stops: (() => Promise<void>)[] = []
  t.after(async () => {
    for (const stop of stops) await stop()
    await queue[Symbol.asyncDispose]()
  })
  // Behind that, for hooks run in this order: nodes first.
  const store = await testStore(t)
  const queue = await TaskQueue.open(store, (error) => t.diagnostic(error.message))
  const state = async (id: string) => (await readTask(store.sql, id))!
  return {
    store,
    queue,
    ended,
    start: (name) => {
      const controller = new AbortController()
      const worker = new TaskWorker({
        store,
        queue,
        node: name,
        clock: systemClock,
        placeOf: () => ({ configPath, restoreRoots: [] }),
        onEnd: (task, outcome) => ended.push(`${task.kind} ${outcome.state}`),
        report: (text) => t.diagnostic(text),
      })
      const startedAt = new Date()
      const renewing = setInterval(() => void renew(), 500)
      const renew = async () => renewNode(store.sql, { name, startedAt, at: new Date(), version: 'test', reach: [] })
      const running = renew().then(async () => worker.run(controller.signal))
      const stop = async () => {
        controller.abort()
        clearInterval(renewing)
        await running
      }
      stops.push(stop)
      return { stop }
    },
    ask: async (kind, parameters = {}, component = 'his-db') => {
      const id = randomUUID()
      const task = { id, system: 'test-his', component, kind, lane: LANES[kind], parameters, requestedBy: 'test', at: new Date() }
      assert(await queue.request(task))
      return id
    },
    state,
    until: async (id, ...states) => {
      await waitUntil(`task ${id} is ${states.join(' or ')}`, async () => states.includes((await state(id)).state))
      return await state(id)
    },
  }
}

test('a task is a command of resus: its report, its log and its reason are kept', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const nodes = await nodesOn(t, cluster.configPath)
  const { store } = nodes
  nodes.start('one')
  const backup = await nodes.until(await nodes.ask('backup'), 'done', 'failed')
  assert.equal(backup.state, 'done', JSON.stringify(backup))
  assert.equal(backup.exit_status, 0)
  assert.equal(backup.attempts, 1)
  const report = backup.result as { readonly id: string; readonly type: string }
  assert.equal(report.type, 'full')
  const verified = await nodes.until(await nodes.ask('verify', { backup: report.id }), 'done', 'failed')
  assert.equal((verified.result as { verdict: string }).verdict, 'verified')
  const unknown = await nodes.until(await nodes.ask('verify', { backup: '20260101T000000Z-000000' }), 'done', 'failed')
  assert.deepEqual([unknown.state, unknown.error_code, unknown.attempts], ['failed', 'BACKUP_UNKNOWN', 1])
  const stranger = await nodes.until(await nodes.ask('check', {}, 'no-such-db'), 'done', 'failed')
  assert.equal(stranger.error_code, 'COMPONENT_UNKNOWN')
  const events = await eventsBehind(store.sql, backup.id, 0, 1000)
  assert.deepEqual(
    events.map(({ number }) => number),
    events.map((_, index) => index + 1),
  )
  const states = events.filter(({ kind }) => kind === 'state').map(({ data }) => (data as { state: string }).state)
  assert.deepEqual(states, ['waiting', 'running', 'done'])
  assert.deepEqual(nodes.ended, ['backup done', 'verify done', 'verify failed', 'check failed'])
})

test('two nodes share the work, and no task runs twice; one lane runs one after the other', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const nodes = await nodesOn(t, cluster.configPath)
  nodes.start('one')
  nodes.start('two')
  const asked = await Promise.all(Array.from({ length: 6 }, async (_, each) => nodes.ask(each % 2 === 0 ? 'check' : 'backup')))
  const tasks = await Promise.all(asked.map(async (id) => nodes.until(id, 'done', 'failed')))
  for (const task of tasks) assert.deepEqual([task.state, task.attempts], ['done', 1], JSON.stringify(task.error_message))
  for (const lane of ['upkeep', 'backup']) {
    const spans = tasks.filter((task) => task.lane === lane).toSorted((a, b) => Number(a.started_at) - Number(b.started_at))
    for (const [index, { started_at: started }] of spans.entries()) {
      if (index > 0) assert(Number(started) >= Number(spans[index - 1]!.ended_at), `${lane}: they did not overlap`)
    }
  }
})

test('what runs when a node is told to end waits, and another node does it', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const nodes = await nodesOn(t, cluster.configPath)
  const first = nodes.start('one')
  const id = await nodes.ask('backup')
  await nodes.until(id, 'running')
  await first.stop()
  const waiting = await nodes.state(id)
  if (waiting.state === 'done') return t.diagnostic('the backup was quicker')
  assert.deepEqual([waiting.state, waiting.attempts], ['waiting', 0])
  nodes.start('two')
  const done = await nodes.until(id, 'done', 'failed')
  assert.deepEqual([done.state, done.node, done.attempts], ['done', 'two', 1], JSON.stringify(done.error_message))
})

test('what ran when its node died goes on when the node is back under its name', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const nodes = await nodesOn(t, cluster.configPath)
  const { store } = nodes
  const id = await nodes.ask('backup')
  // As a supervisor that was killed leaves it: its row says that it runs, its job is nobody's after a while.
  const hold = await nodes.queue.fetch({ system: 'test-his', component: 'his-db', lane: 'backup' })
  assert.equal(hold?.taskId, id)
  assert.equal((await beginAttempt(store.sql, { id, node: 'one', at: new Date() }))?.attempts, 1)
  nodes.start('one')
  const done = await nodes.until(id, 'done', 'failed')
  assert.deepEqual([done.state, done.attempts], ['done', 2], JSON.stringify(done.error_message))
})

test('a task whose job is lost gets another', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const nodes = await nodesOn(t, cluster.configPath)
  const id = await nodes.ask('check')
  await nodes.store.connect().then(async (client) => {
    await client.query("delete from resus_queue.job where name like 'upkeep-%'")
    client.release()
  })
  await nodes.queue.mend(new Date(Date.now() + 1000))
  await nodes.queue.mend(new Date(Date.now() + 1000))
  nodes.start('one')
  assert.equal((await nodes.until(id, 'done', 'failed')).attempts, 1)
})

test('a task that waits is cancelled at once, and one that runs is ended', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const nodes = await nodesOn(t, cluster.configPath)
  const { store } = nodes
  const cancel = async (id: string) =>
    store.sql.transaction().execute(async (queries) => requestCancel(queries, { id, by: 'test', at: new Date() }))
  const waiting = await nodes.ask('check')
  assert.equal((await cancel(waiting))?.state, 'cancelled')
  const running = await nodes.ask('backup')
  nodes.start('one')
  await nodes.until(running, 'running')
  assert.equal((await cancel(running))?.cancel_requested, true)
  const ended = await nodes.until(running, 'cancelled', 'done', 'failed')
  assert.notEqual(ended.state, 'failed')
  await delay(1500)
  assert.deepEqual([(await nodes.state(waiting)).state, (await nodes.state(waiting)).attempts], ['cancelled', 0])
  assert.equal(
    await store.sql
      .transaction()
      .execute(async (queries) => requestCancel(queries, { id: randomUUID(), by: 'x', at: new Date() })),
    undefined,
  )
})

test('a failure that may pass is tried again, later; a schedule asks once for each instant', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const nodes = await nodesOn(t, cluster.configPath)
  nodes.start('one')
  await cluster.cluster.kill()
  const id = await nodes.ask('backup')
  await waitUntil(
    'it waits for another attempt',
    async () => (await nodes.state(id)).attempts === 1 && (await nodes.state(id)).state === 'waiting',
  )
  const task = await nodes.state(id)
  assert(task.due_at.getTime() - Date.now() > 20_000, 'in a minute or so')
  assert.deepEqual(nodes.ended, [])
  const scheduled = {
    system: 'test-his',
    component: 'his-db',
    kind: 'check',
    lane: 'upkeep',
    parameters: {},
    requestedBy: 'schedule',
    at: new Date(),
  }
  const scheduleKey = 'test-his/his-db/check 2026-11-21T00:00:00Z'
  const asked = await Promise.all(
    Array.from({ length: 4 }, async () => nodes.queue.request({ ...scheduled, id: randomUUID(), scheduleKey })),
  )
  assert.deepEqual(
    asked.toSorted((left, right) => Number(left) - Number(right)),
    [false, false, false, true],
  )
})
