import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import type { Clock } from '../../clock.ts'
import { Failure, systemErrorCode } from '../../errors.ts'
import { parseLsn, type Lsn } from '../../postgres/lsn.ts'
import type { CanaryRound } from './canary-round.ts'
import { heartbeatSetup, STRANGE_OWNER_HINT, strangeOwners } from './heartbeat-setup.ts'

const CONNECT_TIMEOUT_MS = 4000
/** For the server; and for what lies between, a little more. */
const STATEMENT_TIMEOUT_MS = 2000
const ANSWER_TIMEOUT_MS = 5000
const CLOSE_TIMEOUT_MS = 1000

/** One beat of a server's heart. A copy of the cluster that has all WAL before `lsn` has this beat, and every commit that returned before `at`. */
export interface Beat {
  readonly systemIdentifier: string
  readonly timeline: number
  readonly lsn: Lsn
  /** Of the row: a recovery sets it back. */
  readonly sequence: number
  /** By the server's clock, read in the same statement. */
  readonly at: Date
  /** By our clock, before the statement was sent. */
  readonly sentMs: number
}

/** A heartbeat as a database has it. */
export interface StoredBeat {
  readonly sequence: number
  readonly at: Date
}

export interface HeartbeatTarget {
  readonly component: string
  readonly connectionString: string
  readonly signal: AbortSignal
}

/**
 * One connection to a primary, for its heartbeat. It can do no harm: each statement has 2 s, of waiting for a lock, too; a commit waits for the
 * server's own disk only, never for a synchronous standby, which may be our own receiver that is away. Close it.
 */
export class HeartbeatSession implements AsyncDisposable {
  readonly #client: pg.Client
  readonly #target: HeartbeatTarget
  readonly #destroy: () => void
  #systemIdentifier = ''

  private constructor(client: pg.Client, target: HeartbeatTarget) {
    this.#client = client
    this.#target = target
    this.#destroy = () => client.connection.stream.destroy()
    target.signal.addEventListener('abort', this.#destroy, { once: true })
  }

  /** Throws POSTGRES_UNREACHABLE, also for a standby, and HEARTBEAT_MISSING with the SQL that makes it. */
  static async connect(target: HeartbeatTarget): Promise<HeartbeatSession> {
    target.signal.throwIfAborted()
    const client = new pg.Client({
      connectionString: target.connectionString,
      application_name: 'resus heartbeat',
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: ANSWER_TIMEOUT_MS,
      keepAlive: true,
    })
    // A connection that breaks fails the next beat.
    client.on('error', () => undefined)
    const session = new HeartbeatSession(client, target)
    try {
      await client.connect()
      await client.query(SETTINGS)
      await session.#readFacts()
      return session
    } catch (error) {
      await session[Symbol.asyncDispose]()
      throw session.#explain('connect to', error)
    }
  }

  /** Writes a beat. It has committed, and is on the server's disk, when this resolves. Throws as `connect` does, and POSTGRES_FAILED. */
  async beat(clock: Clock): Promise<Beat> {
    const sentMs = clock.now()
    try {
      const written = await this.#client.query<{ sequence: string; at: number }>(BEAT)
      const [row] = written.rows
      if (row === undefined) throw missing(this.#target.component, 'it has no row', heartbeatSetup())
      // A statement of its own, so that the commit is behind us: it is on disk, and so below what is flushed.
      const position = await this.#client.query<{ lsn: string; timeline: string }>(POSITION)
      const { lsn, timeline } = position.rows[0]!
      return {
        systemIdentifier: this.#systemIdentifier,
        timeline: Number.parseInt(timeline, 16),
        lsn: parseLsn(lsn),
        sequence: Number(row.sequence),
        at: new Date(row.at),
        sentMs,
      }
    } catch (error) {
      throw this.#explain('write a heartbeat to', error)
    }
  }

  /** Renews canaries after a beat. Throws as `beat` does, but for what the server refuses. */
  async renewCanaries(round: CanaryRound, beat: Beat): Promise<void> {
    try {
      await round.renew(this.#client, beat)
    } catch (error) {
      throw this.#explain('renew canaries on', error)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#target.signal.removeEventListener('abort', this.#destroy)
    const ended = this.#client.end().catch(() => undefined)
    await Promise.race([ended, delay(CLOSE_TIMEOUT_MS, undefined, { ref: false })])
    this.#destroy()
  }

  async #readFacts(): Promise<void> {
    const { component } = this.#target
    const { rows } = await this.#client.query<FactsRow>(FACTS)
    const { standby, role, there, strange, allowed, system } = rows[0]!
    if (standby) {
      throw new Failure('POSTGRES_UNREACHABLE', `the server of "${component}" is a standby, which takes no heartbeat`, {
        hint: 'name all members in "hosts", so that the primary is found; it is looked for again by itself',
      })
    }
    if (!there) throw missing(component, 'there is no table resus.heartbeat', heartbeatSetup(role))
    if (strange !== null) {
      throw new Failure('HEARTBEAT_MISSING', `no heartbeat is written to the server of "${component}": ${strange}`, {
        hint: STRANGE_OWNER_HINT,
      })
    }
    if (!allowed) throw missing(component, `"${role}" may not write to resus.heartbeat`, heartbeatSetup(role))
    this.#systemIdentifier = system
  }

  #explain(action: string, error: unknown): unknown {
    if (this.#target.signal.aborted) return this.#target.signal.reason
    if (error instanceof Failure) return error
    const why = error instanceof Error ? error.message || systemErrorCode(error) : String(error)
    const text = `cannot ${action} the server of "${this.#target.component}": ${why}`
    const code = error instanceof pg.DatabaseError ? (error.code ?? '') : ''
    if (/^(42P01|42501|3F000|42703)$/.test(code)) return missing(this.#target.component, String(why), heartbeatSetup())
    // Of PostgreSQL's classes: 08 connection, 28 authorization, 53 resources, 57P the server ends.
    if (code !== '' && !/^(08|28|53|57P)/.test(code)) return new Failure('POSTGRES_FAILED', text, { cause: error })
    const hint = 'is the server running, and do "connection", pg_hba.conf and the password fit?'
    return new Failure('POSTGRES_UNREACHABLE', text, { hint, cause: error })
  }
}

/** The newest beat that a database has: after a recovery, what it was brought back to. Undefined where there is no heartbeat. */
export async function readHeartbeat(client: Pick<pg.ClientBase, 'query'>): Promise<StoredBeat | undefined> {
  const { rows: there } = await client.query(TABLE)
  if (there.length === 0) return undefined
  const { rows } = await client.query<{ sequence: string; at: number }>(STORED)
  return rows[0] === undefined ? undefined : { sequence: Number(rows[0].sequence), at: new Date(rows[0].at) }
}

function missing(component: string, why: string, setup: string): Failure {
  return new Failure('HEARTBEAT_MISSING', `the server of "${component}" has no heartbeat, and its RPO is not proven: ${why}`, {
    hint: `run this in the database of "connection", as a superuser:\n\n${setup}`,
  })
}

interface FactsRow {
  readonly standby: boolean
  readonly role: string
  readonly there: boolean
  /** What of it is somebody else's, whose triggers would run as us. */
  readonly strange: string | null
  readonly allowed: boolean
  readonly system: string
}

/** What the role's or the database's own settings say must not decide how we write. */
const SETTINGS = `
  set statement_timeout = ${STATEMENT_TIMEOUT_MS}; set lock_timeout = ${STATEMENT_TIMEOUT_MS}; set idle_session_timeout = 0;
  set synchronous_commit = local; set default_transaction_isolation = 'read committed'; set search_path = pg_catalog`
const TABLE = `
  select c.oid, n.oid as schema from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'resus' and c.relname = 'heartbeat' and c.relkind = 'r'`
/** From the catalogue, because a statement that fails leaves a line in the hospital's log each time. */
const FACTS = `
  select pg_is_in_recovery() as standby, current_user as role, t.oid is not null as there,
    coalesce(has_schema_privilege(t.schema, 'usage') and has_table_privilege(t.oid, 'select') and has_table_privilege(t.oid, 'update'), false)
      as allowed,
    (select string_agg(format('the %s belongs to the role "%s"', object, owner), '; ') from (${strangeOwners('current_user')}) s) as strange,
    (select system_identifier::text from pg_control_system()) as system
  from (select 1) one left join (${TABLE}) t on true`
const BEAT = `
  update resus.heartbeat set sequence = sequence + 1, at = clock_timestamp() where id = 1
  returning sequence::text, (extract(epoch from at) * 1000)::float8 as at`
/** The first 8 digits of a segment's name are the timeline that is written: pg_control has that of the last checkpoint. */
const POSITION = `
  select pg_current_wal_flush_lsn()::text as lsn, left(pg_walfile_name(pg_current_wal_flush_lsn()), 8) as timeline`
const STORED = `
  select sequence::text, (extract(epoch from at) * 1000)::float8 as at from resus.heartbeat where id = 1`
