/** What is to come, given back earliest first; of one time, in the order in which it was put in. */
export class TimeQueue<Item> {
  readonly #heap: { readonly atMs: number; readonly number: number; readonly item: Item }[] = []
  #number = 0

  get size(): number {
    return this.#heap.length
  }

  /** Infinity when there is nothing. */
  get earliestMs(): number {
    return this.#heap[0]?.atMs ?? Infinity
  }

  push(atMs: number, item: Item): void {
    this.#heap.push({ atMs, number: (this.#number += 1), item })
    let at = this.#heap.length - 1
    while (at > 0 && this.#isBefore(at, (at - 1) >> 1)) at = this.#swap(at, (at - 1) >> 1)
  }

  pop(): Item | undefined {
    const first = this.#heap[0]
    const last = this.#heap.pop()
    if (first === undefined || last === undefined || this.#heap.length === 0) return first?.item
    this.#heap[0] = last
    for (let at = 0; ;) {
      let least = at
      for (const child of [2 * at + 1, 2 * at + 2]) if (child < this.#heap.length && this.#isBefore(child, least)) least = child
      if (least === at) return first.item
      at = this.#swap(at, least)
    }
  }

  #isBefore(a: number, b: number): boolean {
    const [left, right] = [this.#heap[a]!, this.#heap[b]!]
    return left.atMs === right.atMs ? left.number < right.number : left.atMs < right.atMs
  }

  /** Gives `b`. */
  #swap(a: number, b: number): number {
    const kept = this.#heap[a]!
    this.#heap[a] = this.#heap[b]!
    this.#heap[b] = kept
    return b
  }
}
