import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Principal } from '../../authority/principal.ts'
import { mayAsk } from '../../authority/roles.ts'
import { Failure } from '../../errors.ts'
import type { Catalogue } from '../catalogue.ts'
import { View } from '../view.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Of whoever asks; only routes whose action is not `none` have it. */
    view: View
  }
}

/** Finds out who asks. */
export interface Gate {
  /** Undefined for nobody that is known. */
  principalOf(request: FastifyRequest, reply: FastifyReply): Promise<Principal | undefined>
  /** Somebody known asked for what they may not. */
  noteRefused(principal: Principal, request: FastifyRequest, failure: Failure): Promise<void>
}

/** What people get who are not known. */
const UNKNOWN = new Failure('UNAUTHENTICATED', 'the request has no token that is known here', {
  hint: 'send "Authorization: Bearer TOKEN", or log on',
})

/** Lets nobody in who is not known, or may not do what a route is for. A route that does not say what it is for keeps the server from starting. */
export function guard(server: FastifyInstance, gate: Gate, catalogue: Catalogue): void {
  server.decorateRequest('view')
  server.addHook('onRoute', ({ url, method, config }) => {
    if (config?.action === undefined) throw new Error(`the route ${String(method)} ${url} says no action`)
  })
  server.addHook('onRequest', async (request, reply) => {
    // What met no route tells nobody so who is not known.
    const action = request.routeOptions.config.action ?? 'self'
    if (action === 'none') return
    const principal = await gate.principalOf(request, reply)
    if (principal === undefined) throw UNKNOWN
    if (!mayAsk(principal, action)) {
      const failure = new Failure('FORBIDDEN', `"${principal.name}" may not do that (${action})`, {
        hint: 'an administrator can ask for the role that may',
      })
      await gate.noteRefused(principal, request, failure)
      throw failure
    }
    request.view = new View(catalogue, principal, action)
  })
  // What a route finds out only when it looks at what it is about.
  server.addHook('onError', async (request, _, error) => {
    const isRefusal = error instanceof Failure && error.code === 'FORBIDDEN'
    if (isRefusal && (request.view as View | undefined) !== undefined)
      await gate.noteRefused(request.view.principal, request, error)
  })
}
