import { createHash } from 'node:crypto'
import fastifySwagger from '@fastify/swagger'
import fastifySwaggerUi from '@fastify/swagger-ui'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import {
  jsonSchemaTransform,
  jsonSchemaTransformObject,
  serializerCompiler,
  validatorCompiler,
  type ZodTypeProvider,
} from 'fastify-type-provider-zod'
import { Failure } from '../../errors.ts'
import { resusVersion } from '../../version.ts'
import type { TlsFiles } from '../listening.ts'
import { auditRoutes } from './audit-routes.ts'
import { drillRoutes } from './drill-routes.ts'
import { readinessRoutes } from './readiness-routes.ts'
import { evidenceRoutes } from './evidence-routes.ts'
import { approvalRoutes } from './approval-routes.ts'
import { emergencyRoutes } from './emergency-routes.ts'
import { logOnRoutes } from './log-on-routes.ts'
import { oidcRoutes } from './oidc-routes.ts'
import { peopleRoutes } from './people-routes.ts'
import { backupRoutes } from './backup-routes.ts'
import { guard, type Gate } from './guard.ts'
import { historyRoutes } from './history-routes.ts'
import { metricsRoutes } from './metrics-routes.ts'
import { notBuiltRoutes } from './not-built-routes.ts'
import { requirePlainText } from './plain-text.ts'
import { answerError, problemOf, SECURITY_HEADERS } from './problem.ts'
import type { RouteOptions } from './route-options.ts'
import { reviewRoutes } from './review-routes.ts'
import type { TokenOptions } from './token-routes.ts'
import { statusRoutes } from './status-routes.ts'
import { taskRoutes } from './task-routes.ts'

export interface ApiOptions extends RouteOptions {
  readonly gate: Gate
  readonly tls?: TlsFiles | undefined
  /** One line of JSON for each request, to standard error. */
  readonly log?: boolean
}

const BODY_BYTES_MAX = 64 * 1024
const REQUEST_TIMEOUT_MS = 30_000
export const API = '/api/v1'
export const BACKUP_DR = `${API}/backup-dr`
const DOCS = `${API}/docs`
/** The HTTP API, not yet listening. */
export async function buildApi(options: ApiOptions): Promise<FastifyInstance> {
  const server = Fastify({
    logger: options.log === true ? { stream: process.stderr } : false,
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_TIMEOUT_MS,
    forceCloseConnections: true,
    ...(options.tls === undefined ? {} : { https: { ...options.tls, minVersion: 'TLSv1.2' as const } }),
    // A URL that cannot be read meets no route and no hook.
    frameworkErrors: (error, request, reply) =>
      void answerError(error, request as unknown as FastifyRequest, reply as unknown as FastifyReply),
  }) as unknown as FastifyInstance
  server.setValidatorCompiler(validatorCompiler)
  server.setSerializerCompiler(serializerCompiler)
  server.setErrorHandler(answerError)
  server.setNotFoundHandler(async (request, reply) => {
    const what = `there is nothing at ${request.method} ${request.url.slice(0, 200)}`
    await reply
      .code(404)
      .type('application/problem+json; charset=utf-8')
      .send(problemOf(new Failure('NOT_FOUND', what, { hint: `see ${API}/docs` })))
  })
  secure(server)
  guard(server, options.gate, options.control.catalogue)
  requirePlainText(server)
  await document(server)
  const routes: RouteOptions = options
  await server.register(
    async (typed) => {
      const api = typed.withTypeProvider<ZodTypeProvider>()
      await api.register(statusRoutes, routes)
      await api.register(historyRoutes, routes)
      await api.register(backupRoutes, routes)
      await api.register(taskRoutes, routes)
      await api.register(auditRoutes, routes)
      await api.register(drillRoutes, routes)
      await api.register(readinessRoutes, routes)
      await api.register(evidenceRoutes, routes)
      await api.register(notBuiltRoutes)
      await api.register(approvalRoutes, routes)
      await api.register(emergencyRoutes, routes)
      await api.register(peopleRoutes, routes)
      await api.register(reviewRoutes, routes)
      const { identityProvider, accounts } = options.authority
      const askForToken: TokenOptions['askForToken'] = async (owner, made) => options.authority.askForToken(owner, made)
      await api.register(logOnRoutes, { accounts, isSecure: options.isSecure, askForToken })
      if (identityProvider !== null) {
        await api.register(async (known) => {
          // Whom the provider names first would keep the first administrator out for good.
          known.addHook('onRequest', async () => {
            if (options.authority.isGuarded) return
            throw new Failure('LOG_ON_REFUSED', 'nobody is known yet', {
              hint: 'the first administrator comes by the link of the file',
            })
          })
          await known.register(oidcRoutes, { accounts, isSecure: options.isSecure, identityProvider })
        })
      }
    },
    { prefix: API },
  )
  await server.register(metricsRoutes, routes)
  return server
}

function secure(server: FastifyInstance): void {
  server.addHook('onRequest', async (_, reply) => void reply.headers(SECURITY_HEADERS))
  // The page of the documentation registers its routes by itself.
  server.addHook('onRoute', (route) => {
    if (route.url.startsWith(DOCS)) route.config = { ...route.config, action: 'self' }
  })
  server.addHook('onSend', async (request, reply, payload) => {
    if (request.method !== 'GET' || reply.statusCode !== 200 || typeof payload !== 'string') return payload
    const tag = `W/"${createHash('sha256').update(payload).digest('base64url').slice(0, 22)}"`
    reply.header('ETag', tag)
    if (request.headers['if-none-match'] !== tag) return payload
    reply.code(304).removeHeader('content-type')
    return ''
  })
}

async function document(server: FastifyInstance): Promise<void> {
  await server.register(fastifySwagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Resus',
        version: resusVersion(),
        description: "Brings a hospital's systems back: backups, recovery, and what is proven.",
      },
      components: {
        securitySchemes: { token: { type: 'http', scheme: 'bearer' }, password: { type: 'http', scheme: 'basic' } },
      },
      security: [{ token: [] }, { password: [] }],
    },
    transform: jsonSchemaTransform,
    transformObject: jsonSchemaTransformObject,
  })
  await server.register(fastifySwaggerUi, {
    routePrefix: DOCS,
    uiConfig: { validatorUrl: null, persistAuthorization: false },
    staticCSP: false,
  })
}
