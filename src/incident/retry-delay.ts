import type { Failure } from '../errors.ts'
import { FAILURES } from '../errors.ts'

const FIRST_MS = 5_000
const LONGEST_MS = 15 * 60_000
/** So long is tried; then a delivery is given up. */
export const GIVE_UP_AFTER_MS = 24 * 3_600_000

/**
 * How long to wait behind an attempt, of which there were `attempts`: 5 s, 10 s, 20 s ... 15 min. What will not pass by itself is tried at the slowest pace
 * from the start: somebody may correct a password.
 */
export function retryDelayMs(attempts: number, failure: Failure): number {
  if (!FAILURES[failure.code].retry) return LONGEST_MS
  return Math.min(FIRST_MS * 2 ** Math.min(attempts - 1, 20), LONGEST_MS)
}
