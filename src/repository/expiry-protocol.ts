// The decisions of "Reuse, marks, leases, expiry" (docs/format.md), without any storage: `expire.ts` and `backup.ts` make them, and a model
// (test/model/expiry-model.ts) explores what becomes of them when writers and deleters interleave, stall and die.

const HOUR_MS = 3600 * 1000

/** How long a lease is good for, and how often a run that works puts another. */
export const LEASE_MS = 6 * HOUR_MS
export const LEASE_RENEWAL_MS = HOUR_MS
/** Any two clocks are at most so far apart. */
export const CLOCK_DIFFERENCE_MAX_MS = 4 * HOUR_MS
/** What was put or deleted longer ago than this is listed so. */
export const LISTING_LAG_MAX_MS = HOUR_MS
/** Between a mark and the sweep. At least a lease, three differences of clocks and a listing's lag: 19 hours. */
export const GRACE_MS_MIN = 24 * HOUR_MS
/** What an interrupted run stored waits so long, after its last lease, to be reused by the next. */
export const ORPHANS_KEPT_MS = 7 * 24 * HOUR_MS
/** Digits at the end of a pack's name that it shares with the run that made it. */
export const RUN_DIGITS = 16

export interface LeaseFacts {
  readonly run: string
  /** The backup that the run may publish, as `<component>/<backup>`. */
  readonly backup: string
  readonly expiresAtMs: number
}

export interface MarkFacts {
  readonly name: string
  readonly atMs: number
  readonly packs: readonly string[]
  readonly backups: readonly string[]
  /** The mark of which this one says that everything it names is deleted. */
  readonly ends?: string | undefined
}

/** What a listing of packs and marks says. */
export interface PackView {
  readonly present: { has(pack: string): boolean }
  readonly marked: ReadonlySet<string>
}

/** Whether a blob may be referred to by a backup that is yet to be published: it lies in a pack that is there and not marked. */
export function mayRefer(places: Iterable<string>, view: PackView): boolean {
  for (const pack of places) if (view.present.has(pack) && !view.marked.has(pack)) return true
  return false
}

/**
 * The packs that a blob which a backup refers to keeps from being deleted: all that hold it and are not marked. When all are marked, all of them: two
 * deleters that choose one each would choose differently.
 */
export function neededPacks(places: readonly string[], marked: ReadonlySet<string>): readonly string[] {
  const unmarked = places.filter((pack) => !marked.has(pack))
  return unmarked.length > 0 ? unmarked : places
}

/** All packs that marks name. A pack that was marked once stays marked until it is gone. */
export function markedBy(marks: readonly MarkFacts[]): Set<string> {
  return new Set(marks.flatMap((mark) => mark.packs))
}

/** The marks whose grace is over. */
export function dueMarks(marks: readonly MarkFacts[], nowMs: number, graceMs: number): MarkFacts[] {
  return marks.filter((mark) => mark.ends === undefined && mark.atMs + graceMs <= nowMs)
}

/**
 * The backups of runs whose leases have all ended and that are not published. Before anything is deleted their names are closed: a run that
 * was frozen, and looked at the marks before they were put, can then publish nothing.
 */
export function backupsToClose(leases: readonly LeaseFacts[], published: ReadonlySet<string>, nowMs: number): string[] {
  return [...lastExpiry(leases)]
    .filter(([backup, expiresAtMs]) => !published.has(backup) && expiresAtMs + CLOCK_DIFFERENCE_MAX_MS <= nowMs)
    .map(([backup]) => backup)
}

/** The runs whose packs nobody may mark, as their packs' names end: they work, or were interrupted not long ago, and have published nothing. */
export function runsAtWork(leases: readonly LeaseFacts[], published: ReadonlySet<string>, nowMs: number): Set<string> {
  const last = lastExpiry(leases)
  const atWork = leases.filter(
    ({ backup }) => !published.has(backup) && nowMs < last.get(backup)! + CLOCK_DIFFERENCE_MAX_MS + ORPHANS_KEPT_MS,
  )
  return new Set(atWork.map(({ run }) => run.slice(0, RUN_DIGITS)))
}

/** The packs that are about to be deleted: nobody needs them, and no run that may yet publish has made them. */
export function packsToMark(
  view: PackView & { present: Iterable<string> },
  needed: ReadonlySet<string>,
  atWork: ReadonlySet<string>,
): string[] {
  return [...view.present].filter((pack) => !view.marked.has(pack) && !needed.has(pack) && !atWork.has(pack.slice(-RUN_DIGITS)))
}

/** The packs that go now: named by a mark whose grace is over, and needed by no backup that is there. */
export function packsToDelete(due: readonly MarkFacts[], view: PackView, needed: ReadonlySet<string>): string[] {
  return [...markedBy(due)].filter((pack) => view.present.has(pack) && !needed.has(pack))
}

/** Of these marks those of which nothing is left, and of which no mark says so yet. */
export function marksToEnd(
  due: readonly MarkFacts[],
  marks: readonly MarkFacts[],
  left: { packs: { has(pack: string): boolean }; backups: ReadonlySet<string> },
): MarkFacts[] {
  const ended = new Set(marks.map((mark) => mark.ends))
  return due.filter(
    (mark) =>
      !ended.has(mark.name) &&
      !mark.packs.some((pack) => left.packs.has(pack)) &&
      !mark.backups.some((backup) => left.backups.has(backup)),
  )
}

/** The names of marks to delete, in order: each that was ended a grace period ago, then the mark that says so. */
export function marksToRemove(marks: readonly MarkFacts[], nowMs: number, graceMs: number): string[] {
  return marks
    .filter((mark) => mark.ends !== undefined && mark.atMs + graceMs <= nowMs)
    .flatMap((mark) => [mark.ends!, mark.name])
}

function lastExpiry(leases: readonly LeaseFacts[]): Map<string, number> {
  const last = new Map<string, number>()
  for (const { backup, expiresAtMs } of leases) last.set(backup, Math.max(expiresAtMs, last.get(backup) ?? 0))
  return last
}
