import type { Bundle } from '@medplum/fhirtypes'
import { sql } from 'kysely'
import type { Transaction } from '../database/database.ts'
import { Refusal } from '../refusal.ts'
import { isUuid } from '../uuid.ts'
import { bundleOf, countOf, readCursor } from './paging.ts'
import { readRow } from './read.ts'
import { resourceOf, selectRows, type ResourceRow } from './rows.ts'
import { parseTime } from './search-values.ts'
import { servedType } from './served-types.ts'
import { CLINICAL_TYPES } from './type-names.ts'

const HEEDED = ['_since', '_count', '_type']

/**
 * A patient's record and all that this context sees of the patient, by type and then in the order of making. What only says who changed it
 * (Provenance, AuditEvent) is searched by its target. Throws NOT_FOUND.
 */
export async function everything(
  transaction: Transaction,
  { id, query, base }: { readonly id: string; readonly query: URLSearchParams; readonly base: string },
): Promise<Bundle> {
  const record = await readRow(transaction, servedType('Patient'), id)
  const count = countOf(query.get('_count') ?? undefined)
  const cursor = query.get('_cursor') ?? undefined
  const after = cursor === undefined ? undefined : readCursor(cursor, isKey)
  const since = query.get('_since') === null ? undefined : parseTime('_since', query.get('_since')!).start
  const types = typesOf(query.get('_type'))
  const isFirst = after === undefined && types.has('Patient') && (since === undefined || record.updated_at >= new Date(since))
  const rows = await selectFrom(transaction, { id, types, since, after, limit: count + 1 })
  const all: TypedRow[] = [...(isFirst ? [{ ...record, rank: 0 }] : []), ...rows]
  const page = all.slice(0, count)
  const last = page.at(-1)
  return bundleOf({
    type: 'searchset',
    entries: page.map((row) => {
      const served = servedType(row.rank === 0 ? 'Patient' : CLINICAL_TYPES[row.rank - 1]!)
      return { fullUrl: `${base}/${served.name}/${row.id}`, resource: resourceOf(served, row), search: { mode: 'match' } }
    }),
    url: `${base}/Patient/${id}/$everything`,
    parameters: HEEDED.flatMap((name) => (query.has(name) ? [[name, query.get(name)!] as const] : [])),
    cursor,
    next: all.length > page.length && last !== undefined ? [String(last.rank), last.id] : undefined,
  })
}

/** rank: 0 is the record, and then CLINICAL_TYPES from 1. */
type TypedRow = ResourceRow & { readonly rank: number }

interface Selection {
  readonly id: string
  readonly types: ReadonlySet<string>
  readonly since: string | undefined
  readonly after: readonly string[] | undefined
  readonly limit: number
}

async function selectFrom(transaction: Transaction, { id, types, since, after, limit }: Selection): Promise<TypedRow[]> {
  const [rank = 0, last] = after === undefined ? [] : [Number(after[0]), after[1]]
  const selects = CLINICAL_TYPES.flatMap((name, index) => {
    if (!types.has(name) || index + 1 < rank) return []
    const beyond = index + 1 === rank && last !== undefined ? sql`and id > ${last}::uuid` : sql``
    const from = since === undefined ? sql`` : sql`and updated_at >= ${since}::timestamptz`
    return [
      sql`(select ${index + 1}::integer as rank, t.* from (${selectRows(servedType(name))} where patient_id = ${id}::uuid ${beyond} ${from}) t
      order by id limit ${limit})`,
    ]
  })
  if (selects.length === 0) return []
  const { rows } =
    await sql<TypedRow>`select * from (${sql.join(selects, sql` union all `)}) t order by rank, id limit ${limit}`.execute(
      transaction.sql,
    )
  return rows
}

function isKey([rank = '', id = '']: readonly string[]): boolean {
  return /^\d$/.test(rank) && Number(rank) <= CLINICAL_TYPES.length && isUuid(id)
}

function typesOf(text: string | null): ReadonlySet<string> {
  const all = ['Patient', ...CLINICAL_TYPES]
  if (text === null) return new Set(all)
  const types = text.split(',')
  const unknown = types.find((each) => !all.includes(each))
  if (unknown === undefined) return new Set(types)
  throw new Refusal('BAD_REQUEST', `"${unknown.slice(0, 60)}" is no type that belongs to a patient here`, {
    hint: `there are ${all.join(', ')}`,
  })
}
