import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { LineCounter, parseDocument } from 'yaml'
import type { z } from 'zod'
import { Failure, systemErrorCode } from '../errors.ts'
import type { PostgresComponentSettings } from '../protect/postgres/component.ts'
import { describeMistakes, position, type ConfigurationText } from './mistakes.ts'
import { configurationJsonSchema, configurationSchema, type StorageSettings } from './schema.ts'
import { formatSecretReference, parseSecretReference, type SecretReference } from './secret-reference.ts'

/** A connection string without a password, or where a whole one is kept. */
export type ConnectionSource = { readonly kind: 'text'; readonly text: string } | SecretReference

export interface ComponentConfiguration extends Omit<PostgresComponentSettings, 'connection'> {
  readonly name: string
  readonly connection: ConnectionSource
}

/** One resus.yaml: defaults filled in, every path absolute, secrets still references. */
export interface Configuration {
  readonly path: string
  readonly system: string
  /** The directory of caches and of the WAL spool. */
  readonly state: string
  readonly repository: {
    readonly storages: readonly StorageSettings[]
    readonly key: { readonly passphrase: SecretReference }
  }
  readonly components: readonly ComponentConfiguration[]
}

const CONFIGURATION_BYTES_MAX = 1024 * 1024
const MISTAKES_SHOWN = 10

/**
 * Reads resus.yaml. Paths in it are relative to its directory. Throws CONFIG_UNREADABLE, and CONFIG_INVALID with file, line, what was found and
 * what was wanted for every mistake; no value that may be a secret is shown.
 */
export async function loadConfiguration(path: string): Promise<Configuration> {
  const file = resolve(path)
  const source = parseYaml(file, await readText(file))
  const parsed = configurationSchema.safeParse(toPlainData(source))
  if (!parsed.success) throw invalid(describeMistakes(source, parsed.error.issues, configurationJsonSchema()))
  return resolvePaths(source, parsed.data)
}

/** The configuration as it was understood, as plain data to print. References to secrets are shown, secrets never. */
export function describeConfiguration(configuration: Configuration): Record<string, unknown> {
  const { system, state, repository, components } = configuration
  const shown = components.map(({ name, connection, ...rest }) => [name, { ...rest, connection: describeSource(connection) }])
  const key = { passphrase: describeSource(repository.key.passphrase) }
  return { system, state, repository: { ...repository, key }, components: Object.fromEntries(shown) as unknown }
}

function describeSource(source: ConnectionSource): string {
  return source.kind === 'text' ? source.text : `[secret] from ${formatSecretReference(source)}`
}

async function readText(file: string): Promise<string> {
  try {
    const text = await readFile(file, 'utf8')
    if (text.length <= CONFIGURATION_BYTES_MAX) return text
    throw invalid([`${file}: found ${text.length} characters, wanted ${CONFIGURATION_BYTES_MAX} at most`])
  } catch (cause) {
    const code = systemErrorCode(cause)
    if (cause instanceof Failure || code === undefined) throw cause
    const hint =
      code === 'ENOENT'
        ? 'name it with --config or RESUS_CONFIG; "README.md" has one to begin with'
        : 'may this user read it and pass its directories?'
    throw new Failure('CONFIG_UNREADABLE', `cannot read the configuration "${file}": ${code}`, { hint, cause })
  }
}

function parseYaml(file: string, text: string): ConfigurationText {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
  const source = { file, text, document, lines }
  if (document.errors.length === 0) return source
  throw invalid(document.errors.map((error) => `${position(source, error.pos[0])}: found no valid YAML: ${error.message}`))
}

function toPlainData(source: ConfigurationText): unknown {
  try {
    return source.document.toJS() as unknown
  } catch (cause) {
    // An alias without its anchor, or so many that they would fill the memory.
    throw invalid([`${source.file}:1:1: found no valid YAML: ${cause instanceof Error ? cause.message : String(cause)}`], cause)
  }
}

function resolvePaths(source: ConfigurationText, data: z.infer<typeof configurationSchema>): Configuration {
  const directory = dirname(source.file)
  const passphrase = parseSecretReference(data.repository.key.passphrase, directory)
  if (passphrase === undefined) throw invalid([`${source.file}: repository.key.passphrase: wanted a reference`])
  const components = Object.entries(data.components).map(([name, component]) => ({
    ...component,
    name,
    dataDirectory: resolve(directory, component.dataDirectory),
    ...(component.binaries === undefined ? {} : { binaries: resolve(directory, component.binaries) }),
    connection: connectionSource(source, name, component.connection),
  }))
  return {
    path: source.file,
    system: data.system,
    state: resolve(directory, data.state),
    repository: {
      storages: data.repository.storages.map((storage) => ({ ...storage, path: resolve(directory, storage.path) })),
      key: { passphrase },
    },
    components,
  }
}

function connectionSource(source: ConfigurationText, name: string, text: string): ConnectionSource {
  const reference = parseSecretReference(text, dirname(source.file))
  if (reference !== undefined) return reference
  const problem = connectionProblem(text)
  if (problem === undefined) return { kind: 'text', text }
  const node = source.document.getIn(['components', name, 'connection'], true)
  const at = position(source, (node as { range?: readonly number[] } | undefined)?.range?.[0] ?? 0)
  throw invalid([`${at}: components.${name}.connection: ${problem}`])
}

/** What is wrong with a connection string, without any part of it: it may hold a password. Undefined when nothing is. */
export function connectionProblem(text: string, options: { passwordAllowed?: boolean } = {}): string | undefined {
  // `user@/database?host=/directory` has no host, which URL refuses and `pg` accepts.
  const parsable = text.replace('@/', '@localhost/')
  const url = URL.canParse(parsable) ? new URL(parsable) : undefined
  if (url === undefined || !['postgres:', 'postgresql:'].includes(url.protocol)) {
    return 'found a value (not shown), wanted "postgres://user@host:port/database", or a reference to one ("file:/path", "env:NAME")'
  }
  if (options.passwordAllowed === true || (url.password === '' && !url.searchParams.has('password'))) return undefined
  return 'found a password in it, wanted none: put the whole connection string into a file and write "file:/path" here'
}

function invalid(mistakes: readonly string[], cause?: unknown): Failure {
  const more = mistakes.length > MISTAKES_SHOWN ? [`... and ${mistakes.length - MISTAKES_SHOWN} more`] : []
  const list = [...mistakes.slice(0, MISTAKES_SHOWN), ...more].map((mistake) => `\n  ${mistake}`).join('')
  const secret = mistakes.some((mistake) => mistake.includes('passphrase: found a value'))
  const hint = secret
    ? 'put the passphrase into a file that only Resus may read, and write "file:/path/of/it" in its place'
    : '"resus config --schema" prints the JSON Schema, which an editor can check with'
  return new Failure('CONFIG_INVALID', `the configuration is not valid, nothing was started:${list}`, { hint, cause })
}
