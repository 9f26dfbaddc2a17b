import type { FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { TaskDocument } from '../../api/schemas.ts'
import type { Control, TaskRequest } from '../control.ts'
import { taskDocument } from './task-document.ts'

const PATH = '/api/v1/backup-dr/tasks'

/** Of every request that starts work. */
export const startHeaders = z.object({
  'idempotency-key': z
    .string()
    .regex(/^[\x21-\x7e]{1,200}$/, '1 to 200 visible characters')
    .optional()
    .describe('sent again within 24 hours, the same request gives the same task'),
})

/** Asks for the work and answers 202 with the task to follow. */
export async function startWork(
  { request, reply, control }: { request: FastifyRequest; reply: FastifyReply; control: Control },
  work: Omit<TaskRequest, 'requestedBy' | 'idempotencyKey'>,
): Promise<TaskDocument> {
  const key = request.headers['idempotency-key']
  const { principal } = request.view
  const task = await control.request({
    ...work,
    requestedBy: principal.name,
    ...(typeof key === 'string' ? { idempotencyKey: `${principal.id} ${key}` } : {}),
  })
  reply.code(202).header('Location', `${PATH}/${task.id}`)
  return taskDocument(task)
}
