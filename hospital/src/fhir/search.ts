import type { Bundle } from '@medplum/fhirtypes'
import { sql } from 'kysely'
import type { Transaction } from '../database/database.ts'
import { Refusal } from '../refusal.ts'
import { isUuid } from '../uuid.ts'
import { bundleOf, countOf, readCursor } from './paging.ts'
import { resourceOf, selectRows, type ResourceRow } from './rows.ts'
import { conditionOf, type Condition } from './search-conditions.ts'
import type { ServedType } from './served-types.ts'

/** What a client searches for, read and ready to be asked. */
export interface Search {
  readonly served: ServedType
  readonly conditions: readonly Condition[]
  readonly count: number
  readonly wantsTotal: boolean
  readonly cursor: string | undefined
  /** The parameters that were heeded, for the link "self". */
  readonly heeded: readonly (readonly [string, string])[]
}

/** Parameters that say how to answer, and not what to find. */
const CONTROLS = new Set(['_count', '_total', '_cursor', '_format', '_pretty'])
const PARAMETERS_MAX = 50

/**
 * Reads the parameters of a search. One that the type does not have is left out, and out of the link "self"; under `Prefer: handling=strict` it is
 * refused, as is every wrong value in any case: BAD_REQUEST.
 */
export function readSearch(served: ServedType, query: URLSearchParams, isStrict: boolean): Search {
  if (query.size > PARAMETERS_MAX) throw new Refusal('BAD_REQUEST', `more than ${PARAMETERS_MAX} search parameters`)
  const conditions: Condition[] = []
  const heeded: [string, string][] = []
  for (const [key, value] of query) {
    const [name = '', modifier] = key.split(':', 2)
    const column = Object.hasOwn(served.search, name) ? served.search[name] : undefined
    if (column !== undefined) conditions.push(conditionOf(served, column, { name, modifier, value }))
    else if (!CONTROLS.has(key) && isStrict) throw unknownParameter(served, key)
    if (column !== undefined || key === '_count' || key === '_total') heeded.push([key, value])
  }
  return {
    served,
    conditions,
    count: countOf(query.get('_count') ?? undefined),
    wantsTotal: wantsTotal(query.get('_total')),
    cursor: query.get('_cursor') ?? undefined,
    heeded,
  }
}

/** One page, in the order of ids, which is about the order in which resources were made and never changes: rows that come or change move none. */
export async function search(transaction: Transaction, asked: Search, base: string): Promise<Bundle> {
  const { served, count, cursor, heeded } = asked
  const rows = await selectPage(transaction, asked)
  const page = rows.slice(0, count)
  const last = page.at(-1)
  return bundleOf({
    type: 'searchset',
    entries: page.map((row) => ({
      fullUrl: `${base}/${served.name}/${row.id}`,
      resource: resourceOf(served, row),
      search: { mode: 'match' },
    })),
    total: asked.wantsTotal || count === 0 ? await countAll(transaction, asked) : undefined,
    url: `${base}/${served.name}`,
    parameters: heeded,
    cursor,
    next: rows.length > count && last !== undefined ? [last.id] : undefined,
  })
}

/** At most `most` rows that match, for what depends on how many there are. */
export async function matches(transaction: Transaction, asked: Search, most: number): Promise<ResourceRow[]> {
  return await selectPage(transaction, { ...asked, count: most - 1, cursor: undefined })
}

async function selectPage(transaction: Transaction, { served, conditions, count, cursor }: Search): Promise<ResourceRow[]> {
  if (count === 0) return []
  const last =
    cursor === undefined ? undefined : readCursor(cursor, (key) => key.length === 1 && (!served.hasUuid || isUuid(key[0]!)))[0]
  const all = last === undefined ? conditions : [...conditions, sql`id > ${last}`]
  const { rows } = await sql<ResourceRow>`${selectRows(served)} ${where(all)} order by id limit ${count + 1}`.execute(
    transaction.sql,
  )
  return rows
}

async function countAll(transaction: Transaction, { served, conditions }: Search): Promise<number> {
  const { rows } = await sql<{ n: string }>`select count(*) as n from (${selectRows(served)} ${where(conditions)}) t`.execute(
    transaction.sql,
  )
  return Number(rows[0]?.n)
}

/** The condition stands on the columns of the type's own table: `updated_at` of the two logged types is called otherwise there. */
function where(conditions: readonly Condition[]): Condition {
  return conditions.length === 0 ? sql`` : sql`where ${sql.join(conditions, sql` and `)}`
}

function wantsTotal(text: string | null): boolean {
  if (text === null || text === 'none') return false
  if (text === 'accurate' || text === 'estimate') return true
  throw new Refusal('BAD_REQUEST', `"${text.slice(0, 40)}" is no _total`, {
    hint: 'give none, estimate or accurate',
    issue: 'value',
  })
}

function unknownParameter({ name, search: known }: ServedType, key: string): Refusal {
  return new Refusal('BAD_REQUEST', `${name} has no search parameter "${key.slice(0, 60)}"`, {
    hint: `there are ${Object.keys(known).join(', ')}`,
    issue: 'not-supported',
  })
}
