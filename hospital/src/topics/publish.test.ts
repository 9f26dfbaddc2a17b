import {
  Admin,
  ConfigResourceTypes,
  Consumer,
  IncrementalAlterConfigOperationTypes,
  stringDeserializers,
} from '@platformatic/kafka'
import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { randomInt, randomUUID } from 'node:crypto'
import { after, test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { appointmentChange, invoiceChange, laboratoryChange, patientChange } from '../../test/services/clinical-changes.ts'
import { copyOf } from '../../test/services/copied-database.ts'
import { facility, skip, testHospital, type TestHospital } from '../../test/services/hospital-database.ts'
import { kafkaJars, startKafka, type KafkaBroker } from '../../test/services/kafka-broker.ts'
import { assertPublished, readAll, type OpenSink } from '../../test/services/topic-readers.ts'
import type { Database } from '../database/database.ts'
import { record } from '../events/record.ts'
import { sinkOpener } from './open-sink.ts'
import { publishTopics } from './publish.ts'
import { workerClient } from './session.ts'
import { topicsStatus } from './status.ts'
import { retentionMs, TOPIC_NAMES } from './topics.ts'

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url))
const TIMEOUT_MS = 300_000
const jars = skip === false ? await kafkaJars() : { missing: skip }
const skipKafka = 'missing' in jars ? jars.missing : false
let brokers = 0
let shared: Promise<KafkaBroker> | undefined

after(async () => (await shared)?.[Symbol.asyncDispose]())

async function broker(): Promise<KafkaBroker> {
  if ('missing' in jars) throw new Error(jars.missing)
  shared ??= startKafka(jars.classpath)
  return await shared
}

/** What a hospital needs to publish to one kind of sink, with topics of its own. */
interface Publishing {
  readonly openSink: OpenSink
  readonly flags: readonly string[]
}

const SINKS = [
  {
    name: 'table',
    skip,
    publishing: async (): Promise<Publishing> => ({ openSink: sinkOpener({ topicPrefix: '' }), flags: [] }),
  },
  {
    name: 'Kafka',
    skip: skipKafka,
    publishing: async (): Promise<Publishing> => {
      const { address } = await broker()
      brokers += 1
      const topicPrefix = `test-${brokers}.`
      return {
        openSink: sinkOpener({ kafka: [address], topicPrefix }),
        flags: ['--kafka', address, '--topic-prefix', topicPrefix],
      }
    },
  },
]

/** A publisher in this process, until the test ends or `end` is called. */
function publisher(t: TestContext, connectionString: string, openSink: OpenSink) {
  const controller = new AbortController()
  const lines: string[] = []
  const done = publishTopics({ connectionString, openSink, signal: controller.signal, report: (line) => lines.push(line) })
  const end = async (): Promise<void> => {
    controller.abort()
    await done
  }
  t.after(end)
  return { end, lines }
}

async function publishAll(connectionString: string, openSink: OpenSink): Promise<readonly string[]> {
  const lines: string[] = []
  const signal = AbortSignal.timeout(TIMEOUT_MS)
  await publishTopics({ connectionString, openSink, signal, report: (line) => lines.push(line), untilCaughtUp: true })
  return lines
}

/** Some work at one facility: several versions of a few streams, now and then one that is taken back. */
async function treat(database: Database, at: string, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    const patient = patientChange(at)
    const id = patient.stream.slice('Patient/'.length)
    await database.transaction(facility(at), async (tx) => {
      await record(tx, patient)
      // A position that is drawn early and seen late.
      if (round % 3 === 0) await sleep(randomInt(15))
      await record(tx, appointmentChange(at, id))
    })
    await database.transaction(facility(at), async (tx) => record(tx, laboratoryChange(at, id)))
    await database.transaction(facility(at), async (tx) => record(tx, patient))
    await database
      .transaction(facility(at), async (tx) => {
        await record(tx, invoiceChange(at, id))
        if (round % 4 === 0) throw new Error('taken back')
      })
      .catch(() => undefined)
  }
}

async function untilPublished(hospital: TestHospital, openSink: OpenSink): Promise<number> {
  const untilMs = Date.now() + TIMEOUT_MS
  for (;;) {
    const status = await topicsStatus({ connectionString: hospital.connectionString, openSink }).catch(() => undefined)
    if (status?.behind === 0n) {
      const records = await readAll(hospital.connectionString, openSink)
      return await assertPublished(hospital.admin, records)
    }
    assert.ok(Date.now() < untilMs, 'not published in time')
    await sleep(100)
  }
}

for (const sink of SINKS) {
  const options = { skip: sink.skip, timeout: TIMEOUT_MS }

  test(`${sink.name}: while many write, every event comes to its topics once, in the order of its stream`, options, async (t) => {
    const hospital = await testHospital(t)
    const { openSink } = await sink.publishing()
    publisher(t, hospital.connectionString, openSink)
    const places = ['FAC001', 'FAC002', 'FAC003', 'FAC001', 'FAC002', 'FAC003']
    await Promise.all(places.map(async (at) => treat(hospital.database, at, 12)))
    assert.equal(await untilPublished(hospital, openSink), 0)
  })

  test(`${sink.name}: a transaction that stays open is not overtaken`, options, async (t) => {
    const hospital = await testHospital(t)
    const { openSink } = await sink.publishing()
    publisher(t, hospital.connectionString, openSink)
    await hospital.database.transaction(facility('FAC001'), async (tx) => {
      await record(tx, patientChange('FAC001'))
      await treat(hospital.database, 'FAC002', 2)
      await sleep(600)
      const records = await readAll(hospital.connectionString, openSink)
      assert.equal(records.filter(({ topic }) => topic === 'patient').length, 0)
    })
    assert.equal(await untilPublished(hospital, openSink), 0)
  })

  test(
    `${sink.name}: a publisher that is killed at any moment leaves nothing out, and its successor repeats little`,
    options,
    async (t) => {
      const hospital = await testHospital(t)
      const { openSink, flags } = await sink.publishing()
      const seed = randomInt(1_000_000)
      t.diagnostic(`seed ${seed}`)
      const writing = Promise.all(['FAC001', 'FAC002', 'FAC003'].map(async (at) => treat(hospital.database, at, 60)))
      // Small batches, so that it is in one of many when it is killed.
      for (let kill = 0; kill < 4; kill += 1) {
        const child = spawnPublisher(t, hospital, [...flags, '--batch-events', '3'])
        await said(child, 'behind position')
        await sleep((seed * (kill + 1) * 7919) % 400)
        await killed(child)
      }
      await writing
      await publishAll(hospital.connectionString, openSink)
      const again = await untilPublished(hospital, openSink)
      t.diagnostic(`${again} records were published again`)
      // A batch is two records of three events.
      assert.ok(again <= 4 * 6, `${again} records`)
    },
  )

  test(`${sink.name}: an event of several megabytes is published, in a batch of its own`, options, async (t) => {
    const hospital = await testHospital(t, ['FAC001'])
    const { openSink } = await sink.publishing()
    const large = patientChange('FAC001')
    const { resource } = large.payload as { resource: object }
    const payload = { resource: { ...resource, text: { status: 'generated', div: 'x'.repeat(9 * 1024 * 1024) } } }
    for (const change of [patientChange('FAC001'), { ...large, payload }, patientChange('FAC001')]) {
      await hospital.database.transaction(facility('FAC001'), async (tx) => record(tx, change))
    }
    await publishAll(hospital.connectionString, openSink)
    assert.equal(await untilPublished(hospital, openSink), 0)
  })

  test(`${sink.name}: a second publisher waits until the first has ended, and repeats nothing`, options, async (t) => {
    const hospital = await testHospital(t)
    const { openSink } = await sink.publishing()
    const first = publisher(t, hospital.connectionString, openSink)
    await treat(hospital.database, 'FAC001', 2)
    await untilPublished(hospital, openSink)
    const second = publisher(t, hospital.connectionString, openSink)
    await sleep(300)
    assert.deepEqual(second.lines, [])
    await first.end()
    await treat(hospital.database, 'FAC001', 2)
    assert.equal(await untilPublished(hospital, openSink), 0)
    assert.match(second.lines.join('\n'), /behind position \d+/)
  })

  test(`${sink.name}: each topic keeps what it declares, and is corrected where somebody changed that`, options, async (t) => {
    const hospital = await testHospital(t)
    const { openSink, flags } = await sink.publishing()
    const { connectionString } = hospital
    const before = await topicsStatus({ connectionString, openSink })
    assert.equal(before.good, false)
    assert.ok(before.topics.every(({ settings }) => settings.actual === null))
    await publishAll(connectionString, openSink)
    const made = await topicsStatus({ connectionString, openSink })
    assert.equal(made.good, true)
    assert.deepEqual(
      made.topics.map(({ topic, settings }) => [topic, settings.actual?.['retention.ms']]),
      TOPIC_NAMES.map((topic) => [topic, String(retentionMs(topic))]),
    )
    await shortenRetention(connectionString, flags)
    const changed = await topicsStatus({ connectionString, openSink })
    assert.deepEqual(
      changed.topics.filter(({ differing }) => differing.length > 0).map(({ topic, differing }) => ({ topic, differing })),
      [{ topic: 'lab', differing: ['retention.ms'] }],
    )
    const lines = await publishAll(connectionString, openSink)
    assert.match(lines[0]!, /corrected lab/)
    assert.equal((await topicsStatus({ connectionString, openSink })).good, true)
  })
}

test('the audit topic says who did what, and nothing clinical; the other topics say all', { skip }, async (t) => {
  const { connectionString, database, admin } = await testHospital(t, ['FAC001'])
  const patient = patientChange('FAC001')
  await database.transaction(facility('FAC001'), async (tx) => record(tx, patient))
  await publishAll(connectionString, sinkOpener({ topicPrefix: '' }))
  const { rows } = await admin.query('select topic, key, value, headers from published where key = $1 order by topic', [
    patient.stream,
  ])
  assert.deepEqual(
    rows.map(({ topic }: { topic: string }) => topic),
    ['audit', 'patient'],
  )
  assert.equal(JSON.stringify(rows[0]).includes('Adeyemi'), false)
  const event = await admin.query('select *, position::integer as place from events where stream = $1', [patient.stream])
  const { id, place, hash, at } = event.rows[0]
  assert.deepEqual(rows[1], {
    topic: 'patient',
    key: patient.stream,
    headers: { id, position: place },
    value: {
      id,
      stream: patient.stream,
      version: 1,
      type: 'PatientRegistered',
      schemaVersion: 2,
      facility: 'FAC001',
      otherFacility: null,
      actor: 'test at FAC001',
      at: at.toISOString(),
      position: place,
      hash: hash.toString('hex'),
      payload: patient.payload,
    },
  })
})

test('a table keeps records as long as its topic says, and what has expired is not published again', { skip }, async (t) => {
  const { connectionString, database, admin } = await testHospital(t, ['FAC001'])
  const openSink = sinkOpener({ topicPrefix: '' })
  await treat(database, 'FAC001', 2)
  await publishAll(connectionString, openSink)
  const count = async (): Promise<number> =>
    (await admin.query<{ n: number }>('select count(*)::integer as n from published_records')).rows[0]!.n
  const before = await count()
  await admin.query("update published_records set published_at = now() - interval '3 years'")
  const client = await workerClient(connectionString, 'test')
  t.after(async () => client.end())
  await openSink(client).expire()
  assert.equal(await count(), before - 2, 'the two appointments are gone')
  await publishAll(connectionString, openSink)
  assert.equal(await count(), before - 2)
  await treat(database, 'FAC001', 1)
  await publishAll(connectionString, openSink)
  const { rows } = await admin.query(`select "offset"::integer from published where topic = 'appointment'`)
  assert.deepEqual(rows, [{ offset: 2 }])
})

test(
  'a consumer of Kafka reads the stream as key, the envelope as value, and the event in headers',
  { skip: skipKafka },
  async (t) => {
    const { connectionString, database } = await testHospital(t, ['FAC001'])
    const { openSink, flags } = await SINKS[1]!.publishing()
    const patient = patientChange('FAC001')
    const event = await database.transaction(facility('FAC001'), async (tx) => record(tx, patient))
    await publishAll(connectionString, openSink)
    const consumer = new Consumer({
      clientId: 'test',
      groupId: randomUUID(),
      bootstrapBrokers: [flags[1]!],
      deserializers: stringDeserializers,
    })
    t.after(async () => consumer.close(true))
    const stream = await consumer.consume({ topics: [`${flags[3]!}patient`], mode: 'earliest', autocommit: false })
    for await (const message of stream) {
      assert.equal(message.key, patient.stream)
      assert.deepEqual(Object.fromEntries(message.headers), { id: event.id, position: String(event.position) })
      assert.deepEqual(JSON.parse(message.value).payload, patient.payload)
      break
    }
  },
)

test(
  'what a broker that was killed and came back is missing is published',
  { skip: skipKafka, timeout: TIMEOUT_MS },
  async (t) => {
    const hospital = await testHospital(t)
    const { openSink } = await SINKS[1]!.publishing()
    const { lines } = publisher(t, hospital.connectionString, openSink)
    await treat(hospital.database, 'FAC001', 2)
    await untilPublished(hospital, openSink)
    const kafka = await broker()
    const writing = treat(hospital.database, 'FAC002', 40)
    await sleep(200)
    await kafka.kill()
    await sleep(1500)
    await kafka.start()
    await writing
    await untilPublished(hospital, openSink)
    assert.match(lines.join('\n'), /tried again/)
  },
)

test(
  'a broker that lost a topic, or everything, gets again what it lost and no more',
  { skip: skipKafka, timeout: TIMEOUT_MS },
  async (t) => {
    const hospital = await testHospital(t)
    const { openSink, flags } = await SINKS[1]!.publishing()
    await treat(hospital.database, 'FAC001', 6)
    await publishAll(hospital.connectionString, openSink)
    const [, address, , prefix] = flags
    await deleteTopics(address!, [`${prefix}billing`])
    await publishAll(hospital.connectionString, openSink)
    assert.equal(await untilPublished(hospital, openSink), 0)
    await deleteTopics(
      address!,
      TOPIC_NAMES.map((name) => `${prefix}${name}`),
    )
    await publishAll(hospital.connectionString, openSink)
    assert.equal(await untilPublished(hospital, openSink), 0)
  },
)

test(
  'a database that is older than the broker is told so, and its new events are published',
  { skip: skipKafka, timeout: TIMEOUT_MS },
  async (t) => {
    const hospital = await testHospital(t)
    const { openSink } = await SINKS[1]!.publishing()
    await treat(hospital.database, 'FAC001', 3)
    await publishAll(hospital.connectionString, openSink)
    const restored = await copyOf(t, hospital)
    await treat(hospital.database, 'FAC002', 3)
    await publishAll(hospital.connectionString, openSink)
    const lost = await restored.admin.query<{ position: string }>('select max(position) as position from events')
    const source = await workerClient(hospital.connectionString, 'test')
    t.after(async () => source.end())
    const events = await source.query<{ id: string }>('select id from events where position > $1', [lost.rows[0]!.position])

    // What it writes now takes the positions of what was lost.
    await treat(restored.database, 'FAC003', 2)
    const { connectionString } = restored
    const lines = await publishAll(connectionString, openSink)
    assert.match(lines.join('\n'), /THIS DATABASE DOES NOT HAVE/)
    const status = await topicsStatus({ connectionString, openSink })
    assert.equal(status.good, false)
    assert.equal(status.behind, 0n)
    const written = await restored.admin.query<{ event_id: string }>('select distinct event_id from records_ahead')
    assert.deepEqual(written.rows.map(({ event_id: id }) => id).toSorted(), events.rows.map(({ id }) => id).toSorted())
    assert.equal(
      status.ahead.reduce((sum, { records }) => sum + records, 0),
      events.rows.length * 2,
    )
    const unknown = new Set(events.rows.map(({ id }) => id))
    const known = (await readAll(connectionString, openSink)).filter(({ id }) => !unknown.has(id))
    assert.equal(await assertPublished(restored.admin, known), 0)

    await publishAll(connectionString, openSink)
    const again = await topicsStatus({ connectionString, openSink })
    assert.deepEqual(again.ahead, status.ahead)
  },
)

test(
  '`hospital topics status` ends with 1 when the broker is ahead, until a person acknowledges it',
  { skip: skipKafka, timeout: TIMEOUT_MS },
  async (t) => {
    const hospital = await testHospital(t)
    const { openSink, flags } = await SINKS[1]!.publishing()
    await publishAll(hospital.connectionString, openSink)
    assert.equal((await command(hospital.connectionString, ['topics', 'status', ...flags])).status, 0)
    const restored = await copyOf(t, hospital)
    await treat(hospital.database, 'FAC001', 1)
    await publishAll(hospital.connectionString, openSink)
    const told = await command(restored.connectionString, ['topics', 'status', ...flags])
    assert.equal(told.status, 1)
    assert.match(told.output, /AHEAD OF THE DATABASE: audit/)
    const acknowledged = await command(restored.connectionString, ['topics', 'acknowledge', '--by', 'Folake'])
    assert.match(acknowledged.output, /\d+ records acknowledged by Folake/)
    assert.equal((await command(restored.connectionString, ['topics', 'status', ...flags])).status, 0)
  },
)

function spawnPublisher(t: TestContext, hospital: TestHospital, flags: readonly string[]): ChildProcess {
  const child = spawn(process.execPath, [MAIN, '--database', hospital.connectionString, 'topics', 'publish', ...flags], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  t.after(async () => killed(child))
  return child
}

async function said(child: ChildProcess, text: string): Promise<void> {
  let heard = ''
  for await (const chunk of child.stderr!) {
    heard += String(chunk)
    if (heard.includes(text)) return
  }
  assert.fail(`the publisher ended: ${heard}`)
}

async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  await exited
}

async function command(connectionString: string, words: readonly string[]): Promise<{ status: number | null; output: string }> {
  const child = spawn(process.execPath, [MAIN, '--database', connectionString, ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  for await (const chunk of child.stdout) output += String(chunk)
  if (child.exitCode === null) await new Promise((resolve) => child.once('exit', resolve))
  return { status: child.exitCode, output }
}

async function shortenRetention(connectionString: string, flags: readonly string[]): Promise<void> {
  const [, address, , prefix] = flags
  if (address !== undefined) {
    const configs = [{ name: 'retention.ms', configOperation: IncrementalAlterConfigOperationTypes.SET, value: '60000' }]
    const resourceType = ConfigResourceTypes.TOPIC
    return await asAdmin(address, async (admin) =>
      admin.incrementalAlterConfigs({ resources: [{ resourceType, resourceName: `${prefix}lab`, configs }] }),
    )
  }
  const client = await workerClient(connectionString, 'test')
  await client.query("update published_topics set retention_ms = 60000 where topic = 'lab'")
  await client.end()
}

async function deleteTopics(address: string, topics: readonly string[]): Promise<void> {
  await asAdmin(address, async (admin) => {
    await admin.deleteTopics({ topics: [...topics] })
    while ((await admin.listTopics()).some((name) => topics.includes(name))) await sleep(100)
  })
}

async function asAdmin(address: string, work: (admin: Admin) => Promise<void>): Promise<void> {
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: [address] })
  try {
    await work(admin)
  } finally {
    await admin.close()
  }
}
