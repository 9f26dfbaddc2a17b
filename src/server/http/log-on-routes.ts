import type { FastifyReply, FastifyRequest } from 'fastify'
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import {
  challengeSchema,
  invitationBody,
  logOnBody,
  logOnSchema,
  meSchema,
  secondFactorBody,
  ticketBody,
} from '../../api/auth-schemas.ts'
import { problemSchema } from '../../api/schemas.ts'
import type { LogOn } from '../../authority/log-on.ts'
import { fromOf, identityOf, type IdentityOptions } from './identity.ts'
import { ownAccountRoutes } from './own-account-routes.ts'
import { nobody, ownSession, showSession } from './own-session.ts'
import { OPEN, SELF } from './route-action.ts'
import { requireOwnOrigin } from './same-site.ts'
import { clearSessionCookie } from './session-cookie.ts'
import { tokenRoutes, type TokenOptions } from './token-routes.ts'

const PREFIX = '/auth'
const failures = { '4xx': problemSchema, '5xx': problemSchema }
const done = { 204: z.null(), ...failures }

/** Logging on and off, and all of one's own account. */
export const logOnRoutes: FastifyPluginAsyncZod<TokenOptions> = async (server, { accounts, isSecure, askForToken }) => {
  const options = { accounts, isSecure }
  // Of what a page asks, browsers must not ask people by a window of their own.
  server.addHook('onSend', async (_, reply) => {
    if (reply.statusCode === 401) reply.header('WWW-Authenticate', 'Bearer realm="resus"')
    if (reply.statusCode === 429) reply.header('Retry-After', '60')
  })
  await server.register(beginRoutes, options)
  await server.register(sessionRoutes, options)
  await server.register(ownAccountRoutes, options)
  await server.register(tokenRoutes, { ...options, askForToken })
}

const beginRoutes: FastifyPluginAsyncZod<IdentityOptions> = async (server, options) => {
  const { accounts } = options
  server.addHook('preHandler', async (request) => requireOwnOrigin(request))
  const answer = { 200: logOnSchema, ...failures }

  server.post(
    `${PREFIX}/log-on`,
    { config: OPEN, schema: { summary: 'Log on with a name and a password', body: logOnBody, response: answer } },
    async (request, reply) => begun(await accounts.logOn(request.body, fromOf(request)), { request, reply, options }),
  )

  server.post(
    `${PREFIX}/second-factor`,
    { config: OPEN, schema: { summary: 'The second step of a log-on', body: secondFactorBody, response: answer } },
    async (request, reply) => {
      const { ticket, factor } = request.body
      const session = await accounts.secondFactor(ticket, factor, fromOf(request))
      return await begun({ kind: 'session', session, isFactorNeeded: false }, { request, reply, options })
    },
  )

  server.post(
    `${PREFIX}/second-factor/challenge`,
    {
      config: OPEN,
      schema: {
        summary: 'Show a passkey for the second step',
        body: ticketBody,
        response: { 200: challengeSchema, ...failures },
      },
    },
    async (request) => {
      const passkey = await accounts.secondFactorChallenge(request.body.ticket)
      return { passkey: passkey === null ? null : { ...passkey } }
    },
  )

  server.post(
    `${PREFIX}/invitation`,
    { config: OPEN, schema: { summary: 'Choose a password with an invitation', body: invitationBody, response: answer } },
    async (request, reply) => begun(await accounts.acceptInvitation(request.body, fromOf(request)), { request, reply, options }),
  )
}

const sessionRoutes: FastifyPluginAsyncZod<IdentityOptions> = async (server, options) => {
  const { accounts, isSecure } = options
  server.get(
    `${PREFIX}/me`,
    { config: SELF, schema: { summary: 'Who asks', response: { 200: meSchema, ...failures } } },
    async (request, reply) => {
      const identified = await identityOf(request, reply, options)
      if (identified === undefined) throw nobody()
      const { principal, session, isReadOnly } = identified
      const { kind, id, person, name, grants, factor } = principal
      return {
        kind,
        id,
        person,
        name,
        grants: [...grants],
        factor,
        session: session === null ? null : { csrf: session.csrf, endsAt: session.endsAt.toISOString() },
        isFactorNeeded: factor === 'password',
        isReadOnly,
      }
    },
  )

  server.post(
    `${PREFIX}/log-off`,
    { config: SELF, schema: { summary: 'End this session', response: done } },
    async (request, reply) => {
      const { principal, session } = await ownSession(request, reply, options)
      await accounts.logOff(session.id, principal, fromOf(request))
      clearSessionCookie(reply, isSecure)
      await reply.code(204).send(null)
    },
  )

  server.post(
    `${PREFIX}/log-off-everywhere`,
    { config: SELF, schema: { summary: 'End all of one’s own sessions, this one too', response: done } },
    async (request, reply) => {
      const { principal } = await ownSession(request, reply, options)
      await accounts.logOffEverywhere(principal, fromOf(request))
      clearSessionCookie(reply, isSecure)
      await reply.code(204).send(null)
    },
  )
}

interface Exchange {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly options: IdentityOptions
}

/** Whoever was logged on in this browser is not any more. */
export async function begun(logOn: LogOn, { request, reply, options }: Exchange): Promise<z.infer<typeof logOnSchema>> {
  if (logOn.kind === 'second-factor') {
    const { ticket, factors, passkey } = logOn
    return { kind: 'second-factor', ticket, factors: [...factors], passkey: passkey === null ? null : { ...passkey } }
  }
  const before = await identityOf(request, reply, options).catch(() => undefined)
  if (before !== undefined && before.session !== null) await options.accounts.sessions.end(before.session.id, 'another log-on')
  const { session, isFactorNeeded } = logOn
  return { kind: 'session', session: showSession(reply, session, options), isFactorNeeded }
}
