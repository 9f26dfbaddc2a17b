import type pg from 'pg'
import type { Clock } from '../../../clock.ts'
import type { Lsn } from '../../../postgres/lsn.ts'
import type { Finding, PlannedCheck } from '../check-list.ts'
import type { CheckedServer } from '../amcheck.ts'

// What is in a recovered copy (docs/drills.md, "Checks").

/** A recovered copy that runs, and what it is to be. */
export interface CheckedCopy {
  readonly server: CheckedServer & {
    /** Connects as a role that is no superuser, its transactions read-only, works, and closes. */
    sessionAs<T>(user: string, database: string, work: (client: pg.Client) => Promise<T>): Promise<T>
    /** For PostgreSQL's own programs and those of the configuration: how they reach the copy as a superuser. */
    toolEnvironment(database: string | null): Promise<Record<string, string>>
  }
  /** The moment that was asked for, milliseconds since 1970; null where the target is none of time. */
  readonly askedMs: number | null
  /** Recovery was told to stop at that moment, by the server's own clock: of the newest, or of an LSN, it is only near. */
  readonly isTimed: boolean
  readonly replayed: Lsn
  /** The transaction that came next when recovery had ended: those from here on are of whoever looks. */
  readonly nextTransaction: bigint
  readonly clock: Clock
  readonly signal: AbortSignal
}

export interface ContentCheck extends PlannedCheck {
  look(copy: CheckedCopy): Promise<Finding>
}

const DATABASES = 'select datname::text as name from pg_database where datallowconn and not datistemplate order by oid'

/** Databases that people use. */
export async function usedDatabases({ server }: Pick<CheckedCopy, 'server'>): Promise<string[]> {
  return await server.anySession(async (client) => (await client.query<{ name: string }>(DATABASES)).rows.map(({ name }) => name))
}

/** All statements within read nothing but one snapshot, and change nothing, whatever they say. */
export async function readOnly<T>(client: pg.Client, timeoutMs: number, work: () => Promise<T>): Promise<T> {
  await client.query('begin transaction isolation level repeatable read read only')
  try {
    await client.query(`set local statement_timeout = ${Math.ceil(timeoutMs)}`)
    return await work()
  } finally {
    await client.query('rollback').catch(() => undefined)
  }
}
