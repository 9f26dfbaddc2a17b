import { sql, type Kysely, type Selectable, type Transaction } from 'kysely'
import type { Schema, TaskEventKind, TaskEventsTable, TasksTable, TaskState } from './schema.ts'

// Statements about tasks: what was asked for, and what became of it.

export type Task = Selectable<TasksTable>
export type TaskEvent = Selectable<TaskEventsTable>

export interface NewTask {
  readonly id: string
  readonly system: string
  readonly component: string | null
  readonly kind: string
  readonly lane: string
  readonly parameters: Readonly<Record<string, unknown>>
  readonly requestedBy: string
  /** Of a schedule and the instant it fell due: there is one task for each. */
  readonly scheduleKey?: string
  /** `approval:<id>` or `emergency:<id>`. */
  readonly clearance?: string
  readonly at: Date
}

/** JSON that PostgreSQL takes: its text has no U+0000, and no half of a pair of surrogates. */
function storable(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) => (typeof each === 'string' ? storableText(each) : each))
}

function storableText(text: string): string {
  return text.replaceAll('\0', '').toWellFormed()
}

/** Which attempt of a task: whoever holds another one changes nothing. */
export interface Attempt {
  readonly id: string
  readonly node: string
  readonly attempts: number
}

/** What only the attempt that holds a task finds. */
function heldBy({ id, node, attempts }: Attempt) {
  return { id, node, attempts, state: 'running' as const }
}

export interface TaskOutcome {
  readonly state: Extract<TaskState, 'done' | 'failed' | 'cancelled'>
  readonly at: Date
  readonly exitStatus: number | null
  readonly result: unknown
  readonly error: { readonly code: string; readonly message: string; readonly hint: string | null } | null
}

/** False when there is one for this schedule's instant already. */
export async function insertTask(queries: Kysely<Schema>, task: NewTask): Promise<boolean> {
  const inserted = await queries
    .insertInto('tasks')
    .values({
      id: task.id,
      system: task.system,
      component: task.component,
      kind: task.kind,
      lane: task.lane,
      parameters: JSON.stringify(task.parameters),
      requested_by: task.requestedBy,
      schedule_key: task.scheduleKey ?? null,
      clearance: task.clearance ?? null,
      state: 'waiting',
      created_at: task.at,
      due_at: task.at,
    })
    .onConflict((conflict) => conflict.column('schedule_key').doNothing())
    .returning('id')
    .executeTakeFirst()
  if (inserted === undefined) return false
  await appendEvent(queries, { id: task.id, at: task.at, kind: 'state', data: { state: 'waiting', by: task.requestedBy } })
  return true
}

export interface NewEvent {
  readonly id: string
  readonly at: Date
  readonly kind: TaskEventKind
  readonly data: Readonly<Record<string, unknown>>
}

/** Appends one event under the next number. Whoever appends at the same time waits for the task's row. */
export async function appendEvent(queries: Kysely<Schema>, event: NewEvent): Promise<void> {
  await appendEvents(queries, event.id, [event])
}

/** Several, in order. */
export async function appendEvents(queries: Kysely<Schema>, id: string, events: readonly Omit<NewEvent, 'id'>[]): Promise<void> {
  if (events.length === 0) return
  const rows = storable(events.map(({ at, kind, data }) => ({ at: at.toISOString(), kind, data })))
  await sql`
    with task as (
      update resus_control.tasks set last_event = last_event + ${events.length} where id = ${id} returning id, last_event - ${events.length} as before
    )
    insert into resus_control.task_events (task_id, number, at, kind, data)
    select task.id, task.before + e.ordinality, (e.event ->> 'at')::timestamptz, e.event ->> 'kind', e.event -> 'data'
    from task, jsonb_array_elements(${rows}::jsonb) with ordinality as e(event, ordinality)`.execute(queries)
}

/** Takes a task in hand. Undefined when it is not there or has ended; the attempt otherwise. */
export async function beginAttempt(
  queries: Kysely<Schema>,
  { id, node, at }: { readonly id: string; readonly node: string; readonly at: Date },
): Promise<Task | undefined> {
  const task = await queries
    .updateTable('tasks')
    .set((each) => ({ state: 'running', node, attempts: each('attempts', '+', 1), started_at: at, progress: null }))
    .where('id', '=', id)
    .where('state', 'in', ['waiting', 'running'])
    .returningAll()
    .executeTakeFirst()
  if (task === undefined) return undefined
  await appendEvent(queries, { id, at, kind: 'state', data: { state: 'running', node, attempt: task.attempts } })
  return task
}

/** Whether the attempt still holds the task, and whether it is asked to end. */
export async function noteProgress(
  queries: Kysely<Schema>,
  attempt: Attempt,
  progress: unknown,
): Promise<{ readonly held: boolean; readonly cancel: boolean }> {
  const row = await queries
    .updateTable('tasks')
    .set(progress === undefined ? { node: attempt.node } : { progress: JSON.stringify(progress) })
    .where((each) => each.and(heldBy(attempt)))
    .returning('cancel_requested')
    .executeTakeFirst()
  return { held: row !== undefined, cancel: row?.cancel_requested ?? false }
}

/** Ends a task. False when this attempt does not hold it any more. */
export async function endTask(queries: Kysely<Schema>, attempt: Attempt, outcome: TaskOutcome): Promise<boolean> {
  const { state, at, exitStatus, result, error } = outcome
  const row = await queries
    .updateTable('tasks')
    .set({
      state,
      ended_at: at,
      exit_status: exitStatus,
      result: result === undefined || result === null ? null : storable(result),
      error_code: error?.code ?? null,
      error_message: error === null ? null : storableText(error.message),
      error_hint: error?.hint ?? null,
    })
    .where((each) => each.and(heldBy(attempt)))
    .returning('id')
    .executeTakeFirst()
  if (row === undefined) return false
  await appendEvent(queries, { id: attempt.id, at, kind: 'state', data: { state, error } })
  return true
}

/** Lets a task wait for another attempt. `counts` false: what ended it was us, and not its own failure. */
export async function postponeTask(
  queries: Kysely<Schema>,
  attempt: Attempt,
  { at, dueAt, why, counts }: { readonly at: Date; readonly dueAt: Date; readonly why: string; readonly counts: boolean },
): Promise<boolean> {
  const row = await queries
    .updateTable('tasks')
    .set({ state: 'waiting', due_at: dueAt, attempts: counts ? attempt.attempts : attempt.attempts - 1, node: null })
    .where((each) => each.and(heldBy(attempt)))
    .returning('id')
    .executeTakeFirst()
  if (row === undefined) return false
  const data = { state: 'waiting', dueAt: dueAt.toISOString(), why }
  await appendEvent(queries, { id: attempt.id, at, kind: 'state', data })
  return true
}

/** Asks a task to end; one that waits has ended with that. Undefined when there is no such task. */
export async function requestCancel(
  queries: Transaction<Schema>,
  { id, by, at }: { readonly id: string; readonly by: string; readonly at: Date },
): Promise<Task | undefined> {
  const task = await queries.selectFrom('tasks').selectAll().where('id', '=', id).forUpdate().executeTakeFirst()
  if (task === undefined || (task.state !== 'waiting' && task.state !== 'running') || task.cancel_requested) return task
  const ended = task.state === 'waiting' ? { state: 'cancelled' as const, ended_at: at } : {}
  const changed = await queries
    .updateTable('tasks')
    .set({ cancel_requested: true, ...ended })
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirstOrThrow()
  await appendEvent(queries, { id, at, kind: 'state', data: { state: changed.state, cancelledBy: by } })
  return changed
}

export interface Lane {
  readonly system: string
  readonly component: string | null
  readonly lane: string
}

/** Where a task is due, or is said to run but does not: on a node that was not seen since `aliveSince`, or here, where it is none of `running`. */
export async function dueLanes(
  queries: Kysely<Schema>,
  {
    now,
    aliveSince,
    node,
    running,
  }: { readonly now: Date; readonly aliveSince: Date; readonly node: string; readonly running: readonly string[] },
): Promise<Lane[]> {
  return await queries
    .selectFrom('tasks')
    .leftJoin('nodes', 'nodes.name', 'tasks.node')
    .select(['system', 'component', 'lane'])
    .groupBy(['system', 'component', 'lane'])
    .orderBy((each) => each.fn.min('due_at'))
    .where((each) =>
      each.or([
        each.and([each('state', '=', 'waiting'), each('due_at', '<=', now)]),
        each.and([
          each('state', '=', 'running'),
          each.or([
            each('nodes.renewed_at', 'is', null),
            each('nodes.renewed_at', '<', aliveSince),
            running.length === 0
              ? each('tasks.node', '=', node)
              : each.and([each('tasks.node', '=', node), each('tasks.id', 'not in', [...running])]),
          ]),
        ]),
      ]),
    )
    .execute()
}

/** Tasks that have not ended, and were asked for before an instant. */
export async function unfinishedTasks(
  queries: Kysely<Schema>,
  askedBefore: Date,
): Promise<(Lane & { readonly id: string; readonly due_at: Date })[]> {
  return await queries
    .selectFrom('tasks')
    .select(['id', 'system', 'component', 'lane', 'due_at'])
    .where('state', 'in', ['waiting', 'running'])
    .where('created_at', '<', askedBefore)
    .execute()
}

export async function readTask(queries: Kysely<Schema>, id: string): Promise<Task | undefined> {
  return await queries.selectFrom('tasks').selectAll().where('id', '=', id).executeTakeFirst()
}

export interface TaskFilter {
  readonly system?: string | undefined
  readonly component?: string | undefined
  readonly kind?: string | undefined
  readonly state?: TaskState | undefined
  /** Only of these components: `["system","component"]`. */
  readonly within?: ReadonlySet<string> | undefined
}

/** Newest first, behind a task of an earlier page. */
export async function listTasks(
  queries: Kysely<Schema>,
  filter: TaskFilter,
  page: { readonly limit: number; readonly behind?: { readonly createdAt: Date; readonly id: string } | undefined },
): Promise<Task[]> {
  let query = queries.selectFrom('tasks').selectAll().orderBy('created_at', 'desc').orderBy('id', 'desc').limit(page.limit)
  for (const name of ['system', 'component', 'kind', 'state'] as const) {
    const value = filter[name]
    if (value !== undefined) query = query.where(name, '=', value)
  }
  const { within } = filter
  if (within !== undefined)
    query = query.where(sql<boolean>`json_build_array(system, component)::jsonb = any (${[...within]}::jsonb[])`)
  const { behind } = page
  if (behind !== undefined) query = query.where(sql<boolean>`(created_at, id) < (${behind.createdAt}, ${behind.id}::uuid)`)
  return await query.execute()
}

/** What happened to a task behind an event's number, in order. */
export async function eventsBehind(queries: Kysely<Schema>, id: string, number: number, limit: number): Promise<TaskEvent[]> {
  return await queries
    .selectFrom('task_events')
    .selectAll()
    .where('task_id', '=', id)
    .where('number', '>', number)
    .orderBy('number')
    .limit(limit)
    .execute()
}

/** Tasks that ended before an instant go, with their events. */
export async function deleteOldTasks(queries: Kysely<Schema>, endedBefore: Date): Promise<number> {
  const { numDeletedRows } = await queries.deleteFrom('tasks').where('ended_at', '<', endedBefore).executeTakeFirst()
  return Number(numDeletedRows)
}
