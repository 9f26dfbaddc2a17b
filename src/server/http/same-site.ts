import { timingSafeEqual } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import type { SessionView } from '../../authority/credential-memory.ts'
import { Failure } from '../../errors.ts'

const READS = new Set(['GET', 'HEAD', 'OPTIONS'])

/**
 * Whatever changes something in a session takes its CSRF token in `X-Resus-Csrf`, and comes from our own pages where the browser says from where. Throws FORBIDDEN.
 * A token of a program needs none of this: no browser sends it by itself.
 */
export function requireSameSite(request: FastifyRequest, session: Pick<SessionView, 'csrf'>): void {
  if (READS.has(request.method)) return
  requireOwnOrigin(request)
  const given = Buffer.from(String(request.headers['x-resus-csrf'] ?? ''))
  const wanted = Buffer.from(session.csrf)
  if (given.length === wanted.length && timingSafeEqual(given, wanted)) return
  throw foreign('it has no X-Resus-Csrf of this session')
}

/** Also of what takes no session: nobody is logged on from another site's page. Throws FORBIDDEN. */
export function requireOwnOrigin(request: FastifyRequest): void {
  const { origin } = request.headers
  const site = request.headers['sec-fetch-site']
  if (site !== undefined && site !== 'same-origin' && site !== 'none') throw foreign('another site has sent it')
  if (origin !== undefined && hostOf(origin) !== request.host.toLowerCase()) throw foreign('it has another Origin')
}

function hostOf(origin: string): string | undefined {
  try {
    return new URL(origin).host
  } catch {
    return undefined
  }
}

function foreign(why: string): Failure {
  return new Failure('FORBIDDEN', `this request may come from another site: ${why}`, { hint: 'nothing was changed' })
}
