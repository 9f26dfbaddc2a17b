import type { Clock } from '../clock.ts'
import type { Configuration } from '../config/configuration.ts'
import { openConfigured } from '../config/open.ts'
import { Failure } from '../errors.ts'
import type { Repository } from '../repository/repository.ts'

/** So long a start waits for storages that do not answer: protection begins without them. */
const LIMIT_MS = 5_000

/** The repositories of these systems, as far as they answer. */
export interface OpenedRepositories {
  readonly opened: ReadonlyMap<Configuration, Repository>
  /** No other may know more: each was opened, or is to be made yet. */
  readonly isWhole: boolean
}

export async function openRepositories(systems: readonly Configuration[], clock: Clock): Promise<OpenedRepositories> {
  const opened = new Map<Configuration, Repository>()
  let asked = 0
  const each = systems.map(async (configuration) => {
    try {
      opened.set(configuration, await openConfigured(configuration))
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      if (error.code !== 'REPOSITORY_MISSING') return
    }
    asked += 1
  })
  await inTime(clock, Promise.all(each))
  return { opened: new Map(opened), isWhole: asked === systems.length }
}

/** Undefined when it takes longer than a start waits for a storage. */
export async function inTime<Result>(clock: Clock, work: Promise<Result>): Promise<Result | undefined> {
  const over = new AbortController()
  const limit = clock.sleep(LIMIT_MS, over.signal).then(
    () => undefined,
    () => undefined,
  )
  try {
    return await Promise.race([work, limit])
  } finally {
    over.abort()
    // What comes too late, or fails then, is nobody's any more.
    work.catch(() => undefined)
  }
}
