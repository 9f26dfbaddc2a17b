import { setTimeout as delay } from 'node:timers/promises'
import type { z } from 'zod'
import { taskEventsSchema, taskPageSchema, taskSchema, type taskEventSchema, type TaskDocument } from '../api/schemas.ts'
import { Failure } from '../errors.ts'
import { ControlPlaneClient } from './control-plane-client.ts'
import { formatBytes, formatDuration, formatFields, formatTable, formatTime } from './output.ts'
import { optionalText, type Answer, type Context, type Given, type Verb } from './verb.ts'

const HEAD = ['TASK', 'KIND', 'COMPONENT', 'ASKED', 'BY', 'STATE', 'TOOK', 'NODE', 'REASON'] as const
const LOG_SHOWN = 50
const FOLLOW_MS = 1000
const FILTERS = ['component', 'kind', 'state', 'limit'] as const

/** What a control plane does and has done: all of it, or one task with its log. */
export const run: Verb = async (context, given) => {
  const client = await ControlPlaneClient.of(given, context.signal)
  const [id] = given.args
  if (id === undefined) return await list(client, given, context.clock.now())
  if (!/^[0-9a-f-]{36}$/i.test(id)) {
    throw new Failure('ARGUMENTS_INVALID', `"${id}" is no id of a task`, { hint: '"resus tasks" lists them' })
  }
  return await show(client, id, { context, follow: given.options.follow === true })
}

async function list(client: ControlPlaneClient, given: Given, nowMs: number): Promise<Answer> {
  const query = new URLSearchParams()
  for (const name of FILTERS) {
    const value = optionalText(given, name)
    if (value !== undefined) query.set(name, value)
  }
  const { items } = await client.get(`/tasks?${query.toString()}`, taskPageSchema)
  const rows = items.map((task) => [
    task.id,
    task.kind,
    task.component ?? '-',
    formatTime(task.createdAt),
    task.requestedBy,
    task.state,
    tookOf(task, nowMs),
    task.node ?? '-',
    task.error?.message.split('\n')[0] ?? '',
  ])
  return { json: items, text: rows.length === 0 ? 'there is no such task' : formatTable(HEAD, rows, ['TOOK']) }
}

/** Lines of the log go out as they come when it is followed; its end is the command's. */
async function show(
  client: ControlPlaneClient,
  id: string,
  { context, follow }: { context: Context; follow: boolean },
): Promise<Answer> {
  let behind = 0
  const lines: string[] = []
  for (;;) {
    // The task first: what it writes before it ends is in the log that is read afterwards.
    const task = await client.get(`/tasks/${id}`, taskSchema)
    const { items } = await client.get(`/tasks/${id}/log?behind=${behind}`, taskEventsSchema)
    behind = items.at(-1)?.number ?? behind
    for (const line of items.map(lineOf)) {
      if (follow) context.progress.print(line)
      else lines.push(line)
    }
    if (items.length > 0) continue
    const isOver = task.state !== 'waiting' && task.state !== 'running'
    if (isOver || !follow) return describe(task, lines, context.clock.now())
    await delay(FOLLOW_MS, undefined, { signal: context.signal })
  }
}

function describe(task: TaskDocument, lines: readonly string[], nowMs: number): Answer {
  const { progress, error } = task
  const fields = [
    ['task', `${task.kind} of "${task.system}/${task.component ?? '-'}", asked for by ${task.requestedBy}`],
    ['state', task.state],
    ['attempts', String(task.attempts)],
    ['node', task.node ?? '-'],
    ['took', tookOf(task, nowMs)],
    ...(progress === null || task.state !== 'running' ? [] : [['progress', progressOf(progress)] as const]),
    ...(error === null ? [] : [['reason', `${error.message} (${error.code})`] as const]),
    ...(error?.hint === null || error === null ? [] : [['to do', error.hint] as const]),
  ] as const
  const left = lines.length - LOG_SHOWN
  const log = [...(left > 0 ? [`... ${left} lines before`] : []), ...lines.slice(-LOG_SHOWN)]
  return {
    json: task,
    text: [formatFields(fields), ...(log.length === 0 ? [] : ['', ...log])].join('\n'),
    exitStatus: task.state === 'failed' || task.state === 'cancelled' ? 1 : 0,
  }
}

function lineOf({ at, kind, data }: z.infer<typeof taskEventSchema>): string {
  const { text } = data
  if (kind === 'log' && typeof text === 'string') return `${formatTime(at)} ${text}`
  const values = Object.values(data).filter((value) => typeof value === 'string' || typeof value === 'number')
  return `${formatTime(at)} [${values.join(' ')}]`
}

function progressOf({ phase, bytesDone, bytesTotal }: NonNullable<TaskDocument['progress']>): string {
  return bytesTotal === 0
    ? `${phase}, ${formatBytes(bytesDone)}`
    : `${phase}, ${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}`
}

function tookOf({ startedAt, endedAt }: TaskDocument, nowMs: number): string {
  if (startedAt === null) return '-'
  return formatDuration(Math.max(0, (endedAt === null ? nowMs : Date.parse(endedAt)) - Date.parse(startedAt)))
}
