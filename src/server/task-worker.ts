import type { Clock } from '../clock.ts'
import { isStoreAway, type Store } from '../catalog/store.ts'
import { beginAttempt, dueLanes, type Lane, type Task, type TaskOutcome } from '../catalog/tasks.ts'
import type { Hold, TaskQueue } from './task-queue.ts'
import { runTask, type TaskPlace } from './task-run.ts'

const POLL_MS = 1000
/** How long a node may be silent before what it ran is looked at. */
export const DEAD_AFTER_MS = 15_000
/** Commands at once on one node, by lane: each has threads of its own, and a long proof holds up no backup. */
const RUNNING_MAX: Readonly<Record<string, number>> = { backup: 3, proof: 1, restore: 2, upkeep: 2 }
const RUNNING_MAX_ELSE = 1

export interface WorkerOptions {
  readonly store: Store
  readonly queue: TaskQueue
  readonly node: string
  readonly clock: Clock
  /** What this node reaches now, and where its configuration is. */
  readonly placeOf: (system: string, component: string | null) => TaskPlace | undefined
  /** What becomes known when a task ends. */
  readonly onEnd: (task: Task, outcome: TaskOutcome) => void
  readonly report: (text: string) => void
}

/** Takes tasks of components that this node reaches, and runs them. */
export class TaskWorker {
  readonly #options: WorkerOptions
  readonly #running = new Map<string, { readonly lane: string; readonly ended: Promise<void> }>()

  constructor(options: WorkerOptions) {
    this.#options = options
  }

  /** Works until the signal aborts; then ends what runs, which waits for another attempt. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#look(signal).catch((error: unknown) => {
        if (!isStoreAway(error)) this.#options.report(`tasks: ${error instanceof Error ? error.message : String(error)}`)
      })
      await this.#options.clock.sleep(POLL_MS, signal).catch(() => undefined)
    }
    await Promise.all([...this.#running.values()].map(async ({ ended }) => ended))
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { store, clock, node } = this.#options
    const now = clock.now()
    const running = [...this.#running.keys()]
    const lanes = await dueLanes(store.sql, { now: new Date(now), aliveSince: new Date(now - DEAD_AFTER_MS), node, running })
    for (const lane of lanes) {
      if (signal.aborted) return
      if (this.#runningIn(lane.lane) >= (RUNNING_MAX[lane.lane] ?? RUNNING_MAX_ELSE)) continue
      await this.#take(lane, signal)
    }
  }

  async #take(lane: Lane, signal: AbortSignal): Promise<void> {
    const { queue, store, node, clock, placeOf, report } = this.#options
    const place = placeOf(lane.system, lane.component)
    if (place === undefined) return
    const hold = await queue.fetch(lane)
    if (hold === undefined) return
    const task = await beginAttempt(store.sql, { id: hold.taskId, node, at: new Date(clock.now()) })
    if (task === undefined) return await queue.drop(hold)
    const run = this.#run({ task, hold, place }, signal)
      .catch((error: unknown) => report(`task ${task.id}: ${error instanceof Error ? error.message : String(error)}`))
      .finally(() => this.#running.delete(task.id))
    this.#running.set(task.id, { lane: lane.lane, ended: run })
  }

  #runningIn(lane: string): number {
    return [...this.#running.values()].filter((each) => each.lane === lane).length
  }

  async #run(work: { task: Task; hold: Hold; place: TaskPlace }, signal: AbortSignal): Promise<void> {
    const outcome = await runTask({ ...this.#options, ...work, signal })
    if (outcome !== undefined) this.#options.onEnd(work.task, outcome)
  }
}
