import type { Kysely } from 'kysely'
import type { Schema } from './schema.ts'

// How ready components were, hour by hour, for 400 days.

const HOUR_MS = 3_600_000
const KEPT_MS = 400 * 24 * HOUR_MS
const ROWS_AT_ONCE = 1000
const POINTS_MAX = 20_000

export interface ReadinessPoint {
  readonly system: string
  readonly component: string
  readonly at: Date
  readonly score: number
}

/** Writes down the hour that `now` is in; told again, the first one stands. Forgets what is older than 400 days. */
export async function recordReadiness(
  store: Kysely<Schema>,
  now: Date,
  scores: readonly Omit<ReadinessPoint, 'at'>[],
): Promise<void> {
  const at = new Date(Math.floor(now.getTime() / HOUR_MS) * HOUR_MS)
  for (let begin = 0; begin < scores.length; begin += ROWS_AT_ONCE) {
    const rows = scores.slice(begin, begin + ROWS_AT_ONCE).map((each) => ({ ...each, at }))
    await store
      .insertInto('readiness')
      .values(rows)
      .onConflict((conflict) => conflict.doNothing())
      .execute()
  }
  await store
    .deleteFrom('readiness')
    .where('at', '<', new Date(now.getTime() - KEPT_MS))
    .execute()
}

/** Oldest first; the newest 20 000. */
export async function readReadiness(
  store: Kysely<Schema>,
  range: { readonly system: string; readonly component: string; readonly from: Date; readonly to: Date },
): Promise<ReadinessPoint[]> {
  const rows = await store
    .selectFrom('readiness')
    .selectAll()
    .where('system', '=', range.system)
    .where('component', '=', range.component)
    .where('at', '>=', range.from)
    .where('at', '<', range.to)
    .orderBy('at', 'desc')
    .limit(POINTS_MAX)
    .execute()
  return rows.toReversed()
}
