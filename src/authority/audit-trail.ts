import { randomUUID } from 'node:crypto'
import type { Kysely } from 'kysely'
import {
  deleteWaiting,
  entriesBehind,
  hasEntry,
  insertEntries,
  insertWaiting,
  listEntries,
  listWaiting,
  lockChain,
  newestEntry,
  oldestEntry,
  type AuditFilter,
} from '../catalog/audit-entries.ts'
import type { Schema } from '../catalog/schema.ts'
import { isStoreAway, type Store } from '../catalog/store.ts'
import type { Clock } from '../clock.ts'
import {
  auditBody,
  bodyText,
  chainEntry,
  NO_HASH,
  parseBody,
  wholeEntry,
  type AuditBody,
  type AuditEntry,
  type ChainedText,
  type ChainEnd,
  type NewAuditEntry,
} from './audit-entry.ts'
import { AuditSpool } from './audit-spool.ts'

const AT_ONCE = 200

export interface AuditPage {
  /** Newest first. */
  readonly items: readonly AuditEntry[]
  /** For `before` of the next one; null at the end. */
  readonly next: number | null
}

/** All that was decided, changed, refused, and read of patients: a chain in the store, to which one can only add (docs/authority.md, "What remains"). */
export class AuditTrail {
  readonly spool: AuditSpool
  readonly #store: Store
  readonly #node: string
  readonly #clock: Clock

  constructor(options: { readonly store: Store; readonly node: string; readonly clock: Clock; readonly state: string }) {
    this.#store = options.store
    this.#node = options.node
    this.#clock = options.clock
    this.spool = new AuditSpool(options.state)
  }

  /**
   * Adds an entry, together with what else the transaction does or not at all; with the pool in a transaction of its own. Do it last: until the transaction ends nobody else adds
   * any. Throws what the store throws.
   */
  async append(queries: Kysely<Schema>, entry: NewAuditEntry): Promise<void> {
    await this.#add(queries, [this.#bodyOf(entry)])
  }

  /** Adds what has no transaction to go with: to the store, or while that is away to the spool. Durable when it resolves. Throws SPOOL_FULL, SPOOL_UNWRITABLE. */
  async appendSoon(entry: NewAuditEntry): Promise<'kept' | 'spooled'> {
    const body = this.#bodyOf(entry)
    try {
      await this.#add(this.#store.sql, [body])
      return 'kept'
    } catch (error) {
      if (!isStoreAway(error)) throw error
      // It may have come in, where the answer was lost: its id tells.
      await this.spool.add(body)
      return 'spooled'
    }
  }

  /** Moves what lies in the spool into the chain. Killed anywhere, each entry is there once. Gives how many; throws what the store throws. */
  async drain(): Promise<number> {
    let moved = 0
    for (;;) {
      const { entries, damaged } = await this.spool.oldest(AT_ONCE)
      if (damaged.length > 0) await this.append(this.#store.sql, this.#own('audit.damaged', { files: damaged }, 'failed'))
      if (entries.length === 0) return moved
      await this.#add(
        this.#store.sql,
        entries.map(({ body }) => body),
      )
      await this.spool.remove(entries)
      moved += entries.length
    }
  }

  /** Whether it is known where the chain goes on: until then entries wait in the store. */
  async hasBegun(): Promise<boolean> {
    return (await newestEntry(this.#store.sql)) !== undefined
  }

  /**
   * In a store that knows of no entry: the chain goes on behind this one, which a repository has, or begins. What waited comes behind it. Of several nodes that do so, one does.
   * `unread` names systems whose repositories could not be asked. Gives whether it was this call.
   */
  async begin(last: ChainedText | undefined, unread: readonly string[] = []): Promise<boolean> {
    return await this.#store.sql.transaction().execute(async (transaction) => {
      await lockChain(transaction)
      const isFirst = (await newestEntry(transaction)) === undefined
      if (isFirst) {
        if (last !== undefined) await insertEntries(transaction, [last])
        const end = last ?? { seq: 0, hash: NO_HASH }
        const begun = this.#bodyOf(this.#own('audit.begun', { behind: end.seq, unread: [...unread] }, 'done'))
        await insertEntries(transaction, [chainEntry(begun, end)])
      }
      await this.#takeWaiting(transaction)
      return isFirst
    })
  }

  /** Whether it has all that was entered since then: one that was lost is filled from the repositories, later than it goes on. Throws what the store throws. */
  async reachesBackTo(at: Date): Promise<boolean> {
    const oldest = await oldestEntry(this.#store.sql)
    if (oldest === undefined) return false
    return oldest.seq === 1 || Date.parse(wholeEntry(oldest).at) <= at.getTime()
  }

  /** When its oldest entry came; undefined before there is one. */
  async oldestAt(): Promise<Date | undefined> {
    const oldest = await oldestEntry(this.#store.sql)
    return oldest === undefined ? undefined : new Date(wholeEntry(oldest).at)
  }

  async newest(): Promise<(ChainEnd & { readonly at: Date }) | undefined> {
    const row = await newestEntry(this.#store.sql)
    return row === undefined ? undefined : { seq: row.seq, hash: row.hash, at: row.at }
  }

  /** A page of the trail, newest first. */
  async page(filter: AuditFilter & { readonly before?: number | undefined; readonly limit: number }): Promise<AuditPage> {
    const rows = await listEntries(this.#store.sql, { ...filter, limit: filter.limit + 1 })
    const items = rows.slice(0, filter.limit).map(wholeEntry)
    return { items, next: rows.length > filter.limit ? (items.at(-1)?.seq ?? null) : null }
  }

  /** All behind a place of the chain, in order, as far as it goes now. */
  async *behind(seq: number): AsyncGenerator<ChainedText> {
    for (let at = seq; ;) {
      const rows = await entriesBehind(this.#store.sql, at, AT_ONCE)
      yield* rows
      const last = rows.at(-1)
      if (last === undefined || rows.length < AT_ONCE) return
      at = last.seq
    }
  }

  async #add(queries: Kysely<Schema>, bodies: readonly AuditBody[]): Promise<void> {
    if (!queries.isTransaction) {
      await queries.transaction().execute(async (transaction) => this.#add(transaction, bodies))
      return
    }
    await lockChain(queries)
    const newest = await newestEntry(queries)
    if (newest === undefined) {
      for (const body of bodies) await insertWaiting(queries, { id: body.id, entry: bodyText(body) })
      return
    }
    await this.#takeWaiting(queries)
    await chainBehind(queries, (await newestEntry(queries))!, bodies)
  }

  /** The lock is held. */
  async #takeWaiting(transaction: Kysely<Schema>): Promise<void> {
    for (;;) {
      const waiting = await listWaiting(transaction, AT_ONCE)
      if (waiting.length === 0) return
      const bodies = waiting.flatMap(({ entry }) => parseBody(entry) ?? [])
      await chainBehind(transaction, (await newestEntry(transaction))!, bodies)
      await deleteWaiting(
        transaction,
        waiting.map(({ number }) => number),
      )
    }
  }

  #bodyOf(entry: NewAuditEntry): AuditBody {
    return auditBody(entry, { id: entry.id ?? randomUUID(), atMs: this.#clock.now(), node: this.#node })
  }

  /** What the trail says of itself. */
  #own(action: string, object: NonNullable<NewAuditEntry['object']>, outcome: NewAuditEntry['outcome']): NewAuditEntry {
    return { actor: { kind: 'resus', id: null, name: 'Resus' }, action, object, outcome }
  }
}

/** What is in it already is not entered twice. */
async function chainBehind(queries: Kysely<Schema>, end: ChainEnd, bodies: readonly AuditBody[]): Promise<void> {
  const rows: ChainedText[] = []
  const seen = new Set<string>()
  for (const body of bodies) {
    if (seen.has(body.id) || (await hasEntry(queries, body.id))) continue
    seen.add(body.id)
    rows.push(chainEntry(body, rows.at(-1) ?? end))
  }
  await insertEntries(queries, rows)
}
