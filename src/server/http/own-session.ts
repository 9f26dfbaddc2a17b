import type { FastifyReply, FastifyRequest } from 'fastify'
import type { NewSession } from '../../authority/sessions.ts'
import { Failure } from '../../errors.ts'
import { fromOf, identityOf, type IdentityOptions } from './identity.ts'
import { requireSameSite } from './same-site.ts'
import { setSessionCookie } from './session-cookie.ts'

/** Gives the browser its cookie, and the page what it needs beside it. */
export function showSession(reply: FastifyReply, { cookie, view }: NewSession, { isSecure }: IdentityOptions) {
  setSessionCookie(reply, cookie, isSecure)
  return { csrf: view.csrf, endsAt: view.endsAt.toISOString() }
}

/** Who asks in a session of a browser, for a change of their own. Throws UNAUTHENTICATED, FORBIDDEN, STORE_UNREACHABLE. */
export async function ownSession(request: FastifyRequest, reply: FastifyReply, options: IdentityOptions) {
  const identified = await identityOf(request, reply, options)
  if (identified === undefined) throw nobody()
  const { principal, session, isReadOnly } = identified
  if (session === null) throw new Failure('FORBIDDEN', 'a token does not do that', { hint: 'log on' })
  requireSameSite(request, session)
  if (isReadOnly) throw new Failure('STORE_UNREACHABLE', 'the store is away; nothing was changed', { hint: 'try again' })
  return { principal, session, self: { principal, session: session.id, from: fromOf(request) } }
}

export function nobody(): Failure {
  return new Failure('UNAUTHENTICATED', 'nobody is logged on by this request', { hint: 'log on' })
}
