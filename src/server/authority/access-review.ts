import { sql } from 'kysely'
import { grantsOf } from '../../authority/grants.ts'
import type { AuditTrail } from '../../authority/audit-trail.ts'
import type { Store } from '../../catalog/store.ts'
import type { Clock } from '../../clock.ts'

const DAY_MS = 24 * 3_600_000
const QUARTER_MS = 91 * DAY_MS
/** Named in a notice. */
const NAMED_MAX = 20
/** Who was not here for so long may have left. */
const AWAY_MS = 60 * 24 * 3_600_000
const COPIES_MAX = 1000
export const REVIEW_ACTION = 'review.record'

/** When somebody last looked at who may do what, and when they are to look again. */
export interface ReviewDates {
  readonly last: Date | null
  /** Null while there are no people. */
  readonly due: Date | null
}

/** A copy of patients' records that somebody got. */
export interface CopyMade {
  readonly at: Date
  readonly by: string
  readonly approvedBy: string | null
  readonly system: string | null
  readonly component: string | null
  readonly parameters: unknown
}

/** What a quarterly review of access looks at. */
export class AccessReview {
  readonly #store: Store
  readonly #trail: AuditTrail
  readonly #clock: Clock

  constructor(store: Store, trail: AuditTrail, clock: Clock) {
    this.#store = store
    this.#trail = trail
    this.#clock = clock
  }

  async dates(): Promise<ReviewDates> {
    const [newest] = (await this.#trail.page({ action: REVIEW_ACTION, outcome: 'done', limit: 1 })).items
    const last = newest === undefined ? null : new Date(newest.at)
    const first = await this.#store.sql.selectFrom('people').select('made_at').orderBy('made_at').limit(1).executeTakeFirst()
    if (last !== null) return { last, due: new Date(last.getTime() + QUARTER_MS) }
    // On the first day one makes everybody, and could act as two: when it is over everybody is told who was made by whom.
    return { last, due: first === undefined ? null : new Date(first.made_at.getTime() + DAY_MS) }
  }

  /** Who was made by whom, newest first; of many the first. */
  async makers(): Promise<string> {
    const people = await this.#store.sql
      .selectFrom('people as p')
      .leftJoin('people as m', (join) => join.on(sql`m.id::text`, '=', sql`p.made_by`))
      .select(['p.name', 'p.grants', 'p.made_by', 'm.name as maker'])
      .orderBy('p.made_at', 'desc')
      .limit(NAMED_MAX)
      .execute()
    return people
      .map(({ name, grants, made_by: by, maker }) => {
        const roles = [...new Set(grantsOf(grants).map(({ role }) => role))].join(' and ') || 'nothing'
        return `"${name}" (${roles}) by ${maker === null ? by : `"${maker}"`}`
      })
      .join(', ')
  }

  /** Whether somebody who may do something has not been here for long. */
  isAway(lastSeenAt: Date | null, madeAt: Date): boolean {
    return (lastSeenAt ?? madeAt).getTime() < this.#clock.now() - AWAY_MS
  }

  /** Since the last review, or for a quarter: restores and dumps that two people wanted. */
  async copies(since: Date | null): Promise<CopyMade[]> {
    const rows = await this.#store.sql
      .selectFrom('approvals')
      .selectAll()
      .where('operation', '=', 'restore')
      .where('state', '=', 'used')
      .where('ended_at', '>=', since ?? new Date(this.#clock.now() - QUARTER_MS))
      .orderBy('ended_at', 'desc')
      .limit(COPIES_MAX)
      .execute()
    return rows.map((row) => ({
      at: row.ended_at ?? row.asked_at,
      by: row.asked_name,
      approvedBy: row.decided_name,
      system: row.system,
      component: row.component,
      parameters: row.parameters,
    }))
  }
}
