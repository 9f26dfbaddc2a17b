import type { FastifyInstance } from 'fastify'
import pg from 'pg'
import { z } from 'zod'
import type { Transaction } from '../database/database.ts'
import type { RouteOptions } from '../http/server.ts'
import { Refusal } from '../refusal.ts'
import { analyticsOf, type AnalyticsRows, type Period } from './analytics-rows.ts'

const DAY_MS = 86_400_000
const PERIOD_DEFAULT_DAYS = 30
const PERIOD_MAX_DAYS = 3_660
const TIMEOUT = '15s'

const time = z.union([z.iso.date(), z.iso.datetime({ offset: true })], {
  error: 'a date, or a time with its zone, is wanted: 2025-03-01, 2025-03-01T08:00:00Z',
})
const query = z.strictObject({ from: time.optional(), to: time.optional() })

/** GET /analytics/facilities?from=&to=: a facility's people get their own facility, the group's people all of them and totals. */
export async function analyticsRoutes(server: FastifyInstance, { database }: RouteOptions): Promise<void> {
  server.get('/analytics/facilities', async (request) => {
    const period = periodOf(request.query, new Date())
    const rows = await database
      .transaction(request.requester.context, async (transaction) => readRows(transaction, period))
      .catch((error: unknown) => {
        if (!(error instanceof pg.DatabaseError) || error.code !== '57014') throw error
        throw new Refusal('UNAVAILABLE', `this took longer than ${TIMEOUT}`, { hint: 'ask for a shorter period', cause: error })
      })
    return analyticsOf(rows, period, request.requester.context.kind === 'group')
  })
}

/** From `from` on and before `to`; the last thirty days when neither is given. Days begin at midnight UTC. */
export function periodOf(parameters: unknown, now: Date): Period {
  const given = query.parse(parameters)
  const to = given.to === undefined ? now : new Date(given.to)
  const from = given.from === undefined ? new Date(to.getTime() - PERIOD_DEFAULT_DAYS * DAY_MS) : new Date(given.from)
  if (from >= to)
    throw new Refusal('BAD_REQUEST', `from (${from.toISOString()}) is not before to (${to.toISOString()})`, {
      expression: 'from',
    })
  if (to.getTime() - from.getTime() > PERIOD_MAX_DAYS * DAY_MS) {
    throw new Refusal('BAD_REQUEST', `the period is longer than ${PERIOD_MAX_DAYS} days`, { expression: 'from' })
  }
  return { from, to }
}

/** Counts, in one statement for each subject. A null facility is the total over all that this context sees. */
async function readRows({ client, context }: Transaction, { from, to }: Period): Promise<AnalyticsRows> {
  await client.query(`set local statement_timeout = '${TIMEOUT}'`)
  const own = context.kind === 'facility' ? context.facility : null
  const period = [own, from, to]
  const facilities = await client.query<AnalyticsRows['facilities'][number]>(FACILITIES, [own])
  const encounters = await client.query<AnalyticsRows['encounters'][number]>(ENCOUNTERS, period)
  const bedDays = await client.query<AnalyticsRows['bedDays'][number]>(BED_DAYS, period)
  const laboratory = await client.query<AnalyticsRows['laboratory'][number]>(LABORATORY, period)
  const revenue = await client.query<AnalyticsRows['revenue'][number]>(REVENUE, period)
  const referrals = await client.query<AnalyticsRows['referrals'][number]>(REFERRALS, period.slice(1))
  return {
    facilities: facilities.rows,
    encounters: encounters.rows,
    bedDays: bedDays.rows,
    laboratory: laboratory.rows,
    revenue: revenue.rows,
    referrals: referrals.rows,
  }
}

/** Patients are those of today, whatever the period: whose home it is, and who is known there (whose home it is among them). */
const FACILITIES = `
  select f.id, f.name, f.lga, f.type, coalesce(p.home, 0)::int as home, coalesce(k.known, 0)::int as known
  from hospital.facilities f
  left join (select facility, count(*) as home from hospital.patients group by facility) p on p.facility = f.id
  left join (select facility, count(*) as known from hospital.patient_facilities group by facility) k on k.facility = f.id
  where $1::text is null or f.id = $1 order by f.id`

/** Those that began in the period and took place. */
const ENCOUNTERS = `
  select facility, class, count(*)::int as count from hospital.encounters
  where ($1::text is null or facility = $1) and started_at >= $2 and started_at < $3
  and status not in ('planned', 'cancelled', 'entered-in-error')
  group by grouping sets ((facility, class), (class))`

/** The part of each stay that lies in the period; one that has not ended lasts until now. Classes of inpatients in v3-ActCode. */
const BED_DAYS = `
  select facility, sum(extract(epoch from least(coalesce(ended_at, now()), $3) - greatest(started_at, $2)))::float8 / 86400 as days
  from hospital.encounters
  where ($1::text is null or facility = $1) and class in ('IMP', 'ACUTE', 'NONAC') and status not in ('planned', 'cancelled', 'entered-in-error')
  and started_at < $3 and coalesce(ended_at, now()) > $2
  group by grouping sets ((facility), ())`

/** From when the specimen was taken to when its result was issued, of results that were issued in the period. */
const LABORATORY = `
  select facility, count(*)::int as results, percentile_cont(0.5) within group (order by minutes) as median, percentile_cont(0.9) within group (order by minutes) as p90
  from (
    select facility, (extract(epoch from issued_at - effective_at) / 60)::float8 as minutes from hospital.observations
    where ($1::text is null or facility = $1) and category = 'laboratory' and status in ('final', 'amended', 'corrected')
    and issued_at >= $2 and issued_at < $3 and effective_at <= issued_at
  ) o group by grouping sets ((facility), ())`

const REVENUE = `
  select facility, count(*)::int as invoices, coalesce(sum(total), 0)::text as amount from hospital.invoices
  where ($1::text is null or facility = $1) and status in ('issued', 'balanced') and currency = 'NGN' and issued_at >= $2 and issued_at < $3
  group by grouping sets ((facility), ())`

/** Row security shows a facility those that it is part of. */
const REFERRALS = `
  select facility as from, to_facility as to, status, count(*)::int as count from hospital.referrals
  where authored_at >= $1 and authored_at < $2 group by 1, 2, 3 order by 1, 2, 3`
