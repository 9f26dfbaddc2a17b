import assert from 'node:assert/strict'
import test from 'node:test'
import { facility, skip, testHospital } from '../../test/services/hospital-database.ts'
import { uuid } from '../uuid.ts'
import { record } from './record.ts'

function patient(id: string, at: string, family = 'Adeyemi') {
  return {
    stream: `Patient/${id}`,
    type: 'PatientRegistered',
    schemaVersion: 2,
    facility: at,
    payload: {
      resource: {
        resourceType: 'Patient',
        id,
        identifier: [{ system: `https://his.osun.example/mrn/${at}`, value: `MRN-${id.slice(-6)}` }],
        name: [{ family, given: ['Folake'] }],
        birthDate: '1990-04',
      },
    },
  }
}

test('a change is an event, a row, its provenance and its audit event, in two unbroken chains', { skip }, async (t) => {
  const { database, admin } = await testHospital(t)
  const id = uuid()
  const first = await database.transaction(facility('FAC001'), async (tx) =>
    record(tx, { ...patient(id, 'FAC001'), expected: 0 }),
  )
  const second = await database.transaction(facility('FAC001'), async (tx) =>
    record(tx, { ...patient(id, 'FAC001', 'Ojo'), expected: 1 }),
  )
  assert.deepEqual([first.version, second.version], [1, 2])
  const { rows } = await admin.query('select family, birth_date::text, version, facility from patients where id = $1', [id])
  assert.deepEqual(rows, [{ family: 'Ojo', birth_date: '1990-04-01', version: 2, facility: 'FAC001' }])
  const known = await admin.query('select facility, mrn from patient_facilities where patient_id = $1', [id])
  assert.deepEqual(known.rows, [{ facility: 'FAC001', mrn: `MRN-${id.slice(-6)}` }])
  const written = await admin.query(
    'select count(*)::int as n, count(*) filter (where target_version = 2)::int as second from provenances where target = $1',
    [`Patient/${id}`],
  )
  assert.deepEqual(written.rows, [{ n: 2, second: 1 }])
  const chains = await admin.query(`
    select bool_and(hash = hospital.event_hash(previous_hash, e)) as hashes,
      bool_and(previous_hash = coalesce((select p.hash from events p where p.stream = e.stream and p.version = e.version - 1), hospital.no_hash())) as streams,
      bool_and(lane_hash = hospital.lane_hash(coalesce((select p.lane_hash from events p where p.lane = e.lane and p.lane_sequence = e.lane_sequence - 1), hospital.no_hash()), hash)) as lanes,
      (select count(*) from audit_events) = count(*) as audited
    from events e`)
  assert.deepEqual(chains.rows, [{ hashes: true, streams: true, lanes: true, audited: true }])
})

test('a change of another version than the one that was seen is refused, and changes nothing', { skip }, async (t) => {
  const { database, admin } = await testHospital(t)
  const id = uuid()
  await database.transaction(facility('FAC001'), async (tx) => record(tx, { ...patient(id, 'FAC001'), expected: 0 }))
  const before = await admin.query('select count(*) from events')
  for (const expected of [0, 2, 7]) {
    await assert.rejects(
      database.transaction(facility('FAC001'), async (tx) => record(tx, { ...patient(id, 'FAC001'), expected })),
      { code: 'VERSION_CONFLICT', message: new RegExp(`at version 1, not ${expected}`) },
    )
  }
  assert.deepEqual((await admin.query('select count(*) from events')).rows, before.rows)
})

test(
  'of many that change one thing at once each change gets its own version, and who came too late is told',
  { skip },
  async (t) => {
    const { database, admin } = await testHospital(t)
    const id = uuid()
    await database.transaction(facility('FAC001'), async (tx) => record(tx, { ...patient(id, 'FAC001'), expected: 0 }))
    const outcomes = await Promise.allSettled(
      Array.from({ length: 16 }, async () =>
        database.transaction(facility('FAC001'), async (tx) => record(tx, { ...patient(id, 'FAC001'), expected: 1 })),
      ),
    )
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
    const reasons = outcomes.flatMap((each) => (each.status === 'rejected' ? [(each.reason as { code: string }).code] : []))
    assert.ok(
      reasons.every((code) => code === 'VERSION_CONFLICT' || code === 'CONFLICT'),
      reasons.join(' '),
    )
    const { rows } = await admin.query('select version from patients where id = $1', [id])
    assert.deepEqual(rows, [{ version: 2 }])
  },
)

test('events cannot be changed or removed, by their owner neither', { skip }, async (t) => {
  const { admin } = await testHospital(t)
  for (const statement of ["update events set type = 'x'", 'delete from events', 'truncate events', 'delete from checkpoints']) {
    await assert.rejects(admin.query(statement), { code: '23001', message: /append-only/ }, statement)
  }
})
