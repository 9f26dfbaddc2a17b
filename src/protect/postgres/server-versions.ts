import type { BackupManifest } from '../../repository/backups.ts'

// What a cluster depends on besides its files, and what it means when a host has something else.

export type RecordedServer = BackupManifest['server']

/** What a host or a running server has. What is undefined is not known, and is not compared; null is known not to be there. */
export interface HereVersions {
  /** `15.20` */
  readonly version?: string
  readonly catalogVersion?: number
  readonly glibc?: string | null
  /** Major version of the ICU library that the server is linked with. */
  readonly icu?: string | null
  /** Of ICU's collations: `153.120`. */
  readonly icuCollations?: string | null
  /** Names of the libraries that this server can load, or has loaded. */
  readonly libraries?: ReadonlySet<string>
  /** Versions of the extensions that are there, by name. */
  readonly extensions?: ReadonlyMap<string, string>
}

export interface VersionDifference {
  readonly what: string
  readonly backup: string
  readonly here: string
  /** What happens, and what to do. */
  readonly consequence: string
}

/** Compares what a backup's server was with what is here: the worst first. Nothing that either does not know is compared. */
export function compareVersions(recorded: RecordedServer, here: HereVersions): VersionDifference[] {
  return [
    ...comparePrograms(recorded, here),
    ...compareLibraries(recorded, here),
    ...compareCollations(recorded, here),
    ...compareExtensions(recorded, here),
  ]
}

/** The libraries that a server loads by its settings: at its start, or at that of each session. */
export function preloadedLibraries(recorded: RecordedServer): string[] {
  const { sessionPreloadLibraries = '', localPreloadLibraries = '' } = recorded.versions ?? {}
  const lists = [recorded.preloadLibraries, sessionPreloadLibraries, localPreloadLibraries]
  return [...new Set(lists.flatMap((list) => list.split(',').map(libraryName)))].filter((name) => name !== '')
}

/** `"$libdir/pg_stat_statements.so"` is `pg_stat_statements`. */
function libraryName(written: string): string {
  const path = written.trim().replace(/^"(.*)"$/, '$1')
  return path.slice(path.lastIndexOf('/') + 1).replace(/\.(so|dylib)$/, '')
}

function comparePrograms(recorded: RecordedServer, here: HereVersions): VersionDifference[] {
  const found: VersionDifference[] = []
  const { version, catalogVersion } = here
  if (version !== undefined && plainVersion(version) !== plainVersion(recorded.version)) {
    found.push({
      what: 'PostgreSQL',
      backup: recorded.version,
      here: version,
      consequence: versionConsequence(recorded.version, version),
    })
  }
  if (catalogVersion !== undefined && catalogVersion !== recorded.catalogVersion) {
    const consequence = 'these programs refuse to start on the cluster: use those that it was made with'
    found.push({ what: 'catalog version', backup: String(recorded.catalogVersion), here: String(catalogVersion), consequence })
  }
  return found
}

/** A distribution adds its own to `server_version`: `15.20 (Debian 15.20-0+deb12u1)`. */
function plainVersion(version: string): string {
  return version.split(' ')[0]!
}

function versionConsequence(backup: string, here: string): string {
  const [backupMajor, backupMinor] = numbers(backup)
  const [hereMajor, hereMinor] = numbers(here)
  if (backupMajor !== hereMajor) return `the cluster does not start: it needs the programs of PostgreSQL ${backupMajor}`
  if (hereMinor !== undefined && backupMinor !== undefined && hereMinor < backupMinor) {
    return 'it starts, with programs that lack what was corrected since: install the newer minor version first'
  }
  return 'it starts; read the release notes of the newer minor version for what has to be done after an upgrade'
}

function numbers(version: string): (number | undefined)[] {
  const [, major, minor] = /^(\d+)(?:\.(\d+))?/.exec(version) ?? []
  return [major, minor].map((text) => (text === undefined ? undefined : Number(text)))
}

function compareLibraries(recorded: RecordedServer, { libraries }: HereVersions): VersionDifference[] {
  if (libraries === undefined) return []
  const atStart = new Set(recorded.preloadLibraries.split(',').map(libraryName))
  return preloadedLibraries(recorded)
    .filter((name) => !libraries.has(name))
    .map((name) => ({
      what: `library "${name}"`,
      backup: 'loaded',
      here: 'not there',
      consequence: atStart.has(name)
        ? 'the server does not start without it: install its package, or take it out of shared_preload_libraries'
        : 'no session can begin without it: install its package, or take it out of session_ and local_preload_libraries',
    }))
}

function compareCollations(recorded: RecordedServer, here: HereVersions): VersionDifference[] {
  const { versions } = recorded
  if (versions === null) return []
  const rows = [
    { what: 'glibc', backup: versions.glibc, here: here.glibc, provider: 'c' },
    { what: 'ICU', backup: versions.icu, here: here.icu, provider: 'i' },
    { what: 'collations of ICU', backup: versions.icuCollations, here: here.icuCollations, provider: 'i' },
  ]
  return rows.flatMap(({ what, backup, here: there, provider }) => {
    if (there === undefined || backup === null || there === backup) return []
    return [{ what, backup, here: there ?? 'none', consequence: collationConsequence(recorded, provider) }]
  })
}

/** Text that was sorted by other rules is not found in an index any more: the quietest way to lose data. */
function collationConsequence(recorded: RecordedServer, provider: string): string {
  const sorted = (recorded.versions?.databases ?? []).filter(
    (database) => database.provider === provider && !/^(C|POSIX)(\.|$)/i.test(database.collate),
  )
  const remedy = 'REINDEX them, then ALTER DATABASE ... REFRESH COLLATION VERSION'
  if (sorted.length === 0) return `no database sorts by it by default; indexes on columns that do may be wrong: ${remedy}`
  const names = sorted.map(({ name }) => `"${name}"`).join(', ')
  return `indexes on text in ${names} may be wrong (rows not found, duplicates let in): ${remedy}`
}

function compareExtensions(recorded: RecordedServer, { extensions }: HereVersions): VersionDifference[] {
  if (extensions === undefined) return []
  const wanted = new Map<string, { version: string; databases: string[] }>()
  for (const database of recorded.versions?.databases ?? []) {
    for (const { name, version } of database.extensions ?? []) {
      const known = wanted.get(`${name} ${version}`) ?? { version, databases: [] }
      wanted.set(`${name} ${version}`, { version, databases: [...known.databases, database.name] })
    }
  }
  return [...wanted].flatMap(([key, { version, databases }]): VersionDifference[] => {
    const name = key.slice(0, -version.length - 1)
    const there = extensions.get(name)
    if (there === version) return []
    const where = databases.map((database) => `"${database}"`).join(', ')
    const consequence =
      there === undefined
        ? `what uses it in ${where} fails: install its package`
        : `it works if its library still knows ${version}: try ALTER EXTENSION ${name} UPDATE in ${where}`
    return [{ what: `extension "${name}"`, backup: version, here: there ?? 'not there', consequence }]
  })
}
