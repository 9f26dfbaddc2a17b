import type { TaskDocument } from '../../api/schemas.ts'
import type { Task, TaskEvent } from '../../catalog/tasks.ts'

export function taskDocument(task: Task): TaskDocument {
  return {
    id: task.id,
    system: task.system,
    component: task.component,
    kind: task.kind,
    parameters: task.parameters as Record<string, unknown>,
    requestedBy: task.requested_by,
    state: task.state,
    attempts: task.attempts,
    node: task.node,
    createdAt: task.created_at.toISOString(),
    dueAt: task.due_at.toISOString(),
    startedAt: task.started_at?.toISOString() ?? null,
    endedAt: task.ended_at?.toISOString() ?? null,
    progress: task.progress as TaskDocument['progress'],
    exitStatus: task.exit_status,
    result: task.result,
    error: task.error_code === null ? null : { code: task.error_code, message: task.error_message ?? '', hint: task.error_hint },
    source: task.from_repository ? 'repository' : 'store',
  }
}

export function eventDocument({ number, at, kind, data }: TaskEvent) {
  return { number, at: at.toISOString(), kind, data: data as Record<string, unknown> }
}
