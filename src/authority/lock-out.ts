import { isIPv4, isIPv6 } from 'node:net'
import { claimAttempt, releaseAttempt, type LockOutRule, type Person } from '../catalog/people.ts'
import type { Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'

const RULE: LockOutRule = { failures: 5, firstMs: 60_000, longestMs: 3_600_000 }
/** Failures that an address has at once, and how fast they come back. */
const ADDRESS_FAILURES = 30
const ADDRESS_REFILL_MS = 6_000
const ADDRESSES_MAX = 10_000
/** The id of nobody. */
const NOBODY = '00000000-0000-0000-0000-000000000000'

/**
 * Attempts of a person, counted as failed before anybody looks at what was given: a hundred at once are no more than a hundred in a row, and whoever kills us in
 * between has used theirs.
 */
export class Attempts {
  readonly #store: Store
  readonly #clock: Clock

  constructor({ store, clock }: { readonly store: Store; readonly clock: Clock }) {
    this.#store = store
    this.#clock = clock
  }

  /** Undefined while locked out, disabled, or for nobody; the statement is the same. */
  async claim(person: string | undefined): Promise<Person | undefined> {
    return await claimAttempt(this.#store.sql, { person: person ?? NOBODY, at: new Date(this.#clock.now()), rule: RULE })
  }

  async release(person: string): Promise<void> {
    await releaseAttempt(this.#store.sql, person)
  }
}

/** Slows down who goes on from one address, whatever the name. In memory, of this node alone. */
export class AddressAttempts {
  readonly #clock: Clock
  readonly #used = new Map<string, { failures: number; atMs: number }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Counts an attempt as failed until it is released. Throws LOCKED_OUT. */
  claim(address: string | null): { release(): void } {
    const key = networkOf(address)
    const nowMs = this.#clock.now()
    const found = this.#used.get(key)
    const back = found === undefined ? 0 : Math.max(nowMs - found.atMs, 0) / ADDRESS_REFILL_MS
    const failures = Math.max((found?.failures ?? 0) - back, 0)
    if (failures + 1 > ADDRESS_FAILURES) {
      throw new Failure('LOCKED_OUT', 'too many attempts to log on from this address have failed', {
        hint: 'wait a minute; if it was not you, somebody tries passwords from there',
      })
    }
    // Again, so that the oldest stays in front.
    this.#used.delete(key)
    const entry = { failures: failures + 1, atMs: nowMs }
    this.#used.set(key, entry)
    this.#forgetOldest()
    return { release: () => this.#release(key) }
  }

  #release(key: string): void {
    const entry = this.#used.get(key)
    if (entry !== undefined) entry.failures = Math.max(entry.failures - 1, 0)
  }

  #forgetOldest(): void {
    const [oldest] = this.#used.keys()
    if (this.#used.size > ADDRESSES_MAX && oldest !== undefined) this.#used.delete(oldest)
  }
}

/** Of IPv6, the network of 64 bits that anybody is given whole. */
function networkOf(address: string | null): string {
  if (address === null) return ''
  const mapped = /^::ffff:([\d.]+)$/i.exec(address)?.[1]
  if (mapped !== undefined && isIPv4(mapped)) return mapped
  const [plain = ''] = address.split('%')
  if (!isIPv6(plain)) return plain
  const [head = '', tail = ''] = plain.split('::')
  const front = head === '' ? [] : head.split(':')
  const back = tail === '' ? [] : tail.split(':')
  const middle = plain.includes('::') ? Array.from({ length: 8 - front.length - back.length }, () => '0') : []
  const groups = [...front, ...middle, ...back].slice(0, 4)
  return groups.map((group) => Number.parseInt(group, 16).toString(16)).join(':')
}
