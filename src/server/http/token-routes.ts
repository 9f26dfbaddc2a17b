import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import {
  challengeSchema,
  tokenAskedSchema,
  tokenBody,
  tokenMadeSchema,
  tokensSchema,
  wantedTokenBody,
} from '../../api/auth-schemas.ts'
import { problemSchema } from '../../api/schemas.ts'
import type { TokenView, WantedToken } from '../../authority/tokens.ts'
import type { Principal } from '../../authority/principal.ts'
import type { Approval } from '../../catalog/approvals.ts'
import type { NewTokenRow } from '../../catalog/tokens.ts'
import { approvalDocument } from './approval-document.ts'
import { fromOf, type IdentityOptions } from './identity.ts'
import { ownSession } from './own-session.ts'
import { SELF } from './route-action.ts'

const PREFIX = '/auth/tokens'
const failures = { '4xx': problemSchema, '5xx': problemSchema }
const done = { 204: z.null(), ...failures }
const READS = new Set<string>(['viewer', 'auditor'])

export interface TokenOptions extends IdentityOptions {
  /** Asks a second person for one that does more than read. */
  readonly askForToken: (owner: Principal, made: NewTokenRow) => Promise<Approval>
}

/** One's own API tokens. */
export const tokenRoutes: FastifyPluginAsyncZod<TokenOptions> = async (server, options) => {
  const { accounts } = options
  server.get(
    PREFIX,
    { config: SELF, schema: { summary: 'One’s own API tokens', response: { 200: tokensSchema, ...failures } } },
    async (request, reply) => {
      const { principal } = await ownSession(request, reply, options)
      return { items: (await accounts.tokens.list(principal.id)).map(tokenDocument) }
    },
  )

  server.post(
    `${PREFIX}/challenge`,
    {
      config: SELF,
      schema: {
        summary: 'Show a passkey for a token',
        body: wantedTokenBody,
        response: { 200: challengeSchema, ...failures },
      },
    },
    async (request, reply) => {
      const { self } = await ownSession(request, reply, options)
      const passkey = await accounts.own.tokenChallenge(self, wantedOf(request.body))
      return { passkey: passkey === null ? null : { ...passkey } }
    },
  )

  server.post(
    PREFIX,
    {
      config: SELF,
      schema: {
        summary: 'Make an API token that reads; one that does more is asked for and approved',
        body: tokenBody,
        response: { 201: tokenMadeSchema, 202: tokenAskedSchema, ...failures },
      },
    },
    async (request, reply) => {
      const { principal, self } = await ownSession(request, reply, options)
      const wanted = wantedOf(request.body)
      const { token, made, view } = await accounts.tokens.prepare(principal, wanted)
      await accounts.own.showForToken(self, wanted, request.body.shown)
      if (wanted.grants.some(({ role }) => !READS.has(role))) {
        const approval = await options.askForToken(principal, made)
        reply.code(202).header('Location', `/api/v1/approvals/${approval.id}`)
        return { token, approval: approvalDocument(approval, request.view) }
      }
      await accounts.tokens.keep(made, fromOf(request))
      reply.code(201)
      return { token, view: tokenDocument(view) }
    },
  )

  server.delete(
    `${PREFIX}/:id`,
    {
      config: SELF,
      schema: { summary: 'Revoke a token', params: z.object({ id: z.uuid() }), response: done },
    },
    async (request, reply) => {
      const { principal } = await ownSession(request, reply, options)
      await accounts.tokens.revoke({ id: principal.id, name: principal.name }, request.params.id, fromOf(request))
      await reply.code(204).send(null)
    },
  )
}

function wantedOf({ name, grants, expiresAt }: z.infer<typeof wantedTokenBody>): WantedToken {
  return { name, grants, expiresAt: new Date(expiresAt) }
}

function tokenDocument({ madeAt, expiresAt, lastUsedAt, revokedAt, ...rest }: TokenView) {
  return {
    ...rest,
    grants: [...rest.grants],
    madeAt: madeAt.toISOString(),
    expiresAt: expiresAt.toISOString(),
    lastUsedAt: lastUsedAt?.toISOString() ?? null,
    revokedAt: revokedAt?.toISOString() ?? null,
  }
}
