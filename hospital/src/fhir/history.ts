import type { Bundle, BundleEntry } from '@medplum/fhirtypes'
import { sql } from 'kysely'
import type { Transaction } from '../database/database.ts'
import { bundleOf, countOf, readCursor } from './paging.ts'
import { readRow } from './read.ts'
import { etagOf, resourceOf, type ResourceRow } from './rows.ts'
import { parseTime } from './search-values.ts'
import type { ServedType } from './served-types.ts'

interface Asked {
  readonly served: ServedType
  readonly id: string
  readonly query: URLSearchParams
  readonly base: string
}

/** All versions of a resource, the newest first, by pages. Throws NOT_FOUND. */
export async function history(transaction: Transaction, { served, id, query, base }: Asked): Promise<Bundle> {
  const current = await readRow(transaction, served, id)
  const count = countOf(query.get('_count') ?? undefined)
  const cursor = query.get('_cursor') ?? undefined
  const below = cursor === undefined ? undefined : Number(readCursor(cursor, ([version]) => /^\d{1,9}$/.test(version ?? ''))[0])
  const since = query.get('_since')
  const versions = await selectVersions(transaction, `${served.name}/${id}`, since)
  // The record of another facility's patient, a facility, what the hospital logged: they have no older version that this context sees.
  const all = versions.length > 0 || since !== null ? versions : [current]
  const after = below === undefined ? all : all.filter(({ version }) => version < below)
  const page = after.slice(0, count)
  const contents = await readContents(transaction, `${served.name}/${id}`, page)
  return bundleOf({
    type: 'history',
    entries: page.map((row) => entryOf(served, { ...row, id, content: contents.get(row.version) ?? current.content }, base)),
    total: all.length,
    url: `${base}/${served.name}/${id}/_history`,
    parameters: ['_count', '_since'].flatMap((name) => (query.has(name) ? [[name, query.get(name)!] as const] : [])),
    cursor,
    next: after.length > page.length && page.length > 0 ? [String(page.at(-1)!.version)] : undefined,
  })
}

type Version = Pick<ResourceRow, 'version' | 'updated_at'>

/** Without the contents: of a resource that was changed a thousand times only a page is read. */
async function selectVersions(transaction: Transaction, stream: string, since: string | null): Promise<Version[]> {
  const from = since === null ? sql`` : sql`and at >= ${parseTime('_since', since).start}::timestamptz`
  const { rows } =
    await sql<Version>`select version, at as updated_at from events where stream = ${stream} ${from} order by version desc`.execute(
      transaction.sql,
    )
  return rows
}

async function readContents(transaction: Transaction, stream: string, page: readonly Version[]): Promise<Map<number, unknown>> {
  const { rows } = await sql<{ version: number; content: unknown }>`
    select version, hospital.upcast(stream, schema_version, facility, payload) -> 'resource' as content
    from events where stream = ${stream} and version = any(${page.map(({ version }) => version)}::integer[])`.execute(
    transaction.sql,
  )
  return new Map(rows.map(({ version, content }) => [version, content]))
}

function entryOf(served: ServedType, row: ResourceRow, base: string): BundleEntry {
  const url = `${served.name}/${row.id}`
  const isFirst = row.version === 1
  return {
    fullUrl: `${base}/${url}`,
    resource: resourceOf(served, row),
    request: isFirst ? { method: 'POST', url: served.name } : { method: 'PUT', url },
    response: {
      status: isFirst ? '201 Created' : '200 OK',
      etag: etagOf(row.version),
      lastModified: row.updated_at.toISOString(),
    },
  }
}
