import { randomUUID } from 'node:crypto'
import { clearAlarm, listOpenAlarms, raiseAlarm } from '../catalog/alarms.ts'
import { insertNotice, type NoticePlan } from '../catalog/notices.ts'
import { isStoreAway } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { cleanAlarm, cleanClearText, cleanKey, type Alarm } from './alarm.ts'
import { HeldAlarms, type HeldAlarm } from './held-alarms.ts'
import type { StoreReach } from './store-reach.ts'

export interface AlarmBookOptions {
  readonly reach: StoreReach
  readonly clock: Clock
  readonly groupMs: number
  readonly remindAfterMs: number
}

/** What is wrong: in the store, and in memory while that is away. One thing at a time, in the order in which it was said. */
export class AlarmBook {
  readonly #options: AlarmBookOptions
  readonly #held = new HeldAlarms()
  /** Open in the store, and when it was last said so: those are not told again only because the store is away. */
  readonly #open = new Map<string, number>()
  #loaded = false
  /** Sent directly: to be written before the alarms that they are about. */
  readonly #told: { plan: NoticePlan; at: Date }[] = []
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: AlarmBookOptions) {
    this.#options = options
  }

  isOpen(key: string): boolean {
    return this.#open.has(key)
  }

  async raise(given: Alarm): Promise<'kept' | 'held'> {
    const alarm = cleanAlarm(given)
    return await this.#inOrder(async () => {
      const at = this.#options.clock.now()
      const raised = { id: randomUUID(), alarm, firstAt: at, lastAt: at, count: 1, toldAt: undefined }
      return await this.#keepOrHold(
        async () => this.#write({ key: alarm.key, raised, cleared: undefined }),
        () => this.#held.raise(alarm, { at, toldAt: this.#open.get(alarm.key) }),
      )
    })
  }

  async clear(given: string, text?: string): Promise<'kept' | 'held'> {
    const key = cleanKey(given)
    return await this.#inOrder(async () => {
      const cleared = { at: this.#options.clock.now(), text: cleanClearText(text) }
      return await this.#keepOrHold(
        async () => this.#write({ key, raised: undefined, cleared }),
        () => this.#held.clear(key, cleared),
      )
    })
  }

  /** Writes to the store what was held. Throws STORE_UNREACHABLE; then the rest is still held. */
  async flush(): Promise<void> {
    await this.#inOrder(async () => {
      const { reach } = this.#options
      if (!this.#loaded) await this.#load()
      for (let next = this.#told[0]; next !== undefined; next = this.#told[0]) {
        const { plan, at } = next
        await reach.use(async (store) => insertNotice(store, plan, at))
        this.#told.shift()
      }
      for (const held of this.#held.list()) {
        await this.#write(held)
        this.#held.delete(held.key)
      }
    })
  }

  /** What nobody was told of, which from now on counts as told. */
  tellHeld(): readonly HeldAlarm[] {
    return this.#held.tell(this.#options.clock.now())
  }

  /** A notice about it, with what became of it, to be written when the store is back. */
  keepTold(plan: NoticePlan, at: Date): void {
    this.#told.push({ plan, at })
  }

  async #load(): Promise<void> {
    for (const { key, raised_at } of await this.#options.reach.use(listOpenAlarms)) this.#open.set(key, raised_at.getTime())
    this.#loaded = true
  }

  async #keepOrHold(keep: () => Promise<void>, hold: () => void): Promise<'kept' | 'held'> {
    // What is held comes first: an older word must not be written over a newer one.
    const direct = this.#held.size === 0 && this.#options.reach.awayMs === undefined
    try {
      if (direct) {
        await keep()
        return 'kept'
      }
    } catch (error) {
      if (!isStoreAway(error)) throw error
    }
    hold()
    return 'held'
  }

  async #write({ key, raised, cleared }: HeldAlarm): Promise<void> {
    const { reach, groupMs, remindAfterMs } = this.#options
    if (raised !== undefined) {
      const { alarm, id, count, firstAt, lastAt } = raised
      // Known to be open: the store says itself who was told of it.
      const toldAt = this.#open.has(key) ? undefined : raised.toldAt
      await reach.use(async (store) =>
        raiseAlarm(store, {
          ...alarm,
          id,
          count,
          component: alarm.component ?? null,
          code: alarm.code ?? null,
          openedAt: new Date(firstAt),
          raisedAt: new Date(lastAt),
          dueAt: new Date(firstAt + groupMs),
          toldAt: toldAt === undefined ? null : new Date(toldAt),
          remindAfterMs,
        }),
      )
      this.#open.set(key, lastAt)
    }
    if (cleared === undefined) return
    const { at, text } = cleared
    await reach.use(async (store) => clearAlarm(store, { key, at: new Date(at), dueAt: new Date(at + groupMs), text }))
    this.#open.delete(key)
  }

  async #inOrder<Value>(work: () => Promise<Value>): Promise<Value> {
    const before = this.#last
    const mine = before.then(work)
    this.#last = mine.catch(() => undefined)
    return await mine
  }
}
