import type { Severity } from '../catalog/schema.ts'
import type { Alarm } from './alarm.ts'

interface AlarmKind {
  readonly severity: Severity
  readonly title: string
  /** The one thing to do. */
  readonly hint: string
}

/** What people are told about, as data. */
export const ALARM_KINDS = {
  BACKUP_FAILED: {
    severity: 'alarm',
    title: 'A backup failed',
    hint: 'read the log of the job, remove its cause, and start the backup again',
  },
  BACKUP_STALE: {
    severity: 'alarm',
    title: 'The last backup is too old',
    hint: 'see why no backup ran: its schedule, its node, its last job',
  },
  NOT_VERIFIED: {
    severity: 'alarm',
    title: 'A backup did not pass its proof',
    hint: 'read the verdict, and take a new full backup',
  },
  RPO_BROKEN: {
    severity: 'alarm',
    title: 'More would be lost now than was agreed',
    hint: 'see whether the WAL receiver runs and the storage takes what it sends',
  },
  RTO_BROKEN: {
    severity: 'warning',
    title: 'A recovery takes longer than was agreed',
    hint: 'give the restore more workers or a faster storage',
  },
  READINESS_FELL: {
    severity: 'warning',
    title: 'A component is less ready to be recovered than it was',
    hint: 'GET /api/v1/backup-dr/readiness says what changed, and what raises it most',
  },
  GAP_MADE: {
    severity: 'alarm',
    title: 'WAL is missing: there are instants that cannot be restored',
    hint: 'take a backup now, so that a new window begins',
  },
  PAGES_CORRUPT: {
    severity: 'alarm',
    title: 'The database has corrupt pages',
    hint: 'keep the last good backup from expiring, and find the disk or memory that did it',
  },
  SLOT_LOST: {
    severity: 'alarm',
    title: 'The replication slot is lost',
    hint: 'raise max_slot_wal_keep_size on the server, then take a backup',
  },
  SLOT_RETENTION: {
    severity: 'warning',
    title: 'The replication slot holds back much WAL',
    hint: 'see why the receiver is behind, before the disk of the database is full',
  },
  RECEIVER_DOWN: {
    severity: 'alarm',
    title: 'WAL is not being received',
    hint: 'read the log of the receiver, and see whether the database is up',
  },
  RECEIVER_BEHIND: {
    severity: 'warning',
    title: 'The WAL receiver is behind',
    hint: 'see whether the storage is slow or unreachable',
  },
  DATABASE_UNREACHABLE: {
    severity: 'alarm',
    title: 'The database does not answer',
    hint: 'see whether its server runs, and its host',
  },
  DATABASE_SLOW: {
    severity: 'warning',
    title: 'The database is slow or short of connections',
    hint: 'look for long queries and idle transactions',
  },
  REPLICA_BEHIND: {
    severity: 'warning',
    title: 'A replica of the database is behind',
    hint: 'see the replica and its connection',
  },
  STORAGE_FULL_SOON: { severity: 'warning', title: 'The storage will be full soon', hint: 'add room, or shorten retention' },
  STORAGE_FULL: { severity: 'alarm', title: 'The storage is full', hint: 'add room: nothing more is kept until then' },
  STORAGE_UNREACHABLE: {
    severity: 'alarm',
    title: 'The storage does not answer',
    hint: 'see whether it is mounted or its server is up',
  },
  KEY_UNREACHABLE: {
    severity: 'alarm',
    title: 'The key of the repository cannot be read',
    hint: 'put it back where the configuration says; without it nothing can be restored',
  },
  CERTIFICATE_EXPIRING: {
    severity: 'warning',
    title: 'A certificate expires soon',
    hint: 'renew it, and put it in the place of the old one',
  },
  CLOCK_WRONG: {
    severity: 'warning',
    title: 'Clocks differ',
    hint: 'see to the time service of this host, the storage and the database',
  },
  JOB_FAILED: { severity: 'alarm', title: 'A job failed', hint: 'read its log, and start it again when its cause is gone' },
  NODE_DEAD: {
    severity: 'alarm',
    title: 'A node of Resus is dead',
    hint: 'start it again; its work goes on elsewhere where that is possible',
  },
  STORE_DOWN: {
    severity: 'alarm',
    title: "Resus's own store does not answer",
    hint: 'see to its PostgreSQL: no new job starts until then',
  },
  RECORDS_LATE: {
    severity: 'warning',
    title: 'What would be lost with the store is not in the repository yet',
    hint: 'see whether the storage takes what it is given; until then keep the store',
  },
  RECORDS_DAMAGED: {
    severity: 'warning',
    title: 'A record of the control plane in the repository is damaged',
    hint: 'bring the object back from another copy of the storage; "resus verify --all" says what else is damaged',
  },
  AUDIT_LATE: {
    severity: 'warning',
    title: 'Entries of the audit trail are not where they are to go',
    hint: 'see whether the storage, or the receiver of syslog, takes what it is given; until then keep the store',
  },
  AUDIT_BROKEN: {
    severity: 'alarm',
    title: 'The audit trail does not hang together',
    hint: 'run "resus audit verify --head FILE" with a head of the last days, keep what it says, and find out who could write there; then "resus audit acknowledge --text" closes it',
  },
  COMPONENT_UNREACHED: {
    severity: 'alarm',
    title: 'No node reaches a component',
    hint: 'start Resus on its host, or correct its configuration',
  },
  CONFIGURATION_REFUSED: {
    severity: 'warning',
    title: 'A change of the configuration was refused',
    hint: 'correct the file; the old one is in force',
  },
  PEOPLE_CHANGED_OUTSIDE: {
    severity: 'alarm',
    title: 'An account was changed in the store, and not by Resus',
    hint: 'find out who may write the store; disable the account, which takes everything from it, and make it good again step by step',
  },
  APPROVAL_WAITS: {
    severity: 'warning',
    title: 'A second person has to decide',
    hint: 'an approver looks at what is asked for, and at its digest, and approves or refuses it',
  },
  EMERGENCY_DECLARED: {
    severity: 'alarm',
    title: 'An emergency was declared: restores to new places take one person for four hours',
    hint: 'another person reviews it within 72 hours',
  },
  BREAK_GLASS_USED: {
    severity: 'alarm',
    title: 'The sealed code was used',
    hint: 'find out by whom and why; another person reviews it within 72 hours; seal another code',
  },
  SESSION_STOLEN: {
    severity: 'alarm',
    title: 'A secret of a session came twice: somebody may have stolen it',
    hint: 'the session was ended: ask whose it was what they did, and look at the trail',
  },
  ACCESS_REVIEW_DUE: {
    severity: 'warning',
    title: 'A review of access is due',
    hint: 'look at who may do what, who has left and who got copies (GET /api/v1/access-review), and record what was found',
  },
  CHANNEL_FAILED: {
    severity: 'alarm',
    title: 'Notices do not get through on a channel',
    hint: 'correct its settings, and test it',
  },
  DEAD_MAN_FAILED: {
    severity: 'warning',
    title: 'The outside watch does not hear from Resus',
    hint: 'see whether its address answers',
  },
} as const satisfies Record<string, AlarmKind>

export type AlarmKindName = keyof typeof ALARM_KINDS

export interface AlarmFacts {
  readonly system: string
  readonly component?: string
  /** What else tells two alarms of this kind and place apart: a file, a node, a facility. */
  readonly subject?: string
  /** What was found and what was wanted. */
  readonly text: string
  /** Another than the kind's own. */
  readonly severity?: Severity
}

/** An alarm of a kind. Raise it again with the same place and subject while it is so, and clear its key. */
export function alarmOf(kind: AlarmKindName, facts: AlarmFacts): Alarm {
  const { severity, title } = ALARM_KINDS[kind]
  return {
    key: alarmKey(kind, facts),
    severity: facts.severity ?? severity,
    title,
    text: facts.text,
    system: facts.system,
    ...(facts.component === undefined ? {} : { component: facts.component }),
    code: kind,
  }
}

/** Names an alarm: its kind, its place and its subject. */
export function alarmKey(kind: AlarmKindName, { system, component, subject }: Omit<AlarmFacts, 'text' | 'severity'>): string {
  const parts = [kind, system, component ?? '-', ...(subject === undefined ? [] : [subject])]
  return parts.map((part) => part.replaceAll('|', '||')).join(' | ')
}

/** What to do about an alarm with this code; null for codes of others. */
export function hintOf(code: string | null): string | null {
  return code !== null && Object.hasOwn(ALARM_KINDS, code) ? ALARM_KINDS[code as AlarmKindName].hint : null
}
