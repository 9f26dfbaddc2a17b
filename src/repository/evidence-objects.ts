import type { CallOptions } from '../storage/storage.ts'
import { EVIDENCE_PREFIX } from './layout.ts'
import { listDocuments, putDocument, readDocument, type DocumentFolder } from './named-documents.ts'
import type { Repository } from './repository.ts'
import { damaged, getHead, getObject, putObject } from './sealed-object.ts'

// What drills and recoveries left (docs/format.md, "Evidence"). Nothing here ever deletes one.

const EVIDENCE: DocumentFolder = { kind: 'evidence', prefix: EVIDENCE_PREFIX }

const NUMBER_DIGITS = 10
const BODY_BYTES_MAX = 64 * 1024 * 1024
const RECORD = /^records\/(\d{10})$/

/** The name of a record, from its sequence. */
export function recordName(sequence: number): string {
  return `records/${String(sequence).padStart(NUMBER_DIGITS, '0')}`
}

/** Keeps a document under a name that is new. False when the name is taken. It is durable when this resolves. Throws what the storage throws. */
export async function putEvidence(
  repository: Repository,
  name: string,
  document: object,
  call: CallOptions = {},
): Promise<boolean> {
  return await putDocument(repository, { ...EVIDENCE, name }, document, call)
}

/** The document of a name; undefined when there is none. Throws OBJECT_DAMAGED, and what the storage throws. */
export async function readEvidence(repository: Repository, name: string, call: CallOptions = {}): Promise<unknown> {
  return await readDocument(repository, { ...EVIDENCE, name }, call)
}

/** As `putEvidence`, with a document besides that may be of any length: it goes into the body. The name has to be a new one. */
export async function putLongEvidence(
  repository: Repository,
  name: string,
  { head, body }: { readonly head: object; readonly body: object },
  call: CallOptions = {},
): Promise<void> {
  const { storage, ring } = repository
  const bytes = Buffer.from(JSON.stringify(body))
  await putObject(storage, ring, { kind: 'evidence', name: `${EVIDENCE_PREFIX}${name}`, head, body: [bytes] }, call)
}

/** The head of what `putLongEvidence` has put. Throws OBJECT_MISSING, OBJECT_DAMAGED, and what the storage throws. */
export async function readEvidenceHead(repository: Repository, name: string, call: CallOptions = {}): Promise<unknown> {
  const { storage, ring } = repository
  return await getHead(storage, ring, { kind: 'evidence', name: `${EVIDENCE_PREFIX}${name}` }, call)
}

/** Both documents. Throws OBJECT_MISSING, OBJECT_DAMAGED, also for a body longer than we ever write, and what the storage throws. */
export async function readLongEvidence(
  repository: Repository,
  name: string,
  call: CallOptions = {},
): Promise<{ readonly head: unknown; readonly body: unknown }> {
  const { storage, ring } = repository
  const object = { kind: 'evidence' as const, name: `${EVIDENCE_PREFIX}${name}` }
  const { head, body } = await getObject(storage, ring, object, call)
  const pieces: Buffer[] = []
  let length = 0
  for await (const piece of body) {
    length += piece.length
    if (length > BODY_BYTES_MAX) throw damaged(object.name, `it is longer than ${BODY_BYTES_MAX} bytes`)
    pieces.push(piece)
  }
  try {
    return { head, body: JSON.parse(Buffer.concat(pieces).toString('utf8')) as unknown }
  } catch {
    throw damaged(object.name, 'its body is no document')
  }
}

/** Names below a folder (`records/`), in order. */
export async function listEvidence(repository: Repository, folder: string, call: CallOptions = {}): Promise<string[]> {
  return await listDocuments(repository, EVIDENCE, folder, call)
}

/** The sequences of all records that are there, ascending. Whether some are missing is for a verifier to say. */
export async function listRecords(repository: Repository, call: CallOptions = {}): Promise<number[]> {
  const names = await listEvidence(repository, 'records/', call)
  return names.flatMap((name) => {
    const digits = RECORD.exec(name)?.[1]
    return digits === undefined ? [] : [Number(digits)]
  })
}
