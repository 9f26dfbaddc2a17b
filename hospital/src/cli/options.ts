import { InvalidArgumentError } from 'commander'
import { join, resolve } from 'node:path'
import pg from 'pg'
import { migrate } from '../database/migrate.ts'
import { CannotRun } from '../refusal.ts'
import { hasCluster, startEmbedded } from '../database/embedded.ts'

/** Where a hospital is: its own directory, and the database if that is another than the one in it. */
export interface Place {
  readonly home: string
  readonly database?: string
}

export const HOME_DEFAULT = 'hospital-data'
const EMBEDDED_PORT = 54_870
const NOT_THERE =
  'name its directory with --home, or its database with --database; `hospital serve` and `hospital generate` make a new one'

/** An open hospital: where its database is, and its embedded server when it has one. */
export interface OpenPlace extends AsyncDisposable {
  readonly connectionString: string
  readonly filesDirectory: string
}

/** The database of a place, with a hospital in it: both are made when they are not there. For `serve` and `generate` alone: a mistyped name makes another. */
export async function makePlace(place: Place): Promise<OpenPlace> {
  if (place.database !== undefined) await requireServer(place.database)
  return await migrated(await startPlace(place))
}

/** The hospital of a place, its schema brought to this version. Throws CannotRun as findPlace does. */
export async function openPlace(place: Place): Promise<OpenPlace> {
  return await migrated(await findPlace(place))
}

/**
 * The hospital of a place, as it is: in the database that is named, or in the embedded one below `home`, which is started unless another process of the
 * hospital runs it already. Throws CannotRun when there is none, and makes nothing.
 */
export async function findPlace(place: Place): Promise<OpenPlace> {
  if (place.database === undefined && !hasCluster(place.home)) {
    throw new CannotRun(`there is no hospital in "${resolve(place.home)}"`, { hint: NOT_THERE })
  }
  return await orClosed(await startPlace(place), requireHospital)
}

async function startPlace({ home, database }: Place): Promise<OpenPlace> {
  const filesDirectory = join(home, 'files')
  if (database !== undefined) {
    return { connectionString: database, filesDirectory, [Symbol.asyncDispose]: async () => undefined }
  }
  const embedded = await startEmbedded(home, { port: EMBEDDED_PORT })
  return {
    connectionString: embedded.connectionString,
    filesDirectory,
    [Symbol.asyncDispose]: async () => embedded[Symbol.asyncDispose](),
  }
}

async function migrated(place: OpenPlace): Promise<OpenPlace> {
  return await orClosed(place, migrate)
}

async function orClosed(place: OpenPlace, work: (connectionString: string) => Promise<unknown>): Promise<OpenPlace> {
  try {
    await work(place.connectionString)
    return place
  } catch (error) {
    await place[Symbol.asyncDispose]()
    throw error
  }
}

async function requireHospital(connectionString: string): Promise<void> {
  // Asked of the catalog: of a schema that is not theirs to use, some users may not even ask what is in it.
  const isThere = await ask(connectionString, "select from pg_tables where schemaname = 'hospital' and tablename = 'events'")
  if (!isThere) throw new CannotRun('this database holds no hospital', { hint: NOT_THERE })
}

async function requireServer(connectionString: string): Promise<void> {
  await ask(connectionString, 'select')
}

/** Whether a query has rows. Throws CannotRun when the database does not answer. */
async function ask(connectionString: string, query: string): Promise<boolean> {
  const client = new pg.Client({ connectionString, connectionTimeoutMillis: 10_000 })
  try {
    await client.connect()
    const { rowCount } = await client.query(query)
    return (rowCount ?? 0) > 0
  } catch (cause) {
    throw new CannotRun(`the database does not answer: ${cause instanceof Error ? cause.message : String(cause)}`, {
      hint: 'see --database, or HOSPITAL_DATABASE_URL',
      cause,
    })
  } finally {
    await client.end().catch(() => undefined)
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
