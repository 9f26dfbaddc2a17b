import { dirname, resolve } from 'node:path'
import type { z } from 'zod'
import type { PostgresComponentSettings } from '../protect/postgres/component.ts'
import { invalid, parseText, readDocument } from './document.ts'
import type { ObjectiveSettings } from './objectives-settings.ts'
import { position, type ConfigurationText } from './mistakes.ts'
import { configurationJsonSchema, configurationSchema, type ManagementSettings, type StorageSettings } from './schema.ts'
import { formatSecretReference, parseSecretReference, type SecretReference } from './secret-reference.ts'

/** A connection string without a password, or where a whole one is kept. */
export type ConnectionSource = { readonly kind: 'text'; readonly text: string } | SecretReference

export interface ComponentConfiguration extends Omit<PostgresComponentSettings, 'connection'>, ManagementSettings {
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
  readonly timeZone?: string | undefined
  readonly objectives?: ObjectiveSettings | undefined
  readonly facilities?: Readonly<Record<string, FacilitySettings>> | undefined
  readonly components: readonly ComponentConfiguration[]
}

export interface FacilitySettings {
  readonly name: string
  readonly lga?: string | undefined
  readonly type?: string | undefined
}

/**
 * Reads resus.yaml. Paths in it are relative to its directory. Throws CONFIG_UNREADABLE, and CONFIG_INVALID with file, line, what was found and
 * what was wanted for every mistake; no value that may be a secret is shown.
 */
export async function loadConfiguration(path: string): Promise<Configuration> {
  const { source, data } = await readDocument(path, configurationSchema, configurationJsonSchema())
  refuseUnknownNames(source, data)
  return resolvePaths(source, data)
}

/** What a document of `configurationDocument` says; `path` is where its file is. Throws CONFIG_INVALID. */
export function parseConfiguration(document: unknown, path: string): Configuration {
  const text = { file: path, text: JSON.stringify(document) }
  const { source, data } = parseText(text, configurationSchema, configurationJsonSchema())
  refuseUnknownNames(source, data)
  return resolvePaths(source, data)
}

/** The configuration as a file of its own could have it: from wherever that is read, it says the same. */
export function configurationDocument(configuration: Configuration): Record<string, unknown> {
  const { path: _path, components, repository, ...rest } = configuration
  const { passphrase } = repository.key
  const documents = components.map(({ name, connection, ...component }) => {
    const text = connection.kind === 'text' ? connection.text : formatSecretReference(connection)
    return [name, { ...component, connection: text }] as const
  })
  const key = { passphrase: formatSecretReference(passphrase) }
  return { ...rest, repository: { ...repository, key }, components: Object.fromEntries(documents) }
}

/** The configuration as it was understood, as plain data to print. References to secrets are shown, secrets never. */
export function describeConfiguration(configuration: Configuration): Record<string, unknown> {
  const { system, state, repository, components, timeZone, objectives, facilities } = configuration
  const shown = components.map(({ name, connection, ...rest }) => [name, { ...rest, connection: describeSource(connection) }])
  const key = { passphrase: describeSource(repository.key.passphrase) }
  const common = { system, state, timeZone, objectives, facilities }
  return { ...common, repository: { ...repository, key }, components: Object.fromEntries(shown) as unknown }
}

function describeSource(source: ConnectionSource): string {
  return source.kind === 'text' ? source.text : `[secret] from ${formatSecretReference(source)}`
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
    ...(data.timeZone === undefined ? {} : { timeZone: data.timeZone }),
    ...(data.objectives === undefined ? {} : { objectives: data.objectives }),
    ...(data.facilities === undefined ? {} : { facilities: data.facilities }),
    components,
  }
}

/** Names that a component uses have to be there. */
function refuseUnknownNames(source: ConfigurationText, data: z.infer<typeof configurationSchema>): void {
  const mistakes = Object.entries(data.components).flatMap(([name, { dependsOn = [], facilities = [] }]) => [
    ...dependsOn.flatMap((each, at) => (each in data.components ? [] : [{ path: ['components', name, 'dependsOn', at], each }])),
    ...facilities.flatMap((each, at) =>
      data.facilities !== undefined && each in data.facilities ? [] : [{ path: ['components', name, 'facilities', at], each }],
    ),
  ])
  if (mistakes.length === 0) return
  throw invalid(
    mistakes.map(({ path, each }) => {
      const node = source.document.getIn(path, true)
      const at = position(source, (node as { range?: readonly number[] } | undefined)?.range?.[0] ?? 0)
      return `${at}: ${path.slice(0, -1).join('.')}: found "${each}", which this file does not have`
    }),
  )
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
