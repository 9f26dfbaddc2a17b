import { Failure } from '../errors.ts'
import type { PostgresComponent } from '../protect/postgres/component.ts'
import { readConnectionString } from '../postgres/connection-string.ts'
import { openRepository, type Repository, type RepositoryAccess } from '../repository/repository.ts'
import { Secret } from '../secret.ts'
import { DirectoryStorage } from '../storage/directory-storage.ts'
import { connectionProblem, type ComponentConfiguration, type Configuration } from './configuration.ts'
import { nearest } from './mistakes.ts'
import { formatSecretReference, resolveSecret } from './secret-reference.ts'

type OnWarning = (text: string) => void

/** The storage of a configuration, without touching it. */
export function configuredStorage(configuration: Configuration): DirectoryStorage {
  const [storage] = configuration.repository.storages
  if (storage === undefined) throw new Failure('CONFIG_INVALID', 'the configuration names no storage')
  switch (storage.kind) {
    case 'directory':
      return new DirectoryStorage(storage.path)
    default:
      return storage.kind satisfies never
  }
}

/** What it takes to open the repository. Throws SECRET_UNREADABLE. */
export async function configuredAccess(configuration: Configuration, onWarning?: OnWarning): Promise<RepositoryAccess> {
  const passphrase = await resolveSecret(configuration.repository.key.passphrase, 'the passphrase', onWarning)
  return { storage: configuredStorage(configuration), passphrase, system: configuration.system }
}

/** Opens the repository that the configuration names. Throws SECRET_UNREADABLE and what `openRepository` throws. */
export async function openConfigured(configuration: Configuration, onWarning?: OnWarning): Promise<Repository> {
  return await openRepository(await configuredAccess(configuration, onWarning))
}

/** The component of this name; without a name the only one. Throws COMPONENT_UNKNOWN, and ARGUMENTS_INVALID where a name is needed. */
export function configuredComponent(configuration: Configuration, name: string | undefined): ComponentConfiguration {
  const { components, path } = configuration
  const names = components.map((component) => component.name)
  const known = names.length === 0 ? 'it names none' : `it has ${names.map((each) => `"${each}"`).join(', ')}`
  if (name === undefined) {
    const [only, ...others] = components
    if (only !== undefined && others.length === 0) return only
    throw new Failure('ARGUMENTS_INVALID', `which component of "${path}"? ${known}`, { hint: 'name one' })
  }
  const found = components.find((component) => component.name === name)
  if (found !== undefined) return found
  const near = nearest(name, names)
  throw new Failure('COMPONENT_UNKNOWN', `"${path}" has no component "${name}": ${known}`, {
    hint: near === undefined ? 'correct the name, or add the component to the configuration' : `did you mean "${near}"?`,
  })
}

/** The component with its connection string. Throws SECRET_UNREADABLE, CONFIG_INVALID when what is referred to is no connection string. */
export async function resolveComponent(component: ComponentConfiguration, onWarning?: OnWarning): Promise<PostgresComponent> {
  const { connection, ...rest } = component
  const what = `the connection string of "${component.name}"`
  if (connection.kind === 'text') {
    const written = new Secret(connection.text)
    readConnectionString(written, what)
    return { ...rest, connection: written }
  }
  const secret = await resolveSecret(connection, what, onWarning)
  const problem = connectionProblem(secret.reveal().toString('utf8'), { passwordAllowed: true })
  if (problem === undefined) {
    readConnectionString(secret, what)
    return { ...rest, connection: secret }
  }
  throw new Failure('CONFIG_INVALID', `${what} in "${formatSecretReference(connection)}" is none: ${problem}`, {
    hint: 'write it as "postgres://user:password@host:port/database"',
  })
}
