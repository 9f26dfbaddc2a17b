import type { Attachment, Extension } from '@medplum/fhirtypes'
import type { Transaction } from '../database/database.ts'
import type { DocumentStore, StoredFile } from '../files/document-store.ts'
import { findUpload, rememberUpload } from '../files/uploads.ts'
import { problem, refuseAll, type Problem } from './problem-list.ts'
import type { Json } from './rows.ts'

/** An old document may have no SHA-1 in its record. */
type NamedFile = Omit<StoredFile, 'sha1'> & { readonly sha1: string | undefined }

const SHA256 = 'https://his.osun.example/sha256'
const URL_OF_DOCUMENT = /^\/documents\/([0-9a-f]{64})$/
const PATH = 'DocumentReference.content[0].attachment'

/** What came within a DocumentReference, taken in before anything names it: undefined when it came by another way. */
export async function takeInData(resource: Json, documents: DocumentStore): Promise<StoredFile | undefined> {
  const { data } = attachmentOf(resource)
  if (data === undefined || contentsOf(resource).length !== 1) return undefined
  return await documents.store(once(Buffer.from(data, 'base64')))
}

/**
 * The file that a document names: the one that came with it, one that this facility sent before, or the one that the document had already. Afterwards
 * the attachment has its url, size and hashes, and no data. Refuses (INVALID) any other, and hashes that are not the file's.
 */
export async function settleFile(
  transaction: Transaction,
  resource: Json,
  {
    facility,
    taken,
    before,
  }: { readonly facility: string; readonly taken: StoredFile | undefined; readonly before: Json | undefined },
): Promise<NamedFile> {
  if (contentsOf(resource).length !== 1) {
    refuseAll([
      problem('DocumentReference.content', 'business-rule', 'a document has one content', 'make a DocumentReference for each'),
    ])
  }
  const attachment = attachmentOf(resource)
  if (taken !== undefined && attachment.url === undefined) {
    await rememberUpload(transaction, facility, taken)
    return settle(resource, taken)
  }
  const sha256 = taken === undefined ? URL_OF_DOCUMENT.exec(attachment.url ?? '')?.[1] : undefined
  const file = sha256 === undefined ? undefined : (fileNamedIn(before, sha256) ?? (await findUpload(transaction, sha256)))
  if (file === undefined) {
    const hint = 'send it as data, or by POST /documents and refer to it by the url "/documents/SHA256"'
    refuseAll([
      problem(PATH, 'business-rule', 'a document has either data, or the url of a file that this facility has sent', hint),
    ])
  }
  return settle(resource, file!)
}

function settle(resource: Json, file: NamedFile): NamedFile {
  const { data: _data, ...attachment } = attachmentOf(resource)
  const others = (attachment.extension ?? []).filter(({ url }) => url !== SHA256)
  refuseAll([
    ...differs('size', attachment.size, file.sizeBytes),
    ...(file.sha1 === undefined ? [] : differs('hash', attachment.hash, file.sha1)),
    ...differs('extension', valueOf(attachment.extension), file.sha256),
  ])
  const settled: Attachment = {
    ...attachment,
    extension: [...others, { url: SHA256, valueString: file.sha256 }],
    url: `/documents/${file.sha256}`,
    size: file.sizeBytes,
    ...(file.sha1 === undefined ? {} : { hash: file.sha1 }),
  }
  resource['content'] = [{ ...contentsOf(resource)[0], attachment: settled }]
  return file
}

function differs(name: string, said: string | number | undefined, found: string | number): Problem[] {
  if (said === undefined || said === found) return []
  return [problem(`${PATH}.${name}`, 'value', `"${said}" is not the file's, which is "${found}"`)]
}

/** The file that the document has had all along; its row was made with it. */
function fileNamedIn(before: Json | undefined, sha256: string): NamedFile | undefined {
  if (before === undefined) return undefined
  const { url, size, hash } = attachmentOf(before)
  if (url !== `/documents/${sha256}` || size === undefined) return undefined
  return { sha256, sha1: hash, sizeBytes: size }
}

function valueOf(extensions: readonly Extension[] | undefined): string | undefined {
  return extensions?.find(({ url }) => url === SHA256)?.valueString
}

function contentsOf(resource: Json): Json[] {
  return (resource['content'] ?? []) as Json[]
}

function attachmentOf(resource: Json): Attachment {
  return (contentsOf(resource)[0]?.['attachment'] ?? {}) as Attachment
}

async function* once(content: Uint8Array): AsyncGenerator<Uint8Array> {
  yield content
}
