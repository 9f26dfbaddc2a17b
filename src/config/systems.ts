import { readdir, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { Failure, systemErrorCode } from '../errors.ts'
import { loadConfiguration, type Configuration } from './configuration.ts'

/** In a directory of configurations, the one file that is no system's. */
export const SERVER_FILE = 'server.yaml'

/** Everything that one control plane protects. */
export interface Systems {
  /** In the order of their files. */
  readonly systems: readonly Configuration[]
  /** Where the server's own settings are, if there are any. */
  readonly serverFile: string
}

/**
 * Reads the configuration of a system, or of all systems of a directory (`*.yaml` and `*.yml` but for server.yaml), as a whole: one mistake in one file, and
 * nothing is taken. Throws CONFIG_UNREADABLE, and CONFIG_INVALID, also for what two systems cannot share.
 */
export async function loadSystems(path: string): Promise<Systems> {
  const place = resolve(path)
  if (!(await isDirectory(place))) {
    return { systems: [await loadConfiguration(place)], serverFile: join(dirname(place), SERVER_FILE) }
  }
  const names = (await readdir(place)).filter(isSystemFile).toSorted()
  if (names.length === 0) {
    throw new Failure('CONFIG_INVALID', `"${place}" has no configuration of a system (*.yaml)`, {
      hint: 'put one file for each system there; "resus init" makes one, docs/setup.md shows one',
    })
  }
  const outcomes = await Promise.allSettled(names.map(async (name) => loadConfiguration(join(place, name))))
  refuseAll(outcomes)
  const systems = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
  refuseShared(systems, 'system', ({ system }) => [system])
  refuseShared(systems, 'state', ({ state }) => [state])
  refuseShared(systems, 'repository.storages', ({ repository }) => repository.storages.map((storage) => storage.path))
  refuseShared(systems, 'dataDirectory', ({ components }) => components.map(({ dataDirectory }) => dataDirectory))
  return { systems, serverFile: join(place, SERVER_FILE) }
}

/** Whether a file of this name, in a directory of configurations, is a system's. */
export function isSystemFile(name: string): boolean {
  return /^[^.].*\.ya?ml$/.test(name) && name !== SERVER_FILE
}

/** Where the server's own settings are, whatever is to be said of the systems. */
export async function serverFileOf(path: string): Promise<string> {
  const place = resolve(path)
  return join((await isDirectory(place)) ? place : dirname(place), SERVER_FILE)
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory()
  } catch (error) {
    // Whoever reads it says what is wrong, as a file.
    if (systemErrorCode(error) === undefined) throw error
    return false
  }
}

/** The mistakes of all files at once. */
function refuseAll(outcomes: readonly PromiseSettledResult<Configuration>[]): void {
  const reasons = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as Error] : []))
  const [first, ...others] = reasons
  if (first === undefined) return
  if (others.length === 0 || !reasons.every((each) => each instanceof Failure)) throw first
  throw new Failure('CONFIG_INVALID', reasons.map(({ message }) => message).join('\n'), {
    hint: 'nothing was taken of any file; correct these, and look again with "resus config"',
  })
}

/** Two systems in one place would each delete what it does not know. */
function refuseShared(
  systems: readonly Configuration[],
  what: string,
  valuesOf: (configuration: Configuration) => readonly string[],
): void {
  const owners = new Map<string, string>()
  for (const configuration of systems) {
    for (const value of valuesOf(configuration)) {
      const other = owners.get(value)
      if (other !== undefined && other !== configuration.path) {
        throw new Failure(
          'CONFIG_INVALID',
          `"${configuration.path}" and "${other}" have the same ${what}, "${value}": each system has its own`,
          { hint: 'give one of them another' },
        )
      }
      owners.set(value, configuration.path)
    }
  }
}

/** The system of this name. Throws COMPONENT_UNKNOWN. */
export function systemNamed(systems: readonly Configuration[], name: string): Configuration {
  const found = systems.find(({ system }) => system === name)
  if (found !== undefined) return found
  const known = systems.map(({ system }) => `"${system}"`).join(', ')
  throw new Failure('COMPONENT_UNKNOWN', `there is no system "${name}": there is ${known}`, { hint: 'correct the name' })
}
