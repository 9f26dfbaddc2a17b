import { randomUUID } from 'node:crypto'
import type { PoolClient } from 'pg'
import { listScheduleRuns, noteScheduleRun, type ScheduleRun } from '../catalog/schedule-runs.ts'
import type { Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import type { Configuration } from '../config/configuration.ts'
import type { ScheduledKind } from '../config/schedule-settings.ts'
import { resolveSchedules } from '../schedule/default-schedules.ts'
import { nextDue } from '../schedule/next-due.ts'
import type { Catalogue, ComponentPicture } from './catalogue.ts'
import { LANES } from './task-kinds.ts'
import type { TaskQueue } from './task-queue.ts'

/** Of all nodes, the one that holds it schedules. Any number that nobody else takes. */
const LEADER_LOCK = 7_320_002
const NO_ZONE = 'UTC'
/** Until there is a backup, there is nothing to read back or to prove. */
const OF_BACKUPS: ReadonlySet<ScheduledKind> = new Set(['verify', 'prove', 'drill'])

/** A schedule of a component, and when it is due next. */
export interface ScheduleView {
  readonly system: string
  readonly component: string
  readonly kind: ScheduledKind
  readonly schedule: string
  readonly from: 'component' | 'tier'
  readonly timeZone: string
  readonly nextDueAt: string | null
}

/** Asks for what is due. Of several nodes one does it, and another one when that is gone. */
export class Scheduler {
  readonly #store: Store
  readonly #queue: TaskQueue
  readonly #catalogue: Catalogue
  readonly #clock: Clock
  readonly #since: Date
  readonly #isReached: (system: string, component: string) => boolean
  #leader: PoolClient | undefined
  #views: readonly ScheduleView[] = []

  constructor(options: {
    readonly store: Store
    readonly queue: TaskQueue
    readonly catalogue: Catalogue
    readonly clock: Clock
    readonly isReached: (system: string, component: string) => boolean
  }) {
    this.#store = options.store
    this.#queue = options.queue
    this.#catalogue = options.catalogue
    this.#clock = options.clock
    this.#since = new Date(options.clock.now())
    this.#isReached = options.isReached
  }

  /** As they were looked at last. */
  get views(): readonly ScheduleView[] {
    return this.#views
  }

  get isLeader(): boolean {
    return this.#leader !== undefined
  }

  /** Looks at every schedule once, and asks for what is due where this node leads. */
  async look(): Promise<void> {
    const leads = await this.#lead()
    const runs = new Map((await listScheduleRuns(this.#store.sql)).map((run) => [keyOf(run), run]))
    const views: ScheduleView[] = []
    for (const picture of this.#catalogue.pictures()) {
      const configuration = this.#catalogue.systems.find(({ system }) => system === picture.system)
      if (configuration === undefined) continue
      for (const each of this.#schedulesOf(configuration, picture, runs)) {
        views.push(each.view)
        if (leads && each.isDue) await this.#ask(each)
      }
    }
    this.#views = views
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The lock goes with its connection.
    this.#leader?.release(true)
    this.#leader = undefined
  }

  #schedulesOf(configuration: Configuration, picture: ComponentPicture, runs: ReadonlyMap<string, ScheduleRun>): DueSchedule[] {
    const { system, component } = picture
    const now = new Date(this.#clock.now())
    const timeZone = component.timeZone ?? configuration.timeZone ?? NO_ZONE
    return resolveSchedules(component.tier, component.schedules).map(({ kind, schedule, from }) => {
      const run = runs.get(keyOf({ system, component: component.name, kind }))
      const due = nextDue(schedule, {
        timeZone,
        now,
        lastDueAt: run?.due_at,
        lastEndedAt: run?.ended_at ?? undefined,
        since: this.#since,
      })
      const isBusy = run?.state === 'waiting' || run?.state === 'running'
      const isEmpty = OF_BACKUPS.has(kind) && picture.backups.length === 0
      // What nobody can do waits for somebody, and is caught up once then.
      const waits = isBusy || isEmpty || !this.#isReached(system, component.name)
      const behindBackup = kind === 'drill' && component.drills.afterBackup ? backupSince(picture, run) : undefined
      const isDue = (behindBackup !== undefined || (due !== null && +due.dueAt <= +now)) && !waits
      const nextDueAt = due === null || waits ? null : due.dueAt.toISOString()
      const text = schedule === 'never' ? 'never' : 'cron' in schedule ? schedule.cron : `after ${schedule.after}`
      const view = { system, component: component.name, kind, schedule: text, from, timeZone, nextDueAt }
      if (behindBackup !== undefined) return { view, isDue, dueAt: now, key: `backup ${behindBackup}` }
      return { view, isDue, dueAt: due?.dueAt ?? now, key: due?.key ?? '' }
    })
  }

  async #ask({ view, dueAt, key }: DueSchedule): Promise<void> {
    const { system, component, kind } = view
    const id = randomUUID()
    const at = new Date(this.#clock.now())
    const scheduleKey = JSON.stringify([system, component, kind, key])
    const parameters = kind === 'prove' ? { backup: 'latest' } : {}
    const task = { id, system, component, kind, lane: LANES[kind], parameters, requestedBy: 'schedule', scheduleKey, at }
    await this.#queue.request(task, async (queries) => noteScheduleRun(queries, { system, component, kind, dueAt, taskId: id }))
  }

  async #lead(): Promise<boolean> {
    if (this.#leader !== undefined) {
      try {
        await this.#leader.query('select 1')
        return true
      } catch {
        // The lock went with the connection.
        this.#leader.release(true)
        this.#leader = undefined
      }
    }
    const client = await this.#store.connect()
    try {
      // A leader whose host has lost power must not hold the lock for the two hours that TCP takes to notice.
      await client.query('set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 2')
      const { rows } = await client.query<{ taken: boolean }>('select pg_try_advisory_lock($1) as taken', [LEADER_LOCK])
      if (rows[0]?.taken === true) {
        this.#leader = client
        return true
      }
    } catch (error) {
      client.release(true)
      throw error
    }
    client.release()
    return false
  }
}

interface DueSchedule {
  readonly view: ScheduleView
  readonly isDue: boolean
  readonly dueAt: Date
  readonly key: string
}

/** The newest backup, where it was finished after the last drill was asked for. */
function backupSince({ backups }: ComponentPicture, run: ScheduleRun | undefined): string | undefined {
  const [newest] = backups
  if (newest === undefined) return undefined
  return run === undefined || Date.parse(newest.finishedAt) > run.due_at.getTime() ? newest.id : undefined
}

function keyOf({
  system,
  component,
  kind,
}: {
  readonly system: string
  readonly component: string
  readonly kind: string
}): string {
  return JSON.stringify([system, component, kind])
}
