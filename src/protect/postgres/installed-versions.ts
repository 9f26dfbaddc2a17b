import { execFile } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { readdir, readFile, readlink } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import type { Installation } from '../../postgres/installation.ts'
import type { PostgresComponent } from './component.ts'
import type { ServerSession } from './server-session.ts'
import { compareVersions, type HereVersions, type RecordedServer, type VersionDifference } from './server-versions.ts'

// Finds out the versions that `compareVersions` compares: of a running server, or of the programs on a host.

const PROGRAM_TIMEOUT_MS = 10_000
const CONNECT_TIMEOUT_MS = 5000
/** Databases that are looked into for their extensions. */
const DATABASES_MAX = 200
const EXTENSIONS_MAX = 2000

const execute = promisify(execFile)

type Versions = NonNullable<RecordedServer['versions']>
type Database = Versions['databases'][number]

/** What the running server depends on. It is on this host, with its data directory. */
export async function findServerVersions(component: PostgresComponent, session: ServerSession): Promise<Versions> {
  const preloads = await session.settings(['session_preload_libraries', 'local_preload_libraries'])
  const [icu] = await session.query<{ version: string | null }>(
    "select pg_collation_actual_version(oid) as version from pg_collation where collprovider = 'i' order by oid limit 1",
  )
  return {
    glibc: await findGlibc(),
    icu: await findLinkedIcu(await serverProgram(component)),
    icuCollations: icu?.version ?? null,
    sessionPreloadLibraries: preloads['session_preload_libraries'] ?? '',
    localPreloadLibraries: preloads['local_preload_libraries'] ?? '',
    databases: await findDatabases(component, session),
  }
}

/** What the programs on this host bring, for a cluster that is to be restored here. */
export async function findHostVersions(installation: Installation): Promise<HereVersions> {
  const { binDirectory, version, major } = installation
  const libraries = await findNames(libraryDirectories(binDirectory), /^(.+)\.(?:so|dylib)$/)
  const shares = [
    join(binDirectory, '../share/postgresql/extension'),
    join(binDirectory, '../share/extension'),
    `/usr/share/postgresql/${major}/extension`,
  ]
  const extensions = await findExtensions(shares)
  const glibc = await findGlibc()
  const icu = await findLinkedIcu(join(binDirectory, 'postgres'))
  const catalogVersion = await readCatalogVersion(installation)
  return {
    version,
    glibc,
    ...(catalogVersion === undefined ? {} : { catalogVersion }),
    ...(icu === null ? {} : { icu }),
    ...(libraries === undefined ? {} : { libraries: new Set(libraries) }),
    ...(extensions === undefined ? {} : { extensions }),
  }
}

/** What a backup's server was, against the programs on this host that would start the restored cluster; undefined where there are none. */
export async function differencesHere(
  recorded: RecordedServer,
  installation: Installation | undefined,
): Promise<VersionDifference[]> {
  if (installation !== undefined) return compareVersions(recorded, await findHostVersions(installation))
  const consequence = `the cluster cannot be started here before PostgreSQL ${recorded.major} is installed`
  return [{ what: 'PostgreSQL', backup: recorded.version, here: 'not installed', consequence }]
}

/** The catalog version that the programs were built with: the name of a tablespace's directory, which is a text in them. */
export async function readCatalogVersion({ major, binDirectory }: Installation): Promise<number | undefined> {
  const pattern = new RegExp(`PG_${major}_(\\d{9})`)
  let tail = ''
  for await (const chunk of createReadStream(join(binDirectory, 'postgres'), { highWaterMark: 1024 * 1024 })) {
    const text = tail + (chunk as Buffer).toString('latin1')
    const match = pattern.exec(text)
    if (match !== null) return Number(match[1])
    tail = text.slice(-32)
  }
  return undefined
}

/** What a running server is, to be compared with an older record of it. */
export async function findRunningVersions(
  facts: RecordedServer,
  versions: Versions,
  session: ServerSession,
): Promise<HereVersions> {
  const rows = await session.query<{ name: string; version: string }>(
    'select name, default_version as version from pg_available_extensions',
  )
  const { glibc, icu, icuCollations } = versions
  const { version, catalogVersion } = facts
  const extensions = new Map(rows.map((row) => [row.name, row.version]))
  return { version, catalogVersion, glibc, icuCollations, extensions, ...(icu === null ? {} : { icu }) }
}

async function findDatabases(component: PostgresComponent, session: ServerSession): Promise<Database[]> {
  const rows = await session.query<Omit<Database, 'extensions'> & { here: boolean; connects: boolean }>(
    `select datname as name, datlocprovider::text as provider, datcollate as collate, datcollversion as "collationVersion",
       pg_database_collation_actual_version(oid) as "actualVersion", datname = current_database() as here, datallowconn as connects
     from pg_database order by datname limit ${DATABASES_MAX}`,
  )
  const databases: Database[] = []
  for (const { here, connects, ...row } of rows) {
    const ask = async () => await session.query<Extension>(EXTENSIONS)
    const extensions = here ? await ask() : connects ? await askDatabase(component, row.name) : null
    databases.push({ ...row, extensions })
  }
  return databases
}

interface Extension extends pg.QueryResultRow {
  readonly name: string
  readonly version: string
}

const EXTENSIONS = `select extname as name, extversion as version from pg_catalog.pg_extension order by extname limit ${EXTENSIONS_MAX}`

/** Null when the database does not let us in: then its extensions are not known, which is no reason not to back it up. */
async function askDatabase(component: PostgresComponent, database: string): Promise<Extension[] | null> {
  const connectionString = onDatabase(component.connection.reveal().toString('utf8'), database)
  if (connectionString === undefined) return null
  const client = new pg.Client({
    connectionString,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    query_timeout: PROGRAM_TIMEOUT_MS,
    application_name: 'resus backup',
  })
  client.on('error', () => undefined)
  try {
    await client.connect()
    return (await client.query<Extension>(EXTENSIONS)).rows
  } catch {
    return null
  } finally {
    await client.end().catch(() => undefined)
  }
}

/** The same connection to another database; undefined for a string that is no URL, and for a name that `pg` cannot be given in one. */
function onDatabase(connection: string, database: string): string | undefined {
  const [, server, query = ''] = /^(postgres(?:ql)?:\/\/[^/?]*)(?:\/[^?]*)?(\?.*)?$/.exec(connection) ?? []
  // It decodes a path by decodeURI, which leaves these two encoded.
  if (server === undefined || /[?#]/.test(database)) return undefined
  return `${server}/${encodeURI(database)}${query}`
}

/** The program of the running server. */
async function serverProgram({ dataDirectory, binaries }: PostgresComponent): Promise<string | undefined> {
  const text = await readFile(join(dataDirectory, 'postmaster.pid'), 'utf8').catch(() => '')
  const program = await readlink(`/proc/${Number.parseInt(text, 10)}/exe`).catch(() => undefined)
  return program ?? (binaries === undefined ? undefined : join(binaries, 'postgres'))
}

/** Null where there is no glibc (musl, macOS). */
async function findGlibc(): Promise<string | null> {
  const output = await runProgram('getconf', ['GNU_LIBC_VERSION'])
  return /^glibc (\S+)/.exec(output)?.[1] ?? null
}

/** Major version of the ICU library that a program is linked with; null when that cannot be told, or it is not. */
async function findLinkedIcu(program: string | undefined): Promise<string | null> {
  if (program === undefined) return null
  return /libicuuc\.so\.(\d+)/.exec(await runProgram('ldd', [program]))?.[1] ?? null
}

async function runProgram(program: string, args: readonly string[]): Promise<string> {
  return await execute(program, [...args], { timeout: PROGRAM_TIMEOUT_MS }).then(
    ({ stdout }) => stdout,
    () => '',
  )
}

function libraryDirectories(binDirectory: string): string[] {
  // Debian's is /usr/lib/postgresql/15/lib, others' is below lib/postgresql.
  return [join(binDirectory, '../lib/postgresql'), join(binDirectory, '../lib'), join(binDirectory, '../lib64/postgresql')]
}

/** The first of the directories that has such files; undefined when none has. */
async function findNames(directories: readonly string[], pattern: RegExp): Promise<string[] | undefined> {
  for (const directory of directories) {
    const names = await readdir(directory).catch((): string[] => [])
    const found = names.flatMap((name) => pattern.exec(name)?.[1] ?? [])
    if (found.length > 0) return found
  }
  return undefined
}

async function findExtensions(directories: readonly string[]): Promise<Map<string, string> | undefined> {
  for (const directory of directories) {
    const files = (await readdir(directory).catch((): string[] => [])).filter((name) => name.endsWith('.control'))
    if (files.length === 0) continue
    const found = new Map<string, string>()
    for (const file of files) {
      const text = await readFile(join(directory, file), 'utf8').catch(() => '')
      found.set(basename(file, '.control'), /^\s*default_version\s*=\s*'([^']*)'/m.exec(text)?.[1] ?? '')
    }
    return found
  }
  return undefined
}
