import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { locationRecord, write } from '../../test/services/clinical-records.ts'
import { facility, skip, testHospital, type TestHospital } from '../../test/services/hospital-database.ts'
import { tamper } from '../../test/services/tampering.ts'
import { Database } from '../database/database.ts'
import { uuid } from '../uuid.ts'
import { BROKEN_CHECKPOINTS, startCheckpoints, takeCheckpoint, type BrokenCheckpoint } from './checkpoints.ts'
import { record } from './record.ts'

async function broken({ admin }: TestHospital): Promise<BrokenCheckpoint[]> {
  return (await admin.query<BrokenCheckpoint>(BROKEN_CHECKPOINTS)).rows
}

async function counts({ admin }: TestHospital): Promise<{ covered: number; events: number; checkpoints: number }> {
  const { rows } = await admin.query<{ covered: number; events: number; checkpoints: number }>(`
    select coalesce(sum(events), 0)::int as covered, count(*)::int as checkpoints, (select count(*)::int from events) as events from checkpoints`)
  return rows[0]!
}

test('a checkpoint is over every event since the last one, and none is made when nothing happened', { skip }, async (t) => {
  const hospital = await testHospital(t)
  assert.deepEqual(await takeCheckpoint(hospital.database), { kind: 'done', made: 1, events: 3 })
  assert.deepEqual(await takeCheckpoint(hospital.database), { kind: 'done', made: 0, events: 0 })
  for (let n = 0; n < 7; n += 1) await write(hospital.database, locationRecord('FAC001'))
  assert.deepEqual(await takeCheckpoint(hospital.database, { eventsMax: 3 }), { kind: 'done', made: 3, events: 7 })
  assert.deepEqual(await broken(hospital), [])
  assert.deepEqual(await counts(hospital), { covered: 10, events: 10, checkpoints: 4 })
})

test(
  'a checkpoint waits for a transaction that has drawn a position and not ended, and covers its event then',
  { skip },
  async (t) => {
    const hospital = await testHospital(t)
    // Connections that have their lane already: taking one is a transaction too, and it would end meanwhile.
    await Promise.all([write(hospital.database, locationRecord('FAC003')), write(hospital.database, locationRecord('FAC003'))])
    let commit = (): void => undefined
    const held = new Promise<void>((resolve) => {
      commit = resolve
    })
    let drawn = (): void => undefined
    const begun = new Promise<void>((resolve) => {
      drawn = resolve
    })
    const slow = hospital.database.transaction(facility('FAC001'), async (tx) => {
      const event = await record(tx, locationRecord('FAC001'))
      drawn()
      await held
      return event
    })
    await begun
    try {
      // No transaction has ended since the slow one began: it is the very one that a snapshot's xmax names.
      assert.deepEqual(await takeCheckpoint(hospital.database, { waitMs: 100 }), { kind: 'waiting' })
      await write(hospital.database, locationRecord('FAC002'))
      assert.deepEqual(await takeCheckpoint(hospital.database, { waitMs: 100 }), { kind: 'waiting' })
      assert.equal((await counts(hospital)).checkpoints, 0)
    } catch (error) {
      // Or whoever closes the database waits for it for ever.
      commit()
      throw error
    }
    const waiting = takeCheckpoint(hospital.database)
    await delay(50)
    commit()
    await slow
    assert.deepEqual(await waiting, { kind: 'done', made: 1, events: 7 })
    assert.deepEqual(await broken(hospital), [])
  },
)

test(
  'under many writers, some of whom fail and some of whom are slow, two services cover every event exactly once',
  { skip },
  async (t) => {
    const hospital = await testHospital(t)
    const other = new Database({ connectionString: hospital.connectionString, connectionsMax: 8 })
    t.after(async () => other.close())
    const services = [startCheckpoints(hospital.database, { everyMs: 5 }), startCheckpoints(other, { everyMs: 5 })]
    const outcomes = await Promise.all(
      Array.from({ length: 12 }, async (_, writer) => writeMany(writer % 2 === 0 ? hospital.database : other, writer)),
    )
    for (const service of services) await service[Symbol.asyncDispose]()
    const during = await counts(hospital)
    await takeCheckpoint(hospital.database)
    assert.deepEqual(await broken(hospital), [])
    const end = await counts(hospital)
    const written = outcomes.reduce((sum, each) => sum + each, 0)
    assert.deepEqual({ covered: end.covered, events: end.events }, { covered: written + 3, events: written + 3 })
    assert.ok(during.checkpoints > 3, `${during.checkpoints} checkpoints while it was written`)
  },
)

/** How many events were committed. */
async function writeMany(database: Database, writer: number): Promise<number> {
  let written = 0
  for (let n = 0; n < 25; n += 1) {
    const fails = (n + writer) % 5 === 0
    const work = database.transaction(facility('FAC001'), async (tx) => {
      for (let events = 0; events < 1 + (n % 3); events += 1) await record(tx, locationRecord('FAC001'))
      if (n % 4 === 0) await delay(writer * 3)
      if (fails) throw new Error('wanted')
    })
    await work.catch((error: Error) => assert.equal(error.message, 'wanted'))
    if (!fails) written += 1 + (n % 3)
  }
  return written
}

test('a checkpoint that is killed half-way leaves nothing, and the next one covers its events', { skip }, async (t) => {
  const hospital = await testHospital(t)
  const blocker = new pg.Client({ connectionString: hospital.connectionString })
  await blocker.connect()
  t.after(async () => blocker.end())
  // Holds up the insert of the checkpoint, and nothing of a writer's.
  await blocker.query('begin; lock table hospital.checkpoints in exclusive mode')
  const attempt = takeCheckpoint(hospital.database)
  const failed = assert.rejects(attempt)
  for (let ended = 0; ended === 0; await delay(10)) {
    await write(hospital.database, locationRecord('FAC001'))
    const { rowCount } = await hospital.admin.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query ~ 'checkpoints'",
    )
    ended = rowCount ?? 0
  }
  await failed
  await blocker.query('rollback')
  assert.equal((await counts(hospital)).checkpoints, 0)
  await takeCheckpoint(hospital.database)
  const { covered, events } = await counts(hospital)
  assert.equal(covered, events)
})

const NEWEST = '(select max(position) from hospital.events)'
const REHASHED = `update hospital.events e set payload = '{}', hash = hospital.event_hash(previous_hash, jsonb_populate_record(e, '{"payload":{}}'))`
const tamperings: Record<string, string> = {
  'an event was changed, and its hash made to fit': `${REHASHED} where position = 2`,
  'the newest event was changed, and its hash made to fit': `${REHASHED} where position = ${NEWEST}`,
  'an event was removed': 'delete from hospital.events where position = 2',
  'the newest event was removed': `delete from hospital.events where position = ${NEWEST}`,
  'a whole stream was removed': "delete from hospital.events where stream = 'Organization/FAC003'",
  'everything was removed': 'delete from hospital.events',
  'two events changed places': `
    alter table hospital.events alter position drop identity;
    update hospital.events set position = -position where position in (1, 2);
    update hospital.events set position = 3 + position where position < 0`,
  'an event was put in where a transaction had failed': `
    insert into hospital.events overriding system value
    select (jsonb_populate_record(e, jsonb_build_object('position', 4, 'id', '${uuid()}', 'stream', 'Organization/FAC009'))).* from hospital.events e limit 1`,
  'a checkpoint was removed': 'delete from hospital.checkpoints where number = 1',
  'a checkpoint was made to fit': "update hospital.checkpoints set hash = sha256('x') where number = 1",
}

for (const [name, statement] of Object.entries(tamperings)) {
  test(`checkpoints show that ${name}`, { skip }, async (t: TestContext) => {
    const hospital = await testHospital(t)
    const failing = hospital.database.transaction(facility('FAC001'), async (tx) => {
      await record(tx, locationRecord('FAC001'))
      throw new Error('wanted')
    })
    await assert.rejects(failing, { message: 'wanted' })
    await write(hospital.database, locationRecord('FAC001'))
    await takeCheckpoint(hospital.database)
    await write(hospital.database, locationRecord('FAC001'))
    await takeCheckpoint(hospital.database)
    assert.deepEqual(await broken(hospital), [])
    await tamper(hospital, statement)
    assert.notDeepEqual(await broken(hospital), [])
  })
}
