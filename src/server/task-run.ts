import { z } from 'zod'
import type { Clock } from '../clock.ts'
import { isStoreAway, type Store } from '../catalog/store.ts'
import {
  appendEvents,
  endTask,
  noteProgress,
  postponeTask,
  type Attempt,
  type NewEvent,
  type Task,
  type TaskOutcome,
} from '../catalog/tasks.ts'
import { Failure, FAILURES } from '../errors.ts'
import { commandOf, type TaskKind } from './task-kinds.ts'
import { runCommand, type CommandEnd, type TaskProgress } from './task-process.ts'
import type { Hold, TaskQueue } from './task-queue.ts'

/** Where a component's commands run: the configuration of its system. */
export interface TaskPlace {
  readonly configPath: string
  /** Of this node. */
  readonly restoreRoots: readonly string[]
}

export interface TaskRun {
  readonly task: Task
  readonly hold: Hold
  readonly place: TaskPlace
  readonly store: Store
  readonly queue: TaskQueue
  readonly node: string
  readonly clock: Clock
  readonly report: (text: string) => void
  /** Of the node: it is told to end. */
  readonly signal: AbortSignal
}

/** What a command says that judges. */
const judgedSchema = z.object({ verdict: z.enum(['failed', 'not proven']), why: z.string() })

const TOUCH_MS = 3000
const LOG_LINES_MAX = 10_000
/** Waits between attempts double from this one. */
const RETRY_MS = 60_000
const ATTEMPTS_MAX = 4

/** Runs a task's command and keeps what became of it. Undefined when the task is somebody else's by now, or waits for another attempt. */
export async function runTask(run: TaskRun): Promise<TaskOutcome | undefined> {
  const { task, clock, signal } = run
  const stop = new AbortController()
  const attempt: Attempt = { id: task.id, node: run.node, attempts: task.attempts }
  const record = new TaskRecord(run, attempt, stop)
  const beating = record.beat()
  const ending = AbortSignal.any([signal, stop.signal])
  let end: CommandEnd
  try {
    end = await runCommand({
      args: await commandOf(task.kind as TaskKind, {
        id: task.id,
        component: task.component ?? '',
        parameters: task.parameters,
        restoreRoots: run.place.restoreRoots,
        clearance: task.clearance,
        requestedBy: task.requested_by,
      }),
      configPath: run.place.configPath,
      onProgress: (progress) => record.note(progress),
      onLog: (text) => record.log(text),
      signal: ending,
    })
  } catch (error) {
    const { code, message, hint = null } = error instanceof Failure ? error : { code: 'BUG', message: String(error) }
    end = { status: null, result: null, error: { code, message: `it could not be started: ${message}`, hint } }
  } finally {
    record.end()
  }
  await beating
  if (record.isLost) return undefined
  const at = new Date(clock.now())
  return await settle(run, attempt, { end, at, cancelled: record.isCancelled })
}

async function settle(
  run: TaskRun,
  attempt: Attempt,
  ended: { readonly end: CommandEnd; readonly at: Date; readonly cancelled: boolean },
): Promise<TaskOutcome | undefined> {
  const { queue, hold, clock, signal } = run
  const { end, at, cancelled } = ended
  const outcome = outcomeOf(end, at, cancelled)
  const retry = cancelled || outcome.state === 'done' ? undefined : retryAt(run, outcome)
  return await untilStored(run, async () => {
    if (retry === undefined) {
      const kept = await queue.settle(hold, async (queries) => endTask(queries, attempt, outcome))
      return kept ? outcome : undefined
    }
    const counts = !signal.aborted
    const why = outcome.error?.message ?? 'it failed'
    await queue.settle(
      hold,
      async (queries) => postponeTask(queries, attempt, { at: new Date(clock.now()), dueAt: retry, why, counts }),
      retry,
    )
    return undefined
  })
}

/** The instant of the next attempt; undefined when there is none. */
function retryAt({ task, clock, signal }: TaskRun, { error }: TaskOutcome): Date | undefined {
  // We were told to end, and so ended it: it goes on as soon as somebody can.
  if (signal.aborted) return new Date(clock.now())
  if (error === null || !mayPass(error.code) || task.attempts >= ATTEMPTS_MAX) return undefined
  return new Date(clock.now() + RETRY_MS * 2 ** (task.attempts - 1))
}

function mayPass(code: string): boolean {
  return (FAILURES as Readonly<Record<string, { readonly retry: boolean } | undefined>>)[code]?.retry ?? false
}

/** The exit status decides: 0 is done; everything else has failed, with the command's own reason where it gave one. */
function outcomeOf(end: CommandEnd, at: Date, cancelled: boolean): TaskOutcome {
  const { status, result, error } = end
  const common = { at, exitStatus: status, result }
  if (status === 0) return { ...common, state: 'done', error: null }
  if (cancelled) return { ...common, state: 'cancelled', error: null }
  if (error !== null) return { ...common, state: 'failed', error }
  const judged = judgedSchema.safeParse(result)
  const why = judged.success
    ? { code: 'NOT_VERIFIED', message: `${judged.data.verdict}: ${judged.data.why}`, hint: 'its report and its log say more' }
    : status === null
      ? { code: 'BUG', message: 'a signal ended it', hint: 'was the machine out of memory? See the log of the task' }
      : { code: 'NOT_VERIFIED', message: `it ended with exit status ${status}`, hint: 'its report and its log say why' }
  return { ...common, state: 'failed', error: why }
}

/** What was done is not forgotten because the store is away: it is kept as soon as it is back, unless we have to end. */
async function untilStored<T>({ clock, signal }: TaskRun, keep: () => Promise<T>): Promise<T | undefined> {
  for (;;) {
    try {
      return await keep()
    } catch (error) {
      if (!isStoreAway(error) || signal.aborted) throw error
      await clock.sleep(TOUCH_MS, signal).catch(() => undefined)
    }
  }
}

/** What is written about an attempt while it runs: its log, how far it is, and that it lives. */
class TaskRecord {
  isLost = false
  isCancelled = false
  readonly #run: TaskRun
  readonly #attempt: Attempt
  readonly #stop: AbortController
  readonly #done = new AbortController()
  #lines: Omit<NewEvent, 'id'>[] = []
  #count = 0
  #progress: TaskProgress | undefined

  constructor(run: TaskRun, attempt: Attempt, stop: AbortController) {
    this.#run = run
    this.#attempt = attempt
    this.#stop = stop
  }

  note(progress: TaskProgress): void {
    this.#progress = progress
  }

  log(text: string): void {
    this.#count += 1
    if (this.#count > LOG_LINES_MAX) return
    this.#lines.push({ at: new Date(this.#run.clock.now()), kind: 'log', data: { text } })
  }

  /** Says again and again that the attempt lives, and hears whether it is to end. Resolves after `end`. */
  async beat(): Promise<void> {
    const { clock } = this.#run
    while (!this.#done.signal.aborted) {
      await clock.sleep(TOUCH_MS / 3, this.#done.signal).catch(() => undefined)
      // Whatever the store has against it: the command goes on, and what became of it is kept when it ends.
      await this.#write().catch((error: unknown) => {
        if (!isStoreAway(error))
          this.#run.report(`task ${this.#attempt.id}: ${error instanceof Error ? error.message : String(error)}`)
      })
    }
  }

  end(): void {
    if (this.#count > LOG_LINES_MAX) {
      const text = `… ${this.#count - LOG_LINES_MAX} lines left out`
      this.#lines.push({ at: new Date(this.#run.clock.now()), kind: 'log', data: { text } })
    }
    this.#done.abort()
  }

  async #write(): Promise<void> {
    const { store, queue, hold } = this.#run
    const lines = this.#lines
    this.#lines = []
    try {
      await appendEvents(store.sql, this.#attempt.id, lines)
    } catch (error) {
      // What the store will not have is left out, rather than tried for ever.
      if (isStoreAway(error)) this.#lines = [...lines, ...this.#lines]
      throw error
    }
    const { held, cancel } = await noteProgress(store.sql, this.#attempt, this.#progress)
    const touched = await queue.touch(hold)
    if (!held || !touched) this.isLost = true
    if (cancel) this.isCancelled = true
    if (this.isLost || cancel) this.#stop.abort()
  }
}
