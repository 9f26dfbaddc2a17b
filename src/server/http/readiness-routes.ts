import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { componentQuery, problemSchema } from '../../api/schemas.ts'
import { readinessHistorySchema, readinessSchema, type ReadinessDocument } from '../../api/status-schemas.ts'
import { readReadiness } from '../../catalog/readiness.ts'
import { FORMULA, HEALTHY_ABOVE, leastReady, WEIGHTS } from '../../recovery/readiness.ts'
import type { View } from '../view.ts'
import { rangeOf, rangeQuery } from './range.ts'
import type { RouteOptions } from './route-options.ts'

const PREFIX = '/backup-dr/readiness'
const read = { '4xx': problemSchema, '5xx': problemSchema }

/** MON-04: can we recover tonight? One number, what it is made of, and the one thing to do. */
export const readinessRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, options) => {
  server.get(
    PREFIX,
    {
      config: { action: 'status.read' },
      schema: {
        summary:
          'How ready each component, system and facility is to be recovered, what that is made of, and what raises it most',
        response: { 200: readinessSchema, ...read },
      },
    },
    async ({ view }) => readinessDocument(options, view),
  )

  server.get(
    `${PREFIX}/history`,
    {
      config: { action: 'status.read' },
      schema: {
        summary: 'How ready a component was, hour by hour',
        querystring: z.strictObject({ ...componentQuery, ...rangeQuery }),
        response: { 200: readinessHistorySchema, ...read },
      },
    },
    async ({ query, view }) => {
      const { system, component } = view.component(query)
      const { control } = options
      const asked = { system, component: component.name, ...rangeOf(query, control.now) }
      const points = await readReadiness(control.store.sql, asked)
      return { system, component: component.name, points: points.map(({ at, score }) => ({ at: at.toISOString(), score })) }
    },
  )
}

function readinessDocument({ readiness, control }: RouteOptions, view: View): ReadinessDocument {
  const seen = readiness.views().filter(({ system, component }) => view.sees(system, component))
  const least = (system: string, isIn: (component: string) => boolean) => {
    const found = leastReady(seen.filter((each) => each.system === system && isIn(each.component)))
    return found === undefined ? [] : [{ system, score: found.score, component: found.component }]
  }
  const systems = view.systems()
  return {
    asOf: new Date(control.now).toISOString(),
    formula: FORMULA,
    weights: { ...WEIGHTS },
    healthyAbove: HEALTHY_ABOVE,
    components: seen.map(({ terms, gates, ...each }) => ({ ...each, terms: [...terms], gates: [...gates] })),
    systems: systems.flatMap(({ system }) => least(system, () => true)),
    facilities: systems.flatMap(({ system, facilities = {}, components }) =>
      Object.entries(facilities)
        .filter(([facility]) => view.seesFacility(facility))
        .flatMap(([facility, { name }]) => {
          const holds = new Set(components.filter((each) => each.facilities?.includes(facility) ?? true).map((each) => each.name))
          return least(system, (component) => holds.has(component)).map((each) => ({ ...each, facility, name }))
        }),
    ),
  }
}
