import type { ServedTypeName } from './type-names.ts'

/** How a search parameter becomes a condition. Columns are constants of this file, never anything that a client sent. */
export type SearchColumn =
  | { readonly kind: 'id' }
  | { readonly kind: 'reference'; readonly column: string; readonly target: ServedTypeName }
  /** A column that holds "Type/id" of any type. */
  | { readonly kind: 'stream'; readonly column: string; readonly target?: ServedTypeName }
  /** When something was, or from when to when. */
  | { readonly kind: 'time'; readonly start: string; readonly end?: string }
  | { readonly kind: 'day'; readonly column: string }
  | { readonly kind: 'code'; readonly column: string }
  | { readonly kind: 'flag'; readonly column: string }
  /** Codings or identifiers within the content; `member` is what holds the code. */
  | { readonly kind: 'token'; readonly path: string; readonly member: 'code' | 'value' }
  | { readonly kind: 'patient-identifier' }
  | { readonly kind: 'patient-name'; readonly columns: readonly string[]; readonly paths: readonly string[] }
  | { readonly kind: 'text'; readonly column: string }
  | { readonly kind: 'agent'; readonly column: string }

const EVERY = { _id: { kind: 'id' }, _lastUpdated: { kind: 'time', start: 'updated_at' } } as const
const IDENTIFIER = { identifier: { kind: 'token', path: '$.identifier[*]', member: 'value' } } as const
const STATUS = { status: { kind: 'code', column: 'status' } } as const
const PATIENT = { patient: { kind: 'reference', column: 'patient_id', target: 'Patient' } } as const
const SUBJECT = { ...PATIENT, subject: { kind: 'reference', column: 'patient_id', target: 'Patient' } } as const
const ENCOUNTER = { encounter: { kind: 'reference', column: 'encounter_id', target: 'Encounter' } } as const

function coded(path: string): SearchColumn {
  return { kind: 'token', path: `$.${path}.coding[*]`, member: 'code' }
}

function time(start: string, end?: string): SearchColumn {
  return { kind: 'time', start, ...(end === undefined ? {} : { end }) }
}

const GIVEN = ['given_key', 'given_2_key']
const [FAMILY_PATH, GIVEN_PATH] = ['$.name[*].family', '$.name[*].given[*]'] as const

const LOGGED = { _id: EVERY._id, _lastUpdated: time('recorded_at') } as const

export const SEARCHES: Readonly<Record<ServedTypeName, Readonly<Record<string, SearchColumn>>>> = {
  Organization: {
    ...EVERY,
    ...IDENTIFIER,
    name: { kind: 'text', column: 'name' },
    type: coded('type[*]'),
    active: { kind: 'flag', column: 'active' },
  },
  Location: { ...EVERY, ...IDENTIFIER, ...STATUS, name: { kind: 'text', column: 'name' }, type: coded('type[*]') },
  Patient: {
    ...EVERY,
    identifier: { kind: 'patient-identifier' },
    name: { kind: 'patient-name', columns: ['family_key', ...GIVEN], paths: [FAMILY_PATH, GIVEN_PATH] },
    family: { kind: 'patient-name', columns: ['family_key'], paths: [FAMILY_PATH] },
    given: { kind: 'patient-name', columns: GIVEN, paths: [GIVEN_PATH] },
    birthdate: { kind: 'day', column: 'birth_date' },
    gender: { kind: 'code', column: 'gender' },
    active: { kind: 'flag', column: 'active' },
  },
  Encounter: {
    ...EVERY,
    ...IDENTIFIER,
    ...STATUS,
    ...SUBJECT,
    date: time('started_at', 'ended_at'),
    class: { kind: 'token', path: '$.class', member: 'code' },
    type: coded('type[*]'),
    location: { kind: 'reference', column: 'location_id', target: 'Location' },
  },
  Appointment: { ...EVERY, ...IDENTIFIER, ...STATUS, ...PATIENT, date: time('starts_at') },
  Observation: {
    ...EVERY,
    ...IDENTIFIER,
    ...STATUS,
    ...SUBJECT,
    ...ENCOUNTER,
    code: coded('code'),
    category: coded('category[*]'),
    date: time('effective_at'),
  },
  MedicationRequest: {
    ...EVERY,
    ...IDENTIFIER,
    ...STATUS,
    ...SUBJECT,
    ...ENCOUNTER,
    code: coded('medicationCodeableConcept'),
    authoredon: time('authored_at'),
  },
  Invoice: { ...EVERY, ...IDENTIFIER, ...STATUS, ...SUBJECT, date: time('issued_at') },
  Consent: {
    ...EVERY,
    ...IDENTIFIER,
    ...STATUS,
    ...PATIENT,
    scope: coded('scope'),
    category: coded('category[*]'),
    date: time('given_at'),
  },
  DocumentReference: {
    ...EVERY,
    ...IDENTIFIER,
    ...STATUS,
    ...SUBJECT,
    ...ENCOUNTER,
    type: coded('type'),
    date: time('authored_at'),
  },
  ServiceRequest: {
    ...EVERY,
    ...IDENTIFIER,
    ...STATUS,
    ...SUBJECT,
    code: coded('code'),
    authored: time('authored_at'),
    requester: { kind: 'reference', column: 'facility', target: 'Organization' },
    performer: { kind: 'reference', column: 'to_facility', target: 'Organization' },
  },
  Provenance: {
    ...LOGGED,
    target: { kind: 'stream', column: 'target' },
    patient: { kind: 'stream', column: 'target', target: 'Patient' },
    recorded: time('recorded_at'),
    agent: { kind: 'agent', column: 'actor' },
  },
  AuditEvent: {
    ...LOGGED,
    entity: { kind: 'stream', column: 'entity' },
    patient: { kind: 'stream', column: 'entity', target: 'Patient' },
    date: time('recorded_at'),
    agent: { kind: 'agent', column: 'actor' },
    action: { kind: 'code', column: 'action' },
  },
}
