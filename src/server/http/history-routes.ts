import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { componentQuery, problemSchema } from '../../api/schemas.ts'
import { complianceSchema, facilitiesSchema, sizeHistorySchema, storageSchema } from '../../api/status-schemas.ts'
import { readCompliance } from '../../catalog/compliance.ts'
import { readSizes } from '../../catalog/sizes.ts'
import { objectiveNames } from '../../recovery/objectives.ts'
import { facilityViews } from '../facilities.ts'
import { rangeOf, rangeQuery } from './range.ts'
import type { RouteOptions } from './route-options.ts'

const PREFIX = '/backup-dr'
const read = { '4xx': problemSchema, '5xx': problemSchema }
/** What was, over time; and how facilities stand. */
export const historyRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, options) => {
  await server.register(objectiveRoutes, options)
  await server.register(sizeRoutes, options)
}

const objectiveRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { control, objectives, board }) => {
  server.get(
    `${PREFIX}/recovery-objectives/history`,
    {
      config: { action: 'status.read' },
      schema: {
        summary: 'Compliance with an objective over time: minutes of the last two days, hours before',
        querystring: z.strictObject({ ...componentQuery, ...rangeQuery, objective: z.enum(objectiveNames) }),
        response: { 200: complianceSchema, ...read },
      },
    },
    async ({ query, view }) => {
      const { system, component } = view.component(query)
      const between = rangeOf(query, control.now)
      const points = await readCompliance(control.store.sql, {
        system,
        component: component.name,
        objective: query.objective,
        ...between,
      })
      return {
        system,
        component: component.name,
        objective: query.objective,
        points: points.map(({ at, per, target, actualLeast, actualGreatest, minutesMet, minutesBroken, minutesNotProven }) => ({
          at: at.toISOString(),
          per,
          target,
          actualLeast,
          actualGreatest,
          minutesMet,
          minutesBroken,
          minutesNotProven,
        })),
      }
    },
  )
  server.get(
    `${PREFIX}/facilities`,
    {
      config: { action: 'status.read' },
      schema: { summary: 'How each facility is protected', response: { 200: facilitiesSchema, ...read } },
    },
    async ({ view }) => ({
      asOf: new Date(control.now).toISOString(),
      facilities: facilityViews(control.catalogue, board, objectives.views())
        .filter(({ facility }) => view.seesFacility(facility))
        .map((each) => ({ ...each, components: [...each.components] })),
    }),
  )
}

const sizeRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { control, sizes }) => {
  server.get(
    `${PREFIX}/storage`,
    {
      config: { action: 'metrics.read' },
      schema: { summary: 'How large everything is, and where it goes', response: { 200: storageSchema, ...read } },
    },
    async () => ({
      asOf: new Date(control.now).toISOString(),
      systems: sizes.views().map((each) => ({ ...each, components: [...each.components] })),
    }),
  )
  server.get(
    `${PREFIX}/storage/history`,
    {
      config: { action: 'metrics.read' },
      schema: {
        summary: 'Sizes hour by hour: of a component, or of its system’s storage when that is left out',
        querystring: z.strictObject({ ...componentQuery, ...rangeQuery }),
        response: { 200: sizeHistorySchema, ...read },
      },
    },
    async ({ query, view }) => {
      const system = query.component === undefined ? view.system(query.system) : view.component(query).system
      const points = await readSizes(control.store.sql, {
        system,
        component: query.component ?? null,
        ...rangeOf(query, control.now),
      })
      return {
        system,
        component: query.component ?? null,
        points: points.map(({ name, at, bytes }) => ({ name, at: at.toISOString(), bytes })),
      }
    },
  )
}
