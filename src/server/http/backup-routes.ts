import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { backupPageSchema, backupSchema, componentQuery, pageQuery, problemSchema, taskSchema } from '../../api/schemas.ts'
import { approvalSchema } from '../../api/authority-schemas.ts'
import { BACKUP_TYPES } from '../../repository/backups.ts'
import { Failure } from '../../errors.ts'
import { restoreNameSchema, targetSchema } from '../task-kinds.ts'
import { cursorOf, readCursor } from './cursor.ts'
import { newestPage, type Dated } from './newest-page.ts'
import { restoreOrAsk } from './restore-or-ask.ts'
import { startWork, startHeaders } from './start-work.ts'
import type { RouteOptions } from './route-options.ts'

const PREFIX = '/backup-dr'
const idParameter = z.object({ id: z.string().min(1).max(64) })
const started = { 202: taskSchema, '4xx': problemSchema, '5xx': problemSchema }
/** Once there are people, a restore is asked for first. */
const askedOrStarted = { ...started, 202: z.union([taskSchema, approvalSchema]) }
const read = { '4xx': problemSchema, '5xx': problemSchema }

/** API-01 to 07 and API-10: what a system's operators do every day, and on the day. */
export const backupRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, options) => {
  await server.register(readingRoutes, options)
  await server.register(workRoutes, options)
  await server.register(expiryRoutes, options)
  await server.register(restoreRoutes, options)
}

const readingRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server) => {
  server.get(
    `${PREFIX}/backups`,
    {
      config: { action: 'status.read' },
      schema: {
        summary: 'List backups, newest first',
        querystring: z.strictObject({ ...componentQuery, ...pageQuery }),
        response: { 200: backupPageSchema, ...read },
      },
    },
    async (request) => {
      const { system, component, limit, cursor } = request.query
      const all = request.view
        .pictures()
        .filter(
          (each) =>
            (system === undefined || each.system === system) && (component === undefined || each.component.name === component),
        )
      if (all.length === 0 && (system !== undefined || component !== undefined)) request.view.component({ system, component })
      const after = cursor === undefined ? undefined : placeOf(readCursor(cursor))
      const { items, hasMore } = newestPage(
        all.map((each) => each.backups),
        { after, limit },
      )
      const last = items.at(-1)
      return {
        items,
        next: last === undefined || !hasMore ? null : cursorOf([last.finishedAt, last.system, last.component, last.id]),
        total: all.reduce((sum, { backups }) => sum + backups.length, 0),
      }
    },
  )

  server.get(
    `${PREFIX}/backups/:id`,
    {
      config: { action: 'status.read' },
      schema: {
        summary: 'One backup',
        params: idParameter,
        querystring: z.strictObject(componentQuery),
        response: { 200: backupSchema, ...read },
      },
    },
    async (request) => request.view.backup(request.params.id, request.query).backup,
  )
}

const workRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { control }) => {
  server.post(
    `${PREFIX}/backups/database`,
    {
      config: { action: 'backup.start' },
      schema: {
        summary: 'Back a database up now',
        headers: startHeaders,
        body: z.strictObject({ ...componentQuery, type: z.enum(BACKUP_TYPES).optional() }),
        response: started,
      },
    },
    async (request, reply) => {
      const { system, component, type } = request.body
      return await startWork(
        { request, reply, control },
        {
          picture: request.view.component({ system, component }),
          kind: 'backup',
          asked: request.body,
          parameters: () => (type === undefined ? {} : { type }),
        },
      )
    },
  )

  server.post(
    `${PREFIX}/backups/:id/verify`,
    {
      config: { action: 'verify.start' },
      schema: {
        summary: 'Read a backup back, or prove it by a restore',
        params: idParameter,
        headers: startHeaders,
        body: z.strictObject({ ...componentQuery, byRestore: z.boolean().default(false) }).default({ byRestore: false }),
        response: started,
      },
    },
    async (request, reply) => {
      const { byRestore, ...which } = request.body
      const { picture, backup } = request.view.backup(request.params.id, which)
      return await startWork(
        { request, reply, control },
        {
          picture,
          kind: byRestore ? 'prove' : 'verify',
          asked: { id: backup.id, byRestore },
          parameters: () => ({ backup: backup.id }),
        },
      )
    },
  )
}

const expiryRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { control }) => {
  server.post(
    `${PREFIX}/backups/cleanup`,
    {
      config: { action: 'expire.ask' },
      schema: {
        summary: 'Delete what nothing keeps any more, in two runs a day apart',
        headers: startHeaders,
        body: z.strictObject({ ...componentQuery, dryRun: z.boolean().default(false) }),
        response: started,
      },
    },
    async (request, reply) => {
      const { dryRun, ...which } = request.body
      return await startWork(
        { request, reply, control },
        {
          picture: request.view.component(which),
          kind: 'expire',
          asked: { dryRun },
          parameters: () => (dryRun ? { dryRun } : {}),
        },
      )
    },
  )
}

const restoreRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { control, authority }) => {
  server.post(
    `${PREFIX}/backups/:id/restore`,
    {
      config: { action: 'restore.ask' },
      schema: {
        summary: 'Restore from a backup into a new directory below restoreRoots',
        params: idParameter,
        headers: startHeaders,
        body: z.strictObject({ ...componentQuery, target: targetSchema.optional(), name: restoreNameSchema.optional() }),
        response: askedOrStarted,
      },
    },
    async (request, reply) => {
      const { system, component, target = {}, name } = request.body
      const { picture, backup } = request.view.backup(request.params.id, { system, component })
      if (target.backup !== undefined && target.backup !== backup.id) {
        throw new Failure('ARGUMENTS_INVALID', 'target.backup is another backup than the one of the address', {
          hint: 'leave it out',
        })
      }
      const asked = { id: backup.id, ...request.body }
      return await restoreOrAsk({ request, reply, control, authority }, picture, {
        asked,
        target: { ...target, backup: backup.id },
        name,
      })
    },
  )

  server.post(
    `${PREFIX}/recovery`,
    {
      config: { action: 'restore.ask' },
      schema: {
        summary: 'Recover a component into a new directory, to the newest moment or another',
        headers: startHeaders,
        body: z.strictObject({ ...componentQuery, target: targetSchema.optional(), name: restoreNameSchema.optional() }),
        response: askedOrStarted,
      },
    },
    async (request, reply) => {
      const { target = {}, name, ...which } = request.body
      const picture = request.view.component(which)
      return await restoreOrAsk({ request, reply, control, authority }, picture, { asked: request.body, target, name })
    },
  )
}

function placeOf([finishedAt = '', system = '', component = '', id = '']: readonly string[]): Dated {
  return { finishedAt, system, component, id }
}
