import { fork, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import type { Clock } from '../clock.ts'
import type { Configuration } from '../config/configuration.ts'
import { componentKey } from './component-key.ts'

const MAIN = fileURLToPath(new URL('receivers-main.ts', import.meta.url))
/**
 * For glibc (mallopt(3)): freed buffers go back to the system at once. Of twenty receivers that had a backlog it kept 900 MiB for ever, of
 * which 120 were in use. Others pass it over.
 */
const GIVES_BACK_MEMORY = { MALLOC_ARENA_MAX: '1', MALLOC_TRIM_THRESHOLD_: '131072', MALLOC_MMAP_THRESHOLD_: '65536' }
const RESTART_MS_MIN = 500
const RESTART_MS_MAX = 15_000
/** Longer than that it was at work: the next end is another story. */
const STEADY_MS = 60_000
const END_GRACE_MS = 20_000
const EXPOSURE_HOLDS_MS = 15_000
const SILENT_MS = 20_000

/** What the receivers' process tells. */
export type ReceiverMessage =
  | {
      readonly kind: 'event'
      readonly system: string
      readonly component: string
      readonly at: number
      readonly event: Readonly<Record<string, unknown>>
    }
  | {
      readonly kind: 'exposures'
      readonly system: string
      readonly component: string
      /** `Exposures` of the heartbeat's tracker, as JSON. */
      readonly exposures: object
      readonly trouble: { readonly code: string; readonly message: string; readonly hint: string | null } | null
    }
  | {
      readonly kind: 'ended'
      readonly system: string
      readonly component: string
      readonly code: string
      readonly message: string
    }

/** What is known of one receiver. Positions are PostgreSQL's text. */
export interface ReceiverPicture {
  readonly state: 'starting' | 'receiving' | 'disconnected' | 'ended'
  readonly acknowledgedLsn: string | null
  readonly archivedLsn: string | null
  /** When something was last heard of it. */
  readonly at: string
  /** Alarms that are not over, by code. */
  readonly alarms: Readonly<Record<string, string>>
  readonly problem: string | null
}

const beatSchema = z.object({ at: z.coerce.date() })
const exposureSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('measured'), seconds: z.number(), beat: beatSchema }),
  z.object({ kind: z.literal('not proven'), why: z.string(), atLeastSeconds: z.number() }),
])
const exposuresSchema = z.object({
  repository: exposureSchema,
  spool: exposureSchema,
  newest: beatSchema.nullable(),
  beating: z.boolean(),
})

/** What would be lost now, by the heartbeat, as it was said a moment ago. */
export interface ExposureReport {
  readonly atMs: number
  readonly exposures: z.infer<typeof exposuresSchema>
  /** Why it cannot beat. */
  readonly trouble: { readonly code: string; readonly message: string; readonly hint: string | null } | null
}

export interface ReceiversOptions {
  /** Of the configuration that is in force. */
  readonly configPath: () => string
  readonly clock: Clock
  readonly onMessage: (message: ReceiverMessage) => void
  readonly report: (text: string) => void
}

/** Keeps the process of the receivers at work. */
export class Receivers {
  readonly #options: ReceiversOptions
  readonly #pictures = new Map<string, ReceiverPicture>()
  readonly #exposures = new Map<string, ExposureReport>()
  #child: ChildProcess | undefined
  #wanted = '[]'
  #configured: string | undefined

  constructor(options: ReceiversOptions) {
    this.#options = options
  }

  picture(system: string, component: string): ReceiverPicture | undefined {
    const key = componentKey(system, component)
    const picture = this.#pictures.get(key)
    if (picture?.state !== 'receiving') return picture
    // Its process says something every few seconds: one that is silent is stuck, whatever it said last.
    const heardMs = this.#exposures.get(key)?.atMs ?? Date.parse(picture.at)
    if (this.#options.clock.now() - heardMs <= SILENT_MS) return picture
    return { ...picture, state: 'disconnected', problem: "the receivers' process says nothing any more" }
  }

  /** What would be lost now; undefined while nobody says, or it is too old to be true. */
  exposure(system: string, component: string): ExposureReport | undefined {
    const report = this.#exposures.get(componentKey(system, component))
    return report === undefined || this.#options.clock.now() - report.atMs > EXPOSURE_HOLDS_MS ? undefined : report
  }

  /** Whether it is to receive a component's WAL. */
  wants(system: string, component: string): boolean {
    return (JSON.parse(this.#wanted) as string[]).includes(componentKey(system, component))
  }

  /** Receives for these components from now on; when they are others than before, the process is started again. */
  want(components: readonly { readonly system: string; readonly component: string }[]): void {
    const wanted = JSON.stringify(components.map(({ system, component }) => componentKey(system, component)).toSorted())
    if (wanted === this.#wanted) return
    this.#wanted = wanted
    const names = new Set(JSON.parse(wanted) as string[])
    // Of what others receive from now on, they say how it is.
    for (const key of this.#pictures.keys()) if (!names.has(key)) this.#pictures.delete(key)
    this.#endChild()
  }

  /** The process reads the files itself: it is started again where what it needs of them has changed, and only then. */
  configure(systems: readonly Configuration[]): void {
    const configured = JSON.stringify(
      systems.map(({ path, system, state, repository, components }) => {
        const receiving = components.map(({ name, kind, connection, dataDirectory, stream }) => ({
          name,
          kind,
          connection,
          dataDirectory,
          stream,
        }))
        return { path, system, state, repository, receiving }
      }),
    )
    if (this.#configured !== undefined && configured !== this.#configured) this.#endChild()
    this.#configured = configured
  }

  /** In good order; and by force when it does not go: another may be told to receive. */
  #endChild(): void {
    const child = this.#child
    if (child === undefined) return
    child.kill('SIGTERM')
    const killer = setTimeout(() => child.kill('SIGKILL'), END_GRACE_MS)
    child.once('exit', () => clearTimeout(killer))
  }

  /** Until the signal aborts; then the process ends in good order. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, report } = this.#options
    let waitMs = RESTART_MS_MIN
    while (!signal.aborted) {
      if (this.#wanted === '[]') {
        await clock.sleep(RESTART_MS_MIN, signal).catch(() => undefined)
        continue
      }
      const startedAt = clock.now()
      const wanted = this.#wanted
      const how = await this.#runOnce(wanted, signal)
      if (signal.aborted) return
      if (wanted !== this.#wanted) continue
      waitMs = clock.now() - startedAt > STEADY_MS ? RESTART_MS_MIN : Math.min(waitMs * 2, RESTART_MS_MAX)
      report(`the receivers' process ended (${how}); it is started again in ${waitMs} ms`)
      await clock.sleep(waitMs, signal).catch(() => undefined)
    }
  }

  async #runOnce(wanted: string, signal: AbortSignal): Promise<string> {
    const child = fork(MAIN, [this.#options.configPath(), wanted], {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      detached: true,
      env: { ...GIVES_BACK_MEMORY, ...process.env },
    })
    this.#child = child
    const end = () => this.#endChild()
    signal.addEventListener('abort', end, { once: true })
    child.on('message', (message) => this.#hear(message as ReceiverMessage))
    try {
      return await new Promise<string>((settle) => {
        child.once('error', (error) => settle(error.message))
        child.once('exit', (code, by) => settle(by ?? `status ${code}`))
      })
    } finally {
      signal.removeEventListener('abort', end)
      this.#child = undefined
      for (const [key, picture] of this.#pictures) {
        this.#pictures.set(key, { ...picture, state: 'ended', problem: "the receivers' process has ended" })
      }
    }
  }

  #hear(message: ReceiverMessage): void {
    const key = componentKey(message.system, message.component)
    if (message.kind === 'exposures') {
      const parsed = exposuresSchema.safeParse(message.exposures)
      if (!parsed.success) return
      this.#exposures.set(key, {
        atMs: this.#options.clock.now(),
        exposures: parsed.data,
        trouble: message.trouble,
      })
      return
    }
    const before = this.#pictures.get(key) ?? NOTHING
    this.#pictures.set(key, next(before, message, new Date(this.#options.clock.now()).toISOString()))
    this.#options.onMessage(message)
  }
}

const NOTHING: ReceiverPicture = {
  state: 'starting',
  acknowledgedLsn: null,
  archivedLsn: null,
  at: '',
  alarms: {},
  problem: null,
}

function next(before: ReceiverPicture, message: Exclude<ReceiverMessage, { kind: 'exposures' }>, at: string): ReceiverPicture {
  if (message.kind === 'ended') return { ...before, at, state: 'ended', problem: `${message.message} (${message.code})` }
  const { event } = message
  const picture = { ...before, at }
  const text = (name: string) => (typeof event[name] === 'string' ? event[name] : '')
  switch (event['kind']) {
    case 'connected':
    case 'switched':
      return { ...picture, state: 'receiving', problem: null }
    case 'acknowledged':
      return { ...picture, state: 'receiving', acknowledgedLsn: text('lsn'), problem: null }
    case 'archived':
      return { ...picture, archivedLsn: text('lsn') }
    case 'alarm':
      return { ...picture, alarms: { ...before.alarms, [text('code')]: text('message') } }
    case 'cleared':
      return { ...picture, alarms: Object.fromEntries(Object.entries(before.alarms).filter(([code]) => code !== text('code'))) }
    case 'disconnected':
      return { ...picture, state: 'disconnected', problem: text('message') }
    case 'stopped':
      return { ...picture, state: 'ended' }
    default:
      return picture
  }
}
