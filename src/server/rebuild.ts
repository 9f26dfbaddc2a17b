import { noteRebuilt } from '../catalog/control-pending.ts'
import { insertRecords, tellAgain } from '../catalog/control-rebuild.ts'
import type { UnreadableObject } from '../catalog/schema.ts'
import type { Store } from '../catalog/store.ts'
import { Failure } from '../errors.ts'
import { listControlObjects, readControlObjectOrWhy } from '../repository/control-records.ts'
import type { Repository } from '../repository/repository.ts'

const RECORDS_AT_ONCE = 500

export interface RebuildReport {
  readonly records: number
  /** Records of a kind or shape that this version does not know. */
  readonly passedOver: number
  readonly unreadable: readonly UnreadableObject[]
}

/**
 * Fills a store with what a system's repository has of it, newest first, and says in the store that this is done. What is damaged is passed over. Killed, or ended by a storage
 * or a store that goes away, it is begun again: nothing comes twice.
 */
export async function rebuildSystem(options: {
  readonly store: Store
  readonly repository: Repository
  readonly now: () => Date
  readonly remindAfterMs: number
  /** Called between objects; throws to end it. */
  readonly onObject: () => Promise<void>
  readonly signal: AbortSignal
}): Promise<RebuildReport> {
  const { store, repository, now, remindAfterMs, signal } = options
  const { system } = repository
  let [records, passedOver] = [0, 0]
  const unreadable: UnreadableObject[] = []
  const objects = await listControlObjects(repository, 'work', { signal })
  for (const { key } of objects.toReversed()) {
    signal.throwIfAborted()
    await options.onObject()
    const read = await readControlObjectOrWhy(repository, key, { signal })
    if (read instanceof Failure) unreadable.push({ key, problem: read.message })
    // One that is gone was folded into its day's object since, or was to be forgotten.
    if (read === undefined || read instanceof Failure) continue
    const newestFirst = read.records.toReversed()
    for (let at = 0; at < newestFirst.length; at += RECORDS_AT_ONCE) {
      const some = newestFirst.slice(at, at + RECORDS_AT_ONCE)
      passedOver += await insertRecords(store, some, { system, remindAfterMs, now: now() })
      records += some.length
    }
  }
  await tellAgain(store, now())
  await noteRebuilt(store, { system, at: now(), unreadable })
  return { records, passedOver, unreadable }
}
