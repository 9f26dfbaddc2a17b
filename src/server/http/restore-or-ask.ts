import { basename } from 'node:path'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { ApprovalDocument } from '../../api/authority-schemas.ts'
import type { TaskDocument } from '../../api/schemas.ts'
import { actorOf } from '../../authority/audit-entry.ts'
import { idNamed } from '../../authority/named-id.ts'
import type { Authority } from '../authority/authority.ts'
import { restoreParameters } from '../authority/executor.ts'
import type { ComponentPicture } from '../catalogue.ts'
import type { Control } from '../control.ts'
import type { Target } from '../task-kinds.ts'
import { approvalDocument } from './approval-document.ts'
import { startWork } from './start-work.ts'

interface Asking {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly control: Control
  readonly authority: Authority
}

interface RestoreAsked {
  readonly asked: unknown
  readonly target: Target
  readonly name: string | undefined
}

/** A restore is a copy of every patient's record: once there are people it takes a second one, but for a declared emergency. */
export async function restoreOrAsk(
  { request, reply, control, authority }: Asking,
  picture: ComponentPicture,
  { asked, target, name }: RestoreAsked,
): Promise<TaskDocument | ApprovalDocument> {
  const { principal } = request.view
  const component = picture.component.name
  const { emergency } = authority.reviews
  if (!authority.isGuarded || emergency !== undefined) {
    const clearance =
      emergency === undefined || !authority.isGuarded ? undefined : ({ kind: 'emergency', id: emergency.id } as const)
    const task = await startWork(
      { request, reply, control },
      {
        picture,
        kind: 'restore',
        asked,
        parameters: async () => ({ target, name: basename(await control.restorePlace(component, name)) }),
        clearance,
      },
    )
    await authority.note({
      actor: actorOf(principal),
      factor: principal.factor,
      address: request.ip,
      action: 'restore.started',
      object: { system: picture.system, component, task: task.id, emergency: clearance?.id ?? null },
      outcome: 'done',
    })
    return task
  }
  const subject = { system: picture.system, component }
  const key = request.headers['idempotency-key']
  const approval = await authority.approvals.ask(
    principal,
    {
      operation: 'restore',
      parameters: async () => restoreParameters(component, await control.restorePlace(component, name), target),
      // The same key and request again give the same request for a second person.
      id: typeof key === 'string' ? idNamed(JSON.stringify([principal.id, key, asked])) : undefined,
    },
    subject,
  )
  reply.code(202).header('Location', `/api/v1/approvals/${approval.id}`)
  return approvalDocument(approval, request.view)
}
