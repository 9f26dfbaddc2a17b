import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Database } from '../database/database.ts'
import { DocumentStore } from '../files/document-store.ts'
import type { RouteOptions } from '../http/server.ts'
import { Refusal } from '../refusal.ts'
import { processBundle } from './bundle.ts'
import { capabilityStatement } from './capability-statement.ts'
import {
  baseOf,
  FHIR_JSON,
  preferenceOf,
  queryOf,
  requireJsonWanted,
  sendJson,
  sendResource,
  versionOfIfMatch,
} from './negotiation.ts'
import { readFhir, servedTypeOf } from './reading.ts'
import { etagOf, resourceOf } from './rows.ts'
import type { ServedType } from './served-types.ts'
import type { Intake } from './receive.ts'
import { create, update, type Written } from './writing.ts'

interface TypeParams {
  readonly Params: { readonly type: string }
}
interface InstanceParams {
  readonly Params: { readonly type: string; readonly id: string }
}

/** FHIR R4 below /fhir. */
export async function fhirRoutes(server: FastifyInstance, { database, filesDirectory }: RouteOptions): Promise<void> {
  const documents = new DocumentStore(filesDirectory)
  acceptBodies(server)
  server.addHook('onRequest', async (request) => requireJsonWanted(request))
  readingRoutes(server, database)
  writingRoutes(server, database, (request) => ({ context: request.requester.context, documents }))
  refusingRoutes(server)
}

const READ_PATHS = ['/:type', '/:type/:id', '/:type/:id/_history', '/:type/:id/_history/:version', '/Patient/:id/$everything']

function readingRoutes(server: FastifyInstance, database: Database): void {
  server.get('/fhir/metadata', async (request, reply) => sendJson(reply, await capabilityStatement(baseOf(request))))

  const read = async (
    request: FastifyRequest,
    reply: FastifyReply,
    path: readonly string[],
    query: URLSearchParams,
  ): Promise<void> => {
    const wanted = { path, query, base: baseOf(request), isStrict: preferenceOf(request).isStrict }
    const resource = await database.transaction(request.requester.context, async (transaction) => readFhir(transaction, wanted))
    if (resource.resourceType === 'Bundle') await sendJson(reply, resource)
    else await sendResource(request, reply, resource)
  }
  for (const path of READ_PATHS) {
    server.get(`/fhir${path}`, async (request, reply) => {
      const parts = (request.url.split('?', 1)[0] ?? '').split('/').slice(2).map(decoded)
      await read(request, reply, parts, queryOf(request))
    })
  }
  server.post<TypeParams>('/fhir/:type/_search', async (request, reply) => {
    const query = queryOf(request)
    for (const [name, value] of new URLSearchParams(typeof request.body === 'string' ? request.body : ''))
      query.append(name, value)
    await read(request, reply, [request.params.type], query)
  })
}

function writingRoutes(server: FastifyInstance, database: Database, intakeOf: (request: FastifyRequest) => Intake): void {
  server.post('/fhir', async (request, reply) => {
    const { isStrict, answer } = preferenceOf(request)
    const how = { ...intakeOf(request), database, base: baseOf(request), isStrict, wantsResources: answer === 'representation' }
    await sendJson(reply, await processBundle(bodyOf(request), { ...how, log: (error) => request.log.error(error) }))
  })

  server.post<TypeParams>('/fhir/:type', async (request, reply) => {
    const served = servedTypeOf(request.params.type)
    const condition = [request.headers['if-none-exist'] ?? []].flat()[0]
    const written = await create(database, intakeOf(request), { served, content: bodyOf(request), condition })
    await sendWritten(request, reply, served, written)
  })

  server.put<InstanceParams>('/fhir/:type/:id', async (request, reply) => {
    const served = servedTypeOf(request.params.type)
    const change = {
      served,
      id: request.params.id,
      content: bodyOf(request),
      expected: versionOfIfMatch(request.headers['if-match']),
    }
    await sendWritten(request, reply, served, await update(database, intakeOf(request), change))
  })
}

/** What FHIR knows and this service does not do is told apart from what does not exist. */
function refusingRoutes(server: FastifyInstance): void {
  const refuse = async ({ method }: FastifyRequest): Promise<never> => {
    throw new Refusal('NOT_SUPPORTED', `${method} is not supported here: nothing is ever deleted, and a change is a PUT`, {
      hint: 'see /fhir/metadata',
    })
  }
  server.route({ method: ['DELETE', 'PATCH', 'PUT'], url: '/fhir/:type', handler: refuse })
  server.route({ method: ['DELETE', 'PATCH', 'POST'], url: '/fhir/:type/:id', handler: refuse })
}

/** Bodies are read here as text: what is wrong with them is said as FHIR says it. */
function acceptBodies(server: FastifyInstance): void {
  server.removeAllContentTypeParsers()
  const types = ['application/fhir+json', 'application/json', 'text/json', 'application/x-www-form-urlencoded']
  server.addContentTypeParser(types, { parseAs: 'string' }, (_request, body, done) => done(null, body))
}

function bodyOf(request: FastifyRequest): unknown {
  const { body } = request
  if (typeof body !== 'string' || body === '')
    throw new Refusal('BAD_REQUEST', 'the request has no body', { hint: 'send a resource as JSON' })
  if (request.headers['content-type']?.startsWith('application/x-www') === true) {
    throw new Refusal('UNREADABLE_MEDIA', 'a resource is no form', { hint: 'send it as application/fhir+json' })
  }
  try {
    return JSON.parse(body)
  } catch (cause) {
    throw new Refusal('BAD_REQUEST', `the body is no JSON: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
      issue: 'structure',
    })
  }
}

async function sendWritten(
  request: FastifyRequest,
  reply: FastifyReply,
  served: ServedType,
  { row, isNew }: Written,
): Promise<void> {
  reply
    .code(isNew ? 201 : 200)
    .header('ETag', etagOf(row.version))
    .header('Last-Modified', row.updated_at.toUTCString())
    .header('Location', `/fhir/${served.name}/${row.id}/_history/${row.version}`)
    .type(FHIR_JSON)
  const { answer } = preferenceOf(request)
  if (answer === 'minimal') await reply.send()
  else await sendJson(reply, answer === 'OperationOutcome' ? DONE : resourceOf(served, row))
}

const DONE = {
  resourceType: 'OperationOutcome' as const,
  issue: [{ severity: 'information' as const, code: 'informational' as const, details: { text: 'done' } }],
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch (cause) {
    throw new Refusal('BAD_REQUEST', `"${part.slice(0, 60)}" is no part of a URL`, { cause })
  }
}
