import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { pageQuery, problemSchema, taskEventsSchema, taskPageSchema, taskSchema, taskStateSchema } from '../../api/schemas.ts'
import { eventsBehind, listTasks, readTask, requestCancel, type Task } from '../../catalog/tasks.ts'
import { Failure } from '../../errors.ts'
import type { Control } from '../control.ts'
import type { View } from '../view.ts'
import { TASK_KINDS } from '../task-kinds.ts'
import { cursorOf, readCursor } from './cursor.ts'
import { eventDocument, taskDocument } from './task-document.ts'
import type { RouteOptions } from './route-options.ts'
import { sendEvents } from './event-stream.ts'

const PREFIX = '/backup-dr/tasks'
const EVENTS_MAX = 1000
const idParameter = z.object({ id: z.uuid() })
const read = { '4xx': problemSchema, '5xx': problemSchema }

/** API-16: what was asked for, how far it is, and what became of it. */
export const taskRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, options) => {
  await server.register(taskListRoutes, options)
  await server.register(taskEventRoutes, options)
}

const taskListRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { control }) => {
  server.get(
    PREFIX,
    {
      config: { action: 'task.read' },
      schema: {
        summary: 'Tasks, newest first',
        querystring: z.strictObject({
          ...pageQuery,
          system: z.string().max(200).optional(),
          component: z.string().max(200).optional(),
          kind: z.enum(TASK_KINDS).optional(),
          state: taskStateSchema.optional(),
        }),
        response: { 200: taskPageSchema, ...read },
      },
    },
    async (request) => {
      const { limit, cursor, ...filter } = request.query
      const [createdAt, id] = cursor === undefined ? [] : readCursor(cursor)
      const behind = createdAt === undefined || id === undefined ? undefined : { createdAt: placeOf(createdAt), id: idOf(id) }
      const tasks = await listTasks(control.store.sql, { ...filter, within: request.view.limits() }, { limit, behind })
      const last = tasks.at(-1)
      const isEnd = last === undefined || tasks.length < limit
      return { items: tasks.map(taskDocument), next: isEnd ? null : cursorOf([last.created_at.toISOString(), last.id]) }
    },
  )

  server.get(
    `${PREFIX}/:id`,
    {
      config: { action: 'task.read' },
      schema: { summary: 'One task', params: idParameter, response: { 200: taskSchema, ...read } },
    },
    async (request) => taskDocument(await known(control, request.view, request.params.id)),
  )

  server.post(
    `${PREFIX}/:id/cancel`,
    {
      config: { action: 'task.cancel' },
      schema: { summary: 'Ask a task to end', params: idParameter, response: { 200: taskSchema, ...read } },
    },
    async (request) => {
      const { id } = request.params
      const at = new Date(control.now)
      const { system, component } = await known(control, request.view, id)
      request.view.requireReached(system, component)
      const task = await control.store.sql
        .transaction()
        .execute(async (queries) => requestCancel(queries, { id, by: request.view.principal.name, at }))
      if (task === undefined) throw unknownTask(id)
      return taskDocument(task)
    },
  )
}

const taskEventRoutes: FastifyPluginAsyncZod<RouteOptions> = async (server, { control, signal }) => {
  server.get(
    `${PREFIX}/:id/log`,
    {
      config: { action: 'task.read' },
      schema: {
        summary: 'What happened to a task, in order',
        params: idParameter,
        querystring: z.strictObject({ behind: z.coerce.number().int().min(0).default(0) }),
        response: { 200: taskEventsSchema, ...read },
      },
    },
    async (request) => {
      const { id } = request.params
      await known(control, request.view, id)
      const events = await eventsBehind(control.store.sql, id, request.query.behind, EVENTS_MAX)
      return { items: events.map(eventDocument) }
    },
  )

  server.get(
    `${PREFIX}/:id/events`,
    {
      config: { action: 'task.read' },
      schema: {
        summary: 'The same as Server-Sent Events, as it happens; goes on behind Last-Event-ID',
        params: idParameter,
        headers: z.object({
          'last-event-id': z
            .string()
            .regex(/^\d{1,9}$/)
            .optional(),
        }),
        produces: ['text/event-stream'],
      },
    },
    async (request, reply) => {
      const { id } = request.params
      await known(control, request.view, id)
      await sendEvents({ reply, control, signal }, { id, behind: Number(request.headers['last-event-id'] ?? 0) })
    },
  )
}

/** Of one that may not be seen nobody tells that it is there. */
async function known(control: Control, view: View, id: string): Promise<Task> {
  const task = await readTask(control.store.sql, id)
  if (task === undefined || !view.sees(task.system, task.component)) throw unknownTask(id)
  return task
}

function unknownTask(id: string): Failure {
  return new Failure('TASK_UNKNOWN', `there is no task "${id}"`, { hint: 'tasks are kept for 400 days; GET tasks lists them' })
}

function placeOf(text: string): Date {
  const at = new Date(text)
  if (Number.isNaN(at.getTime())) throw new Failure('ARGUMENTS_INVALID', 'this cursor is none')
  return at
}

function idOf(text: string): string {
  const parsed = z.uuid().safeParse(text)
  if (!parsed.success) throw new Failure('ARGUMENTS_INVALID', 'this cursor is none')
  return parsed.data
}
