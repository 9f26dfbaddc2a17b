import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import {
  beginFactorBody,
  challengeSchema,
  factorMadeSchema,
  factorsSchema,
  finishPasskeyBody,
  finishTotpBody,
  ownSessionsSchema,
  passkeyBegunSchema,
  passwordBody,
  removeFactorBody,
  totpBegunSchema,
} from '../../api/auth-schemas.ts'
import { problemSchema } from '../../api/schemas.ts'
import type { FactorView } from '../../authority/factors.ts'
import type { MadeFactor } from '../../authority/own-account.ts'
import type { IdentityOptions } from './identity.ts'
import { ownSession, showSession } from './own-session.ts'
import { SELF } from './route-action.ts'
import type { FastifyReply } from 'fastify'

const PREFIX = '/auth'
const failures = { '4xx': problemSchema, '5xx': problemSchema }
const done = { 204: z.null(), ...failures }
const idParameter = z.object({ id: z.uuid() })

/** What people see and change of their own account: second factors, password, sessions. */
export const ownAccountRoutes: FastifyPluginAsyncZod<IdentityOptions> = async (server, options) => {
  await server.register(factorRoutes, options)
  await server.register(totpRoutes, options)
  await server.register(passkeyRoutes, options)
  await server.register(passwordRoutes, options)
}

const factorRoutes: FastifyPluginAsyncZod<IdentityOptions> = async (server, options) => {
  const { accounts } = options
  server.get(
    `${PREFIX}/factors`,
    { config: SELF, schema: { summary: 'One’s own second factors', response: { 200: factorsSchema, ...failures } } },
    async (request, reply) => {
      const { principal } = await ownSession(request, reply, options)
      return { items: (await accounts.factors.list(principal.id)).map(factorDocument) }
    },
  )

  server.post(
    `${PREFIX}/factors/challenge`,
    {
      config: SELF,
      schema: { summary: 'Show a passkey for a change of one’s own factors', response: { 200: challengeSchema, ...failures } },
    },
    async (request, reply) => {
      const { self } = await ownSession(request, reply, options)
      const passkey = await accounts.own.challenge(self)
      return { passkey: passkey === null ? null : { ...passkey } }
    },
  )

  server.post(
    `${PREFIX}/factors/:id/remove`,
    {
      config: SELF,
      schema: {
        summary: 'Remove a second factor when another stays',
        params: idParameter,
        body: removeFactorBody,
        response: done,
      },
    },
    async (request, reply) => {
      const { self } = await ownSession(request, reply, options)
      await accounts.own.removeFactor(self, request.params.id, request.body.shown)
      await reply.code(204).send(null)
    },
  )
}

const totpRoutes: FastifyPluginAsyncZod<IdentityOptions> = async (server, options) => {
  const { accounts } = options
  server.post(
    `${PREFIX}/factors/totp`,
    {
      config: SELF,
      schema: { summary: 'Begin to make TOTP', body: beginFactorBody, response: { 200: totpBegunSchema, ...failures } },
    },
    async (request, reply) => {
      const { self } = await ownSession(request, reply, options)
      return await accounts.own.beginTotp(self, request.body)
    },
  )

  server.post(
    `${PREFIX}/factors/totp/finish`,
    {
      config: SELF,
      schema: { summary: 'Finish it with a code', body: finishTotpBody, response: { 200: factorMadeSchema, ...failures } },
    },
    async (request, reply) => {
      const { self } = await ownSession(request, reply, options)
      return madeDocument(reply, await accounts.own.finishTotp(self, request.body), options)
    },
  )
}

const passkeyRoutes: FastifyPluginAsyncZod<IdentityOptions> = async (server, options) => {
  const { accounts } = options
  server.post(
    `${PREFIX}/factors/passkey`,
    {
      config: SELF,
      schema: { summary: 'Begin to make a passkey', body: beginFactorBody, response: { 200: passkeyBegunSchema, ...failures } },
    },
    async (request, reply) => {
      const { self } = await ownSession(request, reply, options)
      return { passkey: { ...(await accounts.own.beginPasskey(self, request.body)) } }
    },
  )

  server.post(
    `${PREFIX}/factors/passkey/finish`,
    {
      config: SELF,
      schema: {
        summary: 'Finish it with what the browser gave',
        body: finishPasskeyBody,
        response: { 200: factorMadeSchema, ...failures },
      },
    },
    async (request, reply) => {
      const { self } = await ownSession(request, reply, options)
      return madeDocument(reply, await accounts.own.finishPasskey(self, request.body.response), options)
    },
  )
}

const passwordRoutes: FastifyPluginAsyncZod<IdentityOptions> = async (server, options) => {
  const { accounts } = options
  server.post(
    `${PREFIX}/password`,
    {
      config: SELF,
      schema: { summary: 'Change one’s own password; ends all other sessions', body: passwordBody, response: done },
    },
    async (request, reply) => {
      const { self } = await ownSession(request, reply, options)
      await accounts.own.changePassword(self, request.body)
      await reply.code(204).send(null)
    },
  )

  server.get(
    `${PREFIX}/sessions`,
    { config: SELF, schema: { summary: 'One’s own sessions', response: { 200: ownSessionsSchema, ...failures } } },
    async (request, reply) => {
      const { principal, session } = await ownSession(request, reply, options)
      const items = await accounts.sessions.list(principal.id)
      return {
        items: items.map(({ id, made_at, seen_at, address, user_agent }) => ({
          id,
          isThis: id === session.id,
          madeAt: made_at.toISOString(),
          seenAt: seen_at.toISOString(),
          address,
          userAgent: user_agent,
        })),
      }
    },
  )
}

function madeDocument(reply: FastifyReply, { factor, session }: MadeFactor, options: IdentityOptions) {
  return { factor: factorDocument(factor), session: session === null ? null : showSession(reply, session, options) }
}

function factorDocument({ id, kind, label, madeAt, lastUsedAt }: FactorView) {
  return { id, kind, label, madeAt: madeAt.toISOString(), lastUsedAt: lastUsedAt?.toISOString() ?? null }
}
