import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import { formatMicros } from '../../postgres/timestamp.ts'

/**
 * What the user asks for. `exclusive`: recovery stops before what is named, not behind it (PostgreSQL's
 * `recovery_target_inclusive = off`).
 */
export type RecoveryTarget =
  | { readonly kind: 'latest' }
  | {
      readonly kind: 'time'
      /** Microseconds since 2000, as PostgreSQL counts. */ readonly micros: bigint
      readonly exclusive?: boolean
    }
  | { readonly kind: 'lsn'; readonly lsn: Lsn; readonly exclusive?: boolean }
  | { readonly kind: 'xid'; readonly xid: number; readonly exclusive?: boolean }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'backup'; readonly backup: string }

/** What PostgreSQL does when it has reached the target: open for writing, wait for a look, or shut down. */
export const RECOVERY_ACTIONS = ['promote', 'pause', 'shutdown'] as const
export type RecoveryAction = (typeof RECOVERY_ACTIONS)[number]

/** The target as a person reads it. */
export function describeTarget(target: RecoveryTarget): string {
  switch (target.kind) {
    case 'latest':
      return 'latest'
    case 'time':
      return `time ${formatMicros(target.micros)}${before(target)}`
    case 'lsn':
      return `LSN ${formatLsn(target.lsn)}${before(target)}`
    case 'xid':
      return `transaction ${target.xid}${before(target)}`
    case 'name':
      return `restore point "${target.name}"`
    case 'backup':
      return `backup ${target.backup}`
    default:
      return target satisfies never
  }
}

function before(target: { readonly exclusive?: boolean }): string {
  return target.exclusive === true ? ' (exclusive)' : ''
}
