import type { BundleEntry, BundleEntryRequest } from '@medplum/fhirtypes'
import type { Database, Transaction } from '../database/database.ts'
import { Refusal } from '../refusal.ts'
import type { Operation } from './bundle-references.ts'
import { readFhir } from './reading.ts'
import type { Intake } from './receive.ts'
import { etagOf, resourceOf, type ResourceRow } from './rows.ts'
import type { ServedType } from './served-types.ts'
import { WRITTEN_TYPES } from './type-names.ts'

export interface BundleOptions extends Intake {
  readonly database: Database
  readonly base: string
  readonly isStrict: boolean
  /** The client wants what it has written back. */
  readonly wantsResources: boolean
  readonly log: (error: unknown) => void
}

/** FHIR's order (DELETE, POST, PUT, GET), and of what is made what others refer to first: the database's keys look at once. */
export function inOrder(operations: readonly Operation[]): Operation[] {
  const methods = ['DELETE', 'POST', 'PUT', 'PATCH', 'GET', 'HEAD']
  const rank = ({ request, path }: Operation): number =>
    methods.indexOf(request.method ?? '') * 100 +
    (request.method === 'POST' ? (WRITTEN_TYPES as readonly string[]).indexOf(path[0] ?? '') : 0)
  // Among changes by their names, so that two transactions that change the same things wait for each other instead of both.
  return operations.toSorted(
    (a, b) => rank(a) - rank(b) || (a.request.method === 'PUT' && a.path.join('/') < b.path.join('/') ? -1 : 1),
  )
}

export async function readEntry(
  transaction: Transaction,
  { path, query }: Pick<Operation, 'path' | 'query'>,
  options: BundleOptions,
): Promise<BundleEntry> {
  const resource = await readFhir(transaction, { path, query, base: options.base, isStrict: options.isStrict })
  const { versionId, lastUpdated } = resource.meta ?? {}
  const versioned =
    versionId === undefined
      ? {}
      : { etag: etagOf(versionId), ...(lastUpdated === undefined ? {} : { lastModified: lastUpdated }) }
  return { resource, response: { status: '200 OK', ...versioned } }
}

/** What is said of a write. */
export function answerOf(
  served: ServedType,
  { row, isNew }: { row: ResourceRow; isNew: boolean },
  { base, wantsResources }: BundleOptions,
): BundleEntry {
  return {
    fullUrl: `${base}/${served.name}/${row.id}`,
    ...(wantsResources ? { resource: resourceOf(served, row) } : {}),
    response: {
      status: isNew ? '201 Created' : '200 OK',
      location: `${served.name}/${row.id}/_history/${row.version}`,
      etag: etagOf(row.version),
      lastModified: row.updated_at.toISOString(),
    },
  }
}

export function notSupported({ method, url }: BundleEntryRequest): Refusal {
  return new Refusal('NOT_SUPPORTED', `${method} ${url} is not supported in a bundle`)
}
