import type { FastifyInstance } from 'fastify'
import type { Control } from '../control.ts'

const HOLDS_MS = 250
const ANSWERS_MAX = 64
const TYPE = 'application/json; charset=utf-8'

/**
 * GET routes registered behind this answer what they answered to the same URL a quarter of a second ago at most, to whoever sees the same: the documents of hundreds of components are made and
 * written out some times a second, however many ask. For routes whose answer depends on nothing but the URL, the view and the server's memory.
 */
export function rememberAnswers(server: FastifyInstance, control: Pick<Control, 'now'>): void {
  const answers = new Map<string, { readonly atMs: number; readonly payload: string }>()
  server.addHook('onRoute', (route) => {
    if (route.method !== 'GET') return
    const { handler } = route
    route.handler = async function remembering(request, reply) {
      reply.type(TYPE)
      const key = `${request.view?.key ?? ''} ${request.url}`
      const found = answers.get(key)
      if (found !== undefined && Math.abs(control.now - found.atMs) < HOLDS_MS) return found.payload
      const payload = reply.serialize((await handler.call(this, request, reply)) as object) as string
      if (answers.size >= ANSWERS_MAX) answers.clear()
      answers.set(key, { atMs: control.now, payload })
      return payload
    }
  })
}
