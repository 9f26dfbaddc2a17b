import { startEmbeddedStore, type EmbeddedStore } from '../catalog/embedded-store.ts'
import { Failure } from '../errors.ts'

/** Where the store is: in a PostgreSQL that was named, or in one of our own, which is then kept running. */
export class StoreHome implements AsyncDisposable {
  readonly #state: string
  readonly #databaseUrl: string | undefined
  readonly #signal: AbortSignal
  #embedded: EmbeddedStore | undefined

  constructor(options: { readonly state: string; readonly databaseUrl?: string | undefined; readonly signal: AbortSignal }) {
    this.#state = options.state
    this.#databaseUrl = options.databaseUrl
    this.#signal = options.signal
  }

  /** Whether no other node can use it. */
  get isOwn(): boolean {
    return this.#databaseUrl === undefined
  }

  /** How to connect to it. Throws STORE_UNREACHABLE where our own does not start, and what else `startEmbeddedStore` throws. */
  async find(): Promise<string> {
    if (this.#databaseUrl !== undefined) return this.#databaseUrl
    try {
      this.#embedded ??= await startEmbeddedStore(this.#state, this.#signal)
      return this.#embedded.connectionString
    } catch (error) {
      if (!(error instanceof Failure) || error.code !== 'POSTGRES_FAILED') throw error
      throw new Failure('STORE_UNREACHABLE', `the store does not start: ${error.message}`, {
        hint: `see "${this.#state}/store.log"; where it is beyond repair, move "${this.#state}/store" away: the next start fills an empty one`,
        cause: error,
      })
    }
  }

  /** Starts our own again when it has ended. */
  async keep(): Promise<void> {
    await this.#embedded?.ensureRunning(this.#signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#embedded?.[Symbol.asyncDispose]()
  }
}
