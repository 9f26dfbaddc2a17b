import { InvalidArgumentError } from 'commander'
import { join } from 'node:path'
import pg from 'pg'
import { migrate } from '../database/migrate.ts'
import { CannotRun } from '../refusal.ts'
import { startEmbedded } from '../database/embedded.ts'

/** Where a hospital is: its own directory, and the database if that is another than the one in it. */
export interface Place {
  readonly home: string
  readonly database?: string
}

export const HOME_DEFAULT = 'hospital-data'
const EMBEDDED_PORT = 54_870

/** An open hospital: where its database is, and its embedded server when it has one. */
export interface OpenPlace extends AsyncDisposable {
  readonly connectionString: string
  readonly filesDirectory: string
}

/** The database of a place, migrated: see findPlace. */
export async function openPlace(place: Place): Promise<OpenPlace> {
  const found = await findPlace(place)
  try {
    await migrate(found.connectionString)
    return found
  } catch (error) {
    await found[Symbol.asyncDispose]()
    throw error
  }
}

/**
 * The database of a place, as it is: the one that is named, or the embedded one below `home`, which is started unless another process of the hospital
 * runs it already.
 */
export async function findPlace(place: Place): Promise<OpenPlace> {
  const filesDirectory = join(place.home, 'files')
  if (place.database !== undefined) {
    await requireServer(place.database)
    return { connectionString: place.database, filesDirectory, [Symbol.asyncDispose]: async () => undefined }
  }
  const embedded = await startEmbedded(place.home, { port: EMBEDDED_PORT })
  return {
    connectionString: embedded.connectionString,
    filesDirectory,
    [Symbol.asyncDispose]: async () => embedded[Symbol.asyncDispose](),
  }
}

async function requireServer(connectionString: string): Promise<void> {
  const client = new pg.Client({ connectionString, connectionTimeoutMillis: 10_000 })
  try {
    await client.connect()
    await client.end()
  } catch (cause) {
    throw new CannotRun(`the database does not answer: ${cause instanceof Error ? cause.message : String(cause)}`, {
      hint: 'see --database, or HOSPITAL_DATABASE_URL',
      cause,
    })
  }
}

/** For commander: a whole number from `least` on. */
export function wholeNumber(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (Number.isSafeInteger(value) && value >= least && value <= most && text.trim() !== '') return value
    throw new InvalidArgumentError(`a whole number from ${least} to ${most} is wanted.`)
  }
}

/** A signal for SIGINT and SIGTERM, until it is disposed of. */
export function toldToEnd(): { readonly signal: AbortSignal } & Disposable {
  const controller = new AbortController()
  const end = (): void => controller.abort()
  const names = ['SIGINT', 'SIGTERM'] as const
  for (const name of names) process.once(name, end)
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      for (const name of names) process.off(name, end)
    },
  }
}
