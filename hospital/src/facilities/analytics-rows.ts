/** From `from` on, and before `to`. */
export interface Period {
  readonly from: Date
  readonly to: Date
}

/** What the statements give. A null facility is the total. */
export interface AnalyticsRows {
  readonly facilities: readonly {
    readonly id: string
    readonly name: string
    readonly lga: string
    readonly type: string
    readonly home: number
    readonly known: number
  }[]
  readonly encounters: readonly { readonly facility: string | null; readonly class: string; readonly count: number }[]
  readonly bedDays: readonly { readonly facility: string | null; readonly days: number | null }[]
  readonly laboratory: readonly {
    readonly facility: string | null
    readonly results: number
    readonly median: number | null
    readonly p90: number | null
  }[]
  readonly revenue: readonly { readonly facility: string | null; readonly invoices: number; readonly amount: string }[]
  readonly referrals: readonly Flow[]
}

export interface Flow {
  readonly from: string
  readonly to: string
  readonly status: string
  readonly count: number
}

/** What is counted of one facility, or of all. Turnaround is in minutes, null when there was no result. */
export interface Activity {
  readonly patients: { readonly home: number; readonly known: number }
  readonly encounters: { readonly total: number; readonly byClass: Readonly<Record<string, number>> }
  readonly bedDays: number
  readonly laboratory: { readonly results: number; readonly medianMinutes: number | null; readonly p90Minutes: number | null }
  readonly revenue: { readonly invoices: number; readonly amount: number; readonly currency: 'NGN' }
  readonly referrals: readonly Flow[]
}

export interface Analytics {
  readonly period: { readonly from: string; readonly to: string }
  readonly facilities: readonly (Activity & {
    readonly id: string
    readonly name: string
    readonly lga: string
    readonly type: string
  })[]
  /** For the group's people. */
  readonly totals?: Activity
}

/** Rows as the answer that shows them. Pure. */
export function analyticsOf(rows: AnalyticsRows, { from, to }: Period, withTotals: boolean): Analytics {
  const facilities = rows.facilities.map(({ id, name, lga, type, home, known }) => ({
    id,
    name,
    lga,
    type,
    ...activityOf(rows, id, { home, known }),
  }))
  const analytics = { period: { from: from.toISOString(), to: to.toISOString() }, facilities }
  if (!withTotals) return analytics
  const home = rows.facilities.reduce((sum, each) => sum + each.home, 0)
  const known = rows.facilities.reduce((sum, each) => sum + each.known, 0)
  return { ...analytics, totals: activityOf(rows, null, { home, known }) }
}

function activityOf(rows: AnalyticsRows, facility: string | null, patients: Activity['patients']): Activity {
  const classes = rows.encounters.filter((row) => row.facility === facility).toSorted((a, b) => a.class.localeCompare(b.class))
  const laboratory = rows.laboratory.find((row) => row.facility === facility)
  const revenue = rows.revenue.find((row) => row.facility === facility)
  return {
    patients,
    encounters: {
      total: classes.reduce((sum, { count }) => sum + count, 0),
      byClass: Object.fromEntries(classes.map((row) => [row.class, row.count])),
    },
    bedDays: rounded(rows.bedDays.find((row) => row.facility === facility)?.days ?? 0),
    laboratory: {
      results: laboratory?.results ?? 0,
      medianMinutes: roundedOrNull(laboratory?.median),
      p90Minutes: roundedOrNull(laboratory?.p90),
    },
    revenue: { invoices: revenue?.invoices ?? 0, amount: Number(revenue?.amount ?? 0), currency: 'NGN' },
    referrals: rows.referrals.filter(({ from, to }) => facility === null || from === facility || to === facility),
  }
}

function roundedOrNull(value: number | null | undefined): number | null {
  return value === null || value === undefined ? null : rounded(value)
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100
}
