import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { appendFile, chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { appointmentChange, invoiceChange, laboratoryChange, patientChange } from '../../test/services/clinical-changes.ts'
import { copyOf } from '../../test/services/copied-database.ts'
import { facility, skip, testHospital, WORKER, type TestHospital } from '../../test/services/hospital-database.ts'
import { Database, type Transaction } from '../database/database.ts'
import { startEmbedded } from '../database/embedded.ts'
import { migrate } from '../database/migrate.ts'
import { record, type Change } from '../events/record.ts'
import { deliverBatch, deliverMessages } from './deliver.ts'
import { DeliveryLog } from './deliveries.ts'
import { engageHold, readHold, releaseHold } from './hold.ts'
import { queueMessages } from './queue.ts'

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url))
const AT = facility('FAC001')
const TIMEOUT_MS = 300_000
const options = { skip, timeout: TIMEOUT_MS }

/** A change and what it asks to be sent, as the FHIR face does it. */
async function recordAndQueue(transaction: Transaction, change: Change): Promise<number> {
  const event = await record(transaction, change)
  const { resource } = change.payload as { resource: object }
  return await queueMessages(transaction, { ...change, ...event }, resource)
}

async function addPatient(database: Database, phone?: string): Promise<string> {
  const change = patientChange('FAC001', undefined, phone)
  await database.transaction(AT, async (tx) => record(tx, change))
  return change.stream.slice('Patient/'.length)
}

async function queueReminders(database: Database, patient: string, count: number): Promise<void> {
  for (let done = 0; done < count; done += 1) {
    await database.transaction(AT, async (tx) => recordAndQueue(tx, appointmentChange('FAC001', patient)))
  }
}

async function openLog(t: TestContext, home: string): Promise<DeliveryLog> {
  const log = await DeliveryLog.open(home)
  t.after(async () => log[Symbol.asyncDispose]().catch(() => undefined))
  return log
}

async function linesIn(home: string): Promise<string[]> {
  const text = await readFile(join(home, 'outbound', 'deliveries.ndjson'), 'utf8').catch(() => '')
  return text.split('\n').filter((line) => line !== '')
}

async function idsIn(home: string): Promise<string[]> {
  return (await linesIn(home)).map((line) => (JSON.parse(line) as { id: string }).id)
}

/** Until a batch finds nothing to deliver. */
async function deliverAll(given: Parameters<typeof deliverBatch>[0]): Promise<void> {
  for (;;) {
    const outcome = await deliverBatch(given)
    if (outcome.kind !== 'done' || outcome.messages === 0) return
  }
}

async function statuses({ admin }: Pick<TestHospital, 'admin'>): Promise<Record<string, number>> {
  const { rows } = await admin.query<{ status: string; n: number }>(
    'select status, count(*)::integer as n from messages group by 1 order by 1',
  )
  return Object.fromEntries(rows.map(({ status, n }) => [status, n]))
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  const untilMs = Date.now() + TIMEOUT_MS / 2
  while (!(await condition())) {
    assert.ok(Date.now() < untilMs, 'not in time')
    await sleep(10)
  }
}

test(
  'a booking asks for an SMS, an order for the laboratory, an invoice for a claim; nothing else asks for anything',
  options,
  async (t) => {
    const { database, admin } = await testHospital(t)
    const patient = await addPatient(database)
    const silent = await addPatient(database, '')
    const counts = await database.transaction(AT, async (tx) => [
      await recordAndQueue(tx, appointmentChange('FAC001', patient)),
      await recordAndQueue(tx, laboratoryChange('FAC001', patient)),
      await recordAndQueue(tx, invoiceChange('FAC001', patient)),
      await recordAndQueue(tx, laboratoryChange('FAC001', patient, 'final')),
      await recordAndQueue(tx, appointmentChange('FAC001', silent)),
      await recordAndQueue(tx, patientChange('FAC001')),
    ])
    assert.deepEqual(counts, [1, 1, 1, 0, 0, 0])
    const { rows } = await admin.query('select kind, recipient, facility, patient_id, status, cause from messages order by kind')
    assert.deepEqual(
      rows.map(({ kind, recipient }: { kind: string; recipient: string }) => [kind, recipient]),
      [
        ['claim', 'claims:osun-health-insurance'],
        ['laboratory-order', 'laboratory:FAC001'],
        ['sms', '+2348031234567'],
      ],
    )
    assert.ok(
      rows.every((row: { patient_id: string; facility: string }) => row.patient_id === patient && row.facility === 'FAC001'),
    )
  },
)

test('a change that is taken back asks for nothing, and one that is asked twice asks once', options, async (t) => {
  const { database, admin } = await testHospital(t)
  const patient = await addPatient(database)
  const change = appointmentChange('FAC001', patient)
  const failing = database.transaction(AT, async (tx) => {
    await recordAndQueue(tx, change)
    throw new Error('taken back')
  })
  await assert.rejects(failing, /taken back/)
  assert.deepEqual(await statuses({ admin }), {})
  const event = await database.transaction(AT, async (tx) => record(tx, change))
  const { resource } = change.payload as { resource: object }
  for (const expected of [1, 0]) {
    const queued = await database.transaction(AT, async (tx) => queueMessages(tx, { ...change, ...event }, resource))
    assert.equal(queued, expected)
  }
  assert.deepEqual(await statuses({ admin }), { queued: 1 })
})

test('of several workers each message is delivered by one, and each delivery is an event', options, async (t) => {
  const hospital = await testHospital(t)
  const { database, home, admin } = hospital
  const patient = await addPatient(database)
  await queueReminders(database, patient, 45)
  const logs = [await openLog(t, home), await openLog(t, home), await openLog(t, home)]
  await Promise.all(logs.map(async (sink) => deliverAll({ database, sink })))
  await deliverAll({ database, sink: logs[0]! })
  const ids = await idsIn(home)
  assert.equal(ids.length, 45)
  assert.equal(new Set(ids).size, 45)
  assert.deepEqual(await statuses(hospital), { delivered: 45 })
  const { rows } = await admin.query("select count(*)::integer as n from events where type = 'MessageDelivered'")
  assert.deepEqual(rows, [{ n: 45 }])
})

test('a service that is killed between delivering and committing delivers nothing twice', options, async (t) => {
  const hospital = await testHospital(t)
  const { database, home, connectionString } = hospital
  const patient = await addPatient(database)
  const seed = randomInt(1_000_000)
  t.diagnostic(`seed ${seed}`)
  await queueReminders(database, patient, 60)
  for (let kill = 0; kill < 3; kill += 1) {
    const before = (await linesIn(home)).length
    const child = spawn(
      process.execPath,
      [MAIN, '--home', home, '--database', connectionString, 'serve', '--port', '0', '--no-topics', '--no-heartbeat'],
      { stdio: 'ignore' },
    )
    const exited = new Promise((resolve) => child.once('exit', resolve))
    t.after(() => child.kill('SIGKILL'))
    // Twenty are in a transaction: somewhere among them.
    await until(async () => (await linesIn(home)).length > before + ((seed * (kill + 1)) % 17))
    child.kill('SIGKILL')
    await exited
  }
  // A transaction of a client that was killed ends when the server finds out.
  await until(async () => {
    await deliverAll({ database, sink: await openLog(t, home) })
    return (await statuses(hospital))['queued'] === undefined
  })
  const ids = await idsIn(home)
  assert.equal(ids.length, 60)
  assert.equal(new Set(ids).size, 60)
  const { rows } = await hospital.admin.query<{ n: number }>(
    "select count(*)::integer as n from events where type = 'MessageDelivered' and (payload ->> 'recognised')::boolean",
  )
  t.diagnostic(`${rows[0]?.n} were recognised`)
})

test(
  'from when the hold is engaged nothing is delivered, by a worker that is in the middle of it neither',
  options,
  async (t) => {
    const hospital = await testHospital(t)
    const { database, home } = hospital
    const patient = await addPatient(database)
    await queueReminders(database, patient, 100)
    const controller = new AbortController()
    const worker = deliverMessages({ database, home, signal: controller.signal, report: () => undefined })
    t.after(async () => {
      controller.abort()
      await worker
    })
    await until(async () => (await linesIn(home)).length > 3)
    const other = new Database({ connectionString: hospital.connectionString })
    t.after(async () => other.close())
    await other.transaction(WORKER, async (tx) => engageHold(tx, { reason: 'a drill', person: 'Bisi' }))
    const delivered = (await linesIn(home)).length
    assert.ok(delivered < 100)
    await sleep(1200)
    assert.equal((await linesIn(home)).length, delivered)
    assert.deepEqual(await statuses(hospital), { delivered, queued: 100 - delivered })
    await other.transaction(WORKER, async (tx) => releaseHold(tx, { person: 'Bisi', reason: 'over' }))
    await until(async () => (await linesIn(home)).length === 100)
  },
)

test('a hold is released by a named person, and both are events', options, async (t) => {
  const { database, admin } = await testHospital(t)
  const release = async (person: string) => database.transaction(WORKER, async (tx) => releaseHold(tx, { person }))
  await assert.rejects(release('Bisi'), { code: 'CONFLICT', message: /no hold/ })
  await database.transaction(WORKER, async (tx) => engageHold(tx, { reason: 'a restore', person: 'Ade' }))
  await assert.rejects(release(' '), { code: 'BAD_REQUEST', message: /nobody is named/ })
  const twice = await database.transaction(WORKER, async (tx) => engageHold(tx, { reason: 'a drill', person: 'Bisi' }))
  assert.equal(twice.reason, 'a drill; before that: a restore')
  await release('Bisi')
  const hold = await database.transaction(AT, readHold)
  assert.deepEqual([hold?.held, hold?.person], [false, 'Bisi'])
  const { rows } = await admin.query(
    "select type, payload ->> 'person' as person from events where stream = 'Hold/1' order by version",
  )
  assert.deepEqual(rows, [
    { type: 'HoldEngaged', person: 'Ade' },
    { type: 'HoldEngaged', person: 'Bisi' },
    { type: 'HoldReleased', person: 'Bisi' },
  ])
})

test('a facility can neither hold, nor release, nor see what was published', options, async (t) => {
  const { database } = await testHospital(t)
  await assert.rejects(
    database.transaction(AT, async (tx) => engageHold(tx, { reason: 'x', person: 'x' })),
    { code: 'FORBIDDEN' },
  )
  for (const table of ['published', 'published_records', 'records_ahead', 'known_cluster']) {
    await assert.rejects(
      database.transaction(AT, async ({ client }) => client.query(`select * from ${table}`)),
      { code: '42501' },
      table,
    )
  }
})

test('a copy of a database holds by itself, and after its release knows what the other has delivered', options, async (t) => {
  const hospital = await testHospital(t)
  const { home } = hospital
  const patient = await addPatient(hospital.database)
  await deliverBatch({ database: hospital.database, sink: await openLog(t, home) })
  await queueReminders(hospital.database, patient, 5)
  const restored = await copyOf(t, hospital)
  // The lost window: these are delivered, and the restored database does not know.
  await deliverAll({ database: hospital.database, sink: await openLog(t, home) })
  assert.equal((await linesIn(home)).length, 5)

  await queueReminders(restored.database, patient, 1)
  const sink = await openLog(t, home)
  const outcome = await deliverBatch({ database: restored.database, sink })
  assert.ok(outcome.kind === 'restored' && /this database is a copy of another/.test(outcome.reason))
  assert.deepEqual(await deliverBatch({ database: restored.database, sink }), { kind: 'held' })
  assert.equal((await linesIn(home)).length, 5)

  await restored.database.transaction(WORKER, async (tx) => releaseHold(tx, { person: 'Bisi' }))
  await deliverAll({ database: restored.database, sink })
  assert.equal((await linesIn(home)).length, 6)
  assert.deepEqual(await statuses(restored), { delivered: 6 })
  const { rows } = await restored.admin.query(
    "select count(*)::integer as n from events where type = 'MessageDelivered' and (payload ->> 'recognised')::boolean",
  )
  assert.deepEqual(rows, [{ n: 5 }])
})

test('a database that was recovered to a new timeline holds before it delivers anything', options, async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'hospital-restored-'))
  await chmod(home, 0o755)
  t.after(async () => rm(home, { recursive: true, force: true }))
  const settings = { shared_buffers: '32MB', dynamic_shared_memory_type: 'mmap', restore_command: 'false' }
  const look = async () => {
    const server = await startEmbedded(home, { settings })
    // It answers before it has left recovery.
    const admin = new pg.Client({ connectionString: server.connectionString })
    await admin.connect()
    await until(async () => (await admin.query<{ done: boolean }>('select not pg_is_in_recovery() as done')).rows[0]!.done)
    await admin.end()
    await migrate(server.connectionString)
    const database = new Database({ connectionString: server.connectionString, connectionsMax: 2 })
    try {
      await using sink = await DeliveryLog.open(home)
      return [await deliverBatch({ database, sink }), await deliverBatch({ database, sink })]
    } finally {
      await database.close()
      await server[Symbol.asyncDispose]()
    }
  }
  assert.deepEqual(
    (await look()).map(({ kind }) => kind),
    ['done', 'done'],
  )
  assert.deepEqual((await look())[0]?.kind, 'done', 'a restart alone is no restore')
  const mark = join(home, 'cluster', 'recovery.signal')
  await writeFile(mark, '')
  await chmod(mark, 0o666)
  assert.deepEqual(await look(), [{ kind: 'restored', reason: 'this database was restored (timeline 1 to 2)' }, { kind: 'held' }])
})

test('a message that the sink does not take is tried again later, and given up after the last attempt', options, async (t) => {
  const hospital = await testHospital(t)
  const { database, home } = hospital
  const patient = await addPatient(database)
  await queueReminders(database, patient, 1)
  const broken = await openLog(t, home)
  await broken[Symbol.asyncDispose]()
  assert.deepEqual(await deliverBatch({ database, sink: broken, backOffMs: 60_000 }), { kind: 'done', messages: 1 })
  assert.deepEqual(
    await deliverBatch({ database, sink: broken, backOffMs: 60_000 }),
    { kind: 'done', messages: 0 },
    'not due yet',
  )
  for (let attempt = 0; attempt < 4; attempt += 1) await deliverBatch({ database, sink: broken, backOffMs: 0, attemptsMax: 3 })
  const { rows } = await hospital.admin.query("select type from events where stream like 'Message/%' order by position")
  assert.deepEqual(
    rows.map(({ type }: { type: string }) => type),
    ['MessageQueued', 'MessageAttempted', 'MessageAttempted', 'MessageFailed'],
  )
  assert.deepEqual(await statuses(hospital), { failed: 1 })
  assert.deepEqual(await linesIn(home), [])
})

test('a delivery whose line was cut off was none; one that lacks only its end was one', options, async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'hospital-log-'))
  t.after(async () => rm(home, { recursive: true, force: true }))
  const message = { facility: 'FAC001', kind: 'sms', patient: null, recipient: '+234', body: 'x' } as const
  const first = await openLog(t, home)
  await first.deliver({ id: 'a', ...message })
  const path = join(home, 'outbound', 'deliveries.ndjson')
  await appendFile(path, '{"id":"b","facil')
  const second = await openLog(t, home)
  assert.deepEqual([await second.has('a'), await second.has('b')], [true, false])
  await second.deliver({ id: 'c', ...message })
  await appendFile(path, '{"id":"d"}')
  assert.deepEqual([await first.has('c'), await first.has('d')], [true, true])
  await first.deliver({ id: 'e', ...message })
  const third = await openLog(t, home)
  assert.deepEqual(
    [await third.has('a'), await third.has('b'), await third.has('c'), await third.has('d'), await third.has('e')],
    [true, false, true, true, true],
  )
})
