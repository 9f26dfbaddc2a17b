import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { Failure, systemErrorCode } from '../errors.ts'
import { migrate } from './migrate.ts'
import type { Schema } from './schema.ts'
import { workingConnection } from './store-role.ts'

const CONNECTIONS_MAX = 10
const CONNECT_TIMEOUT_MS = 5_000
const STATEMENT_TIMEOUT_MS = 30_000
/** Of PostgreSQL: connections refused or ended (08, 57), no room or memory (53), read-only after a failover, a deadlock: all of it may pass. */
const AWAY = /^(08|53|57|25006|40P01|40001)/
/** Files that cannot be read, or are damaged: what asks it goes on as without it, and people are told. */
const BROKEN = /^(58|XX)/
const AWAY_SYSTEM = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ENOENT',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
])

interface Begun {
  readonly connectionString: string
  /** As who works with it, and changes none of its tables. */
  readonly working: string
  readonly pool: pg.Pool
}

/** The control plane's store: a cache and a record of work, in a PostgreSQL of its own (docs/control-plane.md). */
export class Store {
  readonly sql: Kysely<Schema>
  readonly #find: () => Promise<string>
  #begun: Begun | undefined

  private constructor(find: () => Promise<string>) {
    this.#find = find
    const dialect = new PostgresDialect({ pool: async () => this.#there().pool })
    this.sql = new Kysely<Schema>({ dialect }).withSchema('resus_control')
  }

  /** Makes or updates the tables and opens a pool. Throws STORE_UNREACHABLE, STORE_FOREIGN, SERVER_TOO_OLD. */
  static async open(connectionString: string): Promise<Store> {
    const store = Store.later(async () => connectionString)
    await store.begin()
    return store
  }

  /** A store that may be away: until `begin` has succeeded, all that is asked of it throws STORE_UNREACHABLE. */
  static later(find: () => Promise<string>): Store {
    return new Store(find)
  }

  get isThere(): boolean {
    return this.#begun !== undefined
  }

  /** As it was found. Throws STORE_UNREACHABLE before it has begun. */
  get connectionString(): string {
    return this.#there().connectionString
  }

  /** As who works with it. Throws STORE_UNREACHABLE before it has begun. */
  get workingConnectionString(): string {
    return this.#there().working
  }

  /** Makes or updates the tables, once. Throws what `open` throws, and what finding it throws: then try again. */
  async begin(): Promise<void> {
    if (this.#begun !== undefined) return
    const connectionString = await this.#find()
    await migrate(connectionString)
    const working = await workingConnection(connectionString)
    const pool = new pg.Pool({
      connectionString: working,
      max: CONNECTIONS_MAX,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      statement_timeout: STATEMENT_TIMEOUT_MS,
      application_name: 'resus serve',
    })
    // An idle connection that breaks is replaced at the next use; one in use fails its query.
    pool.on('error', () => undefined)
    pool.on('connect', (client) => client.on('error', () => undefined))
    this.#begun = { connectionString, working, pool }
  }

  /** A connection of one's own, for locks that are held as long as it lives; the caller releases it. */
  async connect(): Promise<pg.PoolClient> {
    return await this.#there().pool.connect()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sql.destroy()
    // Kysely ends only what it has used.
    if (this.#begun?.pool.ended === false) await this.#begun.pool.end()
  }

  #there(): Begun {
    if (this.#begun !== undefined) return this.#begun
    throw new Failure('STORE_UNREACHABLE', 'the store was not reached yet', { hint: 'see to its PostgreSQL' })
  }
}

/** Whether an error says that the store is away, and not that something is wrong with what was asked. */
export function isStoreAway(error: unknown): boolean {
  if (error instanceof Failure) return error.code === 'STORE_UNREACHABLE'
  const code = systemErrorCode(error)
  if (code !== undefined) return AWAY.test(code) || AWAY_SYSTEM.has(code) || isStoreBroken(error)
  return (
    error instanceof Error && /timeout exceeded when trying to connect|Connection terminated|is not queryable/.test(error.message)
  )
}

/** Whether an error says that the store is damaged: away, and not by itself there again. */
export function isStoreBroken(error: unknown): boolean {
  return !(error instanceof Failure) && BROKEN.test(systemErrorCode(error) ?? '')
}
