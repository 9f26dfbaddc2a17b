import type { ColumnType, JSONColumnType } from 'kysely'

// The tables of the store, as Kysely sees them. The SQL is in migrations/.

/** Written as a Date or its text, read as a Date. */
type Time = ColumnType<Date, Date | string, Date | string>
type TimeOrNull = ColumnType<Date | null, Date | string | null, Date | string | null>
type Json = ColumnType<unknown, string, string>

export interface NodesTable {
  readonly name: string
  readonly started_at: Time
  readonly renewed_at: Time
  readonly version: string
  readonly reach: JSONColumnType<readonly NodeReach[]>
}

export interface NodeReach {
  readonly system: string
  readonly component: string
  readonly reached: boolean
  /** Whether its WAL can be received from here: that takes the server, and not its directory. */
  readonly receivable: boolean
  /** Why it is not reached. */
  readonly why: string | null
}

export type ApprovalState = 'pending' | 'approved' | 'refused' | 'revoked' | 'expired' | 'used' | 'failed'

export interface ApprovalsTable {
  readonly id: string
  readonly operation: string
  /** Of what is asked for; null for what belongs to no system. */
  readonly system: string | null
  readonly component: string | null
  readonly parameters: Json
  readonly digest: string
  readonly asked_by: string
  readonly asked_name: string
  readonly asked_at: Time
  readonly expires_at: Time
  readonly state: ApprovalState
  readonly decided_by: string | null
  readonly decided_name: string | null
  readonly decided_at: TimeOrNull
  readonly factor: string | null
  readonly reason: string | null
  readonly ended_at: TimeOrNull
  /** What came of it: a task, or why it failed. */
  readonly outcome: ColumnType<unknown, string | null, string | null>
  readonly escalated_at: TimeOrNull
  readonly seal: Buffer | null
}

export type TaskState = 'waiting' | 'running' | 'done' | 'failed' | 'cancelled'
export type TaskEventKind = 'state' | 'log'

export interface TasksTable {
  readonly id: string
  readonly system: string
  readonly component: string | null
  readonly kind: string
  readonly lane: string
  readonly parameters: Json
  readonly requested_by: string
  readonly schedule_key: string | null
  readonly state: TaskState
  readonly attempts: ColumnType<number, number | undefined, number>
  readonly node: string | null
  readonly created_at: Time
  readonly due_at: Time
  readonly started_at: TimeOrNull
  readonly ended_at: TimeOrNull
  readonly progress: ColumnType<unknown, string | null, string | null>
  readonly exit_status: number | null
  readonly result: ColumnType<unknown, string | null, string | null>
  readonly error_code: string | null
  readonly error_message: string | null
  readonly error_hint: string | null
  readonly cancel_requested: ColumnType<boolean, boolean | undefined, boolean>
  readonly last_event: ColumnType<number, number | undefined, number>
  /** Known from the repository alone. */
  readonly from_repository: ColumnType<boolean, boolean | undefined, boolean>
  /** What allowed it, where that took a second person: `approval:<id>`, `emergency:<id>`. */
  readonly clearance: ColumnType<string | null, string | null | undefined, string | null>
}

export interface TaskEventsTable {
  readonly task_id: string
  readonly number: number
  readonly at: Time
  readonly kind: TaskEventKind
  readonly data: Json
}

export interface IdempotencyKeysTable {
  readonly key: string
  readonly request_hash: Buffer
  readonly task_id: string
  readonly created_at: Time
}

export interface ScheduleRunsTable {
  readonly system: string
  readonly component: string
  readonly kind: string
  readonly due_at: Time
  readonly task_id: string
}

export interface BackupsTable {
  readonly system: string
  readonly component: string
  readonly id: string
  readonly summary: Json
}

export interface ReceiverLeasesTable {
  readonly system: string
  readonly component: string
  readonly node: string
  readonly renewed_at: Time
  readonly released: ColumnType<boolean, boolean | undefined, boolean>
}

export type ComplianceVerdict = 'met' | 'broken' | 'not proven'

interface ComplianceKey {
  readonly system: string
  readonly component: string
  readonly objective: string
  readonly at: Time
  readonly target: number
}

export interface ComplianceMinutesTable extends ComplianceKey {
  readonly actual: number | null
  readonly verdict: ComplianceVerdict
}

export interface ComplianceHoursTable extends ComplianceKey {
  readonly actual_least: number | null
  readonly actual_greatest: number | null
  readonly minutes_met: number
  readonly minutes_broken: number
  readonly minutes_not_proven: number
}

export type Severity = 'info' | 'warning' | 'alarm'
export type AlarmState = 'open' | 'recovering' | 'closed'

export interface AlarmsTable {
  readonly id: string
  readonly key: string
  readonly severity: Severity
  readonly title: string
  readonly text: string
  readonly system: string
  readonly component: string | null
  readonly code: string | null
  readonly count: number
  readonly state: AlarmState
  readonly opened_at: Time
  readonly raised_at: Time
  readonly cleared_at: TimeOrNull
  readonly clear_text: string | null
  readonly told_as: ColumnType<Severity[], Severity[] | undefined, Severity[]>
  readonly told_at: TimeOrNull
  readonly due_at: TimeOrNull
}

export interface NoticesTable {
  readonly id: string
  readonly kind: 'alarms' | 'digest'
  readonly once_key: string | null
  readonly made_at: Time
  readonly alarm_ids: string[]
  readonly content: Json
}

export type DeliveryState = 'waiting' | 'sent' | 'given-up'

export interface DeliveriesTable {
  readonly notice_id: string
  readonly channel: string
  readonly severities: Severity[]
  readonly state: DeliveryState
  readonly attempts: ColumnType<number, number | undefined, number>
  readonly next_attempt_at: Time
  readonly claimed_by: string | null
  readonly claimed_until: TimeOrNull
  readonly ended_at: TimeOrNull
  readonly outcome: string | null
}

export interface ControlPendingTable {
  readonly system: string
  readonly kind: string
  readonly id: string
  /** PostgreSQL's bigint, as text. */
  readonly change: ColumnType<string, never, string>
  readonly due_at: Time
}

export interface ControlRebuiltTable {
  readonly system: string
  readonly at: Time
  readonly unreadable: JSONColumnType<readonly UnreadableObject[]>
}

/** An object that does not open. */
export interface UnreadableObject {
  readonly key: string
  readonly problem: string
}

export interface ReadinessTable {
  readonly system: string
  readonly component: string
  readonly at: Time
  readonly score: number
}

export interface SizesTable {
  readonly system: string
  readonly component: string
  readonly name: 'storage' | 'free' | 'cluster' | 'stored'
  readonly at: Time
  readonly bytes: number
}

/** In the schema `resus_audit`, where nothing is changed. */
export interface AuditEntriesTable {
  /** PostgreSQL's bigint, as text. */
  readonly seq: ColumnType<string, number, never>
  readonly entry: ColumnType<string, string, never>
  readonly previous: ColumnType<string, string, never>
  readonly hash: ColumnType<string, string, never>
  // The store sets these, from the entry.
  readonly id: ColumnType<string, never, never>
  readonly at: ColumnType<Date, never, never>
  readonly actor: ColumnType<string, never, never>
  readonly actor_name: ColumnType<string, never, never>
  readonly action: ColumnType<string, never, never>
  readonly outcome: ColumnType<string, never, never>
}

export interface AuditWaitingTable {
  readonly number: ColumnType<string, never, never>
  readonly id: string
  readonly entry: string
}

export interface AuditMarksTable {
  readonly target: string
  readonly seq: ColumnType<string, number, number>
  readonly at: Time
}

/** Of a role, for some facilities or (null) for all: src/authority/principal.ts checks it where it is used. */
export interface GrantRow {
  readonly role: string
  readonly facilities: readonly string[] | null
}
type Grants = JSONColumnType<readonly GrantRow[]>

export interface PeopleTable {
  readonly id: string
  readonly name: string
  readonly display_name: string
  readonly email: string | null
  readonly grants: Grants
  readonly state: 'active' | 'disabled'
  /** PHC text. */
  readonly password: string | null
  readonly issuer: string | null
  readonly subject: string | null
  readonly failures: ColumnType<number, number | undefined, number>
  readonly locked_until: TimeOrNull
  readonly made_by: string
  readonly made_at: Time
  readonly reset_by: string | null
  readonly reset_at: TimeOrNull
  readonly last_seen_at: TimeOrNull
  readonly seal: Buffer | null
  /** Counts the changes of what is sealed. */
  readonly version: ColumnType<number, number | undefined, number>
}

export interface FactorsTable {
  readonly id: string
  readonly person: string
  readonly kind: 'totp' | 'passkey'
  readonly label: string
  readonly sealed_secret: Buffer | null
  readonly last_step: number | null
  readonly credential_id: string | null
  readonly public_key: Buffer | null
  /** PostgreSQL's bigint, as text. */
  readonly counter: ColumnType<string | null, number | null, number>
  readonly transports: string[] | null
  readonly made_at: Time
  readonly last_used_at: TimeOrNull
}

export interface SessionFamiliesTable {
  readonly id: string
  readonly person: string
  readonly factor: string
  readonly grants: Grants
  readonly generation: number
  readonly secret: Buffer
  readonly previous: Buffer | null
  readonly previous_until: TimeOrNull
  readonly made_at: Time
  readonly seen_at: Time
  readonly rotated_at: Time
  readonly ended_at: TimeOrNull
  readonly ended_because: string | null
  readonly address: string | null
  readonly user_agent: string | null
  readonly seal: Buffer | null
}

export interface TokensTable {
  readonly id: string
  readonly person: string
  readonly name: string
  readonly digest: Buffer
  readonly grants: Grants
  readonly made_at: Time
  readonly expires_at: Time
  readonly last_used_at: TimeOrNull
  readonly revoked_at: TimeOrNull
  readonly seal: Buffer | null
}

export interface TicketsTable {
  readonly digest: Buffer
  readonly purpose: string
  readonly person: string | null
  readonly data: Json
  readonly sealed: Buffer | null
  readonly made_at: Time
  readonly expires_at: Time
  readonly seal: Buffer | null
}

export interface Schema {
  readonly audit_entries: AuditEntriesTable
  readonly audit_waiting: AuditWaitingTable
  readonly audit_marks: AuditMarksTable
  readonly people: PeopleTable
  readonly factors: FactorsTable
  readonly session_families: SessionFamiliesTable
  readonly tokens: TokensTable
  readonly tickets: TicketsTable
  readonly control_pending: ControlPendingTable
  readonly control_rebuilt: ControlRebuiltTable
  readonly receiver_leases: ReceiverLeasesTable
  readonly backups: BackupsTable
  readonly nodes: NodesTable
  readonly approvals: ApprovalsTable
  readonly tasks: TasksTable
  readonly task_events: TaskEventsTable
  readonly idempotency_keys: IdempotencyKeysTable
  readonly schedule_runs: ScheduleRunsTable
  readonly compliance_minutes: ComplianceMinutesTable
  readonly compliance_hours: ComplianceHoursTable
  readonly readiness: ReadinessTable
  readonly sizes: SizesTable
  readonly alarms: AlarmsTable
  readonly notices: NoticesTable
  readonly deliveries: DeliveriesTable
}
