import { createHash } from 'node:crypto'
import type { Database, Transaction } from '../database/database.ts'
import { Refusal } from '../refusal.ts'
import { uuid } from '../uuid.ts'
import type { ResourceRow } from './rows.ts'
import { matches, readSearch } from './search.ts'
import type { ServedType } from './served-types.ts'
import { updateResource } from './change.ts'
import { createResource } from './create.ts'
import { receive, type Intake } from './receive.ts'

/** A row, and whether this request made it. */
export interface Written {
  readonly row: ResourceRow
  readonly isNew: boolean
}

const ATTEMPTS_MAX = 3
/** The class of advisory locks on conditions; any number that nobody else takes. */
const CONDITION_LOCKS = 7_310_003
const NOTHING: ReadonlySet<string> = new Set()

/** One resource in a transaction of its own. With a condition (If-None-Exist), only when nothing matches it yet. */
export async function create(
  database: Database,
  intake: Intake,
  {
    served,
    content,
    condition,
  }: { readonly served: ServedType; readonly content: unknown; readonly condition: string | undefined },
): Promise<Written> {
  const received = await receive(served, content, intake)
  return await database.transaction(intake.context, async (transaction) => {
    const existing = condition === undefined ? undefined : await findExisting(transaction, served, condition)
    if (existing !== undefined) return { row: existing, isNew: false }
    return { row: await createResource(transaction, received, uuid(), NOTHING), isNew: true }
  })
}

/** A change in a transaction of its own. Without If-Match, a change that somebody else's came between is tried again on what is there then. */
export async function update(
  database: Database,
  intake: Intake,
  change: { readonly served: ServedType; readonly id: string; readonly content: unknown; readonly expected: number | undefined },
): Promise<Written> {
  const { served, id, content, expected } = change
  const received = await receive(served, content, intake)
  for (let attempt = 1; ; attempt += 1) {
    try {
      const row = await database.transaction(intake.context, async (transaction) =>
        updateResource(transaction, received, id, { expected, known: NOTHING }),
      )
      return { row, isNew: false }
    } catch (error) {
      const isRaced = error instanceof Refusal && error.code === 'CONFLICT' && expected === undefined
      if (!isRaced || attempt === ATTEMPTS_MAX) throw error
    }
  }
}

/**
 * The one resource that matches a condition. Two transactions with the same condition wait for each other here, so that both do not find nothing.
 * Throws BAD_REQUEST for a condition that says nothing, and VERSION_CONFLICT (412) when several match.
 */
export async function findExisting(
  transaction: Transaction,
  served: ServedType,
  condition: string,
): Promise<ResourceRow | undefined> {
  const asked = readSearch(served, new URLSearchParams(condition.replace(/^\?/, '')), true)
  if (asked.conditions.length === 0)
    throw new Refusal('BAD_REQUEST', 'If-None-Exist has no search parameter', { hint: 'as identifier=system|value' })
  const { context } = transaction
  const name = JSON.stringify([context.kind === 'facility' ? context.facility : '', served.name, condition])
  const lock = createHash('sha256').update(name).digest().readInt32BE()
  await transaction.client.query('select pg_advisory_xact_lock($1, $2)', [CONDITION_LOCKS, lock])
  const [first, second] = await matches(transaction, asked, 2)
  if (second === undefined) return first
  throw new Refusal('VERSION_CONFLICT', `more than one ${served.name} matches ${condition.slice(0, 200)}`, {
    issue: 'multiple-matches',
  })
}
