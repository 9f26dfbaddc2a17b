import { sql } from 'kysely'
import type { Transaction } from '../database/database.ts'
import { isUuid } from '../uuid.ts'
import { problem, type Problem } from './problem-list.ts'
import { servedType, SERVED_TYPES, type ServedType } from './served-types.ts'
import type { FoundReference } from './walk.ts'

/** What the resources of the same transaction bring: they may be referred to before they are there. */
export type Known = ReadonlySet<string>

interface Referring {
  readonly served: ServedType
  readonly references: readonly FoundReference[]
}

/**
 * References that lead to nothing that this facility sees: one query for all of a resource, and none for its own facility or for what the foreign keys
 * of its table look after.
 */
export async function referenceProblems(
  transaction: Transaction,
  { served, references }: Referring,
  { known, own }: { readonly known: Known; readonly own: string },
): Promise<Problem[]> {
  const open = references.filter(({ type, id }) => !known.has(`${type}/${id}`) && !(type === 'Organization' && id === own))
  const toFind = open.filter((each) => isPossible(each) && !served.keyed.has(each.path))
  const found = toFind.length === 0 ? new Set<string>() : await find(transaction, toFind)
  return open
    .filter((each) => !isPossible(each) || (toFind.includes(each) && !found.has(`${each.type}/${each.id}`)))
    .map(notThere)
}

function isPossible({ type, id }: FoundReference): boolean {
  const served = SERVED_TYPES.get(type)
  return served !== undefined && (!served.hasUuid || isUuid(id))
}

async function find(transaction: Transaction, wanted: readonly FoundReference[]): Promise<ReadonlySet<string>> {
  const types = [...new Set(wanted.map(({ type }) => type))]
  const selects = types.map((type) => {
    const { table, hasUuid } = servedType(type as ServedType['name'])
    const ids = wanted.filter((each) => each.type === type).map(({ id }) => id)
    const list = hasUuid ? sql`${ids}::uuid[]` : sql`${ids}::text[]`
    return sql`select ${type} || '/' || id as reference from ${sql.table(table)} where id = any(${list})`
  })
  const { rows } = await sql<{ reference: string }>`${sql.join(selects, sql` union all `)}`.execute(transaction.sql)
  return new Set(rows.map(({ reference }) => reference))
}

/** The same words for what is another facility's and for what is nobody's. */
function notThere({ path, type, id }: FoundReference): Problem {
  const hint = SERVED_TYPES.has(type) ? undefined : `the hospital keeps no ${type}: refer by identifier or display`
  return problem(path, 'not-found', `refers to something that does not exist: ${type}/${id}`, hint)
}
