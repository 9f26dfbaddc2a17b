import type { Kysely } from 'kysely'
import type { Schema, TaskState } from './schema.ts'

// Statements about what schedules have asked for.

export interface ScheduleRun {
  readonly system: string
  readonly component: string
  readonly kind: string
  readonly due_at: Date
  /** Of the task that was asked for; null when that is not kept any more. */
  readonly state: TaskState | null
  readonly ended_at: Date | null
}

export async function listScheduleRuns(queries: Kysely<Schema>): Promise<ScheduleRun[]> {
  return await queries
    .selectFrom('schedule_runs as r')
    .leftJoin('tasks as t', 't.id', 'r.task_id')
    .select(['r.system', 'r.component', 'r.kind', 'r.due_at', 't.state', 't.ended_at'])
    .execute()
}

export async function noteScheduleRun(
  queries: Kysely<Schema>,
  run: {
    readonly system: string
    readonly component: string
    readonly kind: string
    readonly dueAt: Date
    readonly taskId: string
  },
): Promise<void> {
  const { system, component, kind, dueAt, taskId } = run
  await queries
    .insertInto('schedule_runs')
    .values({ system, component, kind, due_at: dueAt, task_id: taskId })
    .onConflict((conflict) => conflict.columns(['system', 'component', 'kind']).doUpdateSet({ due_at: dueAt, task_id: taskId }))
    .execute()
}
