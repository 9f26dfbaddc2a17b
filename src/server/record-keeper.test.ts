import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import test, { after, type TestContext } from 'node:test'
import { sql } from 'kysely'
import { stopTestStore, testStore } from '../../test/services/store.ts'
import { waitUntil } from '../../test/services/wait-until.ts'
import { clearAlarm, raiseAlarm } from '../catalog/alarms.ts'
import { readCompliance, recordCompliance } from '../catalog/compliance.ts'
import { listNotices, makeNotice } from '../catalog/notices.ts'
import { listScheduleRuns, noteScheduleRun } from '../catalog/schedule-runs.ts'
import type { Store } from '../catalog/store.ts'
import { beginAttempt, endTask, eventsBehind, insertTask, listTasks, readTask } from '../catalog/tasks.ts'
import { systemClock, type Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { noticeOf } from '../incident/outbox.ts'
import { listControlObjects, readControlObject } from '../repository/control-records.ts'
import { initRepository, type Repository } from '../repository/repository.ts'
import { Secret } from '../secret.ts'
import { MemoryStorage } from '../storage/memory-storage.ts'
import { readObject, type ObjectSource, type Storage } from '../storage/storage.ts'
import { RecordKeeper } from './record-keeper.ts'

after(stopTestStore)

const HOUR_MS = 3_600_000
const { signal } = new AbortController()
const page = { limit: 500 }

/** Something happens between the storage's put and its answer. */
class TroubledStorage extends MemoryStorage {
  afterPut: () => Promise<void> = async () => undefined

  override async put(key: string, source: ObjectSource): Promise<void> {
    await super.put(key, source)
    if (key.startsWith('control/')) await this.afterPut()
  }
}

async function repositoryOf(system: string, storage: Storage = new MemoryStorage()): Promise<Repository> {
  const access = { storage, passphrase: new Secret('x'), system }
  return (await initRepository(access, { clock: systemClock, kdfCost: 1024 })).repository
}

function keeperOf(
  t: TestContext,
  store: Store,
  repositories: readonly (Repository | Failure)[],
  more: { clock?: Clock; node?: string } = {},
): RecordKeeper & { reports: string[] } {
  const reports: string[] = []
  const bySystem = new Map(repositories.map((each) => [each instanceof Failure ? 'osun' : each.system, each]))
  const keeper = new RecordKeeper({
    store,
    node: more.node ?? 'one',
    clock: more.clock ?? systemClock,
    systems: () => [...bySystem.keys()],
    repositoryOf: async (system) => {
      const repository = bySystem.get(system)!
      if (repository instanceof Failure) throw repository
      return repository
    },
    report: (text) => {
      reports.push(text)
      t.diagnostic(text)
    },
    onError: (error) => {
      throw error
    },
  })
  return Object.assign(keeper, { reports })
}

async function endedTask(
  store: Store,
  {
    system = 'osun',
    scheduleKey,
    result = { id: 'b' },
    at = new Date(),
  }: { system?: string; scheduleKey?: string; result?: unknown; at?: Date } = {},
): Promise<string> {
  const id = randomUUID()
  const common = { id, system, component: 'his-db', kind: 'backup', lane: 'backup', parameters: { type: 'full' }, at }
  await insertTask(store.sql, { ...common, requestedBy: 'administrator', ...(scheduleKey === undefined ? {} : { scheduleKey }) })
  const task = (await beginAttempt(store.sql, { id, node: 'one', at }))!
  const attempt = { id, node: 'one', attempts: task.attempts }
  await endTask(store.sql, attempt, {
    state: 'failed',
    at,
    exitStatus: 1,
    result,
    error: { code: 'STORAGE_FULL', message: 'no room', hint: 'make some' },
  })
  return id
}

async function raise(store: Store, system: string, key: string): Promise<void> {
  const now = new Date()
  await raiseAlarm(store, {
    id: randomUUID(),
    key,
    severity: 'alarm',
    title: `title of ${key}`,
    text: 'what was found',
    system,
    component: null,
    code: 'BACKUP_FAILED',
    count: 1,
    openedAt: now,
    raisedAt: now,
    dueAt: now,
    toldAt: null,
    remindAfterMs: 24 * HOUR_MS,
  })
}

/** As the rounds do it; a channel for each severity. */
async function tell(store: Store, state: 'sent' | 'waiting' = 'sent'): Promise<void> {
  const now = new Date()
  await makeNotice(store, {
    now,
    horizon: new Date(+now + 1000),
    remindAt: new Date(+now + 24 * HOUR_MS),
    compose: (alarms) => ({
      ...noticeOf(alarms, [], now),
      deliveries: [{ channel: 'desk', severities: ['alarm'], state, outcome: '250 ok' }],
    }),
  })
}

async function recordsOf(repository: Repository) {
  const objects = await listControlObjects(repository, 'work')
  return (await Promise.all(objects.map(async ({ key }) => (await readControlObject(repository, key)).records))).flat()
}

async function alarmsOf(store: Store) {
  const rows = await store.sql.selectFrom('alarms').selectAll().orderBy('key').execute()
  return rows.map(({ due_at: _due, ...rest }) => rest)
}

test('an empty store is filled with what the repository has: tasks, what schedules asked for, alarms, who was told', async (t) => {
  const old = await testStore(t)
  const repository = await repositoryOf('osun')
  const dueAt = new Date('2026-11-20T02:00:00.000Z')
  const scheduled = await endedTask(old, { scheduleKey: JSON.stringify(['osun', 'his-db', 'backup', dueAt.toISOString()]) })
  await noteScheduleRun(old.sql, { system: 'osun', component: 'his-db', kind: 'backup', dueAt, taskId: scheduled })
  const asked = await endedTask(old, { result: null })
  await raise(old, 'osun', 'a')
  await raise(old, 'Resus', 'b')
  await tell(old)
  await clearAlarm(old, { key: 'a', at: new Date(), dueAt: new Date(), text: 'it is over' })
  await keeperOf(t, old, [repository]).look(signal)

  const fresh = await testStore(t)
  const keeper = keeperOf(t, fresh, [repository])
  assert.equal(keeper.isHeld(), true)
  await keeper.look(signal)
  assert.equal(keeper.isHeld(), false)
  for (const id of [scheduled, asked]) {
    const { last_event: _number, from_repository: from, ...task } = (await readTask(fresh.sql, id))!
    const { last_event: _other, from_repository: before, ...expected } = (await readTask(old.sql, id))!
    assert.deepEqual(task, expected)
    assert.deepEqual([from, before], [true, false])
    const events = await eventsBehind(fresh.sql, id, 0, 10)
    assert.deepEqual(
      events.map(({ number, data }) => [number, (data as { from: string }).from]),
      [[1, 'repository']],
    )
  }
  assert.deepEqual(await listScheduleRuns(fresh.sql), await listScheduleRuns(old.sql))
  assert.deepEqual(await alarmsOf(fresh), await alarmsOf(old))
  const [notice] = await listNotices(fresh, page)
  const [told] = await listNotices(old, page)
  assert.deepEqual([notice?.id, notice?.madeAt, notice?.deliveries], [told?.id, told?.madeAt, told?.deliveries])

  // What came from there is not written there again, and nothing comes twice.
  const before = await recordsOf(repository)
  await keeperOf(t, fresh, [repository]).look(signal)
  assert.equal((await recordsOf(repository)).length, before.length)
  assert.equal((await listTasks(fresh.sql, {}, page)).length, 2)
})

test('what people were told is not told again as new, also where it was found again before the repository was read', async (t) => {
  const old = await testStore(t)
  const repository = await repositoryOf('osun')
  await raise(old, 'osun', 'a')
  await tell(old)
  await keeperOf(t, old, [repository]).look(signal)
  const fresh = await testStore(t)
  await raise(fresh, 'osun', 'a')
  await raise(fresh, 'osun', 'new')
  await keeperOf(t, fresh, [repository]).look(signal)
  const rows = await fresh.sql.selectFrom('alarms').selectAll().orderBy('key').execute()
  assert.deepEqual(
    rows.map(({ key, told_as: toldAs, due_at: due }) => [key, toldAs, due !== null && +due > Date.now() + 20 * HOUR_MS]),
    [
      ['a', ['alarm'], true],
      ['new', [], false],
    ],
  )
})

test('what may not have reached anybody is told again', async (t) => {
  const old = await testStore(t)
  const repository = await repositoryOf('osun')
  await raise(old, 'osun', 'a')
  await tell(old, 'waiting')
  await keeperOf(t, old, [repository]).look(signal)
  const fresh = await testStore(t)
  await keeperOf(t, fresh, [repository]).look(signal)
  const [alarm] = await fresh.sql.selectFrom('alarms').selectAll().execute()
  assert(alarm?.due_at !== null && +alarm!.due_at <= Date.now())
  assert.deepEqual(
    (await listNotices(fresh, page))[0]?.deliveries.map(({ state }) => state),
    ['given-up'],
  )
})

test("each repository gets what concerns its system, and of a notice no other system's part", async (t) => {
  const store = await testStore(t)
  const [osun, oyo] = [await repositoryOf('osun'), await repositoryOf('oyo')]
  await endedTask(store, { system: 'oyo' })
  await raise(store, 'osun', 'a')
  await raise(store, 'oyo', 'b')
  await raise(store, 'Resus', 'c')
  await tell(store)
  await keeperOf(t, store, [osun, oyo]).look(signal)
  for (const [repository, own] of [
    [osun, ['alarm title of a', 'alarm title of c', 'notice title of a title of c']],
    [oyo, ['alarm title of b', 'alarm title of c', 'notice title of b title of c', 'task']],
  ] as const) {
    const records = await recordsOf(repository)
    const found = records.map(({ kind, body }) => {
      const titles = kind === 'notice' ? (body['entries'] as { title: string }[]) : [body as { title?: string }]
      return [kind, ...titles.flatMap(({ title }) => title ?? []).toSorted((left, right) => left.localeCompare(right))].join(' ')
    })
    assert.deepEqual(found.toSorted(), own)
  }
  const fresh = await testStore(t)
  await keeperOf(t, fresh, [osun, oyo]).look(signal)
  const [notice, ...others] = await listNotices(fresh, page)
  assert.deepEqual(others, [])
  assert.deepEqual((notice!.content as { entries: { title: string }[] }).entries.map(({ title }) => title).toSorted(), [
    'title of a',
    'title of b',
    'title of c',
  ])
})

test('an hour of compliance is written when it is over, with what came late, and counted once', async (t) => {
  const old = await testStore(t)
  const repository = await repositoryOf('osun')
  const hour = Math.floor(Date.now() / HOUR_MS) * HOUR_MS - 3 * HOUR_MS
  const entry = { system: 'osun', component: 'his-db', objective: 'rpoMinutes', target: 5, actual: 1, verdict: 'met' } as const
  for (const minute of [0, 1, 2]) await recordCompliance(old.sql, new Date(hour + minute * 60_000), [entry])
  await recordCompliance(old.sql, new Date(hour + 3 * HOUR_MS), [entry])
  const keeper = keeperOf(t, old, [repository])
  await keeper.look(signal)
  await recordCompliance(old.sql, new Date(hour + 10 * 60_000), [{ ...entry, actual: 9, verdict: 'broken' }])
  await keeper.look(signal)
  const fresh = await testStore(t)
  await keeperOf(t, fresh, [repository]).look(signal)
  const points = await readCompliance(fresh.sql, { system: 'osun', from: new Date(0), to: new Date(Date.now() + HOUR_MS) })
  assert.deepEqual(
    points.map(({ at, per, actualLeast, actualGreatest, minutesMet, minutesBroken, target }) => ({
      at: at.getTime(),
      per,
      actualLeast,
      actualGreatest,
      minutesMet,
      minutesBroken,
      target,
    })),
    [{ at: hour, per: 'hour', actualLeast: 1, actualGreatest: 9, minutesMet: 3, minutesBroken: 1, target: 5 }],
  )
})

test("ended between the put and the store's note of it, it writes again, and nothing comes twice of that", async (t) => {
  const store = await testStore(t)
  const storage = new TroubledStorage()
  const repository = await repositoryOf('osun', storage)
  const id = await endedTask(store)
  let broken = true
  storage.afterPut = async () => {
    if (broken) throw new Failure('STORAGE_UNREACHABLE', 'its answer was lost')
  }
  await keeperOf(t, store, [repository]).look(signal)
  broken = false
  await keeperOf(t, store, [repository]).look(signal)
  assert.deepEqual(
    (await recordsOf(repository)).map((record) => record.id),
    [id, id],
  )
  const fresh = await testStore(t)
  await keeperOf(t, fresh, [repository]).look(signal)
  assert.equal((await listTasks(fresh.sql, {}, page)).length, 1)
  await keeperOf(t, store, [repository]).look(signal)
  assert.equal((await recordsOf(repository)).length, 2)
})

test('a change while it is being written is written as well', async (t) => {
  const store = await testStore(t)
  const storage = new TroubledStorage()
  const repository = await repositoryOf('osun', storage)
  await raise(store, 'osun', 'a')
  let changed = false
  storage.afterPut = async () => {
    if (!changed) await tell(store)
    changed = true
  }
  const keeper = keeperOf(t, store, [repository])
  await keeper.look(signal)
  await keeper.look(signal)
  const alarms = (await recordsOf(repository)).filter(({ kind }) => kind === 'alarm')
  assert.deepEqual(
    alarms.map(({ body }) => body['toldAs']),
    [[], ['alarm']],
  )
})

test('damaged objects are named and passed over, and the rest is read; when it is whole again, nothing is said any more', async (t) => {
  const old = await testStore(t)
  const storage = new MemoryStorage()
  const repository = await repositoryOf('osun', storage)
  const keeper = keeperOf(t, old, [repository])
  const ids: string[] = []
  for (let n = 0; n < 3; n += 1) {
    ids.push(await endedTask(old))
    await keeper.look(signal)
  }
  const [first] = await listControlObjects(repository, 'work')
  const bytes = Buffer.from(await readObject(storage, first!.key))
  const [lost] = (await readControlObject(repository, first!.key)).records.map(({ id }) => id)
  await storage.delete(first!.key)
  await storage.put(first!.key, bytes.subarray(0, bytes.length - 3))
  const fresh = await testStore(t)
  const reader = keeperOf(t, fresh, [repository])
  await reader.look(signal)
  assert.deepEqual(
    (await listTasks(fresh.sql, {}, page)).map(({ id }) => id).toSorted(),
    ids.filter((id) => id !== lost).toSorted(),
  )
  assert.match(reader.reports.join('\n'), new RegExp(first!.key))
  assert.match(reader.state('osun').damaged ?? '', new RegExp(first!.key))
  await storage.delete(first!.key)
  await storage.put(first!.key, bytes)
  const next = keeperOf(t, fresh, [repository])
  await next.look(signal)
  assert.equal(next.state('osun').damaged, null)
})

test('while the storage is away it waits, is held for two minutes at most, and says after five that it is late', async (t) => {
  const store = await testStore(t)
  const away = new Failure('STORAGE_UNREACHABLE', 'the storage is not mounted')
  let now = Date.now()
  const clock: Clock = { now: () => now, sleep: async (ms, until) => systemClock.sleep(Math.min(ms, 1000), until) }
  const keeper = keeperOf(t, store, [away], { clock })
  await endedTask(store)
  await keeper.look(signal)
  assert.deepEqual([keeper.isHeld(), keeper.state('osun').late], [true, null])
  now += 121_000
  assert.equal(keeper.isHeld(), false)
  await store.sql
    .updateTable('control_pending')
    .set({ due_at: new Date(Date.now() - 6 * 60_000) })
    .execute()
  await keeper.look(signal)
  assert.match(keeper.state('osun').late ?? '', /6 min: the storage is not mounted/)
  const missing = keeperOf(t, store, [new Failure('REPOSITORY_MISSING', 'there is none yet')])
  await missing.look(signal)
  assert.equal(missing.isHeld(), false)
})

test('of two nodes one writes; when that is gone, the other one does', async (t) => {
  const store = await testStore(t)
  const repository = await repositoryOf('osun')
  const one = keeperOf(t, store, [repository], { node: 'one' })
  const two = keeperOf(t, store, [repository], { node: 'two' })
  await one.look(signal)
  await endedTask(store)
  await two.look(signal)
  assert.deepEqual(await recordsOf(repository), [])
  await one.look(signal)
  assert.equal((await recordsOf(repository)).length, 1)
  await endedTask(store)
  await sql`update resus_control.control_writers set until = '1970-01-01'`.execute(store.sql)
  await two.look(signal)
  assert.equal((await recordsOf(repository)).length, 2)
  await one.look(signal)
})

test('the next writer has a clock that is behind: what it writes counts as the newer all the same', async (t) => {
  const repository = await repositoryOf('osun')
  const store = await testStore(t)
  const at = (ms: number): Clock => ({ ...systemClock, now: () => systemClock.now() + ms })
  await keeperOf(t, store, [repository], { node: 'one', clock: at(HOUR_MS) }).look(signal)
  const one = keeperOf(t, store, [repository], { node: 'one', clock: at(HOUR_MS) })
  const two = keeperOf(t, store, [repository], { node: 'two', clock: at(-HOUR_MS) })
  const over = async () => sql`update resus_control.control_writers set until = '1970-01-01'`.execute(store.sql)
  const stateOf = async () => {
    const fresh = await testStore(t)
    await keeperOf(t, fresh, [repository]).look(signal)
    return (await fresh.sql.selectFrom('alarms').select('state').execute()).map(({ state }) => state)
  }
  await raise(store, 'osun', 'a')
  await one.look(signal)
  assert.deepEqual(await stateOf(), ['open'])
  await over()
  await clearAlarm(store, { key: 'a', at: new Date(), dueAt: new Date(), text: 'it is over' })
  await two.look(signal)
  assert.deepEqual(await stateOf(), ['closed'])
  await over()
  await raise(store, 'osun', 'b')
  await one.look(signal)
  const objects = await listControlObjects(repository, 'work')
  const last = await readControlObject(repository, objects.at(-1)!.key)
  assert.deepEqual(
    last.records.map(({ body }) => body['key']),
    ['b'],
  )
})

test('a document that is too long is left out, and its size said; many records become several objects', async (t) => {
  const store = await testStore(t)
  const repository = await repositoryOf('osun')
  await endedTask(store, { result: { text: 'x'.repeat(100_000) } })
  const keeper = keeperOf(t, store, [repository])
  await keeper.look(signal)
  const [record] = await recordsOf(repository)
  assert.equal(record?.body['result'], null)
  assert.equal(record?.body['resultLeftOutBytes'], 100_011)
  for (let n = 0; n < 150; n += 1) await endedTask(store, { result: { text: 'y'.repeat(31_000) } })
  await keeper.look(signal)
  await waitUntil('all is written', async () => (await recordsOf(repository)).length === 151)
  assert.equal((await listControlObjects(repository, 'work')).length, 3)
})
