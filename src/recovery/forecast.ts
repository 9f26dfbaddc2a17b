import { changePerDay } from './trend.ts'

// When a recovery will take longer than was agreed, by the drills so far. Pure.

const DAY_MS = 24 * 3_600_000
/** Fewer drills say nothing of where it goes. */
const DRILLS_MIN = 3
const SINCE_MS = 180 * DAY_MS
/** Farther away nobody can see. */
const AHEAD_DAYS_MAX = 730

export interface MeasuredRun {
  readonly madeAt: string
  readonly verdict: string
  readonly rtoSeconds: number | null
}

export interface RtoForecast {
  readonly secondsPerDay: number
  /** A day, like `2027-03-05`; null where the objective is not broken within two years, or is set by nobody. */
  readonly brokenOn: string | null
  /** What it was computed from, in words. */
  readonly basis: string
}

/** Null where there are too few verified drills, or they span less than a day. `runs` in any order. */
export function forecastRto(runs: readonly MeasuredRun[], targetMinutes: number | null, nowMs: number): RtoForecast | null {
  const points = runs
    .flatMap(({ madeAt, verdict, rtoSeconds }) =>
      verdict === 'verified' && rtoSeconds !== null ? [{ atMs: Date.parse(madeAt), value: rtoSeconds }] : [],
    )
    .filter(({ atMs }) => atMs > nowMs - SINCE_MS)
    .toSorted((left, right) => left.atMs - right.atMs)
  const [first, last] = [points[0], points.at(-1)]
  if (first === undefined || last === undefined || points.length < DRILLS_MIN) return null
  const secondsPerDay = changePerDay(points)
  if (secondsPerDay === null) return null
  const days = Math.round((last.atMs - first.atMs) / DAY_MS)
  const basis = `${points.length} verified drills over ${days} days, from ${first.value.toFixed(1)} s to ${last.value.toFixed(1)} s: ${signed(secondsPerDay)} s a day (the median of the slopes between them)`
  return { secondsPerDay, brokenOn: brokenOn(last, secondsPerDay, { targetMinutes, nowMs }), basis }
}

/** What a forecast says to people; null where there is nothing to say. */
export function describeForecast({ brokenOn: day, basis }: RtoForecast, targetMinutes: number | null): string | null {
  if (day === null || targetMinutes === null) return null
  return `at this growth the ${targetMinutes} minutes are broken on ${day}, by ${basis}`
}

function brokenOn(
  last: { readonly atMs: number; readonly value: number },
  secondsPerDay: number,
  { targetMinutes, nowMs }: { readonly targetMinutes: number | null; readonly nowMs: number },
): string | null {
  if (targetMinutes === null) return null
  const left = targetMinutes * 60 - last.value
  if (left > 0 && secondsPerDay <= 0) return null
  const atMs = left <= 0 ? nowMs : last.atMs + (left / secondsPerDay) * DAY_MS
  return atMs - nowMs > AHEAD_DAYS_MAX * DAY_MS ? null : new Date(Math.max(atMs, nowMs)).toISOString().slice(0, 10)
}

function signed(value: number): string {
  return `${value < 0 ? '-' : '+'}${Math.abs(value).toFixed(2)}`
}
