import type { Lsn } from '../../postgres/lsn.ts'
import { parseTimelineHistory, type TimelineBranch } from '../../postgres/timeline-history.ts'
import type { BranchHead } from '../../repository/wal-branch.ts'
import type { Beat } from './heartbeat-session.ts'
import type { StreamEvent } from './stream-event.ts'

// How much would be lost now: the newest beat that is safe, held against the clock. Pure: it is told beats and what became of the WAL.
//
//   beat ---> not safe --archived/acknowledged beyond its LSN, on its line--> safe
//   beat ---> dropped, when the line leaves its timeline before its LSN (a failover that lost it); the newest before it is the safe one then

/** A timeline and how the cluster came to it. */
export interface WalLine {
  readonly systemIdentifier: string
  readonly timeline: number
  readonly ancestors: readonly TimelineBranch[]
}

/** The line of a branch, of a stream's event or of the repository's. */
export function walLine({ systemIdentifier, timeline, history }: Pick<BranchHead, 'systemIdentifier' | 'timeline' | 'history'>) {
  return { systemIdentifier, timeline, ancestors: parseTimelineHistory(timeline, history) } satisfies WalLine
}

/** What would be lost if the database's host were lost now. */
export type Exposure =
  | { readonly kind: 'measured'; readonly seconds: number; readonly beat: Beat }
  | {
      readonly kind: 'not proven'
      readonly why: string
      /** It is no less than this. */
      readonly atLeastSeconds: number
    }

export interface Exposures {
  /** With nothing but the repository. */
  readonly repository: Exposure
  /** With the receiver's spool besides. */
  readonly spool: Exposure
  readonly newest: Beat | null
  /** Whether the heart beats now. When it does not, the seconds still grow: the server is down and loses nothing more, or only we cannot write. */
  readonly beating: boolean
}

interface Entry {
  readonly beat: Beat
  /** When it was, on a clock of our own that nobody can set: milliseconds since the first. */
  readonly ageMs: number
}

type Place = 'repository' | 'spool'

const BEATING_MS = 10_000
/** The newest are all kept; of older ones one for each hundredth of their age: some 2000 for a year. */
const KEPT_WHOLE = 256
const THIN_EVERY = 256
const PART_OF_AGE = 100
const ENTRIES_MAX = 4096

/** Tells the actual RPO of one component. What it holds is bounded. */
export class HeartbeatTracker {
  #entries: Entry[] = []
  #added = 0
  /** Of the last event. */
  #line: WalLine | undefined
  readonly #safe: Record<Place, Entry | undefined> = { repository: undefined, spool: undefined }
  /** From here on WAL is missing, and no backup was begun behind it: no recovery comes past this. */
  #gap: { readonly line: WalLine; readonly from: Lsn; readonly to: Lsn } | undefined

  /** How many beats it holds. */
  get held(): number {
    return this.#entries.length
  }

  noteBeat(beat: Beat): void {
    // A member that the cluster has left behind and that still takes writes.
    if (this.#line !== undefined && isLeft(this.#line, beat)) return
    const last = this.#entries.at(-1)
    // The cluster was set back without another timeline's number: what lay ahead is no more.
    if (last !== undefined && beat.timeline === last.beat.timeline && beat.lsn < last.beat.lsn) {
      this.#drop((each) => each.timeline === beat.timeline && each.lsn > beat.lsn)
    }
    const ageMs = last === undefined ? 0 : last.ageMs + stepMs(last.beat, beat)
    this.#entries.push({ beat, ageMs })
    this.#added += 1
    if (this.#added % THIN_EVERY === 0) this.#thin()
  }

  /** What the receiver of this component says. */
  noteEvent(event: StreamEvent): void {
    if (event.kind === 'archived') this.noteArchived(walLine(event.branch.head), event.lsn)
    else if (event.kind === 'acknowledged') this.noteAcknowledged(walLine(event.branch.head), event.lsn)
    else if (event.kind === 'gap') this.noteGap(walLine(event.branch.head), event)
    else if (event.kind === 'diverged') this.#followLine(walLine(event.branch.head))
  }

  /** The repository has everything before `lsn`. */
  noteArchived(line: WalLine, lsn: Lsn): void {
    this.#noteSafe(['repository', 'spool'], line, lsn)
  }

  /** It is durable in the receiver's spool, if not in the repository. */
  noteAcknowledged(line: WalLine, lsn: Lsn): void {
    this.#noteSafe(['spool'], line, lsn)
  }

  /** WAL was lost: until a backup is begun behind it, nothing that comes later can be recovered. */
  noteGap(line: WalLine, { from, to }: { readonly from: Lsn; readonly to: Lsn }): void {
    const known = this.#gap
    this.#gap = { line: known?.line ?? line, from: known?.from ?? from, to: known !== undefined && known.to > to ? known.to : to }
  }

  /** A backup of this line is whole that began at `startLsn`. */
  noteBackup(line: WalLine, startLsn: Lsn): void {
    if (this.#gap !== undefined && reaches(line, this.#gap.line.timeline) && startLsn >= this.#gap.to) this.#gap = undefined
  }

  exposures(nowMs: number): Exposures {
    const newest = this.#entries.at(-1)
    const sinceMs = newest === undefined ? 0 : Math.max(0, nowMs - newest.beat.sentMs)
    const exposure = (place: Place): Exposure => {
      const safe = this.#safe[place]
      if (newest === undefined) return { kind: 'not proven', why: 'no heartbeat was written yet', atLeastSeconds: 0 }
      if (safe !== undefined) return { kind: 'measured', seconds: (newest.ageMs - safe.ageMs + sinceMs) / 1000, beat: safe.beat }
      const atLeastSeconds = (newest.ageMs - this.#entries[0]!.ageMs + sinceMs) / 1000
      return { kind: 'not proven', why: `no heartbeat is known to be in the ${place} yet`, atLeastSeconds }
    }
    const beating = newest !== undefined && sinceMs <= BEATING_MS
    return { repository: exposure('repository'), spool: exposure('spool'), newest: newest?.beat ?? null, beating }
  }

  /** Only beats that were known before the event: WAL of an earlier cluster with the same numbers makes none of this one's safe. */
  #noteSafe(places: readonly Place[], line: WalLine, lsn: Lsn): void {
    this.#followLine(line)
    const gap = this.#gap
    const [reached, upTo] = gap !== undefined && isBehind(line, lsn, gap) ? [gap.line, gap.from] : [line, lsn]
    const found = this.#entries.findLast(({ beat }) => isOn(reached, beat, upTo))
    if (found === undefined) return
    for (const place of places) {
      if (this.#safe[place] === undefined || this.#safe[place].ageMs < found.ageMs) this.#safe[place] = found
    }
  }

  /** Drops beats that this line has left behind: no recovery to its end has them. */
  #followLine(line: WalLine): void {
    this.#line = line
    this.#drop((beat) => isLeft(line, beat))
  }

  #drop(lost: (beat: Beat) => boolean): void {
    if (!this.#entries.some(({ beat }) => lost(beat))) return
    this.#entries = this.#entries.filter(({ beat }) => !lost(beat))
    for (const place of ['repository', 'spool'] as const) {
      const safe = this.#safe[place]
      // What came before a safe beat was safe.
      if (safe !== undefined && lost(safe.beat)) this.#safe[place] = this.#entries.findLast(({ ageMs }) => ageMs < safe.ageMs)
    }
  }

  /** Leaves out what both its neighbours can stand for. */
  #thin(): void {
    const newestMs = this.#entries.at(-1)!.ageMs
    const byAge = this.#entries.toReversed()
    const kept: Entry[] = []
    for (const [index, entry] of byAge.entries()) {
      const [after, before] = [kept.at(-1), byAge[index + 1]]
      const isDense =
        after !== undefined && before !== undefined && after.ageMs - before.ageMs <= (newestMs - before.ageMs) / PART_OF_AGE
      if (index < KEPT_WHOLE || !isDense) kept.push(entry)
    }
    this.#entries = kept.slice(0, ENTRIES_MAX).toReversed()
  }
}

/**
 * From one beat to the next. The server's clock and ours should agree; where they do not, one of them was set, and the longer step is that one's. Two
 * servers' clocks differ a little, which a failover shows as such a step.
 */
function stepMs(before: Beat, beat: Beat): number {
  const steps = [beat.at.getTime() - before.at.getTime(), beat.sentMs - before.sentMs].filter((step) => step >= 0)
  return steps.length === 0 ? 0 : Math.min(...steps)
}

function isOn(line: WalLine, { systemIdentifier, timeline, lsn }: Beat, upTo: Lsn): boolean {
  if (systemIdentifier !== line.systemIdentifier || lsn > upTo) return false
  if (timeline === line.timeline) return true
  const ancestor = line.ancestors.find((each) => each.timeline === timeline)
  return ancestor !== undefined && lsn <= ancestor.endLsn
}

/** Of a later timeline it may be that the line has not come there yet. */
function isLeft(line: WalLine, { systemIdentifier, timeline, lsn }: Beat): boolean {
  if (systemIdentifier !== line.systemIdentifier) return true
  if (timeline >= line.timeline) return false
  const ancestor = line.ancestors.find((each) => each.timeline === timeline)
  return ancestor === undefined || lsn > ancestor.endLsn
}

/** Whether a line has the gap in it, before `lsn`. */
function isBehind(line: WalLine, lsn: Lsn, gap: { readonly line: WalLine; readonly from: Lsn }): boolean {
  if (line.timeline === gap.line.timeline) return lsn > gap.from
  const ancestor = line.ancestors.find((each) => each.timeline === gap.line.timeline)
  return ancestor !== undefined && ancestor.endLsn > gap.from
}

function reaches(line: WalLine, timeline: number): boolean {
  return line.timeline === timeline || line.ancestors.some((each) => each.timeline === timeline)
}
