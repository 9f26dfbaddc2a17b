import { z } from 'zod'
import type { Lsn } from '../postgres/lsn.ts'

// Which backups of a component stay: grandfather, father, son, and a window in which every instant can be restored. Pure; all times are UTC.

const DAY_MS = 24 * 3600 * 1000
const COUNT_MAX = 3660

const count = z.int('a whole number').min(0, 'a number, 0 or more').max(COUNT_MAX, `a number, ${COUNT_MAX} at most`)

/** What `keep` of a component says. */
export const keepSchema = z
  .strictObject({
    daily: count.default(7).describe('of so many days that have a backup, the newest of each day'),
    weekly: count.default(4).describe('of so many weeks (from Monday on, in UTC) that have a backup, the newest of each week'),
    monthly: count.default(12).describe('of so many months that have a backup, the newest of each month'),
    pitrDays: count.default(30).describe('every instant of so many days can be restored'),
  })
  .refine((keep) => Object.values(keep).some((each) => each > 0), {
    error: 'at least one number above 0: the newest backup stays in any case, but nothing else would',
  })
export type Keep = z.infer<typeof keepSchema>

export const KEEP_REASONS = ['newest', 'proven', 'pitr', 'daily', 'weekly', 'monthly'] as const
/** Why a backup stays. */
export type KeepReason = (typeof KEEP_REASONS)[number]

export interface RetainableBackup {
  readonly id: string
  readonly sequence: number
  /** From when on it can be restored. */
  readonly timeMs: number
  readonly branch: string
  readonly stopLsn: Lsn
}

/** A timeline and its ancestors: on each branch up to where the next one left it. The last one has no end. */
export type RetainedLine = readonly { readonly branch: string; readonly endLsn: Lsn | undefined }[]

export interface RetentionQuestion {
  readonly keep: Keep
  readonly backups: readonly RetainableBackup[]
  /** The lines on which instants of the window lie; each needs a backup to begin from. */
  readonly lines: readonly RetainedLine[]
  /** Backups that a restore has proven and that must stay for that. */
  readonly proven: ReadonlySet<string>
  readonly nowMs: number
}

/**
 * Why each backup stays, by its id; one without a reason may go. Of the backups of one day, week or month the newest stays, and only days, weeks and
 * months that have a backup count: when no backups are made any more, the old ones stay. Newer is what has the greater sequence; clocks may be wrong.
 */
export function decideRetention(question: RetentionQuestion): Map<string, KeepReason[]> {
  const { keep } = question
  const newestFirst = question.backups.toSorted((left, right) => right.sequence - left.sequence || right.timeMs - left.timeMs)
  const chosen: Record<KeepReason, readonly (RetainableBackup | undefined)[]> = {
    newest: newestFirst.slice(0, 1),
    proven: newestFirst.filter(({ id }) => question.proven.has(id)),
    pitr: pitrBackups(newestFirst, question),
    daily: newestOfEach(newestFirst, keep.daily, dayOf),
    weekly: newestOfEach(newestFirst, keep.weekly, weekOf),
    monthly: newestOfEach(newestFirst, keep.monthly, monthOf),
  }
  return new Map(
    newestFirst.map((backup) => [backup.id, KEEP_REASONS.filter((reason) => chosen[reason].includes(backup))] as const),
  )
}

/** The instant from which on everything can be restored. */
export function windowStart(keep: Keep, nowMs: number): number {
  return nowMs - keep.pitrDays * DAY_MS
}

/** The backups inside the window and, for each line, the newest before it: the window's first instants are reached from that one. */
function pitrBackups(newestFirst: readonly RetainableBackup[], question: RetentionQuestion): (RetainableBackup | undefined)[] {
  const startMs = windowStart(question.keep, question.nowMs)
  const before = newestFirst.filter(({ timeMs }) => timeMs <= startMs)
  const bases = question.lines.map((line) => before.find((backup) => liesOn(line, backup)))
  return [...newestFirst.filter(({ timeMs }) => timeMs > startMs), ...bases]
}

function liesOn(line: RetainedLine, backup: RetainableBackup): boolean {
  return line.some(({ branch, endLsn }) => branch === backup.branch && (endLsn === undefined || backup.stopLsn <= endLsn))
}

function newestOfEach(
  newestFirst: readonly RetainableBackup[],
  periods: number,
  periodOf: (timeMs: number) => number,
): RetainableBackup[] {
  const newest = new Map<number, RetainableBackup>()
  for (const backup of newestFirst) {
    const period = periodOf(backup.timeMs)
    if (!newest.has(period)) newest.set(period, backup)
  }
  // By time: what a wrong clock dated far back comes last.
  return [...newest]
    .toSorted(([left], [right]) => right - left)
    .slice(0, periods)
    .map(([, backup]) => backup)
}

function dayOf(timeMs: number): number {
  return Math.floor(timeMs / DAY_MS)
}

/** Weeks begin on Monday; day 0 of 1970 was a Thursday. */
function weekOf(timeMs: number): number {
  return Math.floor((dayOf(timeMs) + 3) / 7)
}

function monthOf(timeMs: number): number {
  const date = new Date(timeMs)
  return date.getUTCFullYear() * 12 + date.getUTCMonth()
}
