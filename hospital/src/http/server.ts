import Fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { ZodError } from 'zod'
import type { Database } from '../database/database.ts'
import { analyticsRoutes } from '../facilities/analytics.ts'
import { facilityRoutes } from '../facilities/routes.ts'
import { knownPatientRoutes } from '../fhir/known-patients.ts'
import { fhirRoutes } from '../fhir/routes.ts'
import { documentRoutes } from '../files/routes.ts'
import { outboundRoutes } from '../messages/routes.ts'
import { Refusal, REFUSALS } from '../refusal.ts'
import { Authentication, type Requester } from './authentication.ts'
import { operationOutcome, problemDetails } from './problem.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks; there on every route but /health. */
    requester: Requester
  }
}

export interface ServerOptions {
  readonly database: Database
  /** Where documents lie. */
  readonly filesDirectory: string
  /** One line of JSON for each request, to standard error. */
  readonly log?: boolean
}

/** What every group of routes is given. */
export type RouteOptions = Pick<ServerOptions, 'database' | 'filesDirectory'>

const BODY_BYTES_MAX = 16 * 1024 * 1024
const OPEN_ROUTES = new Set(['/health', '/fhir/metadata'])

/** The hospital's HTTP service, not yet listening. Closing it does not close the database. */
export async function buildServer(options: ServerOptions): Promise<FastifyInstance> {
  const { database, filesDirectory } = options
  const server = Fastify({
    logger: options.log === true ? { stream: process.stderr } : false,
    bodyLimit: BODY_BYTES_MAX,
    forceCloseConnections: 'idle',
    // A URL that cannot be read meets no route and no hook.
    frameworkErrors: (error, request, reply) => void answerError(error, request, reply),
  })
  const authentication = new Authentication(database)
  server.setErrorHandler(answerError)
  server.setNotFoundHandler(async (request, reply) => {
    await answer(request, reply, new Refusal('NOT_FOUND', `there is nothing at ${request.method} ${request.url}`))
  })
  server.addHook('onRequest', async (request) => {
    if (OPEN_ROUTES.has(request.routeOptions.url ?? '')) return
    request.requester = await authentication.requester(request.headers.authorization)
  })
  server.get('/health', async () => {
    await database.asService(async (sql) => sql.selectFrom('facilities').select('id').limit(1).execute())
    return { status: 'up' }
  })
  await server.register(facilityRoutes, { database, filesDirectory })
  await server.register(outboundRoutes, { database, filesDirectory })
  await server.register(fhirRoutes, { database, filesDirectory })
  await server.register(knownPatientRoutes, { database, filesDirectory })
  await server.register(documentRoutes, { database, filesDirectory })
  await server.register(analyticsRoutes, { database, filesDirectory })
  return server
}

async function answerError(error: FastifyError | Error, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const refusal = refusalOf(error)
  if (refusal === undefined) {
    request.log.error(error)
    const hidden = new Refusal('UNAVAILABLE', 'the hospital could not do this now; nothing was changed', { cause: error })
    return await answer(request, reply, hidden, 500)
  }
  await answer(request, reply, refusal)
}

/** Undefined for what nobody expected. */
function refusalOf(error: FastifyError | Error): Refusal | undefined {
  if (error instanceof Refusal) return error
  if (error instanceof ZodError) {
    const first = error.issues[0]
    return new Refusal('BAD_REQUEST', `${first?.path.join('.') || 'the body'}: ${first?.message}`, {
      expression: first?.path.join('.') ?? '',
    })
  }
  const { statusCode, code } = error as FastifyError
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') return new Refusal('TOO_LARGE', `the body is larger than ${BODY_BYTES_MAX} bytes`)
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') return new Refusal('UNREADABLE_MEDIA', error.message, { hint: 'send JSON' })
  return statusCode !== undefined && statusCode >= 400 && statusCode < 500 ? new Refusal('BAD_REQUEST', error.message) : undefined
}

async function answer(
  request: FastifyRequest,
  reply: FastifyReply,
  refusal: Refusal,
  status: number = REFUSALS[refusal.code].status,
): Promise<void> {
  if (status === 401) reply.header('WWW-Authenticate', 'Bearer realm="hospital"')
  if (request.url.startsWith('/fhir')) {
    await reply
      .code(status)
      .type('application/fhir+json; charset=utf-8')
      .send(operationOutcome([refusal]))
  } else {
    await reply.code(status).type('application/problem+json; charset=utf-8').send(problemDetails(refusal, status))
  }
}
