/** What several workers take from, each what comes next. After a failure of one nothing more is taken. */
export class SharedQueue<T> {
  readonly #items: T[]
  #next = 0

  constructor(items: readonly T[]) {
    this.#items = [...items]
  }

  /** Visits, one after the other, what nobody else has taken, until nothing is left. */
  async work(visit: (item: T) => Promise<void>): Promise<void> {
    try {
      while (this.#next < this.#items.length) await visit(this.#items[this.#next++]!)
    } catch (error) {
      this.#next = this.#items.length
      throw error
    }
  }
}

/** Waits until all have settled, and throws the first failure. */
export async function allSettled(works: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(works)).find((each) => each.status === 'rejected')
  if (failed !== undefined) throw failed.reason
}
