import { fromKysely, PgBoss } from 'pg-boss'
import type { Kysely } from 'kysely'
import type { Schema } from '../catalog/schema.ts'
import { isStoreAway, type Store } from '../catalog/store.ts'
import { Failure } from '../errors.ts'
import { insertTask, unfinishedTasks, type NewTask } from '../catalog/tasks.ts'
import { queueName } from './task-kinds.ts'

const SCHEMA = 'resus_queue'
const CONNECTIONS_MAX = 4
/** A job whose node does not say that it lives for so long is somebody else's. */
const HEARTBEAT_SECONDS = 20
const SUPERVISE_SECONDS = 3
/** pg-boss keeps in memory which queues had a job at work, and fetches nothing from those until it has looked again: by itself once a minute. */
const LOOK_AGAIN_SECONDS = 2
/** The longest that pg-boss lets one attempt take. A command that is begun again goes on where it was. */
const ATTEMPT_SECONDS_MAX = 24 * 3600 - 60
/** Of attempts that a node's death ended. Those that failed by themselves are counted with the task. */
const DEATHS_MAX = 20
const KEPT_SECONDS = 24 * 3600
/** A job waits as long as its task is kept. */
const WAITS_SECONDS = 400 * 24 * 3600

/** One attempt's hold on a job of the queue. */
export interface Hold {
  readonly queue: string
  readonly job: string
  readonly retryCount: number
  readonly taskId: string
}

interface JobData {
  readonly taskId: string
}

/** The durable queue behind tasks: one queue for each component's lane, of which one job at most is being worked on. */
export class TaskQueue implements AsyncDisposable {
  readonly #store: Store
  readonly #onError: (error: Error) => void
  readonly #known = new Set<string>()
  #started: PgBoss | undefined

  private constructor(store: Store, onError: (error: Error) => void) {
    this.#store = store
    this.#onError = onError
  }

  static async open(store: Store, onError: (error: Error) => void): Promise<TaskQueue> {
    const queue = TaskQueue.later(store, onError)
    await queue.begin()
    return queue
  }

  /** A queue on a store that may be away: until `begin` has succeeded, all that is asked of it throws STORE_UNREACHABLE. */
  static later(store: Store, onError: (error: Error) => void): TaskQueue {
    return new TaskQueue(store, onError)
  }

  get isThere(): boolean {
    return this.#started !== undefined
  }

  /** Throws what the store throws: then try again. */
  async begin(): Promise<void> {
    if (this.#started !== undefined) return
    const boss = new PgBoss({
      connectionString: this.#store.workingConnectionString,
      schema: SCHEMA,
      application_name: 'resus queue',
      max: CONNECTIONS_MAX,
      schedule: false,
      superviseIntervalSeconds: SUPERVISE_SECONDS,
      queueCacheIntervalSeconds: LOOK_AGAIN_SECONDS,
      monitorIntervalSeconds: SUPERVISE_SECONDS,
    })
    // Its own timers meet a store that is away; they try again.
    boss.on('error', (error: Error) => (isStoreAway(error) ? undefined : this.#onError(error)))
    try {
      await boss.start()
    } catch (error) {
      // It would keep its connections.
      await boss.stop({ graceful: false }).catch(() => undefined)
      throw error
    }
    this.#started = boss
  }

  get #boss(): PgBoss {
    if (this.#started !== undefined) return this.#started
    throw new Failure('STORE_UNREACHABLE', 'the store was not reached yet', { hint: 'see to its PostgreSQL' })
  }

  /** Keeps a task and its job, both or neither. False when there is one for this schedule's instant already. */
  async request(task: NewTask, also?: (queries: Kysely<Schema>) => Promise<void>): Promise<boolean> {
    const queue = await this.#queueOf(task)
    return await this.#store.sql.transaction().execute(async (transaction) => {
      if (!(await insertTask(transaction, task))) return false
      await this.#boss.send(queue, { taskId: task.id } satisfies JobData, { db: fromKysely(transaction) })
      await also?.(transaction)
      return true
    })
  }

  /** The next job of a lane that is due; undefined when there is none, or one is being worked on. */
  async fetch(lane: { system: string; component: string | null; lane: string }): Promise<Hold | undefined> {
    const queue = await this.#queueOf(lane)
    const [job] = await this.#boss.fetch<JobData>(queue, { includeMetadata: true })
    if (job === undefined) return undefined
    return { queue, job: job.id, retryCount: job.retryCount, taskId: job.data.taskId }
  }

  /** Says that the job is being worked on. False when it is somebody else's by now. */
  async touch(hold: Hold): Promise<boolean> {
    // Its types say nothing of what it answers.
    const answer = (await this.#boss.touch(hold.queue, attemptOf(hold))) as { readonly affected?: number }
    return answer.affected === 1
  }

  /** Ends the job together with what `also` does to its task; with `again` there is another job for it, not before that. */
  async settle(hold: Hold, also: (queries: Kysely<Schema>) => Promise<boolean>, again?: Date): Promise<boolean> {
    return await this.#store.sql.transaction().execute(async (transaction) => {
      const db = fromKysely(transaction)
      if (!(await also(transaction))) return false
      await this.#boss.complete(hold.queue, attemptOf(hold), null, { db })
      if (again !== undefined)
        await this.#boss.send(hold.queue, { taskId: hold.taskId } satisfies JobData, { db, startAfter: again })
      return true
    })
  }

  /** Drops a job whose task has ended already. */
  async drop(hold: Hold): Promise<void> {
    await this.#boss.complete(hold.queue, attemptOf(hold))
  }

  /** Sends a job for each unfinished task that has none, whatever became of it. */
  async mend(askedBefore: Date): Promise<void> {
    for (const task of await unfinishedTasks(this.#store.sql, askedBefore)) {
      const queue = await this.#queueOf(task)
      const jobs = await this.#boss.findJobs<JobData>(queue, { data: { taskId: task.id } })
      if (jobs.some(({ state }) => state === 'created' || state === 'retry' || state === 'active')) continue
      await this.#boss.send(queue, { taskId: task.id } satisfies JobData, { startAfter: task.due_at })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#started?.stop({ graceful: false })
  }

  async #queueOf(lane: { system: string; component: string | null; lane: string }): Promise<string> {
    const name = queueName(lane)
    if (this.#known.has(name)) return name
    await this.#boss.createQueue(name, {
      policy: 'singleton',
      retryLimit: DEATHS_MAX,
      retryDelay: 0,
      heartbeatSeconds: HEARTBEAT_SECONDS,
      expireInSeconds: ATTEMPT_SECONDS_MAX,
      deleteAfterSeconds: KEPT_SECONDS,
      retentionSeconds: WAITS_SECONDS,
    })
    this.#known.add(name)
    return name
  }
}

function attemptOf({ job, retryCount }: Hold): { id: string; retryCount: number } {
  return { id: job, retryCount }
}
