import { randomInt } from 'node:crypto'
import type { TestContext } from 'node:test'

/** Numbers that are the same for the same seed (mulberry32). */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** At least 0, less than 1. */
  fraction(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  /** A whole number, at least 0 and less than `bound`. */
  below(bound: number): number {
    return Math.floor(this.fraction() * bound)
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!
  }
}

/** A new seed, or the one of `RESUS_SEED`: to see a failure again, run the test with the seed that it printed. */
export function testSeed(t: Pick<TestContext, 'diagnostic'>): number {
  const seed = Number(process.env.RESUS_SEED ?? randomInt(1_000_000))
  t.diagnostic(`seed ${seed}`)
  return seed
}
