import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { auditHeadsSchema, auditPageSchema } from '../../api/audit-schemas.ts'
import { problemSchema } from '../../api/schemas.ts'
import { Failure } from '../../errors.ts'
import { cursorOf, readCursor } from './cursor.ts'
import type { RouteOptions } from './route-options.ts'

const read = { '4xx': problemSchema, '5xx': problemSchema }
const instant = z.iso.datetime({ offset: true })
const word = z.string().min(1).max(300)

/** What remains: the audit trail, and what is told of it outside. */
export const auditRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { audit }) => {
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
}

function seqOf(cursor: string): number {
  const [text = '', ...others] = readCursor(cursor)
  if (others.length === 0 && /^[1-9]\d{0,14}$/.test(text)) return Number(text)
  throw new Failure('ARGUMENTS_INVALID', 'this cursor is none', { hint: 'use "next" of the page before, as it is' })
}
