import type { Lsn } from './lsn.ts'
import { microsToMs } from './timestamp.ts'
import type { WalFact } from './wal-record.ts'

/** Restore points kept of one stretch of WAL; more set `overflow`. */
export const RESTORE_POINTS_MAX = 1000

export interface RestorePoint {
  readonly name: string
  /** Just past its record, as `pg_create_restore_point` gives it. */
  readonly lsn: Lsn
  /** Microseconds since 2000 in UTC. */
  readonly timeMicros: bigint
}

/** What a stretch of WAL reaches: with it, windows are known without reading WAL again. */
export interface WalSummary {
  readonly records: number
  /** Where the first complete record begins, and just past the last one; null when there is none. */
  readonly firstRecord: Lsn | null
  readonly lastRecordEnd: Lsn | null
  readonly commits: number
  readonly aborts: number
  /**
   * Least and greatest time of commit and abort records, at either of which a recovery to a time can stop; null when there is none.
   * Microseconds since 2000 in UTC. The times are not monotonic: the greatest need not be that of the last record.
   */
  readonly leastCommit: bigint | null
  readonly greatestCommit: bigint | null
  /** The same in milliseconds since 1970, rounded down. */
  readonly leastCommitMs: number | null
  readonly greatestCommitMs: number | null
  /** Transactions that ended here, in the order of their ids, which wraps around at 2^32. */
  readonly leastXid: number | null
  readonly greatestXid: number | null
  readonly restorePoints: readonly RestorePoint[]
  /** Whether a record makes a tablespace outside the data directory, or may: of one that is not seen as a whole it is not known. */
  readonly tablespaces: boolean
  /** True when there were more restore points than `RESTORE_POINTS_MAX`: the list has the first of them. */
  readonly overflow: boolean
}

/** Ids below are PostgreSQL's own and belong to no transaction. */
const FIRST_NORMAL_XID = 3

/** Gathers one summary after the other. Positions are numbers relative to `origin`. */
export class WalSummaryBuilder {
  readonly #origin: Lsn
  #records = 0
  #first = 0
  #end = 0
  #commits = 0
  #aborts = 0
  #leastCommit: bigint | null = null
  #greatestCommit: bigint | null = null
  #leastXid: number | null = null
  #greatestXid: number | null = null
  #restorePoints: RestorePoint[] = []
  #tablespaces = false
  #overflow = false

  constructor(origin: Lsn) {
    this.#origin = origin
  }

  addRecord(start: number, end: number): void {
    if (this.#records === 0) this.#first = start
    this.#records++
    this.#end = end
  }

  addFact(fact: WalFact, endLsn: Lsn): void {
    if (fact.kind === 'commit' || fact.kind === 'abort') {
      if (fact.kind === 'commit') this.#commits++
      else this.#aborts++
      this.#addTime(fact.timeMicros)
      if (fact.xid !== undefined && fact.xid >= FIRST_NORMAL_XID) this.#addXid(fact.xid)
    } else if (fact.kind === 'restore-point') {
      const { name, timeMicros } = fact
      if (this.#restorePoints.length < RESTORE_POINTS_MAX) this.#restorePoints.push({ name, timeMicros, lsn: endLsn })
      else this.#overflow = true
    } else if (fact.kind === 'tablespace' && fact.path !== '') this.#tablespaces = true
  }

  /** A record that is not seen as a whole may make a tablespace. */
  addPossibleTablespace(): void {
    this.#tablespaces = true
  }

  take(): WalSummary {
    const summary: WalSummary = {
      records: this.#records,
      firstRecord: this.#records === 0 ? null : this.#origin + BigInt(this.#first),
      lastRecordEnd: this.#records === 0 ? null : this.#origin + BigInt(this.#end),
      commits: this.#commits,
      aborts: this.#aborts,
      leastCommit: this.#leastCommit,
      greatestCommit: this.#greatestCommit,
      leastCommitMs: this.#leastCommit === null ? null : microsToMs(this.#leastCommit),
      greatestCommitMs: this.#greatestCommit === null ? null : microsToMs(this.#greatestCommit),
      leastXid: this.#leastXid,
      greatestXid: this.#greatestXid,
      restorePoints: this.#restorePoints,
      tablespaces: this.#tablespaces,
      overflow: this.#overflow,
    }
    this.#records = this.#commits = this.#aborts = 0
    this.#leastCommit = this.#greatestCommit = null
    this.#leastXid = this.#greatestXid = null
    this.#restorePoints = []
    this.#tablespaces = false
    this.#overflow = false
    return summary
  }

  #addTime(timeMicros: bigint): void {
    if (this.#leastCommit === null || timeMicros < this.#leastCommit) this.#leastCommit = timeMicros
    if (this.#greatestCommit === null || timeMicros > this.#greatestCommit) this.#greatestCommit = timeMicros
  }

  #addXid(xid: number): void {
    if (this.#leastXid === null || xidPrecedes(xid, this.#leastXid)) this.#leastXid = xid
    if (this.#greatestXid === null || xidPrecedes(this.#greatestXid, xid)) this.#greatestXid = xid
  }
}

/** PostgreSQL's TransactionIdPrecedes: ids are a circle, and an id comes before the 2^31 that follow it. */
export function xidPrecedes(a: number, b: number): boolean {
  return ((a - b) | 0) < 0
}
