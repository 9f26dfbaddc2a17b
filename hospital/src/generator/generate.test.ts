import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { hash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import type pg from 'pg'
import { facility, skip, testHospital, type TestHospital } from '../../test/services/hospital-database.ts'
import { record } from '../events/record.ts'
import { uuid } from '../uuid.ts'
import { generate, type Generated } from './generate.ts'
import { LGAS } from './names.ts'

const SIZE = { seed: 1, facilities: 4, patients: 150, untilMs: Date.parse('2026-01-01T00:00:00Z') }

async function generated(t: TestContext, size = SIZE): Promise<TestHospital & { readonly result: Generated }> {
  const hospital = await testHospital(t, [])
  const { connectionString, home: filesDirectory } = hospital
  return { ...hospital, result: await generate({ ...size, connectionString, filesDirectory }) }
}

async function ask(admin: pg.Client, sql: string): Promise<Record<string, unknown>[]> {
  const { rows } = await admin.query<Record<string, unknown>>(sql)
  return rows
}

const SCHEMA = `
  select 'index' as kind, i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid) as definition
  from pg_index i join pg_class r on r.oid = i.indexrelid where r.relnamespace = 'hospital'::regnamespace
  union all select 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) from pg_constraint where connamespace = 'hospital'::regnamespace
  union all select 'policies', oid::regclass::text, relrowsecurity::text || relforcerowsecurity::text || coalesce(relacl::text, '')
  from pg_class where relnamespace = 'hospital'::regnamespace and relkind = 'r'
  order by 1, 2, 3`

test('the same seed gives the same hospital, to the last hash, and another seed another', { skip }, async (t) => {
  const [first, second, other] = [await generated(t), await generated(t), await generated(t, { ...SIZE, seed: 2 })]
  assert.deepEqual(first.result, second.result)
  assert.notEqual(first.result.digest, other.result.digest)
  const content = 'select position, id, stream, version, payload::text, lane_hash from events order by position'
  assert.deepEqual(await ask(first.admin, content), await ask(second.admin, content))
  assert.deepEqual(
    (await readdir(join(first.home, 'documents'))).toSorted(),
    (await readdir(join(second.home, 'documents'))).toSorted(),
  )
})

test('its events stand in the chains as if each had been recorded when it happened', { skip }, async (t) => {
  const { admin, result } = await generated(t)
  const chains = await ask(
    admin,
    `select count(*)::int as events, bool_and(hash = hospital.event_hash(previous_hash, e)) as hashes,
      bool_and(previous_hash = coalesce((select p.hash from events p where p.stream = e.stream and p.version = e.version - 1), hospital.no_hash())) as streams,
      bool_and((version = 1) = not exists (select from events p where p.stream = e.stream and p.version < e.version)) as whole,
      bool_and(lane_hash = hospital.lane_hash(coalesce((select p.lane_hash from events p where p.lane = e.lane and p.lane_sequence = e.lane_sequence - 1), hospital.no_hash()), hash)) as lanes,
      bool_and(at >= coalesce((select max(p.at) from events p where p.position = e.position - 1), '-infinity')) as ordered
    from events e`,
  )
  assert.deepEqual(chains, [{ events: result.events, hashes: true, streams: true, whole: true, lanes: true, ordered: true }])
  const ends = await ask(
    admin,
    `select l.sequence = count(*) and l.hash = (select lane_hash from events order by lane_sequence desc limit 1) as lane,
      (select last_value from events_position_seq) = max(e.position) as sequence
    from events e join lanes l on l.lane = e.lane group by l.lane, l.sequence, l.hash`,
  )
  assert.deepEqual(ends, [{ lane: true, sequence: true }])
})

test('its projections are what its events say when they are projected once more', { skip }, async (t) => {
  const { admin } = await generated(t)
  const tables = (await ask(admin, "select tablename from pg_tables where schemaname = 'hospital'"))
    .map((row) => String(row['tablename']))
    .filter((name) => !['events', 'lanes', 'checkpoints', 'user_tokens'].includes(name))
  await admin.query('create schema again')
  for (const name of tables) await admin.query(`create table again.${name} (like hospital.${name} including all)`)
  await admin.query('set search_path = again, hospital')
  await admin.query('select hospital.project(1, (select max(position) from hospital.events))')
  let rows = 0
  for (const name of tables) {
    const [difference] = await ask(
      admin,
      `select (select count(*)::int from hospital.${name}) as count,
        (select count(*)::int from (table hospital.${name} except all table again.${name}) a) as gone,
        (select count(*)::int from (table again.${name} except all table hospital.${name}) a) as added`,
    )
    assert.deepEqual([name, difference?.['gone'], difference?.['added']], [name, 0, 0])
    rows += Number(difference?.['count'])
  }
  assert.ok(rows > 1000)
})

test('it leaves the schema as it was: every index, constraint, policy and right', { skip }, async (t) => {
  const empty = await testHospital(t, [])
  const { admin } = await generated(t)
  assert.deepEqual(await ask(admin, SCHEMA), await ask(empty.admin, SCHEMA))
})

test('the service goes on where the generated history ends', { skip }, async (t) => {
  const { admin, database } = await generated(t)
  const [{ id, position } = {}] = await ask(
    admin,
    "select id, (select max(position) from events) as position from patients where facility = 'FAC001' and version = 1 limit 1",
  )
  const event = await database.transaction(facility('FAC001'), async (tx) =>
    record(tx, {
      stream: `Consent/${uuid()}`,
      expected: 0,
      type: 'ConsentGiven',
      schemaVersion: 2,
      facility: 'FAC001',
      payload: { resource: { status: 'active', patient: { reference: `Patient/${String(id)}` } } },
    }),
  )
  assert.equal(event.position, BigInt(String(position)) + 1n)
})

test(
  'what it tells fits together: laboratory after the sample, bills that add up, bed days, referrals, ages',
  { skip },
  async (t) => {
    const { admin } = await generated(t, { ...SIZE, patients: 1500 })
    const [counts] = await ask(
      admin,
      `select
      (select count(*)::int from patients) as patients,
      (select count(*)::int from facilities) as facilities,
      (select count(*)::int from observations where issued_at <= effective_at) as "results before their samples",
      (select count(*)::int from observations where encounter_id is null or unit is null or code_system <> 'http://loinc.org') as "results of nothing",
      (select count(*)::int from invoices where total is distinct from (select sum((c #>> '{amount,value}')::numeric)
        from jsonb_path_query(content, '$.lineItem[*].priceComponent[*]') c)) as "bills that do not add up",
      (select count(*)::int from events where at > '2026-01-01' or at < '2023-01-01') as "outside its time",
      (select count(*)::int from encounters where ended_at <= started_at or (class = 'IMP' and ended_at < started_at + interval '1 day')) as "no stay",
      (select count(*)::int from patients where birth_date > created_at) as unborn,
      (select count(*)::int from encounters e join patients p on p.id = e.patient_id
        where content_of(e) in ('O80.0', 'Z34.9') and p.gender <> 'female') as "fathers in labour",
      (select count(*)::int from referrals r where status = 'completed' and not exists (
        select from encounters e where e.facility = r.to_facility and e.patient_id = r.patient_id)) as "completed without a visit"`.replace(
        'content_of(e)',
        "e.content #>> '{reasonCode,0,coding,0,code}'",
      ),
    )
    for (const [name, count] of Object.entries(counts ?? {})) {
      assert.equal(count, name === 'patients' ? 1500 : name === 'facilities' ? 4 : 0, name)
    }
    const kinds = async (sql: string): Promise<unknown[]> => (await ask(admin, sql)).map((row) => row['kind'])
    assert.deepEqual(await kinds('select distinct status as kind from referrals order by 1'), [
      'active',
      'completed',
      'draft',
      'on-hold',
      'revoked',
    ])
    assert.deepEqual(await kinds('select distinct class as kind from encounters order by 1'), ['AMB', 'EMER', 'IMP'])
    assert.deepEqual(await kinds('select distinct status as kind from consent_records order by 1'), ['active', 'inactive'])
    assert.deepEqual(
      await kinds("select 'future' as kind from appointments where starts_at > '2026-01-01' and status = 'booked' limit 1"),
      ['future'],
    )
    assert.deepEqual(await kinds('select distinct role as kind from users order by 1'), ['clerk', 'clinician', 'group'])
    const lgas = await kinds('select distinct lga as kind from patients order by 1')
    assert.ok(lgas.every((lga) => LGAS.includes(String(lga))) && lgas.length === LGAS.length)
    const shared = await ask(admin, 'select count(*)::int as n from patient_facilities group by patient_id having count(*) > 1')
    assert.ok(shared.length > 10)
  },
)

test('the oldest records of patients are of the first schema, and read as all others', { skip }, async (t) => {
  const { admin } = await generated(t, { ...SIZE, patients: 300 })
  const rows = await ask(
    admin,
    `select e.schema_version, count(*)::int, bool_and(p.family is not null and p.birth_date is not null and p.content ->> 'resourceType' = 'Patient') as readable,
      max(e.at) < (select min(at) from events where stream like 'Patient/%' and schema_version = 2) as oldest
    from events e join patients p on e.stream = 'Patient/' || p.id where e.version = 1 group by 1 order by 1`,
  )
  assert.deepEqual(rows, [
    { schema_version: 1, count: 3, readable: true, oldest: true },
    { schema_version: 2, count: 297, readable: true, oldest: false },
  ])
})

test('each document is a file of the named content', { skip }, async (t) => {
  const { admin, home, result } = await generated(t, { ...SIZE, patients: 400 })
  const rows = await ask(admin, 'select sha256, size_bytes from document_references')
  assert.ok(rows.length > 10 && rows.length === result.documents)
  for (const { sha256, size_bytes } of rows) {
    const content = await readFile(join(home, 'documents', String(sha256).slice(0, 2), String(sha256)))
    assert.deepEqual([hash('sha256', content, 'hex'), String(content.length)], [sha256, size_bytes])
  }
})

test('an interrupted run leaves an empty hospital, and the next run is as if there had been none', { skip }, async (t) => {
  const { admin, connectionString, home: filesDirectory } = await testHospital(t, [])
  const size = { ...SIZE, patients: 3000, connectionString, filesDirectory }
  let reports = 0
  const report = (): void => {
    reports += 1
    if (reports > 1) return
    void admin.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'hospital generate'")
  }
  await assert.rejects(generate({ ...size, report }))
  assert.deepEqual(await ask(admin, 'select (select count(*) from events) as events, (select count(*) from lanes) as lanes'), [
    { events: '0', lanes: '0' },
  ])
  const after = await generate({ ...size, patients: 150 })
  assert.equal(after.digest, (await generated(t)).result.digest)
  assert.ok(existsSync(join(filesDirectory, 'documents')))
})

test('a hospital that has patients or facilities is refused and not touched; of two runs at once one is', { skip }, async (t) => {
  const { admin, connectionString, home: filesDirectory } = await testHospital(t, [])
  const options = { ...SIZE, connectionString, filesDirectory }
  const outcomes = await Promise.allSettled([generate(options), generate(options)])
  assert.deepEqual(outcomes.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected'])
  const [before] = await ask(admin, 'select count(*) from events')
  await assert.rejects(generate({ ...options, seed: 7 }), {
    name: 'CannotRun',
    message: /has 150 patients and 4 facilities already/,
  })
  assert.deepEqual(await ask(admin, 'select count(*) from events'), [before])
  const onboarded = await testHospital(t, ['FAC001'])
  await assert.rejects(generate({ ...options, connectionString: onboarded.connectionString }), {
    message: /has 0 patients and 1 facilities/,
  })
})
