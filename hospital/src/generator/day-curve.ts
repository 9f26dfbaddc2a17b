import type { Random } from './random.ts'

// When people come to a hospital: by the hour of Nigeria's day (West Africa Time, UTC+1 all year).

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const WAT_OFFSET_MS = HOUR_MS
/** Clinics open at eight; emergencies come at night too. */
const BY_HOUR = [8, 6, 5, 4, 5, 8, 15, 45, 90, 110, 105, 95, 75, 65, 70, 60, 45, 35, 30, 28, 25, 20, 15, 10] as const
const MEAN = BY_HOUR.reduce((sum, each) => sum + each, 0) / BY_HOUR.length

/** How much more (or less) than on average happens at this time. The mean over a day is 1. */
export function activityAt(ms: number): number {
  const hours = ((ms + WAT_OFFSET_MS) % DAY_MS) / HOUR_MS
  const hour = Math.floor(hours)
  const [now, next] = [BY_HOUR[hour]!, BY_HOUR[(hour + 1) % BY_HOUR.length]!]
  return (now + (next - now) * (hours - hour)) / MEAN
}

/** A time on the day of this one, when it is as likely as people come then. */
export function likelyTime(random: Random, dayMs: number): number {
  const midnight = Math.floor((dayMs + WAT_OFFSET_MS) / DAY_MS) * DAY_MS - WAT_OFFSET_MS
  return midnight + random.weighted(BY_HOUR) * HOUR_MS + random.whole(0, HOUR_MS - 1)
}
