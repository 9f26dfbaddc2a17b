import pg from 'pg'
import { Failure } from '../errors.ts'
import { Secret } from '../secret.ts'

/** What a connection string comes to, with the environment's variables and the defaults, as `pg` takes it. */
export interface ConnectionParts {
  readonly user: string
  readonly database: string
  /** Undefined where the string and the environment have none: the server may need none, or ~/.pgpass has it. */
  readonly password: Secret | undefined
}

/** Connects nowhere, but reads the certificates that the string names. Throws CONFIG_INVALID, without any part that may be secret. */
export function readConnectionString(connection: Secret, what: string): ConnectionParts {
  try {
    const { user = '', database = user, password } = new pg.Client({ connectionString: connection.reveal().toString('utf8') })
    return { user, database, password: password ? new Secret(password) : undefined }
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new Failure('CONFIG_INVALID', `${what} cannot be used: ${why}`, {
      hint: 'write it as "postgres://user:password@host:port/database", and other characters than letters and digits as %XX; may this account read the files that it names?',
    })
  }
}
