import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { acknowledgeBody, acknowledgedSchema, auditHeadsSchema, auditPageSchema } from '../../api/audit-schemas.ts'
import { problemSchema } from '../../api/schemas.ts'
import { actorOf } from '../../authority/audit-entry.ts'
import { Failure } from '../../errors.ts'
import { LOOKED_AT } from '../audit-verification.ts'
import { cursorOf, readCursor } from './cursor.ts'
import type { RouteOptions } from './route-options.ts'

const read = { '4xx': problemSchema, '5xx': problemSchema }
/** At once: what a trail's entry names. */
const CLOSED_MAX = 40
const instant = z.iso.datetime({ offset: true })
const word = z.string().min(1).max(300)

/** What remains: the audit trail, and what is told of it outside. */
export const auditRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { audit, notices }) => {
  server.get(
    '/audit',
    {
      config: { action: 'audit.read' },
      schema: {
        summary: 'The audit trail, newest first',
        querystring: z.strictObject({
          limit: z.coerce.number().int().min(1).max(500).default(50),
          cursor: z.string().max(500).optional(),
          actor: word.optional().describe('id or name'),
          action: word.optional(),
          outcome: z.enum(['done', 'refused', 'failed']).optional(),
          from: instant.optional(),
          to: instant.optional(),
        }),
        response: { 200: auditPageSchema, ...read },
      },
    },
    async ({ query: { limit, cursor, from, to, ...filter } }) => {
      const { items, next } = await audit.trail.page({
        ...filter,
        limit,
        before: cursor === undefined ? undefined : seqOf(cursor),
        from: from === undefined ? undefined : new Date(from),
        to: to === undefined ? undefined : new Date(to),
      })
      return { items: [...items], next: next === null ? null : cursorOf([String(next)]) }
    },
  )
  server.get(
    '/audit/head',
    {
      config: { action: 'audit.read' },
      schema: {
        summary: 'The newest entry, and of each system what its repository has of the trail, signed',
        response: { 200: auditHeadsSchema, ...read },
      },
    },
    async () => {
      const newest = await audit.trail.newest()
      return {
        newest: newest === undefined ? null : { seq: newest.seq, hash: newest.hash, at: newest.at.toISOString() },
        protection: await audit.protection(),
        heads: await audit.heads(),
      }
    },
  )
  server.post(
    '/audit/acknowledge',
    {
      config: { action: 'audit.acknowledge' },
      schema: {
        summary:
          'Say on record who has looked at what is wrong with the trail, with accounts and with sessions, and what was found: these alarms are over',
        body: acknowledgeBody,
        response: { 200: acknowledgedSchema, ...read },
      },
    },
    async ({ view: { principal }, body: { text }, ip }) => {
      if (principal.kind === 'token') throw new Failure('FORBIDDEN', 'only a person says that they have looked')
      const open = (await notices.openAlarms()).filter(({ code }) => code !== null && LOOKED_AT.has(code)).slice(0, CLOSED_MAX)
      await audit.verification.acknowledge(open, { actor: actorOf(principal), factor: principal.factor, address: ip }, text)
      for (const { key } of open) await notices.clear(key, `${principal.name} has looked: ${text}`)
      return { closed: open.map(({ code, system, text: found }) => ({ code: code ?? '', system, text: found })) }
    },
  )
}

function seqOf(cursor: string): number {
  const [text = '', ...others] = readCursor(cursor)
  if (others.length === 0 && /^[1-9]\d{0,14}$/.test(text)) return Number(text)
  throw new Failure('ARGUMENTS_INVALID', 'this cursor is none', { hint: 'use "next" of the page before, as it is' })
}
