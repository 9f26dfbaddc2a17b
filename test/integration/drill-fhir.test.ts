import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { checksSchema } from '../../src/protect/postgres/content/checks-schema.ts'
import { putBaseline, type Baseline } from '../../src/protect/postgres/content/baseline.ts'
import { takeBaseline } from '../../src/protect/postgres/content/take-baseline.ts'
import { rehearse, type ChecksInput, type Rehearsal } from '../services/drilling.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster, type ProtectedCluster } from '../services/protected-cluster.ts'

const skip = await skipUnlessInstalled(18)
const HOSPITAL = fileURLToPath(new URL('../../hospital/src/main.ts', import.meta.url))
const RULES = ['references', 'versions', 'provenances', 'audit', 'consents', 'subjects', 'facilities'] as const

async function take(cluster: ProtectedCluster, checks: ChecksInput): Promise<Baseline> {
  const component = { ...cluster.component, checks: checksSchema.parse(checks) }
  const baseline = await takeBaseline({ component, signal: new AbortController().signal })
  await putBaseline(cluster.repository, baseline)
  return baseline
}

async function drilled(cluster: ProtectedCluster, checks: ChecksInput): Promise<Rehearsal> {
  await cluster.backup()
  return await rehearse(cluster, checks)
}

/** `rule: verdict` of those that were not verified. */
function notVerified({ found }: Rehearsal): string[] {
  return RULES.flatMap((rule) => {
    const { verdict } = found(`fhir: ${rule}`)
    return verdict === 'verified' ? [] : [`${rule}: ${verdict}`]
  })
}

test('the reference hospital: each rule holds for a good copy, and fails for what it is about', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  const home = join(cluster.stateDirectory, 'hospital')
  const args = [
    HOSPITAL,
    '--home',
    home,
    '--database',
    cluster.cluster.connectionString,
    'generate',
    '--patients',
    '60',
    '--seed',
    '7',
  ]
  await promisify(execFile)(process.execPath, args)
  const checks: ChecksInput = { fhir: 'reference-hospital' }
  const baseline = await take(cluster, checks)
  assert.deepEqual(baseline.unread, [])
  assert.ok(baseline.fhir !== null && Object.values(baseline.fhir.known).every((known) => known?.length === 0))
  const good = await drilled(cluster, checks)
  assert.deepEqual(
    notVerified(good),
    [],
    JSON.stringify(
      good.predicate.checks.filter(({ name }) => name.startsWith('fhir')),
      null,
      1,
    ),
  )

  // As somebody who can do anything: the rules of the tables are not what is tested here.
  await cluster.query(`set session_replication_role = replica;
    delete from hospital.audit_events a where (lane, lane_sequence) in (select lane, max(lane_sequence) from hospital.audit_events group by lane);
    delete from hospital.locations where id = (select location_id from hospital.encounters where location_id is not null limit 1);
    update hospital.consent_records set content = jsonb_set(content, '{status}', '"rejected"') where id = (select id from hospital.consent_records where status <> 'rejected' limit 1);
    update hospital.observations o set content = jsonb_set(content, '{subject,reference}', to_jsonb('Patient/' || (select id from hospital.patients p where p.id <> o.patient_id limit 1)))
      where id = (select id from hospital.observations where encounter_id is not null limit 1);
    update hospital.encounters set facility = (select id from hospital.facilities f where f.id <> facility limit 1) where id = (select encounter_id from hospital.observations limit 1);
    delete from hospital.events where (stream, version) in (select target, target_version from hospital.provenances where target like 'Patient/%' limit 1);
    reset session_replication_role`)
  const bad = await drilled(cluster, checks)
  assert.deepEqual(
    notVerified(bad),
    RULES.map((rule) => `${rule}: failed`),
  )
  assert.match(bad.found('fhir: audit').found, /^cut short: lane \d+ is from 1 to \d+, and was from 1 to \d+ at the baseline$/)
  // Ids of patients are for the details.
  assert.ok(!/[0-9a-f]{8}-[0-9a-f]{4}/.test(JSON.stringify(bad.predicate.checks)))
  assert.ok(bad.predicate.details !== null)
})

const HAPI = `
  create table hfj_resource (res_id bigint primary key, partition_id int, res_type varchar(40), res_ver bigint, res_updated timestamp, res_deleted_at timestamp, res_version varchar(7));
  create table hfj_res_ver (pid bigint generated always as identity primary key, res_id bigint, res_ver bigint, res_updated timestamp, res_encoding varchar(5), res_text oid, res_text_vc text);
  create table hfj_res_link (pid bigint generated always as identity primary key, src_path varchar(500), src_resource_id bigint, source_resource_type varchar(40),
    target_resource_id bigint, target_resource_type varchar(40), target_resource_url varchar(200));
  insert into hfj_resource select i, 1 + i / 1000, t, 1, '2026-01-01', null, 'R4'
    from (values (1, 'Patient'), (2, 'Patient'), (10, 'Encounter'), (20, 'Observation'), (30, 'Consent'), (40, 'AuditEvent'), (50, 'Provenance')) v (i, t);
  insert into hfj_res_ver (res_id, res_ver, res_updated, res_encoding, res_text_vc)
    select res_id, 1, res_updated, 'JSON', jsonb_build_object('resourceType', res_type, 'status', 'active') from hfj_resource;
  insert into hfj_res_link (src_path, src_resource_id, source_resource_type, target_resource_id, target_resource_type) values
    ('Encounter.subject', 10, 'Encounter', 1, 'Patient'), ('Observation.subject', 20, 'Observation', 1, 'Patient'),
    ('Observation.encounter', 20, 'Observation', 10, 'Encounter'), ('Provenance.target', 50, 'Provenance', 20, 'Observation'),
    -- It led nowhere at the baseline already.
    ('Consent.patient', 30, 'Consent', 999, 'Patient');
  -- HAPI compresses bodies where it is told to; SQL cannot read these.
  update hfj_res_ver set res_encoding = 'JSONC', res_text_vc = null where res_id = 20`

test(
  'HAPI FHIR’s tables: what led nowhere at the baseline is no fault of a copy, what leads nowhere since is',
  { skip },
  async (t) => {
    await using cluster = await protectedCluster(t, { major: 18 })
    await cluster.query(HAPI)
    const checks: ChecksInput = { fhir: 'hapi' }
    await take(cluster, checks)
    const good = await drilled(cluster, checks)
    assert.deepEqual(
      notVerified(good),
      [],
      JSON.stringify(
        good.predicate.checks.filter(({ name }) => name.startsWith('fhir')),
        null,
        1,
      ),
    )
    assert.match(good.found('fhir: references').found, /1 were so at the baseline/)

    await cluster.query(`
    update hfj_res_ver set res_text_vc = '{"resourceType": "Consent", "status": "rejected"}' where res_id = 30;
    update hfj_resource set partition_id = 2 where res_id = 10;
    update hfj_res_link set target_resource_id = 2 where src_path = 'Observation.subject';
    update hfj_res_link set target_resource_id = 77 where src_path = 'Provenance.target';
    insert into hfj_res_ver (res_id, res_ver, res_updated) values (1, 3, '2026-01-02'); update hfj_resource set res_ver = 3 where res_id = 1;
    delete from hfj_resource where res_id = 40; delete from hfj_res_ver where res_id = 40`)
    const bad = await drilled(cluster, checks)
    assert.deepEqual(
      notVerified(bad),
      RULES.map((rule) => `${rule}: failed`),
    )

    // A column that somebody has encrypted is no JSON any more.
    await cluster.query(`update hfj_res_ver set res_text_vc = 'U2FsdGVkX1+secret' where res_id = 2`)
    const garbled = await drilled(cluster, checks)
    assert.equal(bad.found('fhir: bodies').verdict, 'verified')
    assert.match(garbled.found('fhir: bodies').found, /SQLSTATE 22P02/)
    assert.ok(!JSON.stringify(garbled.predicate.checks).includes('U2FsdGVkX1'))
  },
)

const MEDPLUM_TYPES = ['Patient', 'Encounter', 'Observation', 'Consent', 'AuditEvent', 'Provenance']
const uuid = (number: number) => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`

function medplum(): string {
  const tables = MEDPLUM_TYPES.map(
    (type) => `
    create table "${type}" (id uuid primary key, content text not null, "lastUpdated" timestamptz not null, deleted boolean not null default false, "projectId" uuid, compartments uuid[]);
    create table "${type}_History" ("versionId" uuid primary key, id uuid not null, content text not null, "lastUpdated" timestamptz not null);
    create table "${type}_References" ("resourceId" uuid not null, "targetId" uuid not null, code text not null)`,
  )
  const put = (type: string, number: number, more: object) => {
    const content = JSON.stringify({ resourceType: type, id: uuid(number), ...more })
    return `insert into "${type}" values ('${uuid(number)}', '${content}', '2026-01-01', false, '${uuid(900)}', '{}');
      insert into "${type}_History" values ('${uuid(500 + number)}', '${uuid(number)}', '${content}', '2026-01-01')`
  }
  const reference = (type: string, number: number) => ({ reference: `${type}/${uuid(number)}` })
  return [
    ...tables,
    put('Patient', 1, {}),
    put('Patient', 2, {}),
    put('Encounter', 10, { subject: reference('Patient', 1) }),
    put('Observation', 20, { subject: reference('Patient', 1), encounter: reference('Encounter', 10) }),
    put('Consent', 30, { status: 'active', patient: reference('Patient', 1) }),
    put('AuditEvent', 40, {}),
    put('Provenance', 50, { target: [reference('Observation', 20)] }),
    // What was deleted has no content.
    `insert into "Patient" values ('${uuid(3)}', '', '2026-01-01', true, null, '{}')`,
  ].join(';\n')
}

test('Medplum’s tables: three for each type, versions without numbers', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(medplum())
  const checks: ChecksInput = { fhir: 'medplum' }
  await take(cluster, checks)
  const good = await drilled(cluster, checks)
  assert.deepEqual(
    notVerified(good),
    [],
    JSON.stringify(
      good.predicate.checks.filter(({ name }) => name.startsWith('fhir')),
      null,
      1,
    ),
  )
  await cluster.query(`
    update "Observation" set content = replace(content, '${uuid(1)}', '${uuid(2)}'), "projectId" = '${uuid(901)}';
    update "Consent" set content = replace(content, 'active', 'rejected');
    insert into "Patient_History" values ('${uuid(700)}', '${uuid(1)}', '{}', '2026-02-01');
    delete from "AuditEvent";
    update "Provenance" set content = replace(content, '${uuid(20)}', '${uuid(21)}')`)
  const bad = await drilled(cluster, checks)
  assert.deepEqual(
    notVerified(bad),
    RULES.map((rule) => `${rule}: failed`),
  )
})

test('a mapping whose tables are not there fails; without a baseline what is wrong is not proven', { skip }, async (t) => {
  await using cluster = await protectedCluster(t, { major: 18 })
  await cluster.query(HAPI)
  const none = await drilled(cluster, { fhir: 'medplum' })
  assert.match(none.found('fhir: references').found, /has no tables of Medplum/)
  assert.equal(none.found('fhir: references').verdict, 'failed')
  const without = await rehearse(cluster, { fhir: 'hapi' })
  assert.deepEqual(notVerified(without), ['references: not proven', 'audit: not proven', 'consents: not proven'])
  const own = await rehearse(cluster, {
    fhir: {
      resources: `select 'Patient' as type, id::text, 1::bigint as version, now() as last_updated, null::text as facility, '{}'::jsonb as body from generate_series(1, 3) id`,
    },
  })
  assert.deepEqual(
    [own.found('fhir: versions').verdict, own.found('fhir: versions').found],
    ['not proven', 'the mapping cannot say'],
  )
})
