import { composeRecords, type ComposedChange } from '../catalog/control-compose.ts'
import {
  claimWriting,
  forgetChanges,
  forgetOldChanges,
  noteRebuilt,
  pendingChanges,
  pendingSeconds,
  rebuiltSystems,
  releaseWriting,
  spreadChanges,
} from '../catalog/control-pending.ts'
import type { UnreadableObject } from '../catalog/schema.ts'
import { isStoreAway, type Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { tidyControlRecords } from '../repository/control-days.ts'
import {
  BATCH_BYTES_MAX,
  BATCH_RECORDS_MAX,
  fitting,
  listControlObjects,
  putBatch,
  readControlObjectOrWhy,
} from '../repository/control-records.ts'
import type { Repository } from '../repository/repository.ts'
import { rebuildSystem } from './rebuild.ts'

const LATE_SECONDS = 5 * 60
const TIDY_MS = 3_600_000
const KEPT_DAYS = 400
/** A storage that hangs holds up its own system alone. */
const LOOK_LIMIT_MS = 20_000
/** So long schedules and alarms wait for what is known already. */
const HOLD_MS = 120_000
const POLL_MS = 250
const REMIND_AFTER_MS = 24 * 3_600_000

export interface RecordKeeperOptions {
  readonly store: Store
  readonly node: string
  readonly clock: Clock
  readonly systems: () => readonly string[]
  /** Throws what opening it throws. */
  readonly repositoryOf: (system: string) => Promise<Repository>
  /** Writes what else is to be in the repository, while nobody else writes there; `hold` throws when somebody does by now. */
  readonly alsoWrite?: (
    repository: Repository,
    options: { readonly hold: () => Promise<void>; readonly signal: AbortSignal },
  ) => Promise<void>
  readonly report: (text: string) => void
  /** What was not foreseen; the next look tries again. */
  readonly onError: (error: unknown) => void
}

/** What keeps a system's records from being written or read; null when nothing does. */
export interface RecordsState {
  readonly late: string | null
  readonly damaged: string | null
}

/** Writes what must not be lost with the store to the repositories, and fills an empty store from them (docs/control-plane.md). */
export class RecordKeeper {
  readonly #options: RecordKeeperOptions
  readonly #running = new Map<string, Promise<void>>()
  /** Why the last look at a system failed. */
  readonly #problems = new Map<string, string>()
  readonly #tidiedMs = new Map<string, number>()
  /** The time in the name of the last batch, of systems that only this node has written to since. */
  readonly #putMs = new Map<string, number>()
  /** Systems whose records are in the store, or that have none. */
  readonly #settled = new Set<string>()
  readonly #seenMs = new Map<string, number>()
  #waiting: ReadonlyMap<string, number> = new Map()
  /** As the store has it, of all systems that were read. */
  #unreadable: ReadonlyMap<string, readonly UnreadableObject[]> = new Map()

  constructor(options: RecordKeeperOptions) {
    this.#options = options
  }

  /** Of a system, as of the last look. */
  state(system: string): RecordsState {
    const seconds = this.#waiting.get(system) ?? 0
    const why = this.#problems.get(system) ?? 'the storage has not taken them yet'
    const [first, ...others] = this.#unreadable.get(system) ?? []
    return {
      late: seconds < LATE_SECONDS ? null : `records wait for ${Math.floor(seconds / 60)} min: ${why}`,
      damaged: first === undefined ? null : others.length === 0 ? first.problem : `${first.problem} (and ${others.length} more)`,
    }
  }

  /** Writes what has changed, and reads what was never read. Throws what the store throws. */
  async look(signal: AbortSignal): Promise<void> {
    const { store, systems, clock, onError } = this.#options
    const names = systems()
    if (names.length === 0) return
    const rebuilt = await rebuiltSystems(store)
    for (const name of rebuilt.keys()) this.#settled.add(name)
    await spreadChanges(store, names)
    for (const name of names) {
      if (this.#running.has(name)) continue
      const work = this.#lookAt(name, { isRebuilt: rebuilt.has(name), signal })
        .catch((error: unknown) => onError(error))
        .finally(() => this.#running.delete(name))
      this.#running.set(name, work)
    }
    const over = new AbortController()
    const limit = clock.sleep(LOOK_LIMIT_MS, AbortSignal.any([over.signal, signal])).catch(() => undefined)
    await Promise.race([Promise.all(this.#running.values()), limit]).finally(() => over.abort())
    await forgetOldChanges(store, KEPT_DAYS)
    this.#unreadable = await rebuiltSystems(store)
    this.#waiting = await pendingSeconds(store)
  }

  /** Whether what a repository may know of the past is still to be read: until then nothing is caught up, and nobody is told of what they know. For two minutes at most. */
  isHeld(): boolean {
    const now = this.#options.clock.now()
    return this.#options.systems().some((system) => {
      if (this.#settled.has(system)) return false
      const seenMs = this.#seenMs.get(system) ?? now
      this.#seenMs.set(system, seenMs)
      return now - seenMs < HOLD_MS
    })
  }

  /** Waits while it is held, or for so long; while the store is away nobody waits. */
  async settle(signal: AbortSignal, limitMs = HOLD_MS): Promise<'held' | 'free'> {
    const { clock, store } = this.#options
    const until = clock.now() + limitMs
    while (this.isHeld() && !signal.aborted && clock.now() < until) {
      try {
        for (const name of (await rebuiltSystems(store)).keys()) this.#settled.add(name)
      } catch (error) {
        if (isStoreAway(error)) return 'held'
        throw error
      }
      if (this.isHeld()) await clock.sleep(POLL_MS, signal).catch(() => undefined)
    }
    return this.isHeld() ? 'held' : 'free'
  }

  async #lookAt(system: string, { isRebuilt, signal }: { isRebuilt: boolean; signal: AbortSignal }): Promise<void> {
    const { store, node, repositoryOf } = this.#options
    if (!(await this.#claim(system))) return
    try {
      const repository = await repositoryOf(system)
      // First: what was there before comes before what is new.
      if (!isRebuilt) await this.#rebuild(repository, signal)
      await this.#write(repository, signal)
      await this.#options.alsoWrite?.(repository, { hold: async () => this.#claimAgain(system), signal })
      await this.#tidy(repository, signal)
      this.#problems.delete(system)
    } catch (error) {
      if (signal.aborted || isStoreAway(error)) return
      if (!(error instanceof Failure)) throw error
      // One that is to be made yet knows nothing of the past.
      if (error.code === 'REPOSITORY_MISSING') this.#settled.add(system)
      this.#problems.set(system, error.message)
      // Another node may reach it.
      await releaseWriting(store, { system, node })
    }
  }

  async #rebuild(repository: Repository, signal: AbortSignal): Promise<void> {
    const { store, clock, report } = this.#options
    const { system } = repository
    const { records, passedOver, unreadable } = await rebuildSystem({
      store,
      repository,
      now: () => new Date(clock.now()),
      remindAfterMs: REMIND_AFTER_MS,
      onObject: async () => this.#claimAgain(system),
      signal,
    })
    this.#settled.add(system)
    for (const { problem } of unreadable) report(`the store is filled without it: ${problem}`)
    const more = passedOver === 0 ? '' : `, ${passedOver} of them of a kind that this version does not know`
    if (records > 0) report(`the store knows of "${system}" what its repository has: ${records} records${more}`)
  }

  /** In the order of the changes. What is written and not yet forgotten when we die is written once more. */
  async #write(repository: Repository, signal: AbortSignal): Promise<void> {
    const { store, node, clock } = this.#options
    const { system } = repository
    while (!signal.aborted) {
      const changes = await pendingChanges(store, system, BATCH_RECORDS_MAX)
      if (changes.length === 0) return
      const batch = batchOf(await composeRecords(store, system, changes))
      const lines = batch.flatMap(({ line }) => (line === undefined ? [] : [line]))
      if (lines.length > 0) {
        // Names tell seconds apart: of two batches the later one has to sort behind the other, whatever the clocks say.
        const beforeMs = this.#putMs.get(system) ?? (await newestNameMs(repository, signal))
        const nowMs = Math.max(clock.now(), beforeMs + 1000)
        this.#putMs.set(system, nowMs)
        await putBatch(repository, { stream: 'work', node, nowMs, lines }, { signal })
      }
      await forgetChanges(
        store,
        system,
        batch.map(({ kind, id, change }) => ({ kind, id, change })),
      )
      await this.#claimAgain(system)
      // What was just being changed is skipped, and comes with the next look.
      if (changes.length < BATCH_RECORDS_MAX && batch.length === changes.length) return
    }
  }

  async #tidy(repository: Repository, signal: AbortSignal): Promise<void> {
    const { store, node, clock, report } = this.#options
    const { system } = repository
    const nowMs = clock.now()
    if (nowMs - (this.#tidiedMs.get(system) ?? Number.NEGATIVE_INFINITY) < TIDY_MS) return
    this.#tidiedMs.set(system, nowMs)
    const found = await tidyControlRecords(repository, { stream: 'work', node, nowMs }, { signal })
    const unreadable = new Map(found.unreadable.map((each) => [each.key, each]))
    const known = (await rebuiltSystems(store)).get(system) ?? []
    for (const { key } of known) {
      const read = await readControlObjectOrWhy(repository, key, { signal })
      if (read instanceof Failure) unreadable.set(key, { key, problem: read.message })
    }
    for (const { key, problem } of unreadable.values()) if (!known.some((each) => each.key === key)) report(problem)
    await noteRebuilt(store, { system, at: new Date(nowMs), unreadable: [...unreadable.values()] })
  }

  async #claim(system: string): Promise<boolean> {
    const { store, node } = this.#options
    const claimed = await claimWriting(store, { system, node })
    // Another may have written meanwhile, by another clock.
    if (claimed !== 'held') this.#putMs.delete(system)
    return claimed !== undefined
  }

  async #claimAgain(system: string): Promise<void> {
    if (await this.#claim(system)) return
    throw new Failure('BUSY', `another node writes the records of "${system}" by now`)
  }
}

async function newestNameMs(repository: Repository, signal: AbortSignal): Promise<number> {
  const objects = await listControlObjects(repository, 'work', { signal })
  return Math.max(0, ...objects.map(({ nameMs }) => nameMs))
}

/** As many as one object takes. */
function batchOf(changes: readonly ComposedChange[]): readonly ComposedChange[] {
  const lines = changes.flatMap(({ line }) => (line === undefined ? [] : [line]))
  const count = fitting(lines, { records: BATCH_RECORDS_MAX, bytes: BATCH_BYTES_MAX })
  if (count === lines.length) return changes
  const firstLeft = lines[count]
  return changes.slice(
    0,
    changes.findIndex(({ line }) => line === firstLeft),
  )
}
