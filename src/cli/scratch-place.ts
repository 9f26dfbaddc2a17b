import { userInfo } from 'node:os'
import { join, resolve } from 'node:path'
import type { ComponentConfiguration, Configuration } from '../config/configuration.ts'
import { resolveComponent } from '../config/open.ts'
import { Failure } from '../errors.ts'
import type { Place } from '../protect/postgres/scratch.ts'
import type { ProgressReport } from './progress.ts'
import { optionalText, type Context, type Given } from './verb.ts'

/** What restoring a copy of a component to be looked at takes, whatever is done with it. */
export async function copyContext(
  context: Context,
  given: Given,
  { configuration, component }: { readonly configuration: Configuration; readonly component: ComponentConfiguration },
) {
  return {
    ...scratchPlace(configuration, given),
    stateDirectory: configuration.state,
    configPath: context.configPath,
    roles: await knownRoles(component),
    clock: context.clock,
    signal: context.signal,
    onProgress: (progress: ProgressReport) => context.progress.report(progress),
    onNotice: (text: string) => context.progress.print(text),
  }
}

/** Where a copy is restored to be looked at: by --scratch, or in the state directory; and where that must never be. */
function scratchPlace(configuration: Configuration, given: Given): { scratchRoot: string; forbidden: Place[] } {
  const { components, repository, state } = configuration
  const { passphrase } = repository.key
  return {
    scratchRoot: resolve(optionalText(given, 'scratch') ?? join(state, 'scratch')),
    forbidden: [
      ...components.map(({ name, dataDirectory }) => ({ path: dataDirectory, what: `the data directory of "${name}"` })),
      ...repository.storages.map(({ name, path }) => ({ path, what: `the storage "${name}"` })),
      ...(passphrase.kind === 'file' ? [{ path: passphrase.path, what: 'the key' }] : []),
    ],
  }
}

/** Roles that the cluster may have. The password is not needed, so that a secret that is not on this machine keeps nothing back. */
async function knownRoles(component: ComponentConfiguration): Promise<string[]> {
  const roles = [userInfo().username]
  try {
    const { connection } = await resolveComponent(component)
    const text = connection.reveal().toString('utf8').replace('@/', '@localhost/')
    const { username } = new URL(text)
    if (username !== '') roles.unshift(decodeURIComponent(username))
  } catch (error) {
    if (!(error instanceof Failure)) throw error
  }
  return roles
}
