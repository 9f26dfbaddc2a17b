import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { Failure, systemErrorCode } from '../errors.ts'
import { migrate } from './migrate.ts'
import type { Schema } from './schema.ts'

const CONNECTIONS_MAX = 10
const CONNECT_TIMEOUT_MS = 5_000
const STATEMENT_TIMEOUT_MS = 30_000
/** Of PostgreSQL: connections refused or ended (08, 57), no room or memory (53), read-only after a failover, a deadlock: all of it may pass. */
const AWAY = /^(08|53|57|25006|40P01|40001)/
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

/** The control plane's store: a cache and a record of work, in a PostgreSQL of its own (docs/control-plane.md). */
export class Store {
  readonly connectionString: string
  readonly sql: Kysely<Schema>
  readonly #pool: pg.Pool

  private constructor(connectionString: string, pool: pg.Pool) {
    this.connectionString = connectionString
    this.#pool = pool
    this.sql = new Kysely<Schema>({ dialect: new PostgresDialect({ pool }) }).withSchema('resus_control')
  }

  /** Makes or updates the tables and opens a pool. Throws STORE_UNREACHABLE, STORE_FOREIGN, SERVER_TOO_OLD. */
  static async open(connectionString: string): Promise<Store> {
    await migrate(connectionString)
    const pool = new pg.Pool({
      connectionString,
      max: CONNECTIONS_MAX,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      statement_timeout: STATEMENT_TIMEOUT_MS,
      application_name: 'resus serve',
    })
    // An idle connection that breaks is replaced at the next use; one in use fails its query.
    pool.on('error', () => undefined)
    pool.on('connect', (client) => client.on('error', () => undefined))
    return new Store(connectionString, pool)
  }

  /** A connection of one's own, for locks that are held as long as it lives; the caller releases it. */
  async connect(): Promise<pg.PoolClient> {
    return await this.#pool.connect()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sql.destroy()
  }
}

/** Whether an error says that the store is away, and not that something is wrong with what was asked. */
export function isStoreAway(error: unknown): boolean {
  if (error instanceof Failure) return error.code === 'STORE_UNREACHABLE'
  const code = systemErrorCode(error)
  if (code !== undefined) return AWAY.test(code) || AWAY_SYSTEM.has(code)
  return (
    error instanceof Error && /timeout exceeded when trying to connect|Connection terminated|is not queryable/.test(error.message)
  )
}
