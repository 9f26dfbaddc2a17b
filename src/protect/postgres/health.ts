import { setTimeout as delay } from 'node:timers/promises'
import { TLSSocket } from 'node:tls'
import pg from 'pg'
import { z } from 'zod'
import { Failure, systemErrorCode } from '../../errors.ts'

// What a server says of its own health, every few seconds, over one connection.

const CONNECT_TIMEOUT_MS = 4000
const STATEMENT_TIMEOUT_MS = 4000
const ANSWER_TIMEOUT_MS = 5000
const CLOSE_TIMEOUT_MS = 1000

const number = z.number().nullable()

const healthSchema = z.object({
  inRecovery: z.boolean(),
  /** By the server's clock, milliseconds since 1970. */
  serverTimeMs: z.number(),
  connectionsUsed: z.number(),
  connectionsMax: z.number(),
  longestQuerySeconds: number,
  longestTransactionSeconds: number,
  /** Sessions that wait for a lock. */
  locksWaiting: z.number(),
  /** How many transactions the oldest snapshot is behind: what vacuum cannot take back. */
  oldestXminAge: number,
  /** Of 2 147 483 648, at which the server takes no writes any more. */
  oldestFrozenXidAge: z.number(),
  /** On a standby: the age of the last transaction that was replayed, while there is more to replay. */
  replayLagSeconds: number,
  standbys: z.array(z.object({ name: z.string(), state: z.string().nullable(), lagBytes: number, lagSeconds: number })),
  slots: z.array(
    z.object({
      name: z.string(),
      active: z.boolean(),
      walStatus: z.string().nullable(),
      retainedBytes: number,
      safeBytes: number,
    }),
  ),
  archiverFailures: z.number(),
  /** Whether what it tried last has failed. */
  archiverFailing: z.boolean(),
  /** Pages that the server found damaged; null without checksums. */
  checksumFailures: number,
})
/** A server's figures; each has its unit in its name, without one it is a count. */
export type DatabaseHealth = z.infer<typeof healthSchema>

export interface DatabaseSize {
  readonly name: string
  readonly sizeBytes: number
}

/** One connection for looking at a server. A look that fails ends it: close it, and connect again. */
export class HealthSession implements AsyncDisposable {
  readonly #client: pg.Client
  readonly #component: string

  private constructor(client: pg.Client, component: string) {
    this.#client = client
    this.#component = component
  }

  /** Throws POSTGRES_UNREACHABLE, POSTGRES_FAILED. */
  static async connect(target: { readonly component: string; readonly connectionString: string }): Promise<HealthSession> {
    const client = new pg.Client({
      connectionString: target.connectionString,
      application_name: 'resus health',
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: ANSWER_TIMEOUT_MS,
      keepAlive: true,
    })
    client.on('error', () => undefined)
    const session = new HealthSession(client, target.component)
    try {
      await client.connect()
      await client.query(`set statement_timeout = ${STATEMENT_TIMEOUT_MS}; set lock_timeout = ${STATEMENT_TIMEOUT_MS};
        set idle_session_timeout = 0; set search_path = pg_catalog`)
      return session
    } catch (error) {
      await session[Symbol.asyncDispose]()
      throw session.#explain(error)
    }
  }

  /** Throws POSTGRES_UNREACHABLE, POSTGRES_FAILED. */
  async read(): Promise<DatabaseHealth> {
    return healthSchema.parse(await this.#ask(HEALTH))
  }

  /** The sizes of the databases. The server looks at every file for it: not every few seconds. Throws as `read` does. */
  async readSizes(): Promise<DatabaseSize[]> {
    return z.array(z.object({ name: z.string(), sizeBytes: z.number() })).parse(await this.#ask(SIZES))
  }

  /** When the server's certificate ends; null where the connection has none. */
  certificateEndsMs(): number | null {
    const { stream } = this.#client.connection
    if (!(stream instanceof TLSSocket)) return null
    const { valid_to: end } = stream.getPeerCertificate()
    return end === undefined ? null : Date.parse(end)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = this.#client.end().catch(() => undefined)
    await Promise.race([ended, delay(CLOSE_TIMEOUT_MS, undefined, { ref: false })])
    this.#client.connection.stream.destroy()
  }

  async #ask(text: string): Promise<unknown> {
    try {
      return (await this.#client.query<{ answer: unknown }>(text)).rows[0]?.answer
    } catch (error) {
      throw this.#explain(error)
    }
  }

  #explain(error: unknown): Failure {
    const why = error instanceof Error ? error.message || systemErrorCode(error) : String(error)
    const text = `cannot look at the server of "${this.#component}": ${why}`
    const code = error instanceof pg.DatabaseError ? (error.code ?? '') : ''
    if (code !== '' && !/^(08|28|53|57P)/.test(code)) return new Failure('POSTGRES_FAILED', text, { cause: error })
    const hint = 'is the server running, and do "connection", pg_hba.conf and the password fit?'
    return new Failure('POSTGRES_UNREACHABLE', text, { hint, cause: error })
  }
}

/** Works on primaries and standbys of 15 to 18; what `pg_monitor` may not see is null. */
const HEALTH = `
  with position as (
    select case when pg_is_in_recovery() then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) else pg_current_wal_lsn() end as lsn
  ), sessions as (
    select * from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()
  )
  select json_build_object(
    'inRecovery', pg_is_in_recovery(),
    'serverTimeMs', (extract(epoch from clock_timestamp()) * 1000)::float8,
    'connectionsUsed', (select count(*) + 1 from sessions),
    'connectionsMax', current_setting('max_connections')::int,
    'longestQuerySeconds', (select extract(epoch from max(clock_timestamp() - query_start)) from sessions where state = 'active'),
    'longestTransactionSeconds', (select extract(epoch from max(clock_timestamp() - xact_start)) from sessions),
    'locksWaiting', (select count(*) from sessions where wait_event_type = 'Lock'),
    'oldestXminAge', (select max(age) from (
      select age(backend_xmin) from pg_stat_activity where backend_xmin is not null and pid <> pg_backend_pid()
      union all select age(xmin) from pg_replication_slots where xmin is not null
      union all select age(catalog_xmin) from pg_replication_slots where catalog_xmin is not null
      union all select age(transaction) from pg_prepared_xacts) of_all),
    'oldestFrozenXidAge', (select max(age(datfrozenxid)) from pg_database),
    'replayLagSeconds', case
      when not pg_is_in_recovery() then null
      when pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() then 0
      else extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()) end,
    'standbys', (select coalesce(json_agg(json_build_object('name', application_name, 'state', state,
      'lagBytes', pg_wal_lsn_diff(lsn, coalesce(replay_lsn, flush_lsn)), 'lagSeconds', extract(epoch from coalesce(replay_lag, flush_lag)))
      order by application_name), '[]') from pg_stat_replication, position),
    'slots', (select coalesce(json_agg(json_build_object('name', slot_name, 'active', active, 'walStatus', wal_status,
      'retainedBytes', pg_wal_lsn_diff(lsn, restart_lsn), 'safeBytes', safe_wal_size) order by slot_name), '[]')
      from pg_replication_slots, position),
    'archiverFailures', (select failed_count from pg_stat_archiver),
    'archiverFailing', (select coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) from pg_stat_archiver),
    'checksumFailures', (select sum(checksum_failures) from pg_stat_database)
  ) as answer`
const SIZES = `
  select coalesce(json_agg(json_build_object('name', datname, 'sizeBytes', pg_database_size(oid)) order by datname), '[]') as answer
  from pg_database where datallowconn`
