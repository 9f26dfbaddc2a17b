import type { FastifyInstance } from 'fastify'
import { Readable } from 'node:stream'
import type { Transaction } from '../database/database.ts'
import type { RouteOptions } from '../http/server.ts'
import { Refusal } from '../refusal.ts'
import { DocumentStore } from './document-store.ts'
import { rememberUpload } from './uploads.ts'

const SHA256 = /^[0-9a-f]{64}$/
/** Nothing that a browser would run as a page of this service. */
const SAFE_TYPE = /^[\w.+-]+\/[\w.+-]+(; ?charset=[\w-]+)?$/

/**
 * POST /documents takes the body of a request as it is and answers with its SHA-256, by which a DocumentReference of the same facility may then name it;
 * GET /documents/:sha256 gives it to whoever sees a DocumentReference that names it.
 */
export async function documentRoutes(server: FastifyInstance, { database, filesDirectory }: RouteOptions): Promise<void> {
  const documents = new DocumentStore(filesDirectory)
  // Whatever its type is, it is bytes here, and not kept in memory.
  server.removeAllContentTypeParsers()
  server.addContentTypeParser('*', (_request, payload, done) => done(null, payload))

  server.post('/documents', async (request, reply) => {
    const { context } = request.requester
    if (context.kind !== 'facility') throw new Refusal('FORBIDDEN', 'documents are filed by the people of a facility')
    if (!(request.body instanceof Readable))
      throw new Refusal('BAD_REQUEST', 'the request has no body', { hint: 'send the document as the body' })
    const stored = await documents.store(request.body as AsyncIterable<Uint8Array>)
    if (stored.sizeBytes === 0) throw new Refusal('BAD_REQUEST', 'the document is empty')
    await database.transaction(context, async (transaction) => rememberUpload(transaction, context.facility, stored))
    const { sha256, sha1, sizeBytes } = stored
    return await reply
      .code(201)
      .header('Location', `/documents/${sha256}`)
      .send({ sha256, hash: sha1, size: sizeBytes, url: `/documents/${sha256}` })
  })

  server.get<{ Params: { sha256: string } }>('/documents/:sha256', async (request, reply) => {
    const { sha256 } = request.params
    const found = SHA256.test(sha256)
      ? await database.transaction(request.requester.context, async (transaction) => findNamed(transaction, sha256))
      : undefined
    if (found === undefined) throw new Refusal('NOT_FOUND', `there is no document "${sha256.slice(0, 64)}"`)
    const content = await begun(documents.read(sha256, found.sizeBytes))
    return await reply
      .header('Content-Type', SAFE_TYPE.test(found.contentType) ? found.contentType : 'application/octet-stream')
      .header('Content-Length', found.sizeBytes)
      .header('Content-Disposition', 'attachment')
      .header('X-Content-Type-Options', 'nosniff')
      .header('ETag', `"${sha256}"`)
      .send(Readable.from(content, { objectMode: false }))
  })
}

interface NamedFile {
  readonly sizeBytes: number
  readonly contentType: string
}

/** A file as one of the documents that this context sees names it. */
async function findNamed(transaction: Transaction, sha256: string): Promise<NamedFile | undefined> {
  const row = await transaction.sql
    .selectFrom('document_references')
    .select(['size_bytes', 'content'])
    .where('sha256', '=', sha256)
    .limit(1)
    .executeTakeFirst()
  if (row === undefined) return undefined
  const { content = [] } = row.content as { content?: { attachment?: { contentType?: string } }[] }
  return { sizeBytes: Number(row.size_bytes), contentType: content[0]?.attachment?.contentType ?? '' }
}

/**
 * The first piece is read before the answer begins: a file that is missing, or short and damaged, gets an answer that says so. Of a longer one the
 * connection breaks before the last piece, and the client does not have what Content-Length promised.
 */
async function begun(pieces: AsyncGenerator<Uint8Array>): Promise<AsyncGenerator<Uint8Array>> {
  const first = await pieces.next()
  return (async function* () {
    if (first.done === true) return
    yield first.value
    yield* pieces
  })()
}
