import { countOf, findRows, type Check } from './verdict.ts'

/** What hangs on an encounter: type, table, and where in the resource the encounter is. */
const HANGING = [
  ['Observation', 'observations', "content #>> '{encounter,reference}'"],
  ['MedicationRequest', 'medication_requests', "content #>> '{encounter,reference}'"],
  ['DocumentReference', 'document_references', "content #>> '{context,encounter,0,reference}'"],
] as const

/** By what the resources say, and by what their columns say: a restored index or a hand that mended one of the two shows in the other. */
const ENCOUNTERS = `
  select id, facility, patient_id::text as patient_column, 'Encounter/' || id as name, content #>> '{subject,reference}' as subject from hospital.encounters`

/** Two joins, one after the other: an OR in one would ask row by row. */
const hanging = HANGING.flatMap(([type, table, reference]) =>
  [`e.name = h.${reference}`, `e.id = h.encounter_id and e.name is distinct from h.${reference}`].map(
    (condition) => `
  select '${type}/' || h.id as row, h.facility, h.patient_id::text as patient_column, h.content #>> '{subject,reference}' as subject,
    e.facility as encounter_facility, e.patient_column as encounter_patient, e.subject as encounter_subject, e.name as encounter
  from hospital.${table} h join (${ENCOUNTERS}) e on ${condition}`,
  ),
).join(' union all ')

const SUBJECTS = `
  select row, format('is of %s, and its %s is of %s', coalesce(subject, 'nobody'), encounter, coalesce(encounter_subject, 'nobody')) as problem
  from (${hanging}) h
  where subject is distinct from encounter_subject or patient_column <> encounter_patient or subject <> 'Patient/' || patient_column`

export const subjects: Check = {
  name: 'subjects',
  run: async ({ client }) => ({
    kind: 'judged',
    expected: "what hangs on an encounter is of the encounter's patient",
    found: `${await countOf(client, `select count(*) from (${hanging}) h`)} records that hang on an encounter`,
    ...(await findRows(client, SUBJECTS)),
  }),
}

/** The facility of a row is that of its stream's events, and of all that it hangs on. */
const FACILITIES = `
  select row, format('belongs to %s, and its %s to %s', facility, encounter, encounter_facility) as problem
  from (${hanging}) h where facility <> encounter_facility
  union all
  select 'Encounter/' || e.id, format('belongs to %s, and its Location/%s to %s', e.facility, l.id, l.facility)
  from hospital.encounters e join hospital.locations l on l.id = e.location_id where l.facility <> e.facility
  union all
  select r.type || '/' || r.id, format('belongs to %s, and its events to %s', r.facility, e.facility)
  from hospital.fhir_resources r join hospital.events e on e.stream = r.type || '/' || r.id
  where e.version = 1 and e.facility <> r.facility
  union all
  select e.stream || ' version ' || e.version, format('is of %s, and version 1 of %s', e.facility, f.facility)
  from hospital.events e join hospital.events f on f.stream = e.stream and f.version = 1
  where e.version > 1 and e.facility <> f.facility and not (e.stream like 'ServiceRequest/%' and e.other_facility = f.facility)
  and split_part(e.stream, '/', 1) not in ('User', 'Organization', 'Hold', 'Heartbeat')`

export const facilities: Check = {
  name: 'facilities',
  run: async ({ client }) => ({
    kind: 'judged',
    expected: 'each encounter, what hangs on it, and every event of each belong to one facility',
    found: `${await countOf(client, 'select count(*) from hospital.encounters')} encounters`,
    ...(await findRows(client, FACILITIES)),
  }),
}
