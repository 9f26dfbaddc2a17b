import pg from 'pg'
import { Failure, systemErrorCode } from '../../errors.ts'
import type { Secret } from '../../secret.ts'

const CONNECT_TIMEOUT_MS = 10_000
const STATEMENT_TIMEOUT_MS = 60_000
const LOCK_TIMEOUT_MS = 10_000
/** Wrong password; refused by pg_hba.conf, or no such role. */
const REFUSED = /^28/

/** What `pg` says where the server asks for a password and it has none. */
const NO_PASSWORD = /^SASL: .*password must be/

/** A session for setting a server up. Close it. */
export class SetupSession implements AsyncDisposable {
  readonly #client: pg.Client

  private constructor(client: pg.Client) {
    this.#client = client
  }

  /** Throws LOGIN_REFUSED when the server answers and does not let us in, POSTGRES_UNREACHABLE when it does not answer. */
  static async connect(connection: Secret): Promise<SetupSession> {
    const client = new pg.Client({
      connectionString: connection.reveal().toString('utf8'),
      application_name: 'resus init',
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: STATEMENT_TIMEOUT_MS,
    })
    // A connection that breaks fails the next statement.
    client.on('error', () => undefined)
    try {
      await client.connect()
      // A synchronous standby that is away must not hold us: it may be the receiver that is being set up.
      await client.query(
        `set statement_timeout = ${STATEMENT_TIMEOUT_MS}; set lock_timeout = ${LOCK_TIMEOUT_MS}; set synchronous_commit = local;
        set search_path = pg_catalog; set client_min_messages = warning`,
      )
      return new SetupSession(client)
    } catch (cause) {
      await client.end().catch(() => undefined)
      throw notConnected(cause)
    }
  }

  /** Throws POSTGRES_FAILED with what the server said. */
  async query<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    try {
      return (await this.#client.query<Row>(text, [...values])).rows
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new Failure('POSTGRES_FAILED', `cannot look at what the server has: ${why}`, {
        hint: "nothing was changed; read the server's log, and run it again",
        cause,
      })
    }
  }

  /** One or several statements, without values. Throws POSTGRES_FAILED with what the server said. */
  async run(sql: string, what: string): Promise<void> {
    try {
      await this.#client.query(sql)
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new Failure('POSTGRES_FAILED', `cannot set up ${what}: ${why}`, {
        hint: 'what was done before it stays, and is seen; run it again as a superuser (--superuser-connection)',
        cause,
      })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.end().catch(() => undefined)
  }
}

/** Whether the server has refused a login for its password alone. */
export function isWrongPassword(error: unknown): boolean {
  return error instanceof Failure && error.cause instanceof pg.DatabaseError && error.cause.code === '28P01'
}

function notConnected(cause: unknown): Failure {
  const why = cause instanceof Error ? cause.message || systemErrorCode(cause) : String(cause)
  const refused = cause instanceof pg.DatabaseError ? REFUSED.test(cause.code ?? '') : NO_PASSWORD.test(why ?? '')
  if (refused) {
    return new Failure('LOGIN_REFUSED', `the server does not let us in: ${why}`, {
      hint: 'do the role, its password and pg_hba.conf fit?',
      cause,
    })
  }
  return new Failure('POSTGRES_UNREACHABLE', `cannot connect to the server: ${why}`, {
    hint: 'is it running, and do host and port fit?',
    cause,
  })
}
