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
  /** They are to be made yet. */
  readonly missing: readonly Configuration[]
  /** No other may know more: each was opened, or is to be made yet. */
  readonly isWhole: boolean
}

/** Those that are open already are not opened again. */
export async function openRepositories(
  systems: readonly Configuration[],
  clock: Clock,
  before: OpenedRepositories['opened'] = new Map(),
): Promise<OpenedRepositories> {
  const opened = new Map([...before].filter(([configuration]) => systems.includes(configuration)))
  const missing: Configuration[] = []
  const each = systems.map(async (configuration) => {
    if (opened.has(configuration)) return
    try {
      opened.set(configuration, await openConfigured(configuration))
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      if (error.code === 'REPOSITORY_MISSING') missing.push(configuration)
    }
  })
  await inTime(clock, Promise.all(each))
  // What comes later is not known at this start.
  return { opened: new Map(opened), missing: [...missing], isWhole: opened.size + missing.length === systems.length }
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
