import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { backupStatusSchema, problemSchema } from '../../api/schemas.ts'
import {
  alarmsSchema,
  channelTestSchema,
  healthSchema,
  monitorSchema,
  objectivesSchema,
  schedulesSchema,
  statusSchema,
} from '../../api/status-schemas.ts'
import { describeConfiguration } from '../../config/configuration.ts'
import { hintOf } from '../../incident/alarm-kinds.ts'
import { resusVersion } from '../../version.ts'
import type { RouteOptions } from './route-options.ts'
import { rememberAnswers } from './short-memory.ts'
import { backupStatusDocument, healthDocument, monitorDocument, objectivesDocument, statusDocument } from './status-documents.ts'

const PREFIX = '/backup-dr'
const read = { '4xx': problemSchema, '5xx': problemSchema }
const reading = { config: { action: 'status.read' } } as const

export const statusRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, options) => {
  await server.register(memoryRoutes, options)
  await server.register(storeRoutes, options)
}

/** Answered from memory: none of them asks anybody. */
const memoryRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, options) => {
  const { control, scheduler } = options
  rememberAnswers(server, control)
  server.get(
    '/live',
    {
      config: { action: 'none' },
      schema: {
        summary: 'Whether the process answers; the one route that needs no token',
        security: [],
        response: { 200: z.object({ status: z.literal('live'), version: z.string() }) },
      },
    },
    async () => ({ status: 'live' as const, version: resusVersion() }),
  )
  server.get(
    `${PREFIX}/health`,
    { ...reading, schema: { summary: 'Everything that is watched, each by itself', response: { 200: healthSchema, ...read } } },
    async ({ view }) => healthDocument(options, view),
  )
  server.get(
    `${PREFIX}/status`,
    { ...reading, schema: { summary: 'How protection is, in one look', response: { 200: statusSchema, ...read } } },
    async ({ view }) => statusDocument(options, view),
  )
  server.get(
    `${PREFIX}/backups/status`,
    {
      ...reading,
      schema: { summary: 'What is kept of each component, and what is proven', response: { 200: backupStatusSchema, ...read } },
    },
    async ({ view }) => backupStatusDocument(options, view),
  )
  server.get(
    `${PREFIX}/recovery-objectives`,
    {
      ...reading,
      schema: { summary: 'What was promised, and whether it is kept', response: { 200: objectivesSchema, ...read } },
    },
    async ({ view }) => objectivesDocument(options, view),
  )
  server.get(
    `${PREFIX}/schedules`,
    { ...reading, schema: { summary: 'What is due when', response: { 200: schedulesSchema, ...read } } },
    async ({ view }) => ({
      leads: scheduler.isLeader,
      schedules: scheduler.views.filter(({ system, component }) => view.sees(system, component)),
    }),
  )
  server.get(
    `${PREFIX}/config`,
    {
      config: { action: 'configuration.read' },
      schema: {
        summary: 'The configuration as it is understood; secrets are references',
        response: { 200: z.object({ systems: z.array(z.record(z.string(), z.unknown())) }), ...read },
      },
    },
    async () => ({ systems: control.catalogue.systems.map(describeConfiguration) }),
  )
}

const storeRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, options) => {
  const { notices } = options
  server.get(
    `${PREFIX}/monitor`,
    { ...reading, schema: { summary: 'How backups do: age, size, success', response: { 200: monitorSchema, ...read } } },
    async ({ view }) => monitorDocument(options, view),
  )
  server.get(
    `${PREFIX}/alarms`,
    {
      ...reading,
      schema: { summary: 'What people were told is wrong, and is not over', response: { 200: alarmsSchema, ...read } },
    },
    async ({ view }) => {
      const alarms = (await notices.openAlarms()).filter(({ system, component }) => view.sees(system, component))
      return {
        items: alarms.map(({ key, severity, title, text, system, component, code, count, opened_at: openedAt }) => ({
          key,
          severity,
          title,
          text,
          system,
          component,
          code,
          count,
          hint: hintOf(code),
          openedAt: openedAt.toISOString(),
        })),
      }
    },
  )
  server.post(
    `${PREFIX}/channels/:name/test`,
    {
      config: { action: 'channel.test' },
      schema: {
        summary: 'Send a test message through a channel now',
        params: z.object({ name: z.string().min(1).max(63) }),
        response: { 200: channelTestSchema, ...read },
      },
    },
    async (request) => notices.testChannel(request.params.name),
  )
}
