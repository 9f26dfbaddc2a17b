import { join } from 'node:path'
import type { Configuration } from '../config/configuration.ts'
import { removeAbandoned } from '../protect/postgres/scratch.ts'

/** Takes away what drills and verifications that were killed have left where they are made by default; a node begins meanwhile, for a cluster has many files. What cannot be taken away is reported, and keeps nothing back. */
export async function removeAbandonedScratch(systems: readonly Configuration[], report: (text: string) => void): Promise<void> {
  for (const { state } of systems) {
    try {
      for (const notice of await removeAbandoned(join(state, 'scratch'))) report(notice)
    } catch (error) {
      report(`what a killed drill has left cannot be taken away: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
}
