import type { AuditEvent, Organization, Provenance, Reference } from '@medplum/fhirtypes'

/** A row of `provenances`, as JSON of the database. */
export interface ProvenanceRow {
  readonly id: string
  readonly facility: string
  readonly target: string
  readonly target_version: number
  readonly activity: string
  readonly actor: string
  readonly recorded_at: string
}

/** A row of `audit_events`. */
export interface AuditEventRow {
  readonly id: string
  readonly lane: number
  readonly lane_sequence: number
  readonly facility: string
  readonly action: 'C' | 'U'
  readonly event_type: string
  readonly actor: string
  readonly entity: string
  readonly entity_version: number
  readonly recorded_at: string
}

const SYSTEMS = {
  actor: 'https://his.osun.example/actor',
  facility: 'https://his.osun.example/facility',
  eventType: 'https://his.osun.example/event-type',
  stream: 'https://his.osun.example/stream',
} as const
const OPERATIONS = 'http://terminology.hl7.org/CodeSystem/v3-DataOperation'
/** Streams of events that FHIR does not show. */
const HIDDEN = /^(User|PatientFacility|Message|Heartbeat)\//

/** Who made a version of a resource. */
export function provenanceOf(row: ProvenanceRow): Provenance {
  const code = row.target_version === 1 ? 'CREATE' : 'UPDATE'
  return {
    resourceType: 'Provenance',
    id: row.id,
    target: [{ reference: `${row.target}/_history/${row.target_version}` }],
    recorded: instant(row.recorded_at),
    activity: {
      coding: [
        { system: OPERATIONS, code },
        { system: SYSTEMS.eventType, code: row.activity },
      ],
    },
    agent: [
      {
        type: { coding: [{ system: 'http://terminology.hl7.org/CodeSystem/provenance-participant-type', code: 'author' }] },
        who: actorOf(row.actor),
        onBehalfOf: facilityOf(row.facility),
      },
    ],
  }
}

/** That a version was made, for auditors: its number in the sequence of its lane shows when one is missing. */
export function auditEventOf(row: AuditEventRow): AuditEvent {
  const isCreated = row.action === 'C'
  return {
    resourceType: 'AuditEvent',
    id: row.id,
    type: { system: 'http://terminology.hl7.org/CodeSystem/audit-event-type', code: 'rest', display: 'RESTful Operation' },
    subtype: [
      { system: 'http://hl7.org/fhir/restful-interaction', code: isCreated ? 'create' : 'update' },
      { system: SYSTEMS.eventType, code: row.event_type },
    ],
    action: row.action,
    recorded: instant(row.recorded_at),
    outcome: '0',
    agent: [{ who: actorOf(row.actor), requestor: true }],
    source: { observer: facilityOf(row.facility) },
    entity: [
      {
        what: HIDDEN.test(row.entity)
          ? { identifier: { system: SYSTEMS.stream, value: row.entity } }
          : { reference: `${row.entity}/_history/${row.entity_version}` },
        detail: [
          { type: 'lane', valueString: String(row.lane) },
          { type: 'sequence', valueString: String(row.lane_sequence) },
        ],
      },
    ],
  }
}

function actorOf(actor: string): Reference<Organization> {
  return { identifier: { system: SYSTEMS.actor, value: actor }, display: actor }
}

/** The group's own events are of no facility that could be referred to. */
function facilityOf(facility: string): Reference<Organization> {
  return facility === 'GROUP' ? { display: 'the group' } : { reference: `Organization/${facility}` }
}

/** PostgreSQL's "2026-01-31T08:00:00.12+00:00" with the milliseconds that FHIR's other times have here. */
function instant(text: string): string {
  return new Date(text).toISOString()
}
