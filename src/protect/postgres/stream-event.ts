import type { FailureCode } from '../../errors.ts'
import { formatLsn, type Lsn } from '../../postgres/lsn.ts'
import type { Branch } from '../../repository/wal-branch.ts'

/** What waits in the spool for the storage. */
export interface Backlog {
  readonly waitingBytes: number
  readonly spoolBytesMax: number
  /** At the rate of the last minute; null while that is not known, or nothing comes. */
  readonly secondsUntilFull: number | null
}

/** What happens to a stream of WAL. LSNs are bigint: `eventJson` gives what can be printed. */
export type StreamEvent =
  /** WAL flows, from `startLsn` on. */
  | { readonly kind: 'connected'; readonly branch: Branch; readonly startLsn: Lsn; readonly serverLsn: Lsn }
  /** Everything before `lsn` is durable, in the spool or (`acknowledge: repository`) the repository, and the server was told so. */
  | { readonly kind: 'acknowledged'; readonly branch: Branch; readonly lsn: Lsn }
  /** A segment or piece is in the repository; `there`: it was already. */
  | {
      readonly kind: 'stored'
      readonly branch: Branch
      readonly from: Lsn
      readonly to: Lsn
      readonly result: 'stored' | 'there'
    }
  /** The repository holds everything before `lsn` that this stream brought, without a gap. */
  | { readonly kind: 'archived'; readonly branch: Branch; readonly lsn: Lsn }
  /** Something needs attention; nothing was lost, and it is tried again. `attempts` in a row have failed. */
  | {
      readonly kind: 'alarm'
      readonly code: FailureCode
      readonly message: string
      readonly attempts: number
      /** Where the storage is behind it. */
      readonly backlog?: Backlog
    }
  /** What an alarm of this code was about works again. */
  | { readonly kind: 'cleared'; readonly code: FailureCode }
  /** The server went on to another timeline. */
  | { readonly kind: 'switched'; readonly branch: Branch; readonly timeline: number; readonly lsn: Lsn }
  /** The cluster went another way than what was archived: a new branch was begun. */
  | { readonly kind: 'diverged'; readonly from: Branch; readonly branch: Branch; readonly lsn: Lsn }
  /** WAL was lost: the server no longer has [from, to). */
  | { readonly kind: 'gap'; readonly branch: Branch; readonly from: Lsn; readonly to: Lsn }
  | { readonly kind: 'disconnected'; readonly code: FailureCode; readonly message: string; readonly retryInMs: number }
  | { readonly kind: 'stopped' }

/** The event as plain JSON: LSNs in PostgreSQL's text, branches by their keyed name. */
export function eventJson(event: StreamEvent): Record<string, unknown> {
  return Object.fromEntries(Object.entries(event).map(([name, value]) => [name, plain(value)]))
}

function plain(value: StreamEvent[keyof StreamEvent] | Branch | Backlog | Lsn | number): unknown {
  if (typeof value === 'bigint') return formatLsn(value)
  return typeof value === 'object' && 'path' in value ? value.path.branch : value
}
