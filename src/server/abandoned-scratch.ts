import { join } from 'node:path'
import type { Configuration } from '../config/configuration.ts'
import { removeAbandoned } from '../protect/postgres/scratch.ts'

/**
 * Takes away what drills and verifications that were killed have left where they are made by default. It goes on while a node begins, for a cluster has many
 * files. What cannot be taken away is reported, and keeps nothing back.
 */
export class ScratchRemoval implements AsyncDisposable {
  readonly #work: Promise<void>

  constructor(systems: readonly Configuration[], report: (text: string) => void) {
    this.#work = removeAll(systems, report)
  }

  /** Waits for its end. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#work
  }
}

async function removeAll(systems: readonly Configuration[], report: (text: string) => void): Promise<void> {
  for (const { state } of systems) {
    try {
      for (const notice of await removeAbandoned(join(state, 'scratch'))) report(notice)
    } catch (error) {
      report(`what a killed drill has left cannot be taken away: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
}
