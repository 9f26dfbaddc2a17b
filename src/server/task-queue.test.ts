import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import test, { after } from 'node:test'
import { sql } from 'kysely'
import { stopTestStore, testStore } from '../../test/services/store.ts'
import { waitUntil } from '../../test/services/wait-until.ts'
import { Store } from '../catalog/store.ts'
import { TaskQueue, type Hold } from './task-queue.ts'

after(stopTestStore)

const LANE = { system: 'osun', component: 'his-db', lane: 'backup' }
/** Far below the minute that pg-boss would take by itself, and far above what it takes. */
const LOOKS_MAX = 60
const LOOK_MS = 500

test('a node that has come to know a queue while a job was at work takes the next one when that has ended', async (t) => {
  const store = await testStore(t)
  const open = async () => {
    const queue = await TaskQueue.open(store, (error) => t.diagnostic(error.message))
    t.after(async () => queue[Symbol.asyncDispose]())
    return queue
  }
  const ask = async (queue: TaskQueue) => {
    const id = randomUUID()
    const common = { kind: 'backup', parameters: {}, requestedBy: 'test', at: new Date() }
    await queue.request({ id, ...LANE, ...common })
    return id
  }
  const one = await open()
  await ask(one)
  const hold = (await one.fetch(LANE))!
  await waitUntil('the queue is known to be busy', async () => {
    const { rows } = await sql<{ busy: boolean }>`select singletons_active is not null as busy from resus_queue.queue`.execute(
      store.sql,
    )
    return rows[0]?.busy === true
  })
  const two = await open()
  assert.equal(await two.fetch(LANE), undefined)
  await one.drop(hold)
  const next = await ask(two)
  let found: Hold | undefined
  for (let look = 0; found === undefined && look < LOOKS_MAX; look += 1) {
    await delay(LOOK_MS)
    found = await two.fetch(LANE)
  }
  assert.equal(found?.taskId, next)
})

test('a queue on a store that is away says so, and works once it is there', async (t) => {
  const { connectionString } = await testStore(t)
  const store = Store.later(async () => connectionString)
  t.after(async () => store[Symbol.asyncDispose]())
  const queue = TaskQueue.later(store, (error) => t.diagnostic(error.message))
  t.after(async () => queue[Symbol.asyncDispose]())
  for (const attempt of [async () => queue.fetch(LANE), async () => queue.begin(), async () => store.connect()]) {
    await assert.rejects(attempt(), { code: 'STORE_UNREACHABLE' })
  }
  await assert.rejects(store.sql.selectFrom('tasks').select('id').execute(), { code: 'STORE_UNREACHABLE' })
  await store.begin()
  await queue.begin()
  assert.equal(await queue.fetch(LANE), undefined)
})
