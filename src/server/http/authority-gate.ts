import type { FastifyRequest } from 'fastify'
import { actorOf } from '../../authority/audit-entry.ts'
import type { SessionView } from '../../authority/credential-memory.ts'
import type { Principal } from '../../authority/principal.ts'
import { Failure } from '../../errors.ts'
import type { Administrator } from '../administrator.ts'
import type { Authority } from '../authority/authority.ts'
import { tokenOf } from './credentials.ts'
import type { Gate } from './guard.ts'
import { identityOf } from './identity.ts'
import { requireSameSite } from './same-site.ts'

const ADMINISTRATOR: Principal = {
  kind: 'bootstrap',
  id: 'administrator',
  person: null,
  name: 'administrator',
  grants: [],
  factor: 'file',
}
const READS = new Set(['GET', 'HEAD', 'OPTIONS'])

/** People by their sessions and tokens; and, while nobody is known, whoever has the token of the file. */
export function authorityGate(authority: Authority, administrator: Administrator | undefined, isSecure: boolean): Gate {
  const noteRefused: Gate['noteRefused'] = async (principal, request, failure) =>
    authority.note({
      actor: actorOf(principal),
      factor: principal.factor,
      address: request.ip,
      action: 'request.refused',
      object: { method: request.method, route: request.routeOptions.url ?? '' },
      outcome: 'refused',
      reason: failure.message,
    })
  const requireOwnPage = async (principal: Principal, request: FastifyRequest, session: SessionView) => {
    try {
      requireSameSite(request, session)
    } catch (error) {
      if (error instanceof Failure) await noteRefused(principal, request, error)
      throw error
    }
  }
  return {
    noteRefused,
    principalOf: async (request, reply) => {
      const isRead = READS.has(request.method)
      if (administrator?.holds(tokenOf(request)) === true) {
        return authority.isGuarded ? undefined : ADMINISTRATOR
      }
      if (!authority.isGuarded) return undefined
      const identified = await identityOf(request, reply, { accounts: authority.accounts, isSecure })
      if (identified === undefined) return undefined
      if (identified.session !== null) await requireOwnPage(identified.principal, request, identified.session)
      if (identified.isReadOnly && !isRead) {
        throw new Failure(
          'STORE_UNREACHABLE',
          'the store is away: what somebody may change cannot be known; nothing was changed',
          {
            hint: 'protection goes on without it; try again',
          },
        )
      }
      return identified.principal
    },
  }
}
