import { isStoreAway, type Store } from '../catalog/store.ts'
import { Failure } from '../errors.ts'
import type { StoreHome } from './store-home.ts'
import type { TaskQueue } from './task-queue.ts'

/** Begins the store and its queue as soon as they are there, and keeps our own running. */
export class StoreKeeper {
  readonly #home: StoreHome
  readonly #store: Store
  readonly #queue: TaskQueue
  readonly #report: (text: string) => void
  #problem: string | null = null

  constructor(options: {
    readonly home: StoreHome
    readonly store: Store
    readonly queue: TaskQueue
    readonly report: (text: string) => void
  }) {
    this.#home = options.home
    this.#store = options.store
    this.#queue = options.queue
    this.#report = options.report
  }

  /** What keeps work from beginning, as of the last look; null when nothing does. */
  get problem(): string | null {
    return this.#problem
  }

  /** At a start: receiving needs no store, and begins without one that is away. Throws what is wrong with a store that is there. */
  async begin(): Promise<void> {
    try {
      await this.#begin()
    } catch (error) {
      // In a store of our own nobody but us has anything to mend: it is as good as away, whatever it says.
      const isBroken = this.#home.isOwn && !(error instanceof Failure)
      if (!isStoreAway(error) && !isBroken) throw error
      this.#note(error)
    }
  }

  /** Looks again. */
  async look(): Promise<void> {
    try {
      // First: without a server there is nothing to begin with.
      await this.#home.keep()
      if (this.#queue.isThere) return this.#noteThere()
      await this.#begin()
      this.#noteThere()
    } catch (error) {
      this.#note(error)
    }
  }

  async #begin(): Promise<void> {
    await this.#store.begin()
    await this.#queue.begin()
  }

  #noteThere(): void {
    if (this.#problem !== null) this.#report('the store is there')
    this.#problem = null
  }

  /** Says so once; below its first line is what the server has logged, with the time. */
  #note(error: unknown): void {
    const problem = error instanceof Error ? error.message : String(error)
    if (firstLine(problem) !== firstLine(this.#problem ?? ''))
      this.#report(`the store is away, and WAL is received without it: ${problem}`)
    this.#problem = problem
  }
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? ''
}
