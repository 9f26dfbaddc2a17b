import { CronExpressionParser } from 'cron-parser'
import { assert } from '../assert.ts'
import { parseAfterMs, type Schedule } from '../config/schedule-settings.ts'
import { instantOf, offsetMs, wallTime } from './wall-clock.ts'

// When what is due: a function of the schedule, the clock and the last runs, and of nothing else.

const DAY_MS = 24 * 3_600_000
/** Wall times in a row that one change of the clocks may leave out or bring twice: a schedule of every minute, a change of a day. */
const PASSED_OVER_MAX = 24 * 60 + 2

export interface DueInput {
  /** Of the component, by its IANA name. */
  readonly timeZone: string
  readonly now: Date
  /** What was asked for last: its `dueAt`. */
  readonly lastDueAt?: Date | undefined
  /** When the last one ended, however it ended. */
  readonly lastEndedAt?: Date | undefined
  /** Since when there is this schedule: what fell due before was nobody's. */
  readonly since: Date
}

export interface Due {
  /** In the past or now: it is due, once, however often it was missed. */
  readonly dueAt: Date
  /** Names this instant of the schedule: put the schedule's own name before it, and ask once for each. */
  readonly key: string
}

/**
 * When a schedule is next due; null when it never is. An instant is never given again once it was `lastDueAt`. A schedule that runs
 * `after` the last must not be asked while one is under way: only its end says when the next begins.
 */
export function nextDue(schedule: Schedule, input: DueInput): Due | null {
  if (schedule === 'never') return null
  const dueMs = 'cron' in schedule ? nextOfCron(schedule.cron, input) : nextAfter(schedule.after, input)
  const dueAt = new Date(dueMs)
  return { dueAt, key: dueAt.toISOString() }
}

function nextAfter(after: string, { now, lastDueAt, lastEndedAt, since }: DueInput): number {
  const afterMs = parseAfterMs(after)
  assert(Number.isFinite(afterMs), 'a schedule has passed its schema')
  // Of a clock that was wrong: what lies so far ahead would keep the schedule from running for as long.
  const believed = [lastDueAt, lastEndedAt].flatMap((last) => (last !== undefined && +last <= +now + afterMs ? [+last] : []))
  return believed.length > 0 ? Math.max(...believed) + afterMs : Math.min(+since, +now)
}

function nextOfCron(cron: string, { timeZone, now, lastDueAt, since }: DueInput): number {
  // A clock that was set back must not silence the schedule: what is asked for again has the same key.
  const baseMs = Math.max(Math.min(+(lastDueAt ?? since), +now), Math.min(+since, +now))
  const nextMs = firstBehind(cron, timeZone, baseMs)
  if (nextMs === lastDueAt?.getTime()) return firstBehind(cron, timeZone, nextMs)
  // Of several that were missed the newest is caught up.
  return nextMs > +now ? nextMs : lastUpTo(cron, timeZone, +now)
}

/** The first instant of the schedule behind `baseMs`. */
function firstBehind(cron: string, timeZone: string, baseMs: number): number {
  const walls = CronExpressionParser.parse(cron, { tz: 'UTC', currentDate: new Date(wallTime(timeZone, baseMs)) })
  // Where clocks were set back, the wall shows again what it has shown: those have run.
  for (let passed = 0; passed < PASSED_OVER_MAX; passed += 1) {
    const instant = instantOf(timeZone, walls.next().getTime())
    if (instant > baseMs) return instant
  }
  assert(false, `no change of the clocks leaves out so much: "${cron}" in ${timeZone} behind ${baseMs}`)
}

/** The last instant of the schedule that is not behind `nowMs`. */
function lastUpTo(cron: string, timeZone: string, nowMs: number): number {
  // Where clocks were set back within the last day, the wall has shown later times than it shows now.
  const offset = Math.max(offsetMs(timeZone, nowMs), offsetMs(timeZone, nowMs - DAY_MS))
  const walls = CronExpressionParser.parse(cron, { tz: 'UTC', currentDate: new Date(nowMs + offset + 1) })
  for (let passed = 0; passed < PASSED_OVER_MAX; passed += 1) {
    const instant = instantOf(timeZone, walls.prev().getTime())
    if (instant <= nowMs) return instant
  }
  assert(false, `no change of the clocks leaves out so much: "${cron}" in ${timeZone} up to ${nowMs}`)
}
