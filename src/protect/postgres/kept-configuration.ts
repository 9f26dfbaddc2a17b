import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { chmod, chown, mkdir, rename, stat, writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { systemErrorCode } from '../../errors.ts'
import { expandAuthentication } from '../../postgres/authentication-text.ts'
import { expandConfiguration, findSetting, type ConfigurationFiles } from '../../postgres/configuration-text.ts'
import { crc32c } from '../../postgres/crc32c.ts'
import type { BackupManifest } from '../../repository/backups.ts'
import { isInside, KEYTAB_SETTING, type ManifestConfiguration } from './host-configuration.ts'
import { quoteSetting } from './recovery-settings.ts'
import type { RestoredFile } from './file-finisher.ts'

// Puts the configuration that a cluster had outside its data directory to use in a restored one. Nothing outside of that is read or written.

const AUTOMATIC_FILE = 'postgresql.auto.conf'
/** Where PostgreSQL looks for its configuration unless it is told otherwise. */
const MADE_FILES = ['postgresql.conf', 'pg_hba.conf', 'pg_ident.conf', AUTOMATIC_FILE] as const

export interface ArrangeConfigurationOptions {
  /** The restored data directory. */
  readonly directory: string
  readonly manifest: BackupManifest
  readonly files: AsyncIterable<RestoredFile>
  readonly onDirectory: (path: string) => void
  readonly onNotice?: (text: string) => void
}

/**
 * Gives the restored files on, and when all are there makes of them the configuration that the restored server starts with. What it replaces is kept
 * beside the files that lay elsewhere. Each file that is there at the end was given out, as it is then.
 */
export async function* arrangeConfiguration(options: ArrangeConfigurationOptions): AsyncGenerator<RestoredFile> {
  const { manifest, files } = options
  const { configuration } = manifest
  const held = new Map<string, RestoredFile>()
  for await (const file of files) {
    if (configuration !== null && (MADE_FILES as readonly string[]).includes(file.path)) held.set(file.path, file)
    else yield file
  }
  if (configuration !== null) yield* makeConfiguration(options, configuration, held)
}

/** What a person should know before a restored server is started: what its settings want of this host, and is not there. */
export function missingPlaces(directory: string): string[] {
  // What cannot be read is as good as not there: this only warns.
  const files: ConfigurationFiles = {
    readFile: (path) => unless(isSystemError, () => readFileSync(path, 'latin1')),
    listDirectory: (path) => unless(isSystemError, () => readdirSync(path)),
  }
  const texts = ['postgresql.conf', AUTOMATIC_FILE].map((name) => expandConfiguration(files, join(directory, name)).text)
  const setting = (name: string) => findSetting(texts.join(''), name) ?? ''
  const sockets = setting('unix_socket_directories').split(',')
  const wanted = [
    ...sockets.map((path) => ({ name: 'unix_socket_directories', path: path.trim().replace(/^"(.*)"$/, '$1') })),
    ...(setting('logging_collector') === 'on' ? [{ name: 'log_directory', path: setting('log_directory') }] : []),
  ]
  return wanted
    .filter(({ path }) => path.startsWith('/') && !existsSync(path))
    .map(
      ({ name, path }) =>
        `"${name}" is "${path}", which this host does not have: make it for the server's account, or change the setting in "${directory}"; the server does not start without it`,
    )
}

async function* makeConfiguration(
  options: ArrangeConfigurationOptions,
  configuration: ManifestConfiguration,
  held: ReadonlyMap<string, RestoredFile>,
): AsyncGenerator<RestoredFile> {
  const { directory, onNotice } = options
  const keptOriginals = `${configuration.directory}/data`
  // All is read before anything is replaced.
  const texts = makeTexts(options, configuration)
  for (const path of [configuration.directory, keptOriginals]) await makeDirectory(options, join(directory, path))
  for (const [name, text] of texts) {
    const original = held.get(name)
    if (original !== undefined) {
      const path = `${keptOriginals}/${name}`
      await rename(join(directory, name), join(directory, path))
      yield { ...original, path }
    }
    const bytes = Buffer.from(text, 'latin1')
    await writeOwned(options, name, bytes)
    yield { path: name, sizeBytes: bytes.length, crc32c: crc32c(bytes) }
  }
  for (const name of MADE_FILES) if (!texts.has(name) && held.has(name)) yield held.get(name)!
  await renameSettings(options, configuration)
  for (const { problem } of configuration.problems)
    onNotice?.(`the configuration was not whole when it was backed up: ${problem}`)
  onNotice?.(
    `the configuration that lay outside the data directory is in "${join(directory, configuration.directory)}", byte for byte; ` +
      `the server uses postgresql.conf, pg_hba.conf and pg_ident.conf in "${directory}", which were made of it`,
  )
}

/** The files that are to be made, by name; of the automatic one only when it names places. */
function makeTexts(options: ArrangeConfigurationOptions, configuration: ManifestConfiguration): Map<string, string> {
  const { directory, manifest } = options
  const { config, hba, ident, dataDirectory } = configuration
  const files = new RestoredFiles(directory, configuration)
  const texts = new Map<string, string>()
  const add = (name: string, from: string, text: string) => texts.set(name, `${header(manifest, from)}${text}`)
  add('postgresql.conf', config, expandConfiguration(files, config).text)
  add('pg_hba.conf', hba, expandAuthentication(files, hba, manifest.server).text)
  add('pg_ident.conf', ident, expandAuthentication(files, ident, manifest.server).text)
  const automatic = join(dataDirectory, AUTOMATIC_FILE)
  if (files.readFile(automatic) === undefined) return texts
  const { text, isPlaced } = expandConfiguration(files, automatic)
  if (isPlaced) texts.set(AUTOMATIC_FILE, text)
  return texts
}

function header({ id }: BackupManifest, from: string): string {
  const lines = [
    `# Made by Resus when it restored backup ${id}, of ${JSON.stringify(from)} and what that includes.`,
    '# Lines that begin with "# Resus:" are includes, which follow where they stood, and settings that named the old places.',
  ]
  return Buffer.from(`${lines.join('\n')}\n`).toString('latin1')
}

/** TLS and Kerberos settings come to name the restored files; the automatic file wins over all others. */
async function renameSettings(options: ArrangeConfigurationOptions, configuration: ManifestConfiguration): Promise<void> {
  const { directory } = options
  if (configuration.settings.length === 0) return
  const lines: string[] = []
  for (const { name, path } of configuration.settings) {
    const place = restoredPlace(configuration, path)
    lines.push(`${name} = '${quoteSetting(name === KEYTAB_SETTING ? `FILE:${place}` : place)}'`)
    // PostgreSQL refuses a private key that others may read, or that belongs to somebody else.
    if (!isInside(configuration.dataDirectory, path)) await makePrivate(options, join(directory, place))
  }
  const text = ['', '# Written by Resus: the files that these settings named on the other host.', ...lines, ''].join('\n')
  await writeFile(join(directory, AUTOMATIC_FILE), text, { flag: 'a', mode: 0o600, flush: true })
}

/** Reads, by the old host's paths, what was restored of them. */
class RestoredFiles implements ConfigurationFiles {
  readonly #directory: string
  readonly #configuration: ManifestConfiguration

  constructor(directory: string, configuration: ManifestConfiguration) {
    this.#directory = directory
    this.#configuration = configuration
  }

  readFile(path: string): string | undefined {
    return unless(isMissing, () => readFileSync(this.#place(path), 'latin1'))
  }

  listDirectory(path: string): readonly string[] | undefined {
    return unless(isMissing, () => readdirSync(this.#place(path)))
  }

  #place(path: string): string {
    return join(this.#directory, restoredPlace(this.#configuration, path))
  }
}

/** Where a file of the old host lies in the restored data directory. */
function restoredPlace({ dataDirectory, directory }: ManifestConfiguration, path: string): string {
  return isInside(dataDirectory, path) ? relative(dataDirectory, path) : `${directory}/host${path}`
}

function isSystemError(error: unknown): boolean {
  return systemErrorCode(error) !== undefined
}

function isMissing(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR'].includes(systemErrorCode(error) ?? '')
}

function unless<T>(isExpected: (error: unknown) => boolean, read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (isExpected(error)) return undefined
    throw error
  }
}

async function makeDirectory({ manifest, onDirectory }: ArrangeConfigurationOptions, path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: manifest.defaults.directoryMode })
  await giveToServer(manifest, path)
  onDirectory(path)
}

async function writeOwned({ directory, manifest }: ArrangeConfigurationOptions, name: string, bytes: Buffer): Promise<void> {
  const path = join(directory, name)
  await writeFile(path, bytes, { mode: manifest.defaults.fileMode, flush: true })
  await giveToServer(manifest, path)
}

async function makePrivate({ manifest }: ArrangeConfigurationOptions, path: string): Promise<void> {
  const stats = await stat(path)
  if (stats.isDirectory()) return
  await chmod(path, 0o600)
  await giveToServer(manifest, path)
}

/** Only root may give files away; anybody else restores as the user that the server will run as. */
async function giveToServer({ defaults }: BackupManifest, path: string): Promise<void> {
  if (process.getuid?.() === 0) await chown(path, defaults.uid, defaults.gid)
}
