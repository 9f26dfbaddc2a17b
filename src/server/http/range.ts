import { z } from 'zod'
import { Failure } from '../../errors.ts'

const DAY_MS = 24 * 3_600_000

/** A stretch of time, as it is asked for. */
export const rangeQuery = {
  from: z.iso.datetime({ offset: true }).optional().describe('a day before `to` when left out'),
  to: z.iso.datetime({ offset: true }).optional().describe('now when left out'),
}

/** The stretch that is meant. Throws ARGUMENTS_INVALID. */
export function rangeOf(query: { from?: string | undefined; to?: string | undefined }, nowMs: number): { from: Date; to: Date } {
  const to = query.to === undefined ? new Date(nowMs) : new Date(query.to)
  const from = query.from === undefined ? new Date(to.getTime() - DAY_MS) : new Date(query.from)
  if (from < to) return { from, to }
  throw new Failure('ARGUMENTS_INVALID', 'from is not before to', { hint: 'both are instants like 2026-11-21T03:00:00Z' })
}
