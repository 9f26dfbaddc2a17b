import { setTimeout as delay } from 'node:timers/promises'
import { isStoreAway, type Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'

/** Work with a store that may be away, also in the manner of one that takes connections and never answers. */
export class StoreReach {
  readonly #clock: Clock
  readonly #timeoutMs: number
  #store: Store | undefined
  #awaySince: number | undefined

  constructor(store: Store | undefined, options: { clock: Clock; timeoutMs: number }) {
    this.#store = store
    this.#clock = options.clock
    this.#timeoutMs = options.timeoutMs
    if (store === undefined) this.#awaySince = options.clock.now()
  }

  /** The store that is used from now on. */
  attach(store: Store): void {
    this.#store = store
  }

  /** How long the store is away, as far as was seen; undefined when it is not. */
  get awayMs(): number | undefined {
    return this.#awaySince === undefined ? undefined : this.#clock.now() - this.#awaySince
  }

  /** Throws STORE_UNREACHABLE when it is away or does not answer in time: what was begun may then still happen. */
  async use<Value>(work: (store: Store) => Promise<Value>): Promise<Value> {
    try {
      const value = await this.#inTime(work)
      this.#awaySince = undefined
      return value
    } catch (error) {
      if (!isStoreAway(error)) throw error
      this.#awaySince ??= this.#clock.now()
      if (error instanceof Failure) throw error
      throw new Failure('STORE_UNREACHABLE', 'the store does not answer', { hint: 'see to its PostgreSQL', cause: error })
    }
  }

  async #inTime<Value>(work: (store: Store) => Promise<Value>): Promise<Value> {
    if (this.#store === undefined) throw new Failure('STORE_UNREACHABLE', 'there is no store yet')
    const done = new AbortController()
    const working = work(this.#store).finally(() => done.abort())
    const late = delay(this.#timeoutMs, undefined, { signal: done.signal }).then(
      () => {
        throw new Failure('STORE_UNREACHABLE', `the store did not answer within ${this.#timeoutMs / 1000} s`)
      },
      // The work was done first: it decides.
      async () => await working,
    )
    // Of two that fail, one is nobody's.
    working.catch(() => undefined)
    return await Promise.race([working, late])
  }
}
