import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { problemSchema } from '../../api/schemas.ts'
import type { IdentityProvider } from '../../authority/identity-provider.ts'
import { fromOf, type IdentityOptions } from './identity.ts'
import { begun } from './log-on-routes.ts'
import { OPEN } from './route-action.ts'
import { addCookie, readCookie } from './session-cookie.ts'

const PREFIX = '/auth/oidc'
const failures = { '4xx': problemSchema, '5xx': problemSchema }
const STATE_SECONDS = 600

export interface OidcOptions extends IdentityOptions {
  readonly identityProvider: IdentityProvider
}

/** Logging on by an identity provider: there, and back. */
export const oidcRoutes: FastifyPluginAsyncZod<OidcOptions> = async (server, { accounts, isSecure, identityProvider }) => {
  const options = { accounts, isSecure }
  const name = isSecure ? '__Host-resus-oidc' : 'resus-oidc'
  // Lax: it has to come along when the provider sends the browser back.
  const rest = `Path=/; HttpOnly; SameSite=Lax${isSecure ? '; Secure' : ''}`

  server.get(
    `${PREFIX}/begin`,
    { config: OPEN, schema: { summary: 'Log on by the identity provider', response: failures } },
    async (_, reply) => {
      const { url, state } = await identityProvider.begin()
      addCookie(reply, `${name}=${state}; Max-Age=${STATE_SECONDS}; ${rest}`)
      return await reply.redirect(url, 302)
    },
  )

  server.get(
    `${PREFIX}/callback`,
    { config: OPEN, schema: { summary: 'Back from the identity provider', response: { 200: z.string(), ...failures } } },
    async (request, reply) => {
      const kept = readCookie(request, name)
      addCookie(reply, `${name}=; Max-Age=0; ${rest}`)
      const query = request.raw.url?.split('?')[1] ?? ''
      const logOn = await identityProvider.finish({ query, kept }, fromOf(request))
      const answer = await begun(logOn, { request, reply, options })
      // A page of our own goes on: a redirect would still be the provider's, and the browser would keep the Strict cookie back.
      const next = answer.kind === 'session' ? '/' : `/#second-factor=${answer.ticket}`
      reply.header('Refresh', `0; url=${next}`).type('text/html; charset=utf-8').serializer(String)
      return await reply.send('<!doctype html><title>Resus</title>')
    },
  )
}
