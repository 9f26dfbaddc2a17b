import type { FastifyReply, FastifyRequest } from 'fastify'
import type { From } from '../../authority/account-event.ts'
import type { Accounts } from '../../authority/accounts.ts'
import type { Credential, Identified } from '../../authority/principals.ts'
import { readSessionCookie, setSessionCookie } from './session-cookie.ts'

/** What tells who asks. */
export interface IdentityOptions {
  readonly accounts: Accounts
  /** Browsers reach us by https. */
  readonly isSecure: boolean
}

const known = new WeakMap<FastifyRequest, Promise<Identified | undefined>>()

/**
 * Who asks, by an API token or the cookie of a session; undefined for nobody. Once for each request, however often it is called; sends a secret that was replaced along with the answer.
 * A header that says who asks is taken alone: a cookie beside it, which a browser may have sent by itself, says nothing then.
 */
export async function identityOf(
  request: FastifyRequest,
  reply: FastifyReply,
  { accounts, isSecure }: IdentityOptions,
): Promise<Identified | undefined> {
  const before = known.get(request)
  if (before !== undefined) return await before
  const asked = identify(request, { accounts, isSecure })
  known.set(request, asked)
  const identified = await asked
  if (identified !== undefined && identified.cookie !== null) setSessionCookie(reply, identified.cookie, isSecure)
  return identified
}

async function identify(request: FastifyRequest, { accounts, isSecure }: IdentityOptions): Promise<Identified | undefined> {
  const credential = credentialOf(request, isSecure)
  if (credential === undefined) return undefined
  return await accounts.principalOf(credential, {
    ...fromOf(request),
    isBackground: request.headers['x-resus-background'] === '1',
  })
}

function credentialOf(request: FastifyRequest, isSecure: boolean): Credential | undefined {
  const { authorization } = request.headers
  if (authorization !== undefined) {
    const token = /^Bearer +(\S{1,300})$/i.exec(authorization)?.[1]
    return token === undefined ? undefined : { kind: 'bearer', token }
  }
  const cookie = readSessionCookie(request, isSecure)
  return cookie === undefined ? undefined : { kind: 'session', cookie }
}

export function fromOf(request: FastifyRequest): From {
  return { address: request.ip, userAgent: request.headers['user-agent'] ?? null }
}
