import { randomInt } from 'node:crypto'
import { microsToMs, msToMicros } from '../../postgres/timestamp.ts'
import { momentLsn, type BaselineMoment } from '../../protect/postgres/content/baseline.ts'
import type { RecoveryTarget } from '../../protect/postgres/recovery-target.ts'
import type { RestoreWindow } from '../../protect/postgres/windows.ts'

// Which moment a drill goes to (docs/drills.md, "In turn").

export const TURNS = ['latest', 'random', 'oldest', 'baseline'] as const
export type Turn = (typeof TURNS)[number]

export interface ChosenTarget {
  readonly target: RecoveryTarget
  /** Null where the target was given. */
  readonly turn: Turn | null
  /** The moment that it means, milliseconds since 1970; null where it means none. Of the latest: that of the fault, which whoever asks knows. */
  readonly askedMs: number | null
}

/** What comes behind the last drill. */
export function nextTurn(last: string | null | undefined): Turn {
  const at = TURNS.indexOf(last as Turn)
  return TURNS[(at + 1) % TURNS.length]!
}

/** The target of a turn. Where the windows have no stretch of time, the latest takes the place of a random moment. */
export function targetOf(turn: Exclude<Turn, 'baseline'>, windows: readonly RestoreWindow[], random = randomBelow): ChosenTarget {
  const current = windows.filter(({ state }) => state === 'current')
  switch (turn) {
    case 'latest':
      return { target: { kind: 'latest' }, turn, askedMs: null }
    case 'oldest': {
      const [oldest] = current
      return oldest === undefined
        ? { target: { kind: 'latest' }, turn, askedMs: null }
        : { target: { kind: 'backup', backup: oldest.backup }, turn, askedMs: null }
    }
    case 'random': {
      const ms = randomMoment(current, random)
      return ms === undefined
        ? { target: { kind: 'latest' }, turn, askedMs: null }
        : { target: { kind: 'time', micros: msToMicros(ms) }, turn, askedMs: ms }
    }
    default:
      return turn satisfies never
  }
}

/** Exactly what the baseline saw lies before its LSN. */
export function baselineTarget(moment: BaselineMoment): ChosenTarget {
  const target = { kind: 'lsn', lsn: momentLsn(moment), exclusive: true } as const
  return { target, turn: 'baseline', askedMs: Date.parse(moment.at) }
}

/** Whether the current windows lead to a baseline, and a record behind it: recovery stops there, and not where WAL happens to end. */
export function isReachable(moment: BaselineMoment, windows: readonly RestoreWindow[]): boolean {
  const lsn = momentLsn(moment)
  return windows.some(
    ({ state, timelines, fromLsn, toLsn }) =>
      state === 'current' && timelines.includes(moment.timeline) && fromLsn <= lsn && lsn < toLsn,
  )
}

/** Uniform over all time that lies in a window, to the millisecond; undefined when there is none. A time is reached only by a later commit: the last one is outside. */
function randomMoment(windows: readonly RestoreWindow[], random: (below: number) => number): number | undefined {
  const stretches = windows.flatMap(({ fromTime, lastCommit }) => {
    if (fromTime === null || lastCommit === null) return []
    const [fromMs, toMs] = [Date.parse(fromTime), microsToMs(lastCommit)]
    return toMs > fromMs ? [{ fromMs, lengthMs: Math.floor(toMs - fromMs) }] : []
  })
  const totalMs = stretches.reduce((sum, { lengthMs }) => sum + lengthMs, 0)
  if (totalMs === 0) return undefined
  let left = random(totalMs)
  for (const { fromMs, lengthMs } of stretches) {
    if (left < lengthMs) return fromMs + left
    left -= lengthMs
  }
  return undefined
}

/** `randomInt` takes ranges below 2^48 milliseconds: nine thousand years. */
function randomBelow(below: number): number {
  return randomInt(below)
}
