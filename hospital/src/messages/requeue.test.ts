import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { appointmentChange, invoiceChange, laboratoryChange, patientChange } from '../../test/services/clinical-changes.ts'
import { runHospital } from '../../test/services/hospital-command.ts'
import { facility, skip, testHospital, WORKER, type TestHospital } from '../../test/services/hospital-database.ts'
import { compareProjections } from '../events/rebuild.ts'
import { record } from '../events/record.ts'
import { uuid } from '../uuid.ts'
import { deliverBatch, type DeliverySink } from './deliver.ts'
import { engageHold, releaseHold } from './hold.ts'
import { queueMessages } from './queue.ts'
import { reportMessages, requeueFailed } from './requeue.ts'

/** Takes nothing, and says why. */
const REFUSING: DeliverySink = {
  has: async () => false,
  deliver: async ({ kind }) => {
    throw new Error(`the gateway for ${kind} is away`)
  },
}

/** Takes everything, and remembers what. */
function taking(): DeliverySink & { readonly taken: string[] } {
  const taken: string[] = []
  return { taken, has: async (id) => taken.includes(id), deliver: async ({ id }) => void taken.push(id) }
}

/** A hospital in which two text messages, a claim and an order were given up. Gives their ids by kind. */
async function withFailures(t: TestContext): Promise<TestHospital & { readonly ids: Readonly<Record<string, string[]>> }> {
  const hospital = await testHospital(t)
  await hospital.database.transaction(facility('FAC001'), async (tx) => {
    const patient = patientChange('FAC001')
    await record(tx, patient)
    const id = patient.stream.slice('Patient/'.length)
    for (const make of [appointmentChange, appointmentChange, invoiceChange, laboratoryChange]) {
      const change = make('FAC001', id)
      const event = await record(tx, change)
      await queueMessages(tx, { ...change, ...event }, (change.payload as { resource: object }).resource)
    }
  })
  await deliverBatch({ database: hospital.database, sink: REFUSING, attemptsMax: 1 })
  const { rows } = await hospital.admin.query<{ kind: string; ids: string[] }>(
    "select kind, array_agg(id::text order by id) as ids from messages where status = 'failed' group by kind",
  )
  return { ...hospital, ids: Object.fromEntries(rows.map(({ kind, ids }) => [kind, ids])) }
}

async function statuses({ admin }: TestHospital): Promise<string[]> {
  const { rows } = await admin.query<{ text: string }>(
    "select kind || ' ' || status || ' ' || count(*) as text from messages group by kind, status order by 1",
  )
  return rows.map(({ text }) => text)
}

test('failed messages are told by kind, each with its last error', { skip }, async (t) => {
  const { database, ids } = await withFailures(t)
  const { counts, failed } = await database.transaction(WORKER, async (tx) => reportMessages(tx, 3))
  assert.deepEqual(
    counts.map(({ kind, status, messages }) => `${kind} ${status} ${messages}`),
    ['claim failed 1', 'laboratory-order failed 1', 'sms failed 2'],
  )
  assert.equal(failed.length, 3, 'no more than were asked for')
  for (const { id, kind, attempts, reason } of failed) {
    assert.ok(ids[kind]?.includes(id))
    assert.deepEqual([attempts, reason], [1, `the gateway for ${kind} is away`])
  }
})

test('what a named person requeues is delivered, and a rebuild makes the same rows', { skip }, async (t) => {
  const hospital = await withFailures(t)
  const { database, admin, ids, connectionString } = hospital
  assert.equal(await requeueFailed(database, { person: 'Bisi', kind: 'sms', reason: 'the gateway is back' }), 2)
  assert.deepEqual(await statuses(hospital), ['claim failed 1', 'laboratory-order failed 1', 'sms queued 2'])
  const { rows } = await admin.query<{ actor: string; payload: Record<string, unknown> }>(
    "select actor, payload from events where type = 'MessageRequeued' order by stream",
  )
  assert.deepEqual(
    rows.map(({ actor, payload }) => [actor, payload['person'], payload['reason'], payload['status'], payload['attempts']]),
    Array.from({ length: 2 }, () => ['Bisi', 'Bisi', 'the gateway is back', 'queued', 0]),
  )
  assert.equal(await requeueFailed(database, { person: 'Bisi', ids: ids['claim']! }), 1)
  const sink = taking()
  assert.deepEqual(await deliverBatch({ database, sink }), { kind: 'done', messages: 3 })
  assert.deepEqual(sink.taken.toSorted(), [...ids['sms']!, ...ids['claim']!].toSorted())
  assert.deepEqual(await statuses(hospital), ['claim delivered 1', 'laboratory-order failed 1', 'sms delivered 2'])
  const differing = (await compareProjections({ connectionString })).filter((table) => table.differing > 0)
  assert.deepEqual(differing, [])
})

test('what was requeued under a hold goes out when that is released, and not before', { skip }, async (t) => {
  const hospital = await withFailures(t)
  const { database } = hospital
  await database.transaction(WORKER, async (tx) => engageHold(tx, { reason: 'restored', person: 'Ade' }))
  assert.equal(await requeueFailed(database, { person: 'Bisi' }), 4)
  const sink = taking()
  assert.deepEqual(await deliverBatch({ database, sink }), { kind: 'held' })
  assert.deepEqual(await statuses(hospital), ['claim queued 1', 'laboratory-order queued 1', 'sms queued 2'])
  await database.transaction(WORKER, async (tx) => releaseHold(tx, { person: 'Ade' }))
  await deliverBatch({ database, sink })
  assert.equal(sink.taken.length, 4)
})

test('two who requeue the same at once requeue each message once', { skip }, async (t) => {
  const { database, admin } = await withFailures(t)
  const counts = await Promise.all(['Bisi', 'Ade', 'Folake'].map(async (person) => requeueFailed(database, { person })))
  assert.deepEqual(
    counts.toSorted((a, b) => a - b),
    [0, 0, 4],
  )
  const { rows } = await admin.query("select count(*)::int as n from events where type = 'MessageRequeued'")
  assert.deepEqual(rows, [{ n: 4 }])
})

test('an id that is no failed message, or nobody, requeues nothing', { skip }, async (t) => {
  const hospital = await withFailures(t)
  const { database, ids } = hospital
  const [known = ''] = ids['sms']!
  const before = await statuses(hospital)
  const unknown = uuid()
  await assert.rejects(requeueFailed(database, { person: 'Bisi', ids: [known, unknown] }), {
    code: 'NOT_FOUND',
    message: `there is no failed message ${unknown}`,
  })
  await assert.rejects(requeueFailed(database, { person: 'Bisi', ids: [known], kind: 'claim' }), { code: 'NOT_FOUND' })
  await assert.rejects(requeueFailed(database, { person: ' ' }), { code: 'BAD_REQUEST' })
  assert.deepEqual(await statuses(hospital), before)
})

test('`hospital messages` lists what failed, and requeues it by a name', { skip }, async (t) => {
  const hospital = await withFailures(t)
  const { ids, connectionString, database } = hospital
  const run = async (...words: readonly string[]) => runHospital('--database', connectionString, 'messages', ...words)
  const [sms = ''] = ids['sms']!
  const listed = await run()
  assert.equal(listed.status, 0, listed.stderr)
  assert.match(listed.stdout, /^claim +failed +1\n/)
  assert.ok(listed.stdout.includes(`${sms}  sms of FAC001, failed `), listed.stdout)
  assert.match(listed.stdout, /at attempt 1: the gateway for sms is away\n/)
  assert.equal((await run('requeue')).status, 2)
  assert.equal((await run('requeue', '--by', ' ')).status, 2)
  assert.equal((await run('requeue', '--by', 'Bisi', '--kind', 'fax')).status, 2)
  assert.equal((await run('requeue', '--by', 'Bisi', '--id', 'x')).status, 2)
  const missing = await run('requeue', '--by', 'Bisi', '--id', sms, '--id', uuid())
  assert.deepEqual([missing.status, /no failed message .*\n {2}hint: /.test(missing.stderr)], [2, true], missing.stderr)
  await database.transaction(WORKER, async (tx) => engageHold(tx, { reason: 'restored', person: 'Ade' }))
  const requeued = await run('requeue', '--by', 'Bisi', '--id', sms)
  assert.deepEqual(
    [requeued.status, requeued.stdout],
    [0, '1 messages requeued by Bisi; nothing leaves the hospital until `hospital release`\n'],
  )
  const { counts } = JSON.parse((await run('--json')).stdout) as { counts: unknown }
  assert.deepEqual(counts, [
    { kind: 'claim', status: 'failed', messages: 1 },
    { kind: 'laboratory-order', status: 'failed', messages: 1 },
    { kind: 'sms', status: 'failed', messages: 1 },
    { kind: 'sms', status: 'queued', messages: 1 },
  ])
})
