import type { Random } from '../generator/random.ts'

/** Things that something may happen to next: at most so many; one more takes the place of any other. */
export class Pool<Item> {
  readonly #items: Item[] = []
  readonly #most: number

  constructor(most: number) {
    this.#most = most
  }

  get size(): number {
    return this.#items.length
  }

  add(random: Random, item: Item): void {
    if (this.#items.length < this.#most) this.#items.push(item)
    else this.#items[random.whole(0, this.#most - 1)] = item
  }

  /** Any one, which stays. */
  peek(random: Random): Item | undefined {
    return this.#items.length === 0 ? undefined : random.pick(this.#items)
  }

  /** Any one, which nobody else gets: two changes of one thing at once would refuse each other. */
  take(random: Random): Item | undefined {
    if (this.#items.length === 0) return undefined
    const index = random.whole(0, this.#items.length - 1)
    const taken = this.#items[index]
    const last = this.#items.pop()
    if (index < this.#items.length && last !== undefined) this.#items[index] = last
    return taken
  }

  clear(): void {
    this.#items.length = 0
  }
}
