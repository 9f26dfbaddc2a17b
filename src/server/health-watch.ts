import type { Clock } from '../clock.ts'
import type { Configuration } from '../config/configuration.ts'
import { resolveComponent } from '../config/open.ts'
import { Failure } from '../errors.ts'
import { HealthSession } from '../protect/postgres/health.ts'
import type { Availability } from '../recovery/availability.ts'
import { nextHealth, unknownHealth, type Health } from '../recovery/health.ts'
import { AvailabilityBook } from './availability-book.ts'
import type { Catalogue, ComponentPicture } from './catalogue.ts'
import {
  failed,
  lookAtCertificate,
  lookAtStorage,
  lookedAtBackup,
  lookedAtCertificate,
  lookedAtClocks,
  lookedAtDatabase,
  lookedAtProof,
  lookedAtReceiver,
  storageOffsetSeconds,
  type Figures,
  type Looked,
} from './health-looks.ts'
import { componentKey } from './component-key.ts'
import type { Receivers } from './receivers.ts'
import type { SizeWatch } from './size-watch.ts'

/** What is looked at of each component, of each system, and of Resus itself. */
export const WATCHED_THINGS = ['database', 'receiver', 'backup', 'proof', 'storage', 'clock', 'certificate'] as const

/** One thing that is watched. */
export interface WatchedView {
  /** "Resus" for what is its own. */
  readonly system: string
  readonly component: string | null
  readonly thing: (typeof WATCHED_THINGS)[number]
  readonly health: Health
  /** The last figures, with their units in their names. */
  readonly figures: Figures
}

export const OWN_SYSTEM = 'Resus'
/** Above the time limits of a look at a server. */
const LOOK_LIMIT_MS = 10_000
const VIEW_HOLDS_MS = 30_000
const STORAGE_CLOCK_MS = 60_000
const SPREAD_MS = 3_500
const PAUSE_MS = 5_000
/** After a start receivers connect, and everything is looked at more often, so that it is soon known to be well. */
const BEGINNING_MS = 15_000
const BEGINNING_PAUSE_MS = 1_000
const RENEWED_BEFORE_MS = 31 * 24 * 3_600_000
const RENEWAL_LOOK_MS = 600_000

type What = Pick<WatchedView, 'system' | 'component' | 'thing'>

/** Of a server, what other looks need. */
interface Seen {
  readonly offsetSeconds: number
  readonly certificateEndsMs: number | null
}

/** Looks at everything every few seconds; each thing has a state of its own, and one bad look changes none of them. */
export class HealthWatch {
  readonly #catalogue: Catalogue
  readonly #receivers: Receivers
  readonly #clock: Clock
  readonly #startedMs: number
  readonly #watched = new Map<string, WatchedView>()
  readonly #sessions = new Map<string, { readonly session: HealthSession; readonly to: string; readonly sinceMs: number }>()
  readonly #storageLooks = new Map<string, Promise<Looked>>()
  readonly #directory: string
  #availability: AvailabilityBook | undefined
  readonly #seen = new Map<string, Seen>()
  readonly #storageClocks = new Map<string, { readonly offsetSeconds: number | null; readonly atMs: number }>()
  readonly #sizes: SizeWatch
  readonly #certificate: string | undefined

  constructor(options: {
    readonly catalogue: Catalogue
    readonly receivers: Receivers
    readonly sizes: SizeWatch
    readonly clock: Clock
    /** Of the state: where availability is kept. */
    readonly directory: string
    /** The file of the API's own certificate. */
    readonly certificate: string | undefined
  }) {
    this.#catalogue = options.catalogue
    this.#receivers = options.receivers
    this.#sizes = options.sizes
    this.#clock = options.clock
    this.#startedMs = options.clock.now()
    this.#directory = options.directory
    this.#certificate = options.certificate
  }

  views(): WatchedView[] {
    const now = this.#clock.now()
    return [...this.#watched.values()].map((view) => {
      if (now - view.health.lookedMs <= VIEW_HOLDS_MS) return view
      return { ...view, health: { ...view.health, state: 'unknown', why: 'nobody has looked at it for a while' } }
    })
  }

  /** Of the database, in the last 30 days; null before the first look. */
  availability(system: string, component: string): Availability | null {
    return this.#availability?.measure(componentKey(system, component)) ?? null
  }

  /** Whether the API has a certificate, looked at already or not. */
  get hasCertificate(): boolean {
    return this.#certificate !== undefined
  }

  /** Until the next look. */
  get pauseMs(): number {
    return this.#begins ? BEGINNING_PAUSE_MS : PAUSE_MS
  }

  get #begins(): boolean {
    return this.#clock.now() - this.#startedMs < BEGINNING_MS
  }

  /** Looks at components one behind the other, all within a few seconds: at once they would hold up whoever asks us something. */
  async look(signal: AbortSignal): Promise<void> {
    this.#availability ??= await AvailabilityBook.open(this.#directory, this.#clock)
    const pictures = this.#catalogue.pictures()
    const apartMs = this.#begins ? 0 : SPREAD_MS / pictures.length
    await Promise.all([
      ...pictures.map(async (picture, index) => {
        if (index > 0) await this.#clock.sleep(index * apartMs, signal)
        await this.#lookAtComponent(picture)
      }),
      ...this.#catalogue.systems.map(async (configuration) => this.#lookAtSystem(configuration)),
      this.#lookAtOwn(),
    ])
    this.#forget()
    await this.#availability.keep(new Set(pictures.map(({ system, component }) => componentKey(system, component.name))))
  }

  async #lookAtComponent(picture: ComponentPicture): Promise<void> {
    const of = { system: picture.system, component: picture.component.name }
    const now = this.#clock.now()
    await this.#look({ ...of, thing: 'database' }, async () => this.#database(picture))
    const receiver = lookedAtReceiver(picture, this.#receivers.picture(of.system, of.component))
    if (receiver.observation.kind !== 'failed' || !this.#begins) this.#note({ ...of, thing: 'receiver' }, receiver)
    this.#note({ ...of, thing: 'backup' }, lookedAtBackup(picture, now))
    this.#note({ ...of, thing: 'proof' }, lookedAtProof(picture, now))
    const seen = this.#seen.get(componentKey(of.system, of.component))
    // Of a server that does not answer nobody can tell: what was known stays as it was.
    if (seen === undefined) return
    const ends = seen.certificateEndsMs
    this.#note({ ...of, thing: 'certificate' }, ends === null ? undefined : lookedAtCertificate(ends, now))
  }

  async #lookAtSystem(configuration: Configuration): Promise<void> {
    const { system, components } = configuration
    await this.#look({ system, component: null, thing: 'storage' }, async () => this.#storage(configuration))
    const offsets = components.flatMap(({ name }) => this.#seen.get(componentKey(system, name))?.offsetSeconds ?? [])
    const clocks = lookedAtClocks({
      databaseOffsetSeconds: offsets.length === 0 ? null : Math.max(...offsets),
      storageOffsetSeconds: this.#storageClocks.get(system)?.offsetSeconds ?? null,
    })
    this.#note({ system, component: null, thing: 'clock' }, clocks)
  }

  async #lookAtOwn(): Promise<void> {
    const certificate = this.#certificate
    if (certificate === undefined) return
    const what = { system: OWN_SYSTEM, component: null, thing: 'certificate' } as const
    await this.#look(what, async () => lookAtCertificate(certificate, this.#clock.now()))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const key of this.#sessions.keys()) await this.#disconnect(key)
  }

  async #look(what: What, look: () => Promise<Looked>): Promise<void> {
    this.#note(what, await this.#inTime(look))
  }

  /** Undefined: there is no such thing, or nobody can tell. */
  #note(what: What, looked: Looked | undefined): void {
    const key = JSON.stringify([what.system, what.component, what.thing])
    if (looked === undefined) {
      this.#watched.delete(key)
      return
    }
    const { observation, figures } = looked
    const now = this.#clock.now()
    const before = this.#watched.get(key)
    // Three strikes take their time, also while we look more often.
    const isEarly = this.#begins && before !== undefined && now - before.health.lookedMs < PAUSE_MS
    if (observation.kind === 'failed' && isEarly) return
    const health = nextHealth(before?.health ?? unknownHealth(now), observation, now)
    const kept = observation.kind === 'failed' ? { ...before?.figures, ...figures } : figures
    this.#watched.set(key, { ...what, health, figures: kept })
    if (what.thing !== 'database' || what.component === null) return
    this.#availability?.note(componentKey(what.system, what.component), observation.kind === 'failed' ? 'down' : 'up')
  }

  /** A mount that hangs answers nothing at all, for ever: the others are looked at all the same. */
  async #inTime(look: () => Promise<Looked>): Promise<Looked> {
    const late = new AbortController()
    const limit = this.#clock
      .sleep(LOOK_LIMIT_MS, late.signal)
      .then((): Looked => failed(`it did not answer within ${LOOK_LIMIT_MS / 1000} s`, {}))
    limit.catch(() => undefined)
    try {
      return await Promise.race([look(), limit])
    } finally {
      late.abort()
    }
  }

  async #database({ system, component }: ComponentPicture): Promise<Looked> {
    const key = componentKey(system, component.name)
    try {
      const session = await this.#session(key, component)
      const health = await session.read()
      const offsetSeconds = Math.abs(Math.round((health.serverTimeMs - this.#clock.now()) / 1000))
      this.#seen.set(key, { offsetSeconds, certificateEndsMs: session.certificateEndsMs() })
      return lookedAtDatabase(health)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#seen.delete(key)
      await this.#disconnect(key)
      return failed(error.message, {})
    }
  }

  /** To where the configuration says now: what was connected to before may be another server. */
  async #session(key: string, component: ComponentPicture['component']): Promise<HealthSession> {
    const { connection } = await resolveComponent(component)
    const to = connection.reveal().toString('utf8')
    const known = this.#sessions.get(key)
    if (known?.to === to && !this.#mayHaveRenewed(known)) return known.session
    await this.#disconnect(key)
    const session = await HealthSession.connect({ component: component.name, connectionString: to })
    this.#sessions.set(key, { session, to, sinceMs: this.#clock.now() })
    return session
  }

  /** A session has the certificate of its own beginning: where that ends soon, another may be in force since. */
  #mayHaveRenewed({ session, sinceMs }: { readonly session: HealthSession; readonly sinceMs: number }): boolean {
    const ends = session.certificateEndsMs()
    const now = this.#clock.now()
    return ends !== null && ends - now < RENEWED_BEFORE_MS && now - sinceMs > RENEWAL_LOOK_MS
  }

  async #disconnect(key: string): Promise<void> {
    const known = this.#sessions.get(key)
    this.#sessions.delete(key)
    await known?.session[Symbol.asyncDispose]()
  }

  /** One call at a time: each that hangs keeps one of the few threads that all file calls of this process share. */
  async #storage(configuration: Configuration): Promise<Looked> {
    const known = this.#storageLooks.get(configuration.system)
    if (known !== undefined) return await known
    const look = this.#lookAtStorage(configuration).finally(() => this.#storageLooks.delete(configuration.system))
    this.#storageLooks.set(configuration.system, look)
    return await look
  }

  async #lookAtStorage(configuration: Configuration): Promise<Looked> {
    const { system } = configuration
    const looked = await lookAtStorage(configuration, this.#sizes.daysLeft(system))
    const { sizeBytes, freeBytes } = looked.figures
    if (typeof sizeBytes === 'number' && typeof freeBytes === 'number') this.#sizes.noteStorage(system, { sizeBytes, freeBytes })
    const known = this.#storageClocks.get(system)
    if (known === undefined || this.#clock.now() - known.atMs > STORAGE_CLOCK_MS) {
      const offsetSeconds = await storageOffsetSeconds(configuration)
      this.#storageClocks.set(system, { offsetSeconds, atMs: this.#clock.now() })
    }
    return looked
  }

  /** What is configured no more is watched no more. */
  #forget(): void {
    const components = new Set(this.#catalogue.pictures().map(({ system, component }) => componentKey(system, component.name)))
    const systems = new Set([OWN_SYSTEM, ...this.#catalogue.systems.map(({ system }) => system)])
    for (const [key, { system, component }] of this.#watched) {
      const isThere = component === null ? systems.has(system) : components.has(componentKey(system, component))
      if (!isThere) this.#watched.delete(key)
    }
  }
}
