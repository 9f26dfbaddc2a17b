import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { problemSchema } from '../../api/schemas.ts'
import { Failure } from '../../errors.ts'

/** Routes whose names are promised and whose core is not there: each says what it waits for. None of them is claimed. */
const WAITING = [
  ['POST', '/backups/files', 'protection of files'],
  ['POST', '/failover', 'failover, with Patroni, HAProxy and DNS'],
  ['POST', '/redundancy/setup', 'setting up redundancy'],
  ['GET', '/playbooks', 'playbooks'],
  ['GET', '/playbooks/:scenario', 'playbooks'],
] as const

export const notBuiltRoutes: FastifyPluginAsyncZod = async (server) => {
  for (const [method, url, what] of WAITING) {
    server.route({
      method,
      url: `/backup-dr${url}`,
      config: { action: 'status.read' },
      schema: { summary: `Not built: waits for ${what}`, response: { 501: problemSchema } },
      handler: async () => {
        throw new Failure('NOT_BUILT', `this version of Resus cannot do that: it waits for ${what}`, { hint: 'nothing was done' })
      },
    })
  }
}
