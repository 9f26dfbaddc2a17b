import { listOpenKeys } from '../catalog/alarms.ts'
import { listNodes } from '../catalog/nodes.ts'
import { isStoreAway, type Store } from '../catalog/store.ts'
import type { Task, TaskOutcome } from '../catalog/tasks.ts'
import type { Clock } from '../clock.ts'
import { DeadMan } from '../incident/dead-man.ts'
import { Notices } from '../incident/notices.ts'
import { AlarmWatch } from './alarm-watch.ts'
import type { AuditKeeper } from './audit-keeper.ts'
import type { Catalogue } from './catalogue.ts'
import { digestLines, evidenceLines } from './digest-lines.ts'
import { EvidenceBook } from './evidence-book.ts'
import { HealthWatch } from './health-watch.ts'
import { ObjectivesWatch } from './objectives-watch.ts'
import type { ReceiverMessage, Receivers } from './receivers.ts'
import type { RecordKeeper } from './record-keeper.ts'
import type { ServerSettings } from './settings.ts'
import { ReadinessWatch } from './readiness-watch.ts'
import { SizeWatch } from './size-watch.ts'
import type { StatusBoard } from './status-board.ts'

/** The store may restart; people are told when it stays away. */
const STORE_AWAY_MS = 30_000
const SETTLE_MS = 5_000
const EVIDENCE_MS = 60_000

export interface WatchOptions {
  readonly store: Store
  readonly catalogue: Catalogue
  readonly receivers: Receivers
  readonly board: StatusBoard
  readonly records: RecordKeeper
  readonly audit: AuditKeeper
  readonly settings: ServerSettings
  readonly clock: Clock
  /** Why the configuration as its files are now is not in force. */
  readonly refused: () => string | null
  /** Why server.yaml as it was at the start is not in force. */
  readonly settingsRefused: () => string | null
  /** What keeps the store from being used; null when nothing does. */
  readonly storeProblem: () => string | null
  readonly onError: (error: unknown) => void
}

/** Everything that looks at what is, holds it against what was promised, and tells people. */
export class Watch implements AsyncDisposable {
  readonly health: HealthWatch
  readonly sizes: SizeWatch
  readonly evidence: EvidenceBook
  readonly objectives: ObjectivesWatch
  readonly readiness: ReadinessWatch
  readonly notices: Notices
  readonly #options: WatchOptions
  readonly #alarms: AlarmWatch
  readonly #deadMan: DeadMan | undefined
  #storeSeenMs: number

  constructor(options: WatchOptions) {
    const { store, catalogue, receivers, board, records, audit, settings, clock, onError } = options
    this.#options = options
    this.#storeSeenMs = clock.now()
    this.sizes = new SizeWatch({ store, catalogue, clock })
    this.health = new HealthWatch({
      catalogue,
      receivers,
      sizes: this.sizes,
      clock,
      directory: settings.state,
      certificate: settings.tls?.certificate,
    })
    const availabilityOf = (system: string, component: string) => this.health.availability(system, component)
    this.evidence = new EvidenceBook({ catalogue, now: () => clock.now() })
    const { evidence } = this
    this.objectives = new ObjectivesWatch({ store, catalogue, receivers, evidence, clock, availabilityOf })
    this.readiness = new ReadinessWatch({ store, catalogue, objectives: this.objectives, evidence, health: this.health, clock })
    this.notices = Notices.start({
      store,
      node: settings.node,
      clock,
      channels: settings.channels,
      digest: {
        ...settings.digest,
        lines: async () => [
          ...digestLines(board, this.objectives),
          ...evidenceLines(catalogue, evidence),
          ...(await audit.headLines()),
        ],
      },
      onError,
    })
    const { notices, health, objectives, readiness } = this
    this.#alarms = new AlarmWatch({ notices, catalogue, health, objectives, readiness, records, audit, clock })
    this.#deadMan = this.#startDeadMan()
  }

  noteTask(task: Task, outcome: TaskOutcome): void {
    if (task.kind === 'drill') this.evidence.look(AbortSignal.timeout(EVIDENCE_MS)).catch(this.#options.onError)
    this.#alarms.noteTask({ ...task, result: outcome.result }, outcome).catch(this.#options.onError)
  }

  /** Reads what drills have left, and writes down what is so now, each minute; of several nodes the one that leads does. */
  async record(leads: boolean, signal: AbortSignal): Promise<void> {
    // A storage that hangs must not keep what is known from being written down.
    const looking = this.evidence.look(AbortSignal.any([signal, AbortSignal.timeout(EVIDENCE_MS)]))
    await looking.catch((error: unknown) => {
      signal.throwIfAborted()
      this.#options.onError(error)
    })
    await this.readiness.look(leads)
    if (leads) await this.objectives.record()
  }

  noteReceiver(message: ReceiverMessage): void {
    this.#alarms.noteReceiver(message).catch(this.#options.onError)
  }

  /** Raises and takes back alarms, from what is known now. Of several nodes the one that leads does it, or all would contradict each other. */
  async lookForAlarms(leads: boolean, signal: AbortSignal): Promise<void> {
    const { clock, refused, settingsRefused, settings } = this.#options
    this.#alarms.noteStore(await this.#lookAtStore())
    this.#alarms.noteConfiguration(refused())
    const isAway = clock.now() - this.#storeSeenMs > STORE_AWAY_MS
    // What people know already is in the repositories, where the store was lost.
    if (!isAway && (await this.#options.records.settle(signal, SETTLE_MS)) === 'held') return
    await this.#alarms.lookAtOwn(settings.node, settingsRefused())
    if (leads || isAway) await this.#alarms.look()
  }

  /** Gives what people are to be told of it, when it stays away. */
  async #lookAtStore(): Promise<string | null> {
    const { store, clock, storeProblem } = this.#options
    let why = storeProblem()
    try {
      const [nodes, open] = [await listNodes(store.sql), await listOpenKeys(store)]
      this.#alarms.noteNodes(nodes)
      this.#alarms.noteOpen(open)
    } catch (error) {
      if (!isStoreAway(error)) throw error
      this.#alarms.noteOpen([])
      why ??= error instanceof Error ? error.message : String(error)
    }
    const now = clock.now()
    if (why === null) this.#storeSeenMs = now
    const awayMs = now - this.#storeSeenMs
    return awayMs > STORE_AWAY_MS ? `the store has not answered for ${Math.round(awayMs / 1000)} s: ${why}` : null
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#deadMan?.[Symbol.asyncDispose]()
    await this.notices[Symbol.asyncDispose]()
    await this.health[Symbol.asyncDispose]()
  }

  /** The outside watch hears from us while this process works and its store answers: everything else it tells people itself. */
  #startDeadMan(): DeadMan | undefined {
    const { settings, clock } = this.#options
    if (settings.deadMan === undefined) return undefined
    const { everySeconds, ...rest } = settings.deadMan
    const healthy = () => clock.now() - this.#storeSeenMs < STORE_AWAY_MS
    const { directory } = settings
    return DeadMan.start({ ...rest, everyMs: 1000 * everySeconds, directory, healthy, notices: this.notices, clock })
  }
}
