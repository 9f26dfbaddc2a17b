import { accessSync, constants, lstatSync, readdirSync, readFileSync, statSync, type Stats } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { Failure, systemErrorCode } from '../../errors.ts'
import { expandAuthentication } from '../../postgres/authentication-text.ts'
import {
  expandConfiguration,
  type ConfigurationFiles,
  type ConfigurationProblem,
  type ExpandedText,
} from '../../postgres/configuration-text.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import { comparePaths } from '../../repository/tree.ts'
import type { DataEntry } from './data-directory.ts'

// What a cluster needs beside its data directory (docs/format.md, "The cluster's configuration"): found, and listed for a backup.

/** A file that PostgreSQL reads whole as text. */
const TEXT_FILE_BYTES_MAX = 16 * 1024 * 1024
const HOST_FILES_MAX = 2000
/** Below the data directory of a restored cluster, and in a backup's tree. */
const CONFIGURATION_DIRECTORY = 'resus_config'

/** Settings whose files a server with TLS does not start without. */
const TLS_SETTINGS = [
  'ssl_cert_file',
  'ssl_key_file',
  'ssl_ca_file',
  'ssl_crl_file',
  'ssl_crl_dir',
  'ssl_dh_params_file',
] as const
export const KEYTAB_SETTING = 'krb_server_keyfile'

/** What has to be known of the server to find its configuration. */
export const CONFIGURATION_SETTINGS = ['config_file', 'hba_file', 'ident_file', 'ssl', ...TLS_SETTINGS, KEYTAB_SETTING] as const

export type ManifestConfiguration = NonNullable<BackupManifest['configuration']>

export interface HostConfiguration {
  readonly manifest: ManifestConfiguration
  /** Absolute paths of the files that lie outside the data directory, in the order of their bytes. */
  readonly files: readonly string[]
}

export interface ConfigurationSource {
  readonly major: number
  /** The data directory as the server names it, and as we reach it. */
  readonly serverDirectory: string
  readonly dataDirectory: string
  /** Values of `CONFIGURATION_SETTINGS`, as the server has them now. */
  readonly settings: Readonly<Record<string, string>>
}

/**
 * Finds what a cluster needs beside its data directory; undefined when that is nothing. Files that their own server would not find at its
 * next start are named as problems. Throws CONFIGURATION_UNREADABLE for those that are there and closed to us, and beyond the limits.
 */
export function findConfiguration(source: ConfigurationSource): HostConfiguration | undefined {
  const host = new HostFiles(source)
  const { config_file: config, hba_file: hba, ident_file: ident } = source.settings
  if (config === undefined || hba === undefined || ident === undefined) throw unknownPlaces()
  const automatic = join(source.serverDirectory, 'postgresql.auto.conf')
  const texts: readonly ExpandedText[] = [
    expandConfiguration(host, config),
    ...(host.readFile(automatic) === undefined ? [] : [expandConfiguration(host, automatic)]),
    expandAuthentication(host, hba, source),
    expandAuthentication(host, ident, source),
  ]
  const settings = host.findSettings()
  const files = [...host.outside].toSorted(comparePaths)
  const problems = [...texts.flatMap((text) => text.problems), ...host.problems]
  // Neither the server nor a restored one starts without these.
  for (const path of [config, hba]) if (host.readFile(path) === undefined) throw unreadable(path, 'it is not there')
  if (files.length === 0 && settings.length === 0 && !texts.some((text) => text.isPlaced)) return undefined
  const directory = freeName(source.dataDirectory)
  return { files, manifest: { directory, dataDirectory: source.serverDirectory, config, hba, ident, settings, problems } }
}

/** The files of a configuration as entries of a backup's tree, with the directories that lead to them, each looked at when its turn comes. */
export function* configurationEntries({ manifest, files }: HostConfiguration, dataDirectory: string): Generator<DataEntry> {
  const { mode, uid, gid } = lstatSync(dataDirectory)
  const root = `${manifest.directory}/host`
  const directories = new Set([manifest.directory, root])
  for (const file of files) for (let at = dirname(file); at !== '/'; at = dirname(at)) directories.add(root + at)
  const paths = [...directories, ...files.map((file) => root + file)].toSorted(comparePaths)
  for (const path of paths) {
    const absolutePath = path.slice(root.length)
    if (directories.has(path)) {
      yield { path, absolutePath, mode: mode & 0o7777, uid, gid, kind: 'directory' }
      continue
    }
    const stats = statFile(absolutePath)
    if (stats === undefined) throw configurationVanished(absolutePath)
    const owner = { mode: stats.mode & 0o7777, uid: stats.uid, gid: stats.gid }
    yield { path, absolutePath, ...owner, isRequired: true, kind: 'file', sizeBytes: stats.size }
  }
}

/** Two lists of entries as one, in the order of paths. */
export function* mergeEntries(left: Iterable<DataEntry>, right: Iterable<DataEntry>): Generator<DataEntry> {
  const [lefts, rights] = [left[Symbol.iterator](), right[Symbol.iterator]()]
  let [one, other] = [lefts.next(), rights.next()]
  while (one.done !== true || other.done !== true) {
    const takesLeft = other.done === true || (one.done !== true && comparePaths(one.value.path, other.value.path) < 0)
    if (takesLeft && one.done !== true) {
      yield one.value
      one = lefts.next()
    } else if (other.done !== true) {
      yield other.value
      other = rights.next()
    }
  }
}

/** Reads on this host what the server reads, and remembers what lies outside the data directory. */
class HostFiles implements ConfigurationFiles {
  readonly #source: ConfigurationSource
  readonly outside = new Set<string>()
  readonly problems: ConfigurationProblem[] = []

  constructor(source: ConfigurationSource) {
    this.#source = source
  }

  readFile(path: string): string | undefined {
    const stats = statFile(this.#place(path))
    if (stats === undefined) return undefined
    if (stats.size > TEXT_FILE_BYTES_MAX) throw unreadable(path, `it has more than ${TEXT_FILE_BYTES_MAX / 1024 ** 2} MiB`)
    const text = explained(path, () => readFileSync(this.#place(path), 'latin1'))
    this.#note(path)
    return text
  }

  listDirectory(path: string): readonly string[] | undefined {
    return explained(path, () => readdirSync(this.#place(path)))
  }

  /** The files that settings name by absolute paths or outside the data directory: a restore has to name them anew. */
  findSettings(): ManifestConfiguration['settings'] {
    const { settings, serverDirectory } = this.#source
    return [...TLS_SETTINGS, KEYTAB_SETTING].flatMap((name) => {
      const value = (settings[name] ?? '').replace(/^FILE:/, '')
      const path = resolve(serverDirectory, value)
      if (value === '' || !(value.startsWith('/') || this.#isOutside(path))) return []
      return this.#takeNamed(name, path) ? [{ name, path }] : []
    })
  }

  /** False for what is not there, or closed to us and not needed: a keytab hinders no start, nor does anything of TLS that is off. */
  #takeNamed(name: string, path: string): boolean {
    const isNeeded = name !== KEYTAB_SETTING && this.#source.settings['ssl'] === 'on'
    try {
      const files = name === 'ssl_crl_dir' ? this.listDirectory(path)?.map((each) => join(path, each)) : [path]
      const found = files?.filter((file) => statFile(this.#place(file)) !== undefined)
      for (const file of found ?? []) this.#note(file)
      if (found !== undefined && (found.length > 0 || name === 'ssl_crl_dir')) return true
      if (isNeeded) this.problems.push({ path, problem: `"${name}" names "${path}", which is not there` })
    } catch (error) {
      if (isNeeded || !(error instanceof Failure)) throw error
      this.problems.push({ path, problem: `"${name}" names "${path}", which is closed to Resus, and not used now` })
    }
    return false
  }

  #note(path: string): void {
    if (!this.#isOutside(path)) return
    this.outside.add(path)
    if (this.outside.size <= HOST_FILES_MAX) return
    throw unreadable(path, `the configuration has more than ${HOST_FILES_MAX} files outside the data directory`)
  }

  #isOutside(path: string): boolean {
    return !isInside(this.#source.serverDirectory, path) && !isInside(this.#source.dataDirectory, path)
  }

  /** Where we reach what the server calls by this path. */
  #place(path: string): string {
    const { serverDirectory, dataDirectory } = this.#source
    return isInside(serverDirectory, path) ? join(dataDirectory, relative(serverDirectory, path)) : path
  }
}

/** Whether a path is below a directory, by their names alone. */
export function isInside(directory: string, path: string): boolean {
  return path.startsWith(`${resolve(directory)}/`)
}

/** A name that the data directory does not have: that of a restored cluster has the first one, with what it was restored with. */
function freeName(dataDirectory: string): string {
  for (let number = 1; ; number++) {
    const name = number === 1 ? CONFIGURATION_DIRECTORY : `${CONFIGURATION_DIRECTORY}_${number}`
    if (lstatSync(join(dataDirectory, name), { throwIfNoEntry: false }) === undefined) return name
  }
}

/** A file that we may read, or what a link to one leads to; undefined when it is not there. Throws CONFIGURATION_UNREADABLE for anything else. */
function statFile(path: string): Stats | undefined {
  return explained(path, () => {
    const stats = statSync(path)
    if (!stats.isFile()) throw unreadable(path, 'it is no file')
    accessSync(path, constants.R_OK)
    return stats
  })
}

function explained<T>(path: string, read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    const code = systemErrorCode(error)
    if (error instanceof Failure || code === undefined) throw error
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw unreadable(path, code, error)
  }
}

function unreadable(path: string, why: string, cause?: unknown): Failure {
  return new Failure('CONFIGURATION_UNREADABLE', `cannot read "${path}", which the server needs to start: ${why}`, {
    hint: 'run Resus as the user of the server (or as root), on its host; without its configuration a backup could not be started',
    cause,
  })
}

function unknownPlaces(): Failure {
  return new Failure('SERVER_SETTING', 'the server does not tell where its configuration files are', {
    hint: 'the role that Resus connects as needs to read all settings: grant pg_read_all_settings (or pg_monitor) to it',
  })
}

/** A file of the configuration is brought back by no WAL. */
export function configurationVanished(path: string): Failure {
  return new Failure('BACKUP_ABORTED', `"${path}", a file of the server's configuration, went away while the backup ran`, {
    hint: 'run the backup again: what was copied is not copied again',
  })
}
