// How something grows. Pure.

const DAY_MS = 24 * 3_600_000
/** Of less nobody can say where it goes. */
const SPAN_MS_MIN = DAY_MS
/** Of more points so many are taken, evenly: every pair of them is looked at. */
const POINTS_MAX = 32

export interface TrendPoint {
  readonly atMs: number
  readonly value: number
}

/**
 * Change per day: the median of the slopes of all pairs of points (Theil 1950, Sen 1968), which an expiry that frees much at once, or one odd measurement, does not bend.
 * Null with less than a day of points. Points are in the order of time.
 */
export function changePerDay(points: readonly TrendPoint[]): number | null {
  const [first, last] = [points[0], points.at(-1)]
  if (first === undefined || last === undefined || last.atMs - first.atMs < SPAN_MS_MIN) return null
  const chosen = thinned(points)
  const slopes = chosen.flatMap((left, index) =>
    chosen
      .slice(index + 1)
      .filter((right) => right.atMs > left.atMs)
      .map((right) => ((right.value - left.value) / (right.atMs - left.atMs)) * DAY_MS),
  )
  return median(slopes)
}

/** Days until nothing of what is free now is left; null when it does not shrink, or nobody can tell. */
export function daysLeft(free: number, change: number | null): number | null {
  return change === null || change >= 0 ? null : free / -change
}

function thinned(points: readonly TrendPoint[]): TrendPoint[] {
  if (points.length <= POINTS_MAX) return [...points]
  const step = (points.length - 1) / (POINTS_MAX - 1)
  return Array.from({ length: POINTS_MAX }, (_, index) => points[Math.round(index * step)]!)
}

function median(values: readonly number[]): number | null {
  const sorted = values.toSorted((left, right) => left - right)
  const middle = sorted.length >> 1
  if (sorted.length === 0) return null
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
