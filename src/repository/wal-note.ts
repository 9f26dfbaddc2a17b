import { z } from 'zod'
import { formatLsn, parseLsn, type Lsn } from '../postgres/lsn.ts'
import { RESTORE_POINTS_MAX, xidPrecedes, type RestorePoint } from '../postgres/wal-summary.ts'
import { damaged } from './sealed-object.ts'

// What is noted with each stored stretch of WAL: the head of a segment or piece (docs/format.md, "WAL").

export type WalSource = 'stream' | 'backup' | 'push' | 'spool' | 'local'

/** What the bytes say, seen as WAL: null where nothing of the kind is in them. */
export interface WalContents {
  /** End of the last record that is complete here. */
  readonly lastRecordEnd: Lsn | null
  /** Of commit and abort times, microseconds since 2000-01-01, UTC. They are not monotonic. */
  readonly leastCommit: bigint | null
  readonly greatestCommit: bigint | null
  readonly leastXid: number | null
  readonly greatestXid: number | null
  readonly restorePoints: readonly RestorePoint[]
  /** Whether a record that ends or begins here makes a tablespace outside the data directory, or may. */
  readonly tablespaces: boolean
}

export interface WalNote extends WalContents {
  readonly timeline: number
  /** PostgreSQL's name of the segment. */
  readonly segment: string
  /** The bytes [from, to) of the segment. */
  readonly from: number
  readonly to: number
  readonly startLsn: Lsn
  readonly endLsn: Lsn
  /** Of the bytes, in hex. */
  readonly sha256: string
  /** The greatest LSN that the receiver had acknowledged when this was written. */
  readonly acknowledged: Lsn | null
  readonly source: WalSource
  /** Whether the server counted the receiver as a synchronous standby. */
  readonly synchronous: boolean
}

/** An LSN in PostgreSQL's text, read as one. */
export const lsnText = z
  .string()
  .regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/)
  .transform(parseLsn)

const microseconds = z
  .string()
  .regex(/^-?\d{1,20}$/)
  .transform(BigInt)

const noteSchema = z.object({
  timeline: z.number().int().positive(),
  segment: z.string().regex(/^[0-9A-F]{24}$/),
  from: z.number().int().nonnegative(),
  to: z.number().int().positive(),
  startLsn: lsnText,
  endLsn: lsnText,
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  lastRecordEnd: lsnText.nullable(),
  leastCommit: microseconds.nullable(),
  greatestCommit: microseconds.nullable(),
  leastXid: z.number().int().nonnegative().nullable(),
  greatestXid: z.number().int().nonnegative().nullable(),
  restorePoints: z.array(
    z
      .object({ name: z.string(), lsn: lsnText, time: microseconds })
      .transform(({ name, lsn, time }) => ({ name, lsn, timeMicros: time })),
  ),
  tablespaces: z.boolean(),
  acknowledged: lsnText.nullable(),
  source: z.enum(['stream', 'backup', 'push', 'spool', 'local']),
  synchronous: z.boolean(),
})

/** Of a stretch in which nothing was found, or that could not be decoded. */
export const NO_CONTENTS: WalContents = {
  lastRecordEnd: null,
  leastCommit: null,
  greatestCommit: null,
  leastXid: null,
  greatestXid: null,
  restorePoints: [],
  tablespaces: false,
}

/** The contents of two stretches, of which `later` follows `earlier`. */
export function joinContents(earlier: WalContents, later: WalContents): WalContents {
  return {
    lastRecordEnd: later.lastRecordEnd ?? earlier.lastRecordEnd,
    leastCommit: pick(earlier.leastCommit, later.leastCommit, (left, right) => left < right),
    greatestCommit: pick(earlier.greatestCommit, later.greatestCommit, (left, right) => left > right),
    leastXid: pick(earlier.leastXid, later.leastXid, xidPrecedes),
    greatestXid: pick(earlier.greatestXid, later.greatestXid, (left, right) => xidPrecedes(right, left)),
    // The first of them, as in one summary: a note has to fit into one frame, whatever an application writes.
    restorePoints: [...earlier.restorePoints, ...later.restorePoints].slice(0, RESTORE_POINTS_MAX),
    tablespaces: earlier.tablespaces || later.tablespaces,
  }
}

/** The note as JSON: LSNs in PostgreSQL's text, times as strings. */
export function noteJson(note: WalNote): unknown {
  return {
    ...note,
    startLsn: formatLsn(note.startLsn),
    endLsn: formatLsn(note.endLsn),
    lastRecordEnd: note.lastRecordEnd === null ? null : formatLsn(note.lastRecordEnd),
    leastCommit: note.leastCommit?.toString() ?? null,
    greatestCommit: note.greatestCommit?.toString() ?? null,
    restorePoints: note.restorePoints.map(({ name, lsn, timeMicros }) => ({
      name,
      lsn: formatLsn(lsn),
      time: timeMicros.toString(),
    })),
    acknowledged: note.acknowledged === null ? null : formatLsn(note.acknowledged),
  }
}

/** Reads a note from JSON. Throws OBJECT_DAMAGED, naming the object. */
export function parseNote(name: string, json: unknown): WalNote {
  const note = noteSchema.safeParse(json)
  if (note.success) return note.data
  const [issue] = note.error.issues
  throw damaged(name, `its note is not one of WAL: ${issue?.path.join('.')}: ${issue?.message}`)
}

function pick<T>(left: T | null, right: T | null, precedes: (left: T, right: T) => boolean): T | null {
  if (left === null || right === null) return left ?? right
  return precedes(left, right) ? left : right
}
