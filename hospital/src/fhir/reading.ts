import type { Resource } from '@medplum/fhirtypes'
import type { Transaction } from '../database/database.ts'
import { Refusal } from '../refusal.ts'
import { everything } from './everything.ts'
import { history } from './history.ts'
import { readRow, readVersion } from './read.ts'
import { resourceOf } from './rows.ts'
import { readSearch, search } from './search.ts'
import { SERVED_TYPES, type ServedType } from './served-types.ts'

/** What a client wants to read: the path below /fhir, in parts, and the query. */
export interface Wanted {
  readonly path: readonly string[]
  readonly query: URLSearchParams
  readonly base: string
  readonly isStrict: boolean
}

/** Every interaction that reads, for a request of its own and for an entry of a bundle. Throws NOT_FOUND, BAD_REQUEST. */
export async function readFhir(transaction: Transaction, { path, query, base, isStrict }: Wanted): Promise<Resource> {
  const [type = '', id, operation, version] = path
  const served = servedTypeOf(type)
  if (id === undefined) return await search(transaction, readSearch(served, query, isStrict), base)
  if (operation === undefined) return resourceOf(served, await readRow(transaction, served, id))
  if (operation === '_history' && version !== undefined) return await readVersion(transaction, served, id, version)
  if (operation === '_history') return await history(transaction, { served, id, query, base })
  if (operation === '$everything' && type === 'Patient') return await everything(transaction, { id, query, base })
  throw new Refusal('NOT_FOUND', `there is nothing at ${path.join('/').slice(0, 200)}`)
}

/** Throws NOT_FOUND for a type that the hospital does not serve. */
export function servedTypeOf(name: string): ServedType {
  const served = SERVED_TYPES.get(name)
  if (served !== undefined) return served
  throw new Refusal('NOT_FOUND', `this service has no "${name.slice(0, 64)}"`, {
    hint: `it has ${[...SERVED_TYPES.keys()].join(', ')}`,
    issue: 'not-supported',
  })
}
