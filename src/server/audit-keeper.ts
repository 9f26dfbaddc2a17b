import { join } from 'node:path'
import { fillBackwards, copyTarget, newestCopied, writeCopy } from '../authority/audit-copy.ts'
import type { ChainedText } from '../authority/audit-entry.ts'
import { keepKey, publicKeyOf, readKey, signHead, type AuditHead, type AuditKey } from '../authority/audit-head.ts'
import { AuditSyslog } from '../authority/audit-syslog.ts'
import { AuditTrail } from '../authority/audit-trail.ts'
import { AuditVerification } from './audit-verification.ts'
import { auditProtection, entriesBehind, listMarks, oldestEntry, readMark } from '../catalog/audit-entries.ts'
import { isStoreAway, type Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import { readAuthorities } from '../incident/authorities.ts'
import { replaceFile } from '../protect/postgres/durable-file.ts'
import { tidyControlRecords } from '../repository/control-days.ts'
import type { Repository } from '../repository/repository.ts'

/** So long a repository that cannot be asked keeps the trail from going on: then without what it may know. */
const UNREAD_MS = 120_000
const LATE_MS = 5 * 60_000
const TIDY_MS = 3_600_000
/** Each node has the newest heads in its state directory. */
const HEAD_MS = 3_600_000
/** So long copies wait for what another repository, which cannot be asked, may have of the trail. */
const UNFILLED_MS = 600_000

export interface AuditKeeperOptions {
  readonly store: Store
  readonly node: string
  readonly clock: Clock
  readonly state: string
  readonly syslog: { readonly host: string; readonly port: number; readonly ca: string | undefined } | undefined
  readonly systems: () => readonly string[]
  /** Throws what opening it throws. */
  readonly repositoryOf: (system: string) => Promise<Repository>
  readonly report: (text: string) => void
}

/** A head, and the key that checks it. */
export interface KeptHead extends AuditHead {
  readonly publicKey: string
}

/** Finds out where the trail goes on, brings it to the repositories, and signs its heads (docs/authority.md, "What remains"). */
export class AuditKeeper {
  readonly trail: AuditTrail
  readonly verification: AuditVerification
  readonly #options: AuditKeeperOptions
  readonly #syslog: AuditSyslog | undefined
  readonly #keys = new Map<string, AuditKey>()
  readonly #tidiedMs = new Map<string, number>()
  /** Systems whose repository was asked for what the store lacks. */
  readonly #filled = new Set<string>()
  /** Since when each copy is behind, and has come no further. */
  readonly #behind = new Map<string, { readonly mark: number; readonly sinceMs: number }>()
  readonly #forked = new Map<string, string>()
  readonly #damaged = new Map<string, string | null>()
  readonly #startedMs: number
  #hasBegun = false
  #headMs = Number.NEGATIVE_INFINITY

  constructor(options: AuditKeeperOptions) {
    this.#options = options
    this.trail = new AuditTrail(options)
    this.verification = new AuditVerification({ ...options, trail: this.trail })
    this.#startedMs = options.clock.now()
    const { store, clock, syslog } = options
    if (syslog === undefined) return
    const readCa = async () => (syslog.ca === undefined ? undefined : readAuthorities(syslog.ca))
    this.#syslog = new AuditSyslog({ store, clock, host: syslog.host, port: syslog.port, readCa })
  }

  /** Begins the chain where that is to be done, and takes in what was spooled. Throws what the store throws. */
  async look(signal: AbortSignal): Promise<void> {
    if (!this.#hasBegun) await this.#begin(signal)
    await this.trail.drain()
    if (!this.#hasBegun) return
    await this.#noteBehind()
    if (this.#options.clock.now() - this.#headMs < HEAD_MS) return
    // Before the first copy there is none.
    if ((await this.headLines()).length > 0) this.#headMs = this.#options.clock.now()
  }

  /** Sends on what is new, where that is wanted; of several nodes one. Throws what the store throws. */
  async forward(leads: boolean, signal: AbortSignal): Promise<void> {
    if (leads) await this.#syslog?.look(signal)
  }

  /** Why the receiver of syslog lags for five minutes; null when it does not, or there is none. */
  get forwardLate(): string | null {
    return this.#syslog?.late ?? null
  }

  /** What people are to be told of a system's copy, as of the last look of any node. */
  late(system: string): string | null {
    const behind = this.#behind.get(copyTarget(system))
    const lateMs = behind === undefined ? 0 : this.#options.clock.now() - behind.sinceMs
    if (lateMs < LATE_MS) return null
    return `entries of the trail wait for ${Math.floor(lateMs / 60_000)} min to come into its repository`
  }

  /** What this node has found wrong with a system's copy while it wrote there: undefined where it did not look. That it is forked stays so. */
  broken(system: string): { readonly forked: string | undefined; readonly damaged: string | null | undefined } {
    return { forked: this.#forked.get(system), damaged: this.#damaged.get(system) }
  }

  /** Brings a system's copy up to date; only while nobody else writes there. Throws what the storage and the store throw. */
  async write(
    repository: Repository,
    { hold, signal }: { readonly hold: () => Promise<void>; readonly signal: AbortSignal },
  ): Promise<void> {
    const { store, node, clock } = this.#options
    const { system } = repository
    if (!this.#hasBegun) await this.#begin(signal)
    if (!this.#hasBegun) return
    this.#keys.set(system, await keepKey(repository, this.#keys.get(system), { node, nowMs: clock.now(), signal }))
    if (!(await this.#isFilled(repository, signal))) return
    const { forked } = await writeCopy({ store, repository, node, now: () => clock.now(), hold, signal })
    if (forked !== null) {
      const text = `from entry ${forked} on its repository has others than the store: the trail went on without having read it, or one of them was changed`
      this.#forked.set(system, text)
      this.#options.report(`the audit trail of "${system}": ${text}`)
    }
    await this.#tidy(repository, signal)
  }

  /** What is told outside: of each system the newest entry that its repository has. Throws what the store throws. */
  async heads(signal?: AbortSignal): Promise<KeptHead[]> {
    const { store, systems, clock } = this.#options
    const heads: KeptHead[] = []
    for (const system of systems()) {
      const mark = await readMark(store.sql, copyTarget(system))
      const [row] = mark === undefined ? [] : await entriesBehind(store.sql, mark - 1, 1)
      const key = row === undefined ? undefined : await this.#keyOf(system, signal)
      if (row === undefined || key === undefined) continue
      const { seq, hash } = row
      const head = signHead(key, { seq, hash, at: new Date(clock.now()).toISOString(), system })
      heads.push({ ...head, publicKey: publicKeyOf(key) })
    }
    return heads
  }

  /** The heads as lines of the daily digest, and in `<state>/audit-head.json`. While the store is away there are none. */
  async headLines(): Promise<string[]> {
    try {
      const lines = (await this.heads()).map(({ publicKey: _publicKey, ...head }) => JSON.stringify(head))
      if (lines.length > 0) await replaceFile(join(this.#options.state, 'audit-head.json'), `${lines.join('\n')}\n`)
      return lines.map((line) => `audit head, keep it: ${line}`)
    } catch (error) {
      if (isStoreAway(error)) return []
      throw error
    }
  }

  /** What keeps this process from changing entries. Throws what the store throws. */
  async protection(): Promise<'role' | 'triggers'> {
    return await auditProtection(this.#options.store.sql)
  }

  /** Behind the newest entry that any repository has; with one that cannot be asked we wait for two minutes. */
  async #begin(signal: AbortSignal): Promise<void> {
    const { clock, systems, report } = this.#options
    if (!(await this.trail.hasBegun())) {
      const { newest, unread } = await this.#askRepositories(signal)
      if (unread.length > 0 && clock.now() - this.#startedMs < UNREAD_MS) return
      // Nothing is configured yet: what is to come may have a trail.
      if (systems().length === 0) return
      const isFirst = await this.trail.begin(newest, unread)
      if (isFirst && newest !== undefined) report(`the audit trail goes on behind entry ${newest.seq}`)
      if (isFirst && unread.length > 0)
        report(`the audit trail goes on without what these repositories may know: ${unread.join(', ')}`)
    }
    this.#hasBegun = true
  }

  async #askRepositories(signal: AbortSignal): Promise<{ newest: ChainedText | undefined; unread: string[] }> {
    const { systems, repositoryOf } = this.#options
    const unread: string[] = []
    let newest: ChainedText | undefined
    for (const system of systems()) {
      try {
        const found = await newestCopied(await repositoryOf(system), { signal })
        if (found !== undefined && found.seq > (newest?.seq ?? 0)) newest = found
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        // One that is to be made yet knows nothing.
        if (error.code !== 'REPOSITORY_MISSING') unread.push(system)
      }
    }
    return { newest, unread }
  }

  /** Whether the store has all that this copy lacks; of what it lacks itself it asks this repository once. */
  async #isFilled(repository: Repository, signal: AbortSignal): Promise<boolean> {
    const { store, systems, clock, report } = this.#options
    const { system } = repository
    const oldest = await oldestEntry(store.sql)
    if (oldest === undefined || oldest.seq === 1) return true
    if (!this.#filled.has(system)) {
      const count = await fillBackwards(store, repository, { signal })
      this.#filled.add(system)
      if (count > 0) report(`the store has ${count} entries of the audit trail from the repository of "${system}"`)
    }
    // When every repository was asked there is nothing more to come.
    const isOver = systems().every((each) => this.#filled.has(each)) || clock.now() - this.#startedMs > UNFILLED_MS
    return isOver || (await oldestEntry(store.sql))?.seq === 1
  }

  async #noteBehind(): Promise<void> {
    const { store, systems, clock } = this.#options
    const newest = await this.trail.newest()
    const marks = await listMarks(store.sql)
    for (const target of systems().map(copyTarget)) {
      const mark = marks.get(target) ?? 0
      if (mark >= (newest?.seq ?? 0)) this.#behind.delete(target)
      else if (this.#behind.get(target)?.mark !== mark) this.#behind.set(target, { mark, sinceMs: clock.now() })
    }
  }

  async #tidy(repository: Repository, signal: AbortSignal): Promise<void> {
    const { node, clock } = this.#options
    const { system } = repository
    const nowMs = clock.now()
    if (nowMs - (this.#tidiedMs.get(system) ?? Number.NEGATIVE_INFINITY) < TIDY_MS) return
    this.#tidiedMs.set(system, nowMs)
    const { unreadable } = await tidyControlRecords(repository, { stream: 'audit', node, nowMs }, { signal })
    this.#damaged.set(system, unreadable[0]?.problem ?? null)
  }

  async #keyOf(system: string, signal: AbortSignal | undefined): Promise<AuditKey | undefined> {
    const known = this.#keys.get(system)
    if (known !== undefined) return known
    try {
      const found = await readKey(await this.#options.repositoryOf(system), signal === undefined ? {} : { signal })
      if (found !== undefined) this.#keys.set(system, found)
      return found
    } catch (error) {
      // Its storage is away: then there is no head of it today.
      if (error instanceof Failure) return undefined
      throw error
    }
  }
}
