import { uuidFrom } from '../uuid.ts'

const WARM_UP_ROUNDS = 12
const TWO_TO_32 = 4_294_967_296

/**
 * Numbers that look random and are the same for the same seeds on every machine: sfc32 of Chris Doty-Humphrey's PractRand (public domain), which has
 * 128 bits of state. Not for secrets.
 */
export class Random {
  #a: number
  #b: number
  #c: number
  #counter = 1

  /** Two generators with other seeds have nothing to do with each other: a patient's history does not depend on how many patients there are. */
  constructor(seed: number, purpose = 0, number = 0) {
    this.#a = seed | 0
    this.#b = (Math.floor(seed / TWO_TO_32) ^ (purpose * 0x9e3779b9)) | 0
    this.#c = number | 0
    for (let round = 0; round < WARM_UP_ROUNDS; round += 1) this.next()
  }

  /** A whole number of 32 bits. */
  next(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0
    this.#counter = (this.#counter + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0
    return sum >>> 0
  }

  /** From 0 to just below 1. */
  fraction(): number {
    return this.next() / TWO_TO_32
  }

  chance(probability: number): boolean {
    return this.fraction() < probability
  }

  /** A whole number from `least` to `most`. */
  whole(least: number, most: number): number {
    return least + Math.floor(this.fraction() * (most - least + 1))
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[this.whole(0, items.length - 1)]!
  }

  /** The position of one of these weights, the heavier the likelier. */
  weighted(weights: readonly number[]): number {
    const total = weights.reduce((sum, each) => sum + each, 0)
    let left = this.fraction() * total
    const position = weights.findIndex((weight) => (left -= weight) < 0)
    return position === -1 ? weights.length - 1 : position
  }

  /** Around `mean`, as far as `deviation` mostly: the sum of three even numbers is near enough to a normal one, and stays within three deviations. */
  normal(mean: number, deviation: number): number {
    return mean + (this.fraction() + this.fraction() + this.fraction() - 1.5) * 2 * deviation
  }

  uuid(ms: number): string {
    for (let word = 0; word < 4; word += 1) SIXTEEN.writeUInt32BE(this.next(), word * 4)
    return uuidFrom(ms, SIXTEEN)
  }
}

const SIXTEEN = Buffer.alloc(16)
