import { systemClock, type Clock } from '../clock.ts'
import { forgetSummaries, keepSummaries, loadSummaries, summaryOf, type BackupSummary } from '../catalog/backups.ts'
import { isStoreAway, type Store } from '../catalog/store.ts'
import type { ComponentConfiguration, Configuration } from '../config/configuration.ts'
import { openConfigured, resolveComponent } from '../config/open.ts'
import { systemNamed } from '../config/systems.ts'
import { Failure } from '../errors.ts'
import { streamSpool } from '../protect/postgres/component.ts'
import { readPostgresStatus, type PostgresStatus } from '../protect/postgres/status.ts'
import { listBackupIds, readManifest } from '../repository/backups.ts'
import type { Repository } from '../repository/repository.ts'
import { forEachConcurrent } from '../stream/for-each-concurrent.ts'
import { componentKey } from './component-key.ts'

/** What is known of a component now. */
export interface ComponentPicture {
  readonly system: string
  readonly component: ComponentConfiguration
  /** Newest first. */
  readonly backups: readonly BackupSummary[]
  /** Null until the repository was read. */
  readonly status: PostgresStatus | null
  /** Manifests that cannot be read, by what is wrong with them. */
  readonly damaged: readonly string[]
  /** When the repository was last read; null when it never was. */
  readonly asOf: string | null
  /** Why it could not be read the last time. */
  readonly problem: { readonly code: string; readonly message: string; readonly hint: string | null } | null
}

const MANIFESTS_AT_ONCE = 8
const KEPT_AT_ONCE = 500
/** While the repository is away a spool grows to gigabytes, and each frame of it is opened. */
const SPOOL_HOLDS_MS = 600_000

interface Known {
  picture: ComponentPicture
  readonly byId: Map<string, BackupSummary>
  /** When its spool was last looked through, and what was wrong with it. */
  spool?: { readonly problems: readonly string[]; readonly atMs: number }
}

/** What the repositories hold, in memory: answers in no time, and is as new as `asOf` says. */
export class Catalogue {
  readonly #store: Store
  readonly #clock: Clock
  readonly #known = new Map<string, Known>()
  readonly #repositories = new Map<string, { readonly of: Configuration; readonly repository: Repository }>()
  #systems: readonly Configuration[] = []

  constructor(store: Store, clock: Clock = systemClock) {
    this.#store = store
    this.#clock = clock
  }

  get systems(): readonly Configuration[] {
    return this.#systems
  }

  /** Takes these systems, with what the store remembers of their backups. What is in neither is forgotten. */
  async take(systems: readonly Configuration[]): Promise<void> {
    const pictures = new Map<string, Known>()
    for (const configuration of systems) {
      for (const component of configuration.components) {
        const key = componentKey(configuration.system, component.name)
        const known = this.#known.get(key) ?? (await this.#remember(configuration.system, component))
        known.picture = { ...known.picture, component }
        pictures.set(key, known)
      }
    }
    this.#systems = systems
    this.#known.clear()
    for (const [key, known] of pictures) this.#known.set(key, known)
  }

  /** Repositories that were opened at the start: opening one takes a while. */
  adopt(opened: ReadonlyMap<Configuration, Repository>): void {
    for (const [of, repository] of opened) this.#repositories.set(of.system, { of, repository })
  }

  pictures(): ComponentPicture[] {
    return [...this.#known.values()].map(({ picture }) => picture)
  }

  picture(system: string, component: string): ComponentPicture | undefined {
    return this.#known.get(componentKey(system, component))?.picture
  }

  /** Reads what is new in a component's repository, and what the server says. What fails is part of the picture. */
  async refresh(system: string, component: string, signal: AbortSignal): Promise<void> {
    const configuration = this.#systems.find((each) => each.system === system)
    const known = this.#known.get(componentKey(system, component))
    if (configuration === undefined || known === undefined) return
    try {
      const repository = await this.#open(configuration)
      const damaged = await this.#sync(known, repository, signal)
      const { component: settings } = known.picture
      const status = await readPostgresStatus(repository, await resolveComponent(settings), {
        spoolDirectory: streamSpool(configuration.state, settings.name),
        clock: this.#clock,
        signal,
        known: {
          newestId: newestIdOf(known.byId.values()),
          count: known.byId.size,
          damaged,
          spoolProblems: this.#knownSpool(known),
        },
      })
      if (status.spoolProblems !== known.spool?.problems)
        known.spool = { problems: status.spoolProblems, atMs: this.#clock.now() }
      const backups = newestFirst(known.byId)
      const asOf = new Date(this.#clock.now()).toISOString()
      known.picture = { ...known.picture, backups, status, damaged, asOf, problem: null }
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof Failure)) throw error
      // A key may have been changed, a storage mounted elsewhere.
      this.#repositories.delete(system)
      const { code, message, hint = null } = error
      known.picture = { ...known.picture, problem: { code, message, hint } }
    }
  }

  /** The repository of a system. Throws COMPONENT_UNKNOWN, and what opening it throws. */
  async repositoryOf(system: string): Promise<Repository> {
    return await this.#open(systemNamed(this.#systems, system))
  }

  #knownSpool({ spool }: Known): readonly string[] | undefined {
    return spool !== undefined && this.#clock.now() - spool.atMs < SPOOL_HOLDS_MS ? spool.problems : undefined
  }

  async #open(configuration: Configuration): Promise<Repository> {
    const open = this.#repositories.get(configuration.system)
    if (open !== undefined && open.of === configuration) return open.repository
    const repository = await openConfigured(configuration)
    this.#repositories.set(configuration.system, { of: configuration, repository })
    return repository
  }

  async #remember(system: string, component: ComponentConfiguration): Promise<Known> {
    const summaries = await loadSummaries(this.#store.sql, system, component.name).catch((error: unknown) => {
      // They are read from the repository then.
      if (isStoreAway(error)) return []
      throw error
    })
    const byId = new Map(summaries.map((summary) => [summary.id, summary]))
    const picture = { system, component, backups: newestFirst(byId), status: null, damaged: [], asOf: null, problem: null }
    return { picture, byId }
  }

  /** Reads manifests that were not known, and forgets what has gone. Gives what could not be read. */
  async #sync({ picture, byId }: Known, repository: Repository, signal: AbortSignal): Promise<string[]> {
    const { system } = picture
    const component = picture.component.name
    const ids = new Set(await listBackupIds(repository, component))
    const damaged: string[] = []
    const found: BackupSummary[] = []
    const wanted = [...ids].filter((id) => !byId.has(id))
    await forEachConcurrent(wanted, { limit: MANIFESTS_AT_ONCE, signal }, async (id) => {
      try {
        found.push(summaryOf(system, await readManifest(repository, component, id)))
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        // Expired between the list and now; or damaged.
        if (error.code !== 'BACKUP_UNKNOWN' && error.code !== 'OBJECT_MISSING') damaged.push(error.message)
      }
    })
    const gone = [...byId.keys()].filter((id) => !ids.has(id))
    for (const summary of found) byId.set(summary.id, summary)
    for (const id of gone) byId.delete(id)
    await this.#keep({ system, component, found, gone })
    return damaged
  }

  /** The store is a cache: that it is away stops nobody from knowing what there is. */
  async #keep(change: {
    readonly system: string
    readonly component: string
    readonly found: readonly BackupSummary[]
    readonly gone: readonly string[]
  }): Promise<void> {
    const { system, component, found, gone } = change
    try {
      for (let at = 0; at < found.length; at += KEPT_AT_ONCE) {
        await keepSummaries(this.#store.sql, found.slice(at, at + KEPT_AT_ONCE))
      }
      await forgetSummaries(this.#store.sql, { system, component, ids: gone })
    } catch (error) {
      if (!isStoreAway(error)) throw error
    }
  }
}

function newestFirst(byId: ReadonlyMap<string, BackupSummary>): BackupSummary[] {
  return [...byId.values()].toSorted(
    (left, right) => compareText(right.finishedAt, left.finishedAt) || compareText(right.id, left.id),
  )
}

function compareText(left: string, right: string): number {
  if (left === right) return 0
  return left < right ? -1 : 1
}

/** By their numbers: clocks of two hosts may disagree. */
function newestIdOf(summaries: Iterable<BackupSummary>): string | undefined {
  let newest: BackupSummary | undefined
  for (const each of summaries) {
    const isNewer = newest === undefined || each.sequence > newest.sequence
    if (isNewer || (each.sequence === newest?.sequence && each.id > newest.id)) newest = each
  }
  return newest?.id
}
