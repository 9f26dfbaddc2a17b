import { listOpenAlarms, type AlarmRow } from '../catalog/alarms.ts'
import {
  dueWork,
  forgetNotices,
  giveUpDeliveries,
  listNotices,
  makeNotice,
  type DeliveryPlan,
  type NoticeRow,
} from '../catalog/notices.ts'
import { isStoreAway, type Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import type { Alarm } from './alarm.ts'
import { AlarmBook } from './alarm-book.ts'
import type { Channel } from './channel.ts'
import { Courier } from './courier.ts'
import { DailyDigest, type DigestOptions } from './daily-digest.ts'
import type { DeliveryReport } from './delivery.ts'
import { messageFor, noticeOf, noticeOfHeld } from './outbox.ts'
import { GIVE_UP_AFTER_MS } from './retry-delay.ts'
import { sendMessage, sendTest } from './send.ts'
import { StoreReach } from './store-reach.ts'

const GROUP_MS = 10_000
const REMIND_AFTER_MS = 24 * 3_600_000
const POLL_MS = 1_000
const DIRECT_AFTER_MS = 30_000
const STORE_TIMEOUT_MS = 10_000
const UPKEEP_EVERY_MS = 60_000
const KEEP_MS = 400 * 24 * 3_600_000
/** In rounds. */
const DIGEST_EVERY = 30

export interface NoticesOptions {
  /** Without one, or while it is away, alarms are held in memory; `attach` brings one later. */
  readonly store?: Store | undefined
  /** Who claims deliveries. */
  readonly node: string
  readonly clock: Clock
  readonly channels: readonly Channel[]
  /** What opens or ends within this time of the first goes out together; 10 s. */
  readonly groupMs?: number
  /** What is still so after this is told again; 24 h. */
  readonly remindAfterMs?: number
  readonly pollMs?: number
  /** So long the store may be away until alarms go out without it; 30 s. */
  readonly directAfterMs?: number
  readonly storeTimeoutMs?: number
  readonly digest?: DigestOptions
  /** Told of every attempt. */
  readonly onDelivery?: (report: DeliveryReport) => void
  /** Told of what was not foreseen; the next round goes on. */
  readonly onError?: (error: unknown) => void
}

/**
 * Tells people what is wrong, once, and that it is over. Alarms, notices and deliveries are in the store before anything is sent: a crash loses none,
 * and at worst one comes twice, with the same id. Of several nodes on one store, one sends each. Dispose it: what is on its way is broken off and goes on at the next start.
 */
export class Notices implements AsyncDisposable {
  readonly #options: NoticesOptions
  readonly #reach: StoreReach
  readonly #book: AlarmBook
  readonly #courier: Courier
  readonly #stop = new AbortController()
  #channels: readonly Channel[]
  #running: Promise<unknown> = Promise.resolve()
  #upkeepAt = Number.NEGATIVE_INFINITY

  private constructor(options: NoticesOptions) {
    const { clock, node } = options
    this.#options = options
    this.#channels = options.channels
    const reach = new StoreReach(options.store, { clock, timeoutMs: options.storeTimeoutMs ?? STORE_TIMEOUT_MS })
    const book = new AlarmBook({
      reach,
      clock,
      groupMs: this.#groupMs,
      remindAfterMs: options.remindAfterMs ?? REMIND_AFTER_MS,
    })
    this.#reach = reach
    this.#book = book
    this.#courier = new Courier({
      reach,
      book,
      node,
      clock,
      signal: this.#stop.signal,
      onDelivery: options.onDelivery ?? (() => undefined),
      onError: options.onError ?? (() => undefined),
    })
  }

  static start(options: NoticesOptions): Notices {
    const notices = new Notices(options)
    notices.#running = Promise.all([notices.#rounds(), notices.#digests()])
    return notices
  }

  /** Something is wrong, or still so. "held" while the store is away. Throws nothing that a watcher should care for. */
  async raise(alarm: Alarm): Promise<'kept' | 'held'> {
    return await this.#book.raise(alarm)
  }

  /** It is over, or was never so. */
  async clear(key: string, text?: string): Promise<'kept' | 'held'> {
    return await this.#book.clear(key, text)
  }

  /** The store is there now, or another one. */
  attach(store: Store): void {
    this.#reach.attach(store)
  }

  /** The channels of a changed configuration. */
  setChannels(channels: readonly Channel[]): void {
    this.#channels = channels
  }

  /** Sends a message marked as a test at once, and gives the outcome in words. Throws CHANNEL_UNKNOWN. */
  async testChannel(name: string): Promise<{ delivered: boolean; words: string }> {
    const channel = this.#channels.find((each) => each.name === name)
    if (channel === undefined) {
      const known = this.#channels.map((each) => `"${each.name}"`).join(', ')
      throw new Failure('CHANNEL_UNKNOWN', `there is no channel "${name}"`, {
        hint: known === '' ? 'there are none' : `there are ${known}`,
      })
    }
    return await sendTest(channel, { clock: this.#options.clock, signal: this.#stop.signal })
  }

  /** Throws STORE_UNREACHABLE. */
  async openAlarms(): Promise<AlarmRow[]> {
    return await this.#reach.use(listOpenAlarms)
  }

  /** The newest notices, and what became of each. Throws STORE_UNREACHABLE. */
  async recent(page: { limit: number; before?: { madeAt: Date; id: string } }): Promise<NoticeRow[]> {
    return await this.#reach.use(async (store) => listNotices(store, page))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#running
    await this.#courier.settle()
  }

  get #pollMs(): number {
    return this.#options.pollMs ?? POLL_MS
  }

  get #groupMs(): number {
    return this.#options.groupMs ?? GROUP_MS
  }

  async #rounds(): Promise<void> {
    await this.#repeat(this.#pollMs, async () => this.#round())
  }

  /** Apart from the rounds: its figures may take a while, and alarms do not wait for them. */
  async #digests(): Promise<void> {
    const { digest: options, clock } = this.#options
    if (options === undefined) return
    const digest = new DailyDigest(options, { reach: this.#reach, clock })
    await this.#repeat(DIGEST_EVERY * this.#pollMs, async () => digest.makeDue(this.#channels, this.#stop.signal))
  }

  async #repeat(everyMs: number, work: () => Promise<void>): Promise<void> {
    const { signal } = this.#stop
    while (!signal.aborted) {
      try {
        await work()
      } catch (error) {
        if (!signal.aborted && !isStoreAway(error)) this.#options.onError?.(error)
      }
      // Ends early when we are told to stop.
      await this.#options.clock.sleep(everyMs, signal).catch(() => undefined)
    }
  }

  async #round(): Promise<void> {
    try {
      await this.#book.flush()
      await this.#sendDue()
      await this.#upkeep()
    } catch (error) {
      if (!isStoreAway(error)) throw error
      if ((this.#reach.awayMs ?? 0) >= (this.#options.directAfterMs ?? DIRECT_AFTER_MS)) await this.#sendDirectly()
    }
  }

  async #sendDue(): Promise<void> {
    const nowMs = this.#options.clock.now()
    const now = new Date(nowMs)
    const asked = { now, channels: this.#channels.map(({ name }) => name) }
    const first = await this.#reach.use(async (store) => dueWork(store, asked))
    if (first.alarms) await this.#group(nowMs)
    const { channels } = first.alarms ? await this.#reach.use(async (store) => dueWork(store, asked)) : first
    for (const channel of this.#channels) if (channels.includes(channel.name)) this.#courier.send(channel)
  }

  async #group(nowMs: number): Promise<void> {
    const now = new Date(nowMs)
    await this.#reach.use(async (store) =>
      makeNotice(store, {
        now,
        horizon: new Date(nowMs + this.#groupMs),
        remindAt: new Date(nowMs + (this.#options.remindAfterMs ?? REMIND_AFTER_MS)),
        compose: (alarms) => noticeOf(alarms, this.#channels, now),
      }),
    )
  }

  /** "The store is down" has to be told as well: once, as well as it goes, and written down when the store is back. */
  async #sendDirectly(): Promise<void> {
    const held = this.#book.tellHeld()
    if (held.length === 0) return
    const at = new Date(this.#options.clock.now())
    const plan = noticeOfHeld(held, this.#channels, at)
    const deliveries = await Promise.all(plan.deliveries.map(async (each) => this.#sendWithoutStore(each, plan.content)))
    this.#book.keepTold({ ...plan, deliveries }, at)
  }

  async #sendWithoutStore(delivery: DeliveryPlan, content: unknown): Promise<DeliveryPlan> {
    const channel = this.#channels.find(({ name }) => name === delivery.channel)
    if (channel === undefined || !channel.withoutStore) return delivery
    try {
      const message = messageFor(content, delivery.severities)
      const outcome = await sendMessage(channel, message, { clock: this.#options.clock, signal: this.#stop.signal })
      return { ...delivery, state: 'sent', outcome }
    } catch (error) {
      // It is tried again as any other, when the store is back.
      return { ...delivery, outcome: error instanceof Failure ? error.message : 'not sent' }
    }
  }

  async #upkeep(): Promise<void> {
    const nowMs = this.#options.clock.now()
    if (nowMs - this.#upkeepAt < UPKEEP_EVERY_MS) return
    this.#upkeepAt = nowMs
    const now = new Date(nowMs)
    await this.#reach.use(async (store) => giveUpDeliveries(store, { madeBefore: new Date(nowMs - GIVE_UP_AFTER_MS), now }))
    await this.#reach.use(async (store) => forgetNotices(store, new Date(nowMs - KEEP_MS)))
  }
}
