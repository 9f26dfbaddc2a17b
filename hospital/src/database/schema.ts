import type { Generated } from 'kysely'

// The tables of migrations/ as their rows come from `pg`: bigint and numeric as text, date as text, timestamptz as Date.

export interface Schema {
  readonly events: EventsTable
  readonly lanes: LanesTable
  readonly checkpoints: CheckpointsTable
  readonly facilities: FacilitiesTable
  readonly users: UsersTable
  readonly patients: PatientsTable
  readonly patient_facilities: PatientFacilitiesTable
  readonly locations: LocationsTable
  readonly encounters: EncountersTable
  readonly appointments: AppointmentsTable
  readonly observations: ObservationsTable
  readonly medication_requests: MedicationRequestsTable
  readonly invoices: InvoicesTable
  readonly consent_records: ConsentRecordsTable
  readonly document_references: DocumentReferencesTable
  readonly referrals: ReferralsTable
  readonly provenances: ProvenancesTable
  readonly audit_events: AuditEventsTable
  readonly messages: MessagesTable
  readonly heartbeats: HeartbeatsTable
  readonly user_tokens: UserTokensTable
  readonly published_topics: PublishedTopicsTable
  readonly published_records: PublishedRecordsTable
  readonly records_ahead: RecordsAheadTable
  readonly holds: HoldsTable
  readonly known_cluster: KnownClusterTable
  readonly mrn_counters: MrnCountersTable
  readonly uploads: UploadsTable
  readonly fhir_resources: FhirResourcesView
}

export interface EventsTable {
  readonly position: Generated<string>
  readonly id: string
  readonly stream: string
  readonly version: number
  readonly type: string
  readonly schema_version: number
  readonly facility: string
  readonly other_facility: string | null
  readonly actor: string
  readonly at: Date
  readonly payload: unknown
  readonly previous_hash: Buffer
  readonly hash: Buffer
  readonly lane: number
  readonly lane_sequence: string
  readonly lane_hash: Buffer
}

export interface LanesTable {
  readonly lane: number
  readonly sequence: Generated<string>
  readonly hash: Generated<Buffer>
}

export interface CheckpointsTable {
  readonly number: string
  readonly at: Date
  readonly position: string
  readonly events: string
  readonly previous_hash: Buffer
  readonly hash: Buffer
}

export interface FacilitiesTable {
  readonly id: string
  readonly name: string
  readonly lga: string
  readonly type: string
  readonly active: boolean
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
  readonly content: unknown
}

export interface UsersTable {
  readonly id: string
  readonly name: string
  readonly role: string
  readonly facility: string | null
  readonly active: boolean
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
}

export interface PatientsTable {
  readonly id: string
  readonly facility: string
  readonly family: string | null
  readonly given: string | null
  readonly birth_date: string | null
  readonly gender: string | null
  readonly phone: string | null
  readonly lga: string | null
  readonly active: boolean
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
  readonly content: unknown
}

export interface PatientFacilitiesTable {
  readonly facility: string
  readonly patient_id: string
  readonly mrn: string
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
}

export interface LocationsTable {
  readonly id: string
  readonly facility: string
  readonly name: string
  readonly status: string
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
  readonly content: unknown
}

export interface EncountersTable {
  readonly id: string
  readonly facility: string
  readonly patient_id: string
  readonly location_id: string | null
  readonly class: string
  readonly status: string
  readonly started_at: Date | null
  readonly ended_at: Date | null
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
  readonly content: unknown
}

export interface AppointmentsTable {
  readonly id: string
  readonly facility: string
  readonly patient_id: string
  readonly status: string
  readonly starts_at: Date | null
  readonly ends_at: Date | null
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
  readonly content: unknown
}

export interface ObservationsTable {
  readonly id: string
  readonly facility: string
  readonly patient_id: string
  readonly encounter_id: string | null
  readonly status: string
  readonly category: string | null
  readonly code: string
  readonly code_system: string | null
  readonly value: string | null
  readonly unit: string | null
  readonly effective_at: Date | null
  readonly issued_at: Date | null
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
  readonly content: unknown
}

export interface MedicationRequestsTable {
  readonly id: string
  readonly facility: string
  readonly patient_id: string
  readonly encounter_id: string | null
  readonly status: string
  readonly code: string | null
  readonly code_system: string | null
  readonly authored_at: Date | null
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
  readonly content: unknown
}

export interface InvoicesTable {
  readonly id: string
  readonly facility: string
  readonly patient_id: string
  readonly status: string
  readonly total: string | null
  readonly currency: string | null
  readonly issued_at: Date | null
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
  readonly content: unknown
}

export interface ConsentRecordsTable {
  readonly id: string
  readonly facility: string
  readonly patient_id: string
  readonly status: string
  readonly scope: string | null
  readonly given_at: Date | null
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
  readonly content: unknown
}

export interface DocumentReferencesTable {
  readonly id: string
  readonly facility: string
  readonly patient_id: string
  readonly encounter_id: string | null
  readonly status: string
  readonly code: string | null
  readonly code_system: string | null
  readonly authored_at: Date | null
  readonly sha256: string
  readonly size_bytes: string
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
  readonly content: unknown
}

export interface ReferralsTable {
  readonly id: string
  readonly facility: string
  readonly to_facility: string
  readonly patient_id: string
  readonly status: string
  readonly reason: string | null
  readonly authored_at: Date | null
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
  readonly content: unknown
}

export interface ProvenancesTable {
  readonly id: string
  readonly facility: string
  readonly other_facility: string | null
  readonly target: string
  readonly target_version: number
  readonly activity: string
  readonly actor: string
  readonly recorded_at: Date
}

export interface AuditEventsTable {
  readonly id: string
  readonly lane: number
  readonly lane_sequence: string
  readonly lane_hash: Buffer
  readonly facility: string
  readonly other_facility: string | null
  readonly action: string
  readonly event_type: string
  readonly actor: string
  readonly entity: string
  readonly entity_version: number
  readonly recorded_at: Date
}

export interface MessagesTable {
  readonly id: string
  readonly facility: string
  readonly kind: string
  readonly patient_id: string | null
  readonly recipient: string
  readonly body: string
  readonly cause: string
  readonly status: string
  readonly attempts: number
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
}

export interface HeartbeatsTable {
  readonly sequence: string
  readonly at: Date
  readonly event_position: string
  readonly file: string
}

export interface UserTokensTable {
  readonly token_hash: Buffer
  readonly user_id: string
  readonly created_at: Generated<Date>
  readonly expires_at: Date | null
}

export interface FhirResourcesView {
  readonly type: string
  readonly id: string
  readonly facility: string
  readonly version: number
  readonly updated_at: Date
  readonly content: unknown
}

export interface PublishedTopicsTable {
  readonly topic: string
  readonly retention_ms: string
  readonly next_offset: Generated<string>
}

export interface PublishedRecordsTable {
  readonly topic: string
  readonly offset: string
  readonly position: string
  readonly published_at: Generated<Date>
}

export interface RecordsAheadTable {
  readonly topic: string
  readonly partition: number
  readonly offset: string
  readonly position: string
  readonly event_id: string
  readonly key: string
  readonly detected_at: Generated<Date>
  readonly acknowledged_by: string | null
  readonly acknowledged_at: Date | null
}

export interface HoldsTable {
  readonly id: string
  readonly held: boolean
  readonly reason: string
  readonly person: string
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
}

export interface KnownClusterTable {
  readonly only_row: Generated<boolean>
  readonly system_identifier: string
  readonly timeline: number
  readonly database_oid: string
  readonly recorded_at: Generated<Date>
}

export interface MrnCountersTable {
  readonly facility: string
  readonly last: string
  readonly cluster: string
}

export interface UploadsTable {
  readonly facility: string
  readonly sha256: string
  readonly size_bytes: string
  readonly sha1: string
  readonly at: Generated<Date>
}
