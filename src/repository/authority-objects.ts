import type { CallOptions } from '../storage/storage.ts'
import { AUTHORITY_PREFIX } from './layout.ts'
import { listDocuments, putDocument, readDocument, type DocumentFolder } from './named-documents.ts'
import type { Repository } from './repository.ts'

// What people decided, and who they are (docs/format.md, "Authority").

const AUTHORITY: DocumentFolder = { kind: 'authority', prefix: AUTHORITY_PREFIX }

/** Keeps a document under a name that is new. False when the name is taken. It is durable when this resolves. Throws what the storage throws. */
export async function putAuthority(
  repository: Repository,
  name: string,
  document: object,
  call: CallOptions = {},
): Promise<boolean> {
  return await putDocument(repository, { ...AUTHORITY, name }, document, call)
}

/** The document of a name; undefined when there is none. Throws OBJECT_DAMAGED, and what the storage throws. */
export async function readAuthority(repository: Repository, name: string, call: CallOptions = {}): Promise<unknown> {
  return await readDocument(repository, { ...AUTHORITY, name }, call)
}

/** Names below a folder (`people/`), in order. */
export async function listAuthority(repository: Repository, folder: string, call: CallOptions = {}): Promise<string[]> {
  return await listDocuments(repository, AUTHORITY, folder, call)
}
