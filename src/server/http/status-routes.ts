import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { problemSchema } from '../../api/schemas.ts'
import { describeConfiguration } from '../../config/configuration.ts'
import { resusVersion } from '../../version.ts'
import type { RouteOptions } from './route-options.ts'

const read = { '4xx': problemSchema, '5xx': problemSchema }

export const statusRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { control }) => {
  server.get(
    '/live',
    {
      schema: {
        summary: 'Whether the process answers; the one route that needs no token',
        security: [],
        response: { 200: z.object({ status: z.literal('live'), version: z.string() }) },
      },
    },
    async () => ({ status: 'live' as const, version: resusVersion() }),
  )

  server.get(
    '/backup-dr/config',
    {
      schema: {
        summary: 'The configuration as it is understood; secrets are references',
        response: { 200: z.object({ systems: z.array(z.record(z.string(), z.unknown())) }), ...read },
      },
    },
    async () => ({ systems: control.catalogue.systems.map(describeConfiguration) }),
  )
}
