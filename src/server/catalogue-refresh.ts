import { forEachConcurrent } from '../stream/for-each-concurrent.ts'
import type { Catalogue } from './catalogue.ts'

const REFRESHED_AT_ONCE = 4

/** Looks again at what the repositories have. One that cannot be read is reported, and keeps no other from being looked at. */
export class CatalogueRefresh {
  readonly #catalogue: Catalogue
  readonly #signal: AbortSignal
  readonly #onError: (error: unknown) => void

  constructor(options: {
    readonly catalogue: Catalogue
    readonly signal: AbortSignal
    readonly onError: (error: unknown) => void
  }) {
    this.#catalogue = options.catalogue
    this.#signal = options.signal
    this.#onError = options.onError
  }

  async all(): Promise<void> {
    const limits = { limit: REFRESHED_AT_ONCE, signal: this.#signal }
    await forEachConcurrent(this.#catalogue.pictures(), limits, async ({ system, component }) => this.one(system, component.name))
  }

  async one(system: string, component: string): Promise<void> {
    await this.#catalogue.refresh(system, component, this.#signal).catch((error: unknown) => this.#onError(error))
  }
}
