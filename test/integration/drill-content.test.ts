import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { CanaryRound } from '../../src/protect/postgres/canary-round.ts'
import { checksSchema } from '../../src/protect/postgres/content/checks-schema.ts'
import { putBaseline, type Baseline } from '../../src/protect/postgres/content/baseline.ts'
import { takeBaseline } from '../../src/protect/postgres/content/take-baseline.ts'
import { heartbeatSetup } from '../../src/protect/postgres/heartbeat-setup.ts'
import { HeartbeatSession, type Beat } from '../../src/protect/postgres/heartbeat-session.ts'
import { systemClock } from '../../src/clock.ts'
import { rehearse, type ChecksInput } from '../services/drilling.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'

// Copies that are bad, each in a way that amcheck and checksums do not see; and good ones that have changed much.

const HOSPITAL = fileURLToPath(new URL('../../hospital/src/main.ts', import.meta.url))
const skip = await skipUnlessInstalled(18)

const SCHEMA = `
  create table patients (id bigint generated always as identity primary key, facility text not null, name text not null);
  insert into patients (facility, name) select (array['ila', 'ede'])[1 + i % 2], 'patient number ' || i from generate_series(1, 2000) i;
  create role clinician login; create role reader; grant reader to clinician;
  grant select, update on patients to reader;
  grant update (name) on patients to clinician;
  alter table patients enable row level security; alter table patients force row level security;
  create policy own on patients to reader using (facility = current_setting('hospital.facility', true));
  create policy everything on patients to current_user using (true);
  create extension pg_trgm;
  alter database postgres set timezone = 'Africa/Lagos';
  alter role clinician set statement_timeout = '5s'`

async function take(cluster: ProtectedCluster, checks: ChecksInput = {}): Promise<Baseline> {
  const component = { ...cluster.component, checks: checksSchema.parse(checks) }
  const baseline = await takeBaseline({ component, signal: new AbortController().signal })
  await putBaseline(cluster.repository, baseline)
  return baseline
}

test('a role, right, policy, extension or setting that is missing fails the drill, by name', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(SCHEMA)
  await take(cluster)
  await cluster.backup()
  const good = await rehearse(cluster)
  assert.equal(good.found('catalog').verdict, 'verified', good.found('catalog').found)
  assert.match(good.found('catalog').found, /^all of \d+ facts of the baseline$/)

  await cluster.query(`
    drop policy own on patients; alter table patients no force row level security;
    revoke update on patients from reader; revoke reader from clinician;
    alter role clinician superuser; drop extension pg_trgm; alter database postgres reset timezone; alter role clinician set statement_timeout = '6s'`)
  await cluster.backup()
  const { predicate, found } = await rehearse(cluster)
  assert.equal(predicate.verdict, 'failed')
  assert.match(predicate.why, /^catalog: /)
  assert.match(
    found('catalog').found,
    /lost extension pg_trgm; changed role clinician; lost membership clinician in reader; .*, and \d more/,
  )
  // Nothing of what a setting or a policy says.
  assert.ok(!JSON.stringify(predicate.checks).includes('Lagos'))
})

test('what came anew since the baseline is no loss, and what was renamed is not lost', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(SCHEMA)
  await take(cluster)
  await cluster.query(`
    create role auditor; grant select on patients to auditor; create policy audit on patients to auditor using (true);
    alter table patients rename to persons; alter table persons add column born date; create table wards (id int)`)
  await cluster.backup()
  const { found, predicate } = await rehearse(cluster)
  assert.equal(found('catalog').verdict, 'verified', found('catalog').found)
  assert.match(found('catalog').found, /others are new or newer/)
  assert.equal(predicate.verdict, 'verified', predicate.why)
})

test('indexes built by another version of a library are not judged here', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(`${SCHEMA}; create index by_name on patients (name collate "und-x-icu")`)
  await cluster.backup()
  const good = await rehearse(cluster)
  assert.equal(good.found('collations').verdict, 'verified', good.found('collations').found)
  await cluster.query(`update pg_collation set collversion = '1.0' where collname = 'und-x-icu'`)
  await cluster.backup()
  const { found } = await rehearse(cluster)
  assert.equal(found('collations').verdict, 'not proven')
  assert.match(
    found('collations').found,
    /another library \(und-x-icu was 1\.0, and is .* here\): 1 indexes cannot be judged here: .*by_name/,
  )
})

/** One beat, and canaries of the moment of it, or of `hoursAgo`. */
async function beat(cluster: ProtectedCluster, hoursAgo = 0): Promise<Beat> {
  const { repository, cluster: server } = cluster
  const { signal } = new AbortController()
  await using session = await HeartbeatSession.connect({ component: 'his-db', connectionString: server.connectionString, signal })
  const round = new CanaryRound({ component: 'his-db', facilities: ['ila', 'ede'], ring: async () => repository.ring })
  const made = await session.beat(systemClock)
  const then = { ...made, at: new Date(made.at.getTime() - hoursAgo * 3_600_000) }
  // The first time the key is fetched.
  await session.renewCanaries(round, then)
  await systemClock.sleep(50)
  await session.renewCanaries(round, then)
  return made
}

test('canaries are renewed beside the heartbeat, and a copy that has them otherwise fails', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(heartbeatSetup('postgres'))
  await beat(cluster)
  await beat(cluster)
  const numbers = await cluster.query<{ facility: string; number: string }>(
    'select facility, number from resus.canary order by 1',
  )
  // Not twice within the hour.
  assert.deepEqual(numbers, [
    { facility: '', number: '1' },
    { facility: 'ede', number: '1' },
    { facility: 'ila', number: '1' },
  ])
  const found = async () => {
    await cluster.backup()
    const { found: of } = await rehearse(cluster)
    return of('canaries')
  }
  assert.deepEqual((await found()).verdict, 'verified')

  await cluster.query(
    `update resus.canary set value = (select value from resus.canary where facility = 'ede') where facility = 'ila'`,
  )
  const swapped = await found()
  assert.equal(swapped.verdict, 'failed')
  assert.match(swapped.found, /^that of "ila" is not what its number and time make it$/)

  await cluster.query(`delete from resus.canary where facility = 'ila'`)
  assert.match((await found()).found, /^that of "ila" is missing$/)

  // Two nodes at once.
  await cluster.query('truncate resus.canary')
  await Promise.all([beat(cluster), beat(cluster)])
  const planted = await cluster.query(
    'select count(*)::int as rows, max(number)::int as number, count(distinct at)::int as moments from resus.canary',
  )
  assert.deepEqual(planted, [{ rows: 3, number: 1, moments: 1 }])
  assert.equal((await found()).verdict, 'verified')

  await cluster.query('truncate resus.canary')
  assert.equal((await found()).verdict, 'not proven')

  await beat(cluster, 5)
  const stale = await found()
  assert.deepEqual([stale.verdict, /too old, beside a heartbeat/.test(stale.found)], ['failed', true])
  await cluster.query('update resus.heartbeat set sequence = 0')
  assert.equal((await found()).verdict, 'not proven')
})

test('a server without the table of canaries has its heartbeat all the same', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(heartbeatSetup('postgres'))
  await cluster.query('drop table resus.canary')
  assert.equal((await beat(cluster)).sequence, 1)
  await cluster.backup()
  const { found } = await rehearse(cluster)
  assert.equal(found('heartbeat').verdict, 'verified')
  assert.equal(found('canaries').verdict, 'not proven')
  assert.match(found('canaries').found, /resus config --heartbeat/)
  // Once more, as an installation that has the heartbeat does.
  await cluster.query(heartbeatSetup('postgres'))
  assert.equal((await beat(cluster)).sequence, 2)
  const rows = await cluster.query('select 1 from resus.canary')
  assert.equal(rows.length, 3)
})

/** The reference hospital, with a heartbeat, canaries and a baseline. */
async function hospital(cluster: ProtectedCluster, patients: number): Promise<void> {
  const args = ['--home', join(cluster.stateDirectory, 'hospital'), '--database', cluster.cluster.connectionString]
  await promisify(execFile)(process.execPath, [HOSPITAL, ...args, 'generate', '--patients', String(patients), '--seed', '11'])
  await cluster.query(heartbeatSetup('postgres'))
  await cluster.query('create schema keep')
  await beat(cluster)
}

const CHECKS: ChecksInput = {
  fhir: 'reference-hospital',
  sql: [{ name: 'patients', query: 'select count(*) from hospital.patients', expect: { least: 40 } }],
}

interface KnownBad {
  readonly name: string
  readonly check: string
  /** What the record has to say. */
  readonly says: RegExp
  readonly damage: string
  readonly undo: string
}

const KNOWN_BAD: readonly KnownBad[] = [
  {
    name: 'a sequence set back',
    check: 'sequences',
    says: /1 of \d+ would give out numbers again: hospital\.events_position_seq in "postgres" stands at 3/,
    damage: `select setval('hospital.events_position_seq', 3)`,
    undo: `select setval('hospital.events_position_seq', (select max(position) from hospital.events))`,
  },
  {
    name: 'rows of two facilities swapped',
    check: 'fhir: facilities',
    says: /^\d+ wrong of \d+; 0 were so at the baseline$/,
    damage: `
      create table keep.swapped as select id, facility, lead(facility) over (order by facility) as other from (
        select distinct on (e.facility) e.id, e.facility from hospital.encounters e join hospital.observations o on o.encounter_id = e.id order by e.facility limit 2) e;
      update keep.swapped set other = (select min(facility) from keep.swapped) where other is null;
      update hospital.encounters e set facility = s.other from keep.swapped s where s.id = e.id`,
    undo: 'update hospital.encounters e set facility = s.facility from keep.swapped s where s.id = e.id',
  },
  {
    name: 'audit cut short',
    check: 'fhir: audit',
    says: /^cut short: lane \d+ is from 1 to \d+, and was from 1 to \d+ at the baseline$/,
    damage: `
      create table keep.audit as select a.* from hospital.audit_events a where (lane, lane_sequence) in (select lane, max(lane_sequence) from hospital.audit_events group by lane);
      delete from hospital.audit_events where id in (select id from keep.audit)`,
    undo: 'insert into hospital.audit_events select * from keep.audit',
  },
  {
    name: 'audit with a hole',
    check: 'fhir: audit',
    says: /^1 wrong of \d+; 0 were so at the baseline$/,
    damage: `
      create table keep.hole as select * from hospital.audit_events where lane_sequence = 2 order by lane limit 1;
      delete from hospital.audit_events where id in (select id from keep.hole)`,
    undo: 'insert into hospital.audit_events select * from keep.hole',
  },
  {
    name: 'a table emptied',
    check: 'rows',
    says: /^1 of \d+ tables: hospital\.invoices is empty, and had \d+ rows/,
    damage: 'create table keep.invoices as select * from hospital.invoices; delete from hospital.invoices',
    undo: 'insert into hospital.invoices select * from keep.invoices',
  },
  {
    name: 'a column encrypted',
    check: 'fhir: bodies',
    says: /^\d+ wrong of \d+; 0 were so at the baseline$/,
    damage: `
      create table keep.observations as select id, content from hospital.observations;
      update hospital.observations set content = to_jsonb(encode(sha256(convert_to(content::text, 'UTF8')), 'base64'))`,
    undo: 'update hospital.observations o set content = k.content from keep.observations k where k.id = o.id',
  },
  {
    name: 'a policy missing',
    check: 'catalog',
    says: /^lost policy facility_sees on hospital\.encounters \(of \d+ facts of the baseline\)$/,
    damage: 'drop policy facility_sees on hospital.encounters',
    undo: 'create policy facility_sees on hospital.encounters for select to hospital_facility using (facility = (select hospital.current_facility()))',
  },
  {
    name: 'references that lead nowhere',
    check: 'fhir: references',
    says: /^\d+ wrong of \d+; 0 were so at the baseline$/,
    damage: `
      create table keep.locations as select * from hospital.locations l where exists (select from hospital.encounters e where e.location_id = l.id) limit 1;
      delete from hospital.locations where id in (select id from keep.locations)`,
    undo: 'insert into hospital.locations select * from keep.locations',
  },
  {
    name: 'a canary of another facility',
    check: 'canaries',
    says: /^that of "ede" is not what its number and time make it; that of "ila" is not what its number and time make it$/,
    damage: `update resus.canary c set value = o.value from resus.canary o where c.facility in ('ila', 'ede') and o.facility in ('ila', 'ede') and c.facility <> o.facility`,
    undo: `update resus.canary c set value = o.value from resus.canary o where c.facility in ('ila', 'ede') and o.facility in ('ila', 'ede') and c.facility <> o.facility`,
  },
]

/** Nothing by which a patient could be known. */
async function assertNobodyIsIn(cluster: ProtectedCluster, text: string): Promise<void> {
  const patients = await cluster.query<{ words: string[] }>(
    `select array_remove(array[id::text, phone, content #>> '{identifier,0,value}', family || ' ' || given], null) as words from hospital.patients`,
  )
  for (const word of patients.flatMap(({ words }) => words)) assert.ok(!text.includes(word), word)
}

test(
  'known bad: each fails for what it is, names it, and says nothing of a patient; mended, it is verified',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await hospital(cluster, 40)
    await take(cluster, CHECKS)
    for (const { name, check, says, damage, undo } of KNOWN_BAD) {
      // What the hospital's own rules would refuse.
      const change = (sql: string) => `set session_replication_role = replica; ${sql}; reset session_replication_role`
      await cluster.query(change(damage))
      await cluster.backup()
      const { predicate, record, found } = await rehearse(cluster, CHECKS)
      assert.equal(predicate.verdict, 'failed', name)
      assert.equal(found(check).verdict, 'failed', `${name}: ${found(check).found}`)
      assert.match(found(check).found, says, name)
      assert.equal(predicate.measured.rtoSeconds, null, name)
      await assertNobodyIsIn(cluster, Buffer.from(record.envelope.payload, 'base64').toString('utf8'))
      await cluster.query(change(undo))
    }
    await cluster.backup()
    const mended = await rehearse(cluster, CHECKS)
    assert.equal(mended.predicate.verdict, 'verified', mended.predicate.why)
  },
)

test(
  'rows of two facilities that were exchanged below the server have all counts right, and another hash',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18, dataChecksums: false })
    await cluster.query(
      `create table beds (id int primary key, facility char(3), patient text); insert into beds values (1, 'ila', 'one of ila'), (2, 'ede', 'one of ede')`,
    )
    await take(cluster)
    const [{ path } = { path: '' }] = await cluster.query<{ path: string }>(`select pg_relation_filepath('beds') as path`)
    await cluster.query('checkpoint')
    await cluster.cluster.stop()
    const file = join(cluster.cluster.directory, path)
    const bytes = await readFile(file)
    const [ila, ede] = [bytes.indexOf('one of ila'), bytes.indexOf('one of ede')]
    assert.ok(ila > 0 && ede > 0)
    bytes.write('one of ede', ila)
    bytes.write('one of ila', ede)
    await writeFile(file, bytes)
    await cluster.cluster.start()
    await cluster.backup()
    const { found } = await rehearse(cluster)
    assert.match(found('rows').found, /1 of 1 tables: public\.beds has its 2 rows, and another hash/)
  },
)

for (const major of [18, 15]) {
  const missing = await skipUnlessInstalled(major)

  test(
    `known good, PostgreSQL ${major}: vacuum, reindex, churn and a migration are no reason to fail`,
    { skip: missing },
    async (t) => {
      await using cluster = await protectedCluster(t, { major })
      await hospital(cluster, 60)
      await cluster.backup()
      await take(cluster, CHECKS)
      await cluster.query('vacuum full')
      await cluster.query('reindex database postgres')
      for (let round = 0; round < 5; round += 1) {
        await cluster.query('update hospital.messages set cause = cause; update hospital.facilities set name = name')
        await cluster.query('create table if not exists churn (id int, body text)')
        await cluster.query(
          'delete from churn; insert into churn select i, md5(i::text) from generate_series(1, 20000) i; update churn set body = body',
        )
      }
      await cluster.query('vacuum freeze')
      await cluster.query(`
      alter table hospital.patients add column language text not null default 'yo';
      alter table hospital.invoices rename to bills; alter table hospital.bills rename column total to amount;
      create index on hospital.patients (language); create table hospital.wards (id int generated always as identity primary key, name text);
      insert into hospital.wards (name) values ('one'); alter table hospital.messages alter column kind type varchar(40);
      create policy more on hospital.bills for select to hospital_group using (true); grant select on hospital.wards to hospital_group;
      create or replace view hospital.fhir_resources with (security_invoker = true) as
        select 'Patient' as type, id::text as id, facility, version, updated_at, content from hospital.patients
        union all select 'Organization', id, id as facility, version, updated_at, content from hospital.facilities
        union all select 'Location', id::text, facility, version, updated_at, content from hospital.locations
        union all select 'Encounter', id::text, facility, version, updated_at, content from hospital.encounters
        union all select 'Appointment', id::text, facility, version, updated_at, content from hospital.appointments
        union all select 'Observation', id::text, facility, version, updated_at, content from hospital.observations
        union all select 'MedicationRequest', id::text, facility, version, updated_at, content from hospital.medication_requests
        union all select 'Invoice', id::text, facility, version, updated_at, content from hospital.bills
        union all select 'Consent', id::text, facility, version, updated_at, content from hospital.consent_records
        union all select 'DocumentReference', id::text, facility, version, updated_at, content from hospital.document_references
        union all select 'ServiceRequest', id::text, facility, version, updated_at, content from hospital.referrals`)
      await cluster.backup()
      for (const [target, says] of [
        ['latest', /drift since/],
        ['baseline', /exactly what/],
      ] as const) {
        const { predicate, found } = await rehearse(cluster, CHECKS, { target })
        assert.equal(predicate.verdict, 'verified', `${target}: ${predicate.why}`)
        for (const name of ['rows', 'catalog', 'sequences', 'canaries', 'fhir: references', 'fhir: versions'])
          assert.equal(found(name).verdict, 'verified', `${target}, ${name}: ${found(name).found}`)
        assert.match(found('rows').found, says)
      }
    },
  )
}
