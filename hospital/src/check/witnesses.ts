import { countOf, findRows, joined, type Check } from './verdict.ts'

/** Streams that FHIR shows: each version of each has a Provenance. */
const SHOWN = `('Organization', 'Location', 'Patient', 'Encounter', 'Appointment', 'Observation', 'MedicationRequest', 'Invoice', 'Consent',
  'DocumentReference', 'ServiceRequest')`

const PROVENANCE = `
  select coalesce('Provenance/' || p.id, e.stream || ' version ' || e.version) as row,
    case when e.id is null then format('is of %s version %s, which is not there', p.target, p.target_version) else 'has no Provenance' end as problem
  from (select id, stream, version from hospital.events) e
  full join hospital.provenances p on p.target = e.stream and p.target_version = e.version
  where e.id is null or p.id is null and split_part(e.stream, '/', 1) in ${SHOWN}`

const ACTORS = `
  select 'Provenance/' || p.id as row, format('names %s for what %s has done', p.actor, e.actor) as problem
  from hospital.provenances p join hospital.events e on e.stream = p.target and e.version = p.target_version
  where (p.actor, p.recorded_at) is distinct from (e.actor, e.at)`

export const provenance: Check = {
  name: 'provenance',
  run: async ({ client }) => ({
    kind: 'judged',
    expected: 'every version of every resource has a Provenance, and every Provenance its target',
    found: `${await countOf(client, 'select count(*) from hospital.provenances')} Provenances`,
    ...joined(await findRows(client, PROVENANCE), await findRows(client, ACTORS)),
  }),
}

/** A lane's numbers and its chain, as the audit events have them, beside the hashes of the events that they tell of. */
const LANES = `
  select format('lane %s, AuditEvent/%s', lane, id) as row, case
      when lane_sequence <> before + 1 then format('has number %s behind number %s', lane_sequence, before)
      when event_hash is null then 'tells of an event that is not there'
      else 'does not follow the one before it in its lane'
    end as problem
  from (
    select a.id, a.lane, a.lane_sequence, a.lane_hash, e.hash as event_hash,
      coalesce(lag(a.lane_sequence) over w, 0) as before, coalesce(lag(a.lane_hash) over w, hospital.no_hash()) as hash_before
    from hospital.audit_events a
    left join hospital.events e on (e.id, e.lane, e.lane_sequence, e.lane_hash) = (a.id, a.lane, a.lane_sequence, a.lane_hash)
    window w as (partition by a.lane order by a.lane_sequence)
  ) l
  where lane_sequence <> before + 1 or event_hash is null or lane_hash <> hospital.lane_hash(hash_before, event_hash)`

/** What is missing from a lane's end shows at its head. */
const HEADS = `
  select 'lane ' || coalesce(l.lane, a.lane) as row, format('ends with number %s, and its head is at %s', coalesce(a.sequence, 0), coalesce(l.sequence, 0))
      || case when l.sequence = a.sequence then ' with another hash' else '' end as problem
  from hospital.lanes l
  full join (
    select distinct on (lane) lane, lane_sequence as sequence, lane_hash as hash from hospital.audit_events order by lane, lane_sequence desc
  ) a using (lane)
  where coalesce(l.sequence, 0) <> coalesce(a.sequence, 0) or a.hash is not null and a.hash is distinct from l.hash`

const UNAUDITED = `
  select e.stream || ' version ' || e.version as row, 'has no AuditEvent' as problem
  from hospital.events e where not exists (select from hospital.audit_events a where a.id = e.id)`

export const audit: Check = {
  name: 'audit',
  run: async ({ client }) => {
    const lanes = await countOf(client, 'select count(*) from hospital.lanes where sequence > 0')
    return {
      kind: 'judged',
      expected: 'every event has an AuditEvent, in lanes without a hole, each chained to the one before',
      found: `${await countOf(client, 'select count(*) from hospital.audit_events')} AuditEvents in ${lanes} lanes`,
      ...joined(await findRows(client, LANES), await findRows(client, HEADS), await findRows(client, UNAUDITED)),
    }
  },
}
