import { assert } from '../assert.ts'

// Measured availability, from health samples.

export type SampleState = 'up' | 'down' | 'unknown'

/** A stretch of time in one state; the next begins where it ends. */
export interface Stretch {
  readonly beginMs: number
  readonly endMs: number
  readonly state: SampleState
}

export interface Availability {
  readonly upSeconds: number
  readonly downSeconds: number
  readonly unknownSeconds: number
  /** Unknown counted as down; null while nothing was measured. */
  readonly percentAtLeast: number | null
  /** Unknown counted as up. */
  readonly percentAtMost: number | null
  readonly longestDownSeconds: number
  /** The longest that it was not seen to be up. */
  readonly longestNotUpSeconds: number
}

export interface AvailabilityOptions {
  readonly windowMs: number
  /** A sample holds until the next, but no longer than this: behind it nobody knows. */
  readonly sampleHoldsMs: number
  /** What an earlier process has measured; from its end to the first sample nobody knows. */
  readonly stretches?: readonly Stretch[]
}

/** Of something that flaps without end, the oldest goes: the window is shorter then, and not wrong. */
const STRETCHES_MAX = 20_000

/** Sums up samples as they come. A clock that goes back adds nothing until it has caught up. */
export class AvailabilityRecord {
  readonly #options: AvailabilityOptions
  #stretches: Stretch[]
  #last: { readonly atMs: number; readonly state: SampleState } | undefined

  constructor(options: AvailabilityOptions) {
    assert(options.windowMs > 0 && options.sampleHoldsMs > 0, 'a window and a sample last')
    this.#options = options
    this.#stretches = [...(options.stretches ?? [])]
    const end = this.#stretches.at(-1)?.endMs
    if (end !== undefined) this.#last = { atMs: end, state: 'unknown' }
  }

  /** What was measured, to be kept and given to the next process. */
  get stretches(): readonly Stretch[] {
    return this.#stretches
  }

  note(atMs: number, state: SampleState): void {
    const at = Math.max(atMs, this.#last?.atMs ?? atMs)
    this.#stretches = this.#upTo(at).slice(-STRETCHES_MAX)
    this.#last = { atMs: at, state }
  }

  measure(nowMs: number): Availability {
    const stretches = this.#upTo(nowMs)
    const sum = { up: 0, down: 0, unknown: 0 }
    const longest = { down: 0, notUp: 0 }
    let notUp = 0
    for (const { beginMs, endMs, state } of stretches) {
      const ms = endMs - beginMs
      sum[state] += ms
      notUp = state === 'up' ? 0 : notUp + ms
      longest.notUp = Math.max(longest.notUp, notUp)
      if (state === 'down') longest.down = Math.max(longest.down, ms)
    }
    const total = sum.up + sum.down + sum.unknown
    return {
      upSeconds: sum.up / 1000,
      downSeconds: sum.down / 1000,
      unknownSeconds: sum.unknown / 1000,
      percentAtLeast: total === 0 ? null : (100 * sum.up) / total,
      percentAtMost: total === 0 ? null : (100 * (sum.up + sum.unknown)) / total,
      longestDownSeconds: longest.down / 1000,
      longestNotUpSeconds: longest.notUp / 1000,
    }
  }

  /** The stretches of the window that ends at `nowMs`, the last sample's own among them. */
  #upTo(nowMs: number): Stretch[] {
    const { windowMs, sampleHoldsMs } = this.#options
    const stretches = [...this.#stretches]
    if (this.#last !== undefined) {
      const { atMs, state } = this.#last
      const holdsUntil = Math.min(nowMs, atMs + sampleHoldsMs)
      append(stretches, { beginMs: atMs, endMs: holdsUntil, state })
      append(stretches, { beginMs: holdsUntil, endMs: nowMs, state: 'unknown' })
    }
    const from = nowMs - windowMs
    return stretches.flatMap((each) => (each.endMs <= from ? [] : [{ ...each, beginMs: Math.max(each.beginMs, from) }]))
  }
}

function append(stretches: Stretch[], next: Stretch): void {
  if (next.endMs <= next.beginMs) return
  const before = stretches.at(-1)
  if (before?.state === next.state) stretches[stretches.length - 1] = { ...before, endMs: next.endMs }
  else stretches.push(next)
}
