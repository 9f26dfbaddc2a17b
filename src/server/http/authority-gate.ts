import type { Json } from '../../authority/canonical-json.ts'
import { actorOf } from '../../authority/audit-entry.ts'
import type { Principal } from '../../authority/principal.ts'
import { Failure } from '../../errors.ts'
import type { Administrator } from '../administrator.ts'
import type { Authority } from '../authority/authority.ts'
import { tokenOf } from './credentials.ts'
import { READS, type Gate } from './guard.ts'
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

const REFUSED_MS = 60_000
const REFUSED_MAX = 10_000

/** People by their sessions and tokens; and, while nobody is known, whoever has the token of the file. */
export function authorityGate(authority: Authority, administrator: Administrator | undefined, isSecure: boolean): Gate {
  const refused = new Map<string, number>()
  const gate: Gate = {
    principalOf: async (request, reply) => {
      const isRead = READS.has(request.method)
      if (administrator?.holds(tokenOf(request)) === true) {
        return authority.isGuarded ? undefined : ADMINISTRATOR
      }
      if (!authority.isGuarded) return undefined
      const identified = await identityOf(request, reply, { accounts: authority.accounts, isSecure })
      if (identified === undefined) return undefined
      if (identified.session !== null) {
        try {
          requireSameSite(request, identified.session)
        } catch (error) {
          // Another site's page tries what this person may.
          if (error instanceof Failure) await gate.noteRefused(identified.principal, request, error)
          throw error
        }
      }
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
    noteDone: async (request, { status, text }) => {
      const { principal } = request.view
      await authority.note({
        actor: actorOf(principal),
        factor: principal.factor,
        address: request.ip,
        action: String(request.routeOptions.config.action),
        object: { method: request.method, route: request.routeOptions.url ?? '', ...(request.params as Record<string, string>) },
        // What was refused may be anything; what was taken holds no secret but a factor's answer, which is used up by then.
        after: status < 400 ? plain(request.body ?? null, new Set(['factor'])) : null,
        outcome: status < 400 ? 'done' : status < 500 ? 'refused' : 'failed',
        reason: status < 400 ? null : detailOf(text),
      })
    },
    noteRefused: async (principal, request, failure) => {
      // Who asks again and again is written down once a minute for each thing: the trail is kept for years.
      const what = `${principal.id} ${request.method} ${request.routeOptions.url ?? ''}`
      const nowMs = performance.now()
      if (nowMs - (refused.get(what) ?? -Infinity) < REFUSED_MS) return
      if (refused.size >= REFUSED_MAX) refused.clear()
      refused.set(what, nowMs)
      await authority.note({
        actor: actorOf(principal),
        factor: principal.factor,
        address: request.ip,
        action: 'request.refused',
        object: { method: request.method, route: request.routeOptions.url ?? '' },
        outcome: 'refused',
        reason: failure.message,
      })
    },
  }
  return gate
}

function plain(body: unknown, without: ReadonlySet<string>): Json {
  return JSON.parse(JSON.stringify(body, (name, value: unknown) => (without.has(name) ? undefined : value))) as Json
}

/** Of a problem, as it is sent. */
function detailOf(text: string): string {
  try {
    return (JSON.parse(text) as { detail?: string }).detail ?? ''
  } catch {
    return ''
  }
}
