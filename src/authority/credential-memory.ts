import type { Principal } from './principal.ts'

const FRESH_MS = 5_000
const AWAY_MS = 15 * 60_000
const ENTRIES_MAX = 5_000

/** A session of a browser, as its requests see it. */
export interface SessionView {
  readonly id: string
  readonly person: string
  /** What `X-Resus-Csrf` has to be. */
  readonly csrf: string
  readonly madeAt: Date
  /** At the latest. */
  readonly endsAt: Date
}

export interface Remembered {
  readonly principal: Principal
  readonly session: SessionView | null
  /** Of the family or of the token. */
  readonly id: string
  readonly person: string
  /** Whatever the memory says, not longer: the end of a session, of a token, of a secret that was replaced. */
  readonly goodUntilMs: number
}

/**
 * Who had which credential a moment ago, so that hundreds of requests a second do not each ask the store; by digests of credentials. Bounded. What ends here is forgotten at once; what ends on
 * another node, after five seconds.
 */
export class CredentialMemory {
  readonly #entries = new Map<string, Remembered & { readonly atMs: number }>()
  #forgotten = 0

  /** Before the store is asked: what is forgotten meanwhile must not be kept. */
  get era(): number {
    return this.#forgotten
  }

  /** Asked of the store in the last five seconds. */
  fresh(key: string, nowMs: number): Remembered | undefined {
    return this.#find(key, nowMs, FRESH_MS)
  }

  /** The same while the store is away: in the last quarter of an hour. */
  whileAway(key: string, nowMs: number): Remembered | undefined {
    return this.#find(key, nowMs, AWAY_MS)
  }

  keep(key: string, found: Remembered, { era, nowMs }: { readonly era: number; readonly nowMs: number }): void {
    if (era !== this.#forgotten) return
    this.#entries.delete(key)
    this.#entries.set(key, { ...found, atMs: nowMs })
    const [oldest] = this.#entries.keys()
    if (this.#entries.size > ENTRIES_MAX && oldest !== undefined) this.#entries.delete(oldest)
  }

  drop(key: string): void {
    this.#entries.delete(key)
  }

  /** All of a person's, or what has this id. */
  forget(which: { readonly person: string } | { readonly id: string }): void {
    this.#forgotten += 1
    for (const [key, entry] of this.#entries) {
      if ('person' in which ? entry.person === which.person : entry.id === which.id) this.#entries.delete(key)
    }
  }

  #find(key: string, nowMs: number, longestMs: number): Remembered | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined || nowMs >= entry.goodUntilMs) return undefined
    const ageMs = nowMs - entry.atMs
    return ageMs >= 0 && ageMs < longestMs ? entry : undefined
  }
}
