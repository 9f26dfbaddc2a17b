import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { componentQuery, problemSchema, taskSchema } from '../../api/schemas.ts'
import { TURNS } from '../../recovery/drill/drill-target.ts'
import type { RouteOptions } from './route-options.ts'
import { startHeaders, startWork } from './start-work.ts'

const PREFIX = '/backup-dr'
const started = { 202: taskSchema, '4xx': problemSchema, '5xx': problemSchema }

/** API-14: rehearsals. */
export const drillRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { control }) => {
  server.post(
    `${PREFIX}/test`,
    {
      config: { action: 'verify.start' },
      schema: {
        summary: 'Drill: rehearse the recovery of a component in a scratch place, judge it, and leave signed evidence',
        headers: startHeaders,
        body: z.strictObject({ ...componentQuery, target: z.enum(TURNS).optional() }).default({}),
        response: started,
      },
    },
    async (request, reply) => {
      const { target, ...which } = request.body
      return await startWork(
        { request, reply, control },
        {
          picture: request.view.component(which),
          kind: 'drill',
          asked: request.body,
          parameters: () => (target === undefined ? {} : { target }),
        },
      )
    },
  )
}
