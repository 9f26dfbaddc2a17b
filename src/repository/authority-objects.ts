import { Failure } from '../errors.ts'
import type { CallOptions } from '../storage/storage.ts'
import { AUTHORITY_PREFIX } from './layout.ts'
import type { Repository } from './repository.ts'
import { getRecord, putObject } from './sealed-object.ts'

// What people decided, and who they are (docs/format.md, "Authority"). Each object is put once under its name: whoever finds the name taken was not first.

/** Keeps a document under a name that is new. False when the name is taken. It is durable when this resolves. Throws what the storage throws. */
export async function putAuthority(
  repository: Repository,
  name: string,
  document: object,
  call: CallOptions = {},
): Promise<boolean> {
  const { storage, ring } = repository
  // What cannot be read back must not be kept.
  const head = JSON.parse(JSON.stringify(document)) as Record<string, unknown>
  try {
    await putObject(storage, ring, { kind: 'authority', name: `${AUTHORITY_PREFIX}${name}`, head }, call)
    return true
  } catch (error) {
    if (error instanceof Failure && error.code === 'OBJECT_EXISTS') return false
    throw error
  }
}

/** The document of a name; undefined when there is none. Throws OBJECT_DAMAGED, and what the storage throws. */
export async function readAuthority(repository: Repository, name: string, call: CallOptions = {}): Promise<unknown> {
  const { storage, ring } = repository
  try {
    return await getRecord(storage, ring, { kind: 'authority', name: `${AUTHORITY_PREFIX}${name}` }, call)
  } catch (error) {
    if (error instanceof Failure && error.code === 'OBJECT_MISSING') return undefined
    throw error
  }
}

/** Names below a folder (`people/`), in order. */
export async function listAuthority(repository: Repository, folder: string, call: CallOptions = {}): Promise<string[]> {
  const names: string[] = []
  for await (const { key } of repository.storage.list(`${AUTHORITY_PREFIX}${folder}`, call))
    names.push(key.slice(AUTHORITY_PREFIX.length))
  return names.toSorted()
}
