import { sql, type Kysely } from 'kysely'
import type { ComplianceVerdict, Schema } from './schema.ts'

// Compliance with objectives over time: minutes for two days, hours for 400.

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS
const MINUTES_KEPT_MS = 2 * DAY_MS
const HOURS_KEPT_MS = 400 * DAY_MS
/** PostgreSQL takes 65535 parameters in a statement. */
const ROWS_AT_ONCE = 1000
const POINTS_MAX = 20_000

export interface ComplianceEntry {
  readonly system: string
  readonly component: string
  readonly objective: string
  readonly target: number
  readonly actual: number | null
  readonly verdict: ComplianceVerdict
}

/** A minute, or an hour of which so many minutes were written down. The rest of an hour nobody watched. */
export interface CompliancePoint {
  readonly system: string
  readonly component: string
  readonly objective: string
  readonly at: Date
  readonly per: 'minute' | 'hour'
  readonly target: number
  /** Null where nothing was measured. The worst is the greatest of a time, the least of an availability. */
  readonly actualLeast: number | null
  readonly actualGreatest: number | null
  readonly minutesMet: number
  readonly minutesBroken: number
  readonly minutesNotProven: number
}

export interface ComplianceRange {
  readonly system: string
  readonly component?: string
  readonly objective?: string
  /** From this instant on, and up to, without, that one. A minute or hour belongs to a range that has its first instant. */
  readonly from: Date
  readonly to: Date
}

/** Writes down the minute that `now` is in; told again, the later judgement stands. */
export async function recordCompliance(store: Kysely<Schema>, now: Date, entries: readonly ComplianceEntry[]): Promise<void> {
  const at = new Date(Math.floor(now.getTime() / MINUTE_MS) * MINUTE_MS)
  for (let begin = 0; begin < entries.length; begin += ROWS_AT_ONCE) {
    await store
      .insertInto('compliance_minutes')
      .values(entries.slice(begin, begin + ROWS_AT_ONCE).map((entry) => ({ ...entry, at })))
      .onConflict((conflict) =>
        conflict.columns(['system', 'component', 'objective', 'at']).doUpdateSet((row) => ({
          target: row.ref('excluded.target'),
          actual: row.ref('excluded.actual'),
          verdict: row.ref('excluded.verdict'),
        })),
      )
      .execute()
  }
}

/** Makes hours of minutes that are older than two days, and forgets hours after 400 days. May be run again, and by two at once. */
export async function rollUpCompliance(store: Kysely<Schema>, now: Date): Promise<void> {
  // Whole hours only, so that an hour is made at once.
  const before = new Date(Math.floor((now.getTime() - MINUTES_KEPT_MS) / HOUR_MS) * HOUR_MS)
  await sql`
    with gone as (delete from resus_control.compliance_minutes where at < ${before} returning *)
    insert into resus_control.compliance_hours as kept
      (system, component, objective, at, target, actual_least, actual_greatest, minutes_met, minutes_broken, minutes_not_proven)
    select system, component, objective, date_trunc('hour', at, 'UTC'), (array_agg(target order by at desc))[1], min(actual), max(actual),
      count(*) filter (where verdict = 'met'), count(*) filter (where verdict = 'broken'), count(*) filter (where verdict = 'not proven')
    from gone group by 1, 2, 3, 4
    on conflict (system, component, objective, at) do update set
      target = excluded.target,
      actual_least = least(kept.actual_least, excluded.actual_least),
      actual_greatest = greatest(kept.actual_greatest, excluded.actual_greatest),
      minutes_met = kept.minutes_met + excluded.minutes_met,
      minutes_broken = kept.minutes_broken + excluded.minutes_broken,
      minutes_not_proven = kept.minutes_not_proven + excluded.minutes_not_proven`.execute(store)
  await store
    .deleteFrom('compliance_hours')
    .where('at', '<', new Date(now.getTime() - HOURS_KEPT_MS))
    .execute()
}

/** Oldest first, hours before the minutes that follow them; the first 20 000 of them. */
export async function readCompliance(store: Kysely<Schema>, range: ComplianceRange): Promise<CompliancePoint[]> {
  const { system, component = null, objective = null, from, to } = range
  const chosen = sql`system = ${system} and (${component}::text is null or component = ${component})
    and (${objective}::text is null or objective = ${objective}) and at >= ${from} and at < ${to}`
  const { rows } = await sql<CompliancePoint>`
    select system, component, objective, at, 'hour' as per, target, actual_least as "actualLeast", actual_greatest as "actualGreatest",
      minutes_met as "minutesMet", minutes_broken as "minutesBroken", minutes_not_proven as "minutesNotProven"
    from resus_control.compliance_hours where ${chosen}
    union all
    select system, component, objective, at, 'minute', target, actual, actual,
      (verdict = 'met')::int, (verdict = 'broken')::int, (verdict = 'not proven')::int
    from resus_control.compliance_minutes where ${chosen}
    order by at, system, component, objective limit ${POINTS_MAX}`.execute(store)
  return rows
}
