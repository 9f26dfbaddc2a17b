import { statfs } from 'node:fs/promises'
import type { Clock } from '../clock.ts'
import type { Configuration } from '../config/configuration.ts'
import { resolveComponent } from '../config/open.ts'
import { Failure, systemErrorCode } from '../errors.ts'
import { HealthSession, type DatabaseHealth } from '../protect/postgres/health.ts'
import { AvailabilityRecord, type Availability } from '../recovery/availability.ts'
import { nextHealth, observeFigures, unknownHealth, type Health, type Observation, type Threshold } from '../recovery/health.ts'
import type { Catalogue, ComponentPicture } from './catalogue.ts'
import type { Receivers } from './receivers.ts'

/** One thing that is watched. */
export interface WatchedView {
  readonly system: string
  readonly component: string | null
  /** database, receiver, storage */
  readonly thing: 'database' | 'receiver' | 'storage'
  readonly health: Health
  /** The last figures, with their units in their names. */
  readonly figures: Readonly<Record<string, number | null>>
}

const SAMPLE_HOLDS_MS = 30_000
const AVAILABILITY_WINDOW_MS = 30 * 24 * 3600 * 1000
/** Above the time limits of a look at a server. */
const LOOK_LIMIT_MS = 10_000
const VIEW_HOLDS_MS = 30_000
const MEBIBYTE = 1024 * 1024

/** Beyond which something is slow or short, and not down. */
const DATABASE_THRESHOLDS: readonly Threshold[] = [
  { name: 'connectionsUsedPercent', unit: '%', most: 90 },
  { name: 'longestTransactionSeconds', unit: 's', most: 3600 },
  { name: 'locksWaiting', unit: 'sessions', most: 20 },
  { name: 'replayLagSeconds', unit: 's', most: 60 },
  { name: 'clockOffsetSeconds', unit: 's', most: 5 },
  { name: 'checksumFailures', unit: 'pages', most: 0 },
]
const RECEIVER_THRESHOLDS: readonly Threshold[] = [{ name: 'behindBytes', unit: 'bytes', most: 1024 * MEBIBYTE }]
const STORAGE_THRESHOLDS: readonly Threshold[] = [{ name: 'freePercent', unit: '%', least: 5 }]

interface Looked {
  readonly observation: Observation
  readonly figures: Readonly<Record<string, number | null>>
}

/** Looks at everything every few seconds; each thing has a state of its own, and one bad look changes none of them. */
export class HealthWatch {
  readonly #catalogue: Catalogue
  readonly #receivers: Receivers
  readonly #clock: Clock
  readonly #watched = new Map<string, WatchedView>()
  readonly #sessions = new Map<string, { readonly session: HealthSession; readonly to: string }>()
  readonly #storageLooks = new Map<string, Promise<Looked>>()
  readonly #availability = new Map<string, AvailabilityRecord>()

  constructor(options: { readonly catalogue: Catalogue; readonly receivers: Receivers; readonly clock: Clock }) {
    this.#catalogue = options.catalogue
    this.#receivers = options.receivers
    this.#clock = options.clock
  }

  views(): WatchedView[] {
    const now = this.#clock.now()
    return [...this.#watched.values()].map((view) => {
      if (now - view.health.lookedMs <= VIEW_HOLDS_MS) return view
      return { ...view, health: { ...view.health, state: 'unknown', why: 'nobody has looked at it for a while' } }
    })
  }

  /** Of the database, since this process watches. */
  availability(system: string, component: string): Availability | null {
    return this.#availability.get(JSON.stringify([system, component]))?.measure(this.#clock.now()) ?? null
  }

  async look(): Promise<void> {
    const looks = [
      ...this.#catalogue.pictures().flatMap((picture) => {
        const of = { system: picture.system, component: picture.component.name }
        return [
          this.#note({ ...of, thing: 'database' }, async () => this.#database(picture)),
          this.#note({ ...of, thing: 'receiver' }, async () => this.#receiver(picture)),
        ]
      }),
      ...this.#catalogue.systems.map(async (configuration) =>
        this.#note({ system: configuration.system, component: null, thing: 'storage' }, async () => this.#storage(configuration)),
      ),
    ]
    await Promise.all(looks)
    this.#forget()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const key of this.#sessions.keys()) await this.#disconnect(key)
  }

  async #note(what: Pick<WatchedView, 'system' | 'component' | 'thing'>, look: () => Promise<Looked>): Promise<void> {
    const { observation, figures } = await this.#inTime(look)
    const key = JSON.stringify([what.system, what.component, what.thing])
    const now = this.#clock.now()
    const before = this.#watched.get(key)
    const health = nextHealth(before?.health ?? unknownHealth(now), observation, now)
    this.#watched.set(key, { ...what, health, figures: observation.kind === 'failed' ? (before?.figures ?? {}) : figures })
    if (what.thing !== 'database' || what.component === null) return
    const record = this.#availabilityOf(what.system, what.component)
    record.note(now, observation.kind === 'failed' ? 'down' : 'up')
  }

  /** A mount that hangs answers nothing at all, for ever: the others are looked at all the same. */
  async #inTime(look: () => Promise<Looked>): Promise<Looked> {
    const late = new AbortController()
    const limit = this.#clock.sleep(LOOK_LIMIT_MS, late.signal).then((): Looked => ({
      observation: { kind: 'failed', why: `it did not answer within ${LOOK_LIMIT_MS / 1000} s` },
      figures: {},
    }))
    limit.catch(() => undefined)
    try {
      return await Promise.race([look(), limit])
    } finally {
      late.abort()
    }
  }

  #availabilityOf(system: string, component: string): AvailabilityRecord {
    const key = JSON.stringify([system, component])
    const known = this.#availability.get(key)
    if (known !== undefined) return known
    const made = new AvailabilityRecord({ windowMs: AVAILABILITY_WINDOW_MS, sampleHoldsMs: SAMPLE_HOLDS_MS })
    this.#availability.set(key, made)
    return made
  }

  async #database({ system, component }: ComponentPicture): Promise<Looked> {
    const key = JSON.stringify([system, component.name])
    try {
      const session = await this.#session(key, component)
      const figures = figuresOf(await session.read(), this.#clock.now())
      return { observation: observeFigures(figures, DATABASE_THRESHOLDS), figures }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      await this.#disconnect(key)
      return { observation: { kind: 'failed', why: error.message }, figures: {} }
    }
  }

  /** To where the configuration says now: what was connected to before may be another server. */
  async #session(key: string, component: ComponentPicture['component']): Promise<HealthSession> {
    const { connection } = await resolveComponent(component)
    const to = connection.reveal().toString('utf8')
    const known = this.#sessions.get(key)
    if (known?.to === to) return known.session
    await this.#disconnect(key)
    const session = await HealthSession.connect({ component: component.name, connectionString: to })
    this.#sessions.set(key, { session, to })
    return session
  }

  async #disconnect(key: string): Promise<void> {
    const known = this.#sessions.get(key)
    this.#sessions.delete(key)
    await known?.session[Symbol.asyncDispose]()
  }

  async #receiver({ system, component, status }: ComponentPicture): Promise<Looked> {
    const live = this.#receivers.picture(system, component.name)
    const figures = { behindBytes: status?.receiver.behindBytes ?? null }
    if (live === undefined && status?.receiver.active === true)
      return { observation: observeFigures(figures, RECEIVER_THRESHOLDS), figures }
    if (live?.state !== 'receiving') {
      return { observation: { kind: 'failed', why: live?.problem ?? 'nobody receives its WAL' }, figures }
    }
    const [alarm] = Object.entries(live.alarms).filter(([code]) => code !== 'SERVER_SETTING')
    if (alarm !== undefined) return { observation: { kind: 'slow', why: `${alarm[0]}: ${alarm[1]}` }, figures }
    return { observation: observeFigures(figures, RECEIVER_THRESHOLDS), figures }
  }

  /** One call at a time: each that hangs keeps one of the few threads that all file calls of this process share. */
  async #storage(configuration: Configuration): Promise<Looked> {
    const known = this.#storageLooks.get(configuration.system)
    if (known !== undefined) return await known
    const look = lookAtStorage(configuration).finally(() => this.#storageLooks.delete(configuration.system))
    this.#storageLooks.set(configuration.system, look)
    return await look
  }

  /** What is configured no more is watched no more. */
  #forget(): void {
    const components = new Set(
      this.#catalogue.pictures().map(({ system, component }) => JSON.stringify([system, component.name])),
    )
    const systems = new Set(this.#catalogue.systems.map(({ system }) => system))
    for (const [key, { system, component }] of this.#watched) {
      const isThere = component === null ? systems.has(system) : components.has(JSON.stringify([system, component]))
      if (!isThere) this.#watched.delete(key)
    }
  }
}

function figuresOf(health: DatabaseHealth, nowMs: number): Record<string, number | null> {
  return {
    connectionsUsed: health.connectionsUsed,
    connectionsMax: health.connectionsMax,
    connectionsUsedPercent: Math.round((100 * health.connectionsUsed) / Math.max(1, health.connectionsMax)),
    longestQuerySeconds: health.longestQuerySeconds,
    longestTransactionSeconds: health.longestTransactionSeconds,
    locksWaiting: health.locksWaiting,
    replayLagSeconds: health.replayLagSeconds,
    standbyLagSecondsMost: most(health.standbys.map(({ lagSeconds }) => lagSeconds)),
    slotRetainedBytesMost: most(health.slots.map(({ retainedBytes }) => retainedBytes)),
    oldestFrozenXidAge: health.oldestFrozenXidAge,
    archiverFailures: health.archiverFailures,
    checksumFailures: health.checksumFailures,
    clockOffsetSeconds: Math.abs(Math.round((health.serverTimeMs - nowMs) / 1000)),
  }
}

function most(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null)
  return known.length === 0 ? null : Math.max(...known)
}

/** Whether it answers, and how much room it has. */
async function lookAtStorage({ repository }: Configuration): Promise<Looked> {
  const [storage] = repository.storages
  if (storage === undefined) return { observation: { kind: 'failed', why: 'there is no storage' }, figures: {} }
  try {
    const { bsize, blocks, bavail } = await statfs(storage.path)
    const figures = {
      freeBytes: bsize * bavail,
      sizeBytes: bsize * blocks,
      freePercent: Math.floor((100 * bavail) / Math.max(1, blocks)),
    }
    return { observation: observeFigures(figures, STORAGE_THRESHOLDS), figures }
  } catch (error) {
    const code = systemErrorCode(error)
    if (code === undefined) throw error
    return { observation: { kind: 'failed', why: `"${storage.path}": ${code}` }, figures: {} }
  }
}
