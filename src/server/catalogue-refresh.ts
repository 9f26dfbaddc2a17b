import type { Clock } from '../clock.ts'
import { forEachConcurrent } from '../stream/for-each-concurrent.ts'
import type { Catalogue } from './catalogue.ts'

const REFRESHED_AT_ONCE = 4
const ROUND_MS = 30_000
const APART_MS_MAX = 500

/** Looks again at what the repositories have. One that cannot be read is reported, and keeps no other from being looked at. */
export class CatalogueRefresh {
  readonly #catalogue: Catalogue
  readonly #clock: Clock
  readonly #signal: AbortSignal
  readonly #onError: (error: unknown) => void

  constructor(options: {
    readonly catalogue: Catalogue
    readonly clock: Clock
    readonly signal: AbortSignal
    readonly onError: (error: unknown) => void
  }) {
    this.#catalogue = options.catalogue
    this.#clock = options.clock
    this.#signal = options.signal
    this.#onError = options.onError
  }

  async all(): Promise<void> {
    const limits = { limit: REFRESHED_AT_ONCE, signal: this.#signal }
    const pictures = this.#catalogue.pictures()
    const apartMs = Math.min(APART_MS_MAX, (REFRESHED_AT_ONCE * ROUND_MS) / Math.max(1, pictures.length))
    await forEachConcurrent(pictures, limits, async ({ system, component, asOf }) => {
      // What is known already can wait: all at once they would hold up whoever asks us something.
      if (asOf !== null) await this.#clock.sleep(apartMs, this.#signal)
      await this.one(system, component.name)
    })
  }

  async one(system: string, component: string): Promise<void> {
    await this.#catalogue.refresh(system, component, this.#signal).catch((error: unknown) => this.#onError(error))
  }
}
