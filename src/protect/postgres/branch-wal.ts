import type { Lsn } from '../../postgres/lsn.ts'
import type { RestorePoint } from '../../postgres/wal-summary.ts'
import type { LsnRange } from '../../repository/wal-archive.ts'
import type { NotedWal } from '../../repository/wal-notes.ts'

/** Restore points kept of one cell; of more, the newest. */
const RESTORE_POINTS_MAX = 1000

/**
 * A stretch of a branch's stored WAL without a hole, and what was noted in it. Where one cell ends and the next begins at the same LSN, the
 * WAL goes on; else there is a hole between them.
 */
export interface WalCell {
  readonly from: Lsn
  readonly to: Lsn
  /** End of the last complete record; null when the notes do not tell. */
  readonly lastRecordEnd: Lsn | null
  /** Of the commits noted, microseconds since 2000. */
  readonly leastCommit: bigint | null
  readonly greatestCommit: bigint | null
  /** Of the bytes, those that a synchronous receiver had. */
  readonly synchronousBytes: bigint
  readonly restorePoints: readonly RestorePoint[]
  /** How many more restore points there are. */
  readonly restorePointsLeftOut: number
}

type OpenCell = { -readonly [Key in keyof WalCell]: WalCell[Key] } & { restorePoints: RestorePoint[] }

/**
 * Joins the stored WAL of one branch into cells, in order, cutting at every hole and at the LSNs in `cuts` (ascending). Commits that were noted
 * with a stretch across a cut count behind it, for where in the stretch they are is not known. Memory: one cell for each cut and hole, and one range
 * for each time that a receiver became synchronous.
 */
export class WalCells {
  readonly #cuts: readonly Lsn[]
  readonly #closed: WalCell[] = []
  #open: OpenCell | undefined
  /** What synchronous receivers had, joined. */
  readonly #synchronous: { from: Lsn; to: Lsn }[] = []

  constructor(cuts: readonly Lsn[]) {
    this.#cuts = cuts
  }

  /** Takes the next stretch in the order of LSNs. */
  add({ object, note }: NotedWal): void {
    const { startLsn, endLsn } = object
    if (this.#open === undefined || startLsn > this.#open.to) this.#begin(startLsn)
    if (note.synchronous) this.#addSynchronous(startLsn, endLsn)
    if (endLsn <= this.#open!.to) return
    for (const cut of this.#cuts) {
      if (cut <= this.#open!.to || cut >= endLsn) continue
      this.#open!.to = cut
      // Timelines part, and backups begin, where a record ends.
      this.#open!.lastRecordEnd = cut
      this.#begin(cut)
    }
    this.#open!.to = endLsn
    const cell = this.#open!
    if (note.lastRecordEnd !== null) cell.lastRecordEnd = greatest(cell.lastRecordEnd, note.lastRecordEnd)
    if (note.leastCommit !== null) cell.leastCommit = least(cell.leastCommit, note.leastCommit)
    if (note.greatestCommit !== null) cell.greatestCommit = greatest(cell.greatestCommit, note.greatestCommit)
    for (const point of note.restorePoints) this.#addPoint(point)
    if (this.#cuts.includes(endLsn)) this.#begin(endLsn)
  }

  /** The cells, when all was added. */
  finish(): readonly WalCell[] {
    if (this.#open !== undefined && this.#open.to > this.#open.from) this.#closed.push(this.#open)
    this.#open = undefined
    return this.#closed.map((cell) => ({ ...cell, synchronousBytes: this.#synchronousBytes(cell) }))
  }

  #synchronousBytes(cell: LsnRange): bigint {
    let bytes = 0n
    for (const { from, to } of this.#synchronous) {
      const begin = greatest(from, cell.from)
      const end = least(to, cell.to)
      if (end > begin) bytes += end - begin
    }
    return bytes
  }

  #begin(at: Lsn): void {
    if (this.#open !== undefined && this.#open.to > this.#open.from) this.#closed.push(this.#open)
    this.#open = {
      from: at,
      to: at,
      lastRecordEnd: null,
      leastCommit: null,
      greatestCommit: null,
      synchronousBytes: 0n,
      restorePoints: [],
      restorePointsLeftOut: 0,
    }
  }

  /** A piece that a synchronous receiver wrote comes behind the whole segment that it is part of, which another may have pushed. */
  #addSynchronous(from: Lsn, to: Lsn): void {
    const last = this.#synchronous.at(-1)
    if (last !== undefined && from <= last.to) last.to = greatest(last.to, to)
    else this.#synchronous.push({ from, to })
  }

  #addPoint(point: RestorePoint): void {
    const closed = this.#closed.findLast(({ from, to }) => from < point.lsn && point.lsn <= to) as OpenCell | undefined
    const cell = closed ?? this.#open!
    cell.restorePoints.push(point)
    if (cell.restorePoints.length <= RESTORE_POINTS_MAX) return
    cell.restorePoints.shift()
    cell.restorePointsLeftOut += 1
  }
}

export function greatest<T extends bigint>(left: T | null, right: T): T {
  return left === null || right > left ? right : left
}

export function least<T extends bigint>(left: T | null, right: T): T {
  return left === null || right < left ? right : left
}
