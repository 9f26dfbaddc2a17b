import { isStoreAway } from '../catalog/store.ts'
import { alarmKey, alarmOf } from './alarm-kinds.ts'
import type { AlarmBook } from './alarm-book.ts'
import type { Channel } from './channel.ts'
import { attemptDelivery, type DeliveryContext, type DeliveryReport } from './delivery.ts'

/** So many failures in a row on a channel are told on the others. */
const FAILURES_TOLD = 5

export interface CourierOptions extends DeliveryContext {
  readonly book: AlarmBook
  readonly onDelivery: (report: DeliveryReport) => void
  readonly onError: (error: unknown) => void
}

/** Brings deliveries to their channels: each channel at its own pace, one message at a time. */
export class Courier {
  readonly #options: CourierOptions
  readonly #running = new Map<string, Promise<void>>()
  readonly #failures = new Map<string, number>()

  constructor(options: CourierOptions) {
    this.#options = options
  }

  /** Sends what is due on a channel, unless that is being done. */
  send(channel: Channel): void {
    if (this.#running.has(channel.name)) return
    const running = this.#sendDue(channel)
      .catch((error: unknown) => {
        // Of a store that is away the rounds take note.
        if (!isStoreAway(error) && !this.#options.signal.aborted) this.#options.onError(error)
      })
      .finally(() => this.#running.delete(channel.name))
    this.#running.set(channel.name, running)
  }

  /** Resolves when nothing is being sent any more; abort the signal first. */
  async settle(): Promise<void> {
    await Promise.all(this.#running.values())
  }

  async #sendDue(channel: Channel): Promise<void> {
    while (!this.#options.signal.aborted) {
      const report = await attemptDelivery(this.#options, channel)
      if (report === undefined) return
      this.#options.onDelivery(report)
      await this.#judge(report)
    }
  }

  async #judge({ channel, state, outcome, failure }: DeliveryReport): Promise<void> {
    const { book, signal } = this.#options
    const place = { system: 'Resus', subject: channel }
    if (state === 'sent') {
      this.#failures.delete(channel)
      const key = alarmKey('CHANNEL_FAILED', place)
      if (book.isOpen(key)) await book.clear(key, `the channel "${channel}" works`)
      return
    }
    if (signal.aborted) return
    const failures = (this.#failures.get(channel) ?? 0) + 1
    this.#failures.set(channel, failures)
    const isTold = failures >= FAILURES_TOLD || failure === 'CHANNEL_REFUSED' || state === 'given-up'
    if (isTold) await book.raise(alarmOf('CHANNEL_FAILED', { ...place, text: `the channel "${channel}": ${outcome}` }))
  }
}
