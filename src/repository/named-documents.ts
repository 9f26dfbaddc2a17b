import { Failure } from '../errors.ts'
import type { CallOptions } from '../storage/storage.ts'
import type { Repository } from './repository.ts'
import { getRecord, putObject, type ObjectKind } from './sealed-object.ts'

// Documents that are put once under their names, below a folder of the repository: sealed objects, all head. Whoever finds the name taken was not first.

/** A folder of such documents: the kind of its objects, and what their names begin with. */
export interface DocumentFolder {
  readonly kind: ObjectKind
  readonly prefix: string
}

/** Keeps a document under a name that is new. False when the name is taken. It is durable when this resolves. Throws what the storage throws. */
export async function putDocument(
  { storage, ring }: Repository,
  { kind, prefix, name }: DocumentFolder & { readonly name: string },
  document: object,
  call: CallOptions = {},
): Promise<boolean> {
  // What cannot be read back must not be kept.
  const head = JSON.parse(JSON.stringify(document)) as Record<string, unknown>
  try {
    await putObject(storage, ring, { kind, name: `${prefix}${name}`, head }, call)
    return true
  } catch (error) {
    if (error instanceof Failure && error.code === 'OBJECT_EXISTS') return false
    throw error
  }
}

/** The document of a name; undefined when there is none. Throws OBJECT_DAMAGED, and what the storage throws. */
export async function readDocument(
  { storage, ring }: Repository,
  { kind, prefix, name }: DocumentFolder & { readonly name: string },
  call: CallOptions = {},
): Promise<unknown> {
  try {
    return await getRecord(storage, ring, { kind, name: `${prefix}${name}` }, call)
  } catch (error) {
    if (error instanceof Failure && error.code === 'OBJECT_MISSING') return undefined
    throw error
  }
}

/** Names that begin so (`people/`), in order. */
export async function listDocuments(
  { storage }: Repository,
  { prefix }: DocumentFolder,
  beginning: string,
  call: CallOptions = {},
): Promise<string[]> {
  const names: string[] = []
  for await (const { key } of storage.list(`${prefix}${beginning}`, call)) names.push(key.slice(prefix.length))
  return names.toSorted()
}
