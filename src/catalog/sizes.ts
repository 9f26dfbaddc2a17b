import { sql, type Kysely } from 'kysely'
import type { Schema } from './schema.ts'

// How large things were, hour by hour, for 400 days.

const HOUR_MS = 3_600_000
const KEPT_MS = 400 * 24 * HOUR_MS
const ROWS_AT_ONCE = 1000
const POINTS_MAX = 20_000

/** What is measured: of a storage its room and what of it is free; of a component the cluster, and what all its backups have stored. */
export type SizeName = 'storage' | 'free' | 'cluster' | 'stored'

export interface SizeEntry {
  readonly system: string
  /** Null for the system's storage. */
  readonly component: string | null
  readonly name: SizeName
  readonly bytes: number
}

export interface SizePoint extends SizeEntry {
  readonly at: Date
}

/** Writes down the hour that `now` is in; told again, the first one stands. */
export async function recordSizes(store: Kysely<Schema>, now: Date, entries: readonly SizeEntry[]): Promise<void> {
  const at = new Date(Math.floor(now.getTime() / HOUR_MS) * HOUR_MS)
  for (let begin = 0; begin < entries.length; begin += ROWS_AT_ONCE) {
    const rows = entries.slice(begin, begin + ROWS_AT_ONCE).map((entry) => ({ ...entry, component: entry.component ?? '', at }))
    await store
      .insertInto('sizes')
      .values(rows)
      .onConflict((conflict) => conflict.doNothing())
      .execute()
  }
}

/** Forgets what is older than 400 days. */
export async function forgetSizes(store: Kysely<Schema>, now: Date): Promise<void> {
  await store
    .deleteFrom('sizes')
    .where('at', '<', new Date(now.getTime() - KEPT_MS))
    .execute()
}

/** Oldest first; the newest 20 000. `component` null: of the system's storage. */
export async function readSizes(
  store: Kysely<Schema>,
  range: { readonly system: string; readonly component?: string | null; readonly from: Date; readonly to: Date },
): Promise<SizePoint[]> {
  const { system, component, from, to } = range
  let query = store
    .selectFrom('sizes')
    .selectAll()
    .where('system', '=', system)
    .where('at', '>=', from)
    .where('at', '<', to)
    .orderBy('at', 'desc')
    .limit(POINTS_MAX)
  if (component !== undefined) query = query.where('component', '=', component ?? '')
  const rows = await query.execute()
  return rows.toReversed().map((row) => ({ ...row, component: row.component === '' ? null : row.component }))
}

/** Of each thing its sizes of every sixth hour since then, oldest first. */
export async function readSizeTrends(
  store: Kysely<Schema>,
  { system, from }: { readonly system: string; readonly from: Date },
): Promise<Pick<SizePoint, 'component' | 'name' | 'at' | 'bytes'>[]> {
  const rows = await store
    .selectFrom('sizes')
    .select(['component', 'name', 'at', 'bytes'])
    .where('system', '=', system)
    .where('at', '>=', from)
    .where(sql<boolean>`extract(hour from at at time zone 'UTC')::int % 6 = 0`)
    .orderBy('at')
    .execute()
  return rows.map((row) => ({ ...row, component: row.component === '' ? null : row.component }))
}
