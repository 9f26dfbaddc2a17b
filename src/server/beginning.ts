import type { Clock } from '../clock.ts'
import type { Configuration } from '../config/configuration.ts'
import { loadSystems, serverFileOf } from '../config/systems.ts'
import { Failure } from '../errors.ts'
import { AcceptedConfiguration } from './accepted-configuration.ts'
import { heldAtStart } from './authority/configuration-gate.ts'
import { isAnybodyKnown } from './authority/known-people.ts'
import { configurationFingerprint } from './configuration-watch.ts'
import { openRepositories, type OpenedRepositories } from './opened-repositories.ts'
import { settingsInForce, type SettingsInForce } from './settings-in-force.ts'
import { loadSettings } from './settings.ts'

export interface BeginOptions {
  /** A configuration, or a directory of them. */
  readonly configPath: string
  /** Instead of server.yaml beside them. */
  readonly serverFile?: string | undefined
  readonly clock: Clock
  /** One line for people. */
  readonly report: (text: string) => void
}

export interface InForce {
  readonly systems: readonly Configuration[]
  /** Why the files as they are now are not in force, or not kept. */
  readonly refused: string | null
}

/** What a node begins with. */
export interface Beginning extends InForce {
  /** What of server.yaml is in force. */
  readonly server: SettingsInForce
  /** server.yaml. */
  readonly serverFile: string
  readonly repositories: OpenedRepositories
  readonly accepted: AcceptedConfiguration
  /** Of the files as they are in force; undefined where they are to be looked at again. */
  readonly fingerprint: string | undefined
}

/** What this node begins with. Throws CONFIG_INVALID, CONFIG_UNREADABLE where there is nothing to begin with. */
export async function begin(options: BeginOptions): Promise<Beginning> {
  const { configPath, clock, report } = options
  const fingerprint = await configurationFingerprint(configPath)
  const serverFile = options.serverFile ?? (await serverFileOf(configPath))
  const wanted = await loadSettings(serverFile, { named: options.serverFile !== undefined })
  const accepted = new AcceptedConfiguration(wanted.state, configPath)
  const loaded = await loadBeginning(options, accepted, wanted.state)
  const repositories = await openRepositories(loaded.systems, clock)
  const server = await settingsInForce(serverFile, wanted, { repositories, clock })
  if (server.refused !== null) report(server.refused)
  return { server, serverFile, repositories, accepted, fingerprint, ...loaded }
}

/**
 * What is in force: the files; or, where they are refused, what was accepted last: protection does not wait for a typing mistake to be found. Once there are people, what was accepted last is also
 * in force where a file weakens it: a second person is asked as soon as the node is at work.
 */
async function loadBeginning(
  { configPath, report }: BeginOptions,
  accepted: AcceptedConfiguration,
  state: string,
): Promise<InForce & { readonly fingerprint?: undefined }> {
  let wanted: readonly Configuration[]
  try {
    wanted = (await loadSystems(configPath)).systems
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const systems = await accepted.load()
    if (systems === undefined) throw error
    report(`the configuration is refused, what was accepted last is in force: ${error.message}`)
    return { systems, refused: error.message }
  }
  const before = (await isAnybodyKnown(state)) ? await accepted.load() : undefined
  const systems = before === undefined ? wanted : heldAtStart(before, wanted)
  if (systems.every((each) => wanted.includes(each))) return { systems: wanted, refused: null }
  const refused =
    'a change of the configuration weakens protection: what was accepted last is in force until a second person has looked at it'
  report(refused)
  return { systems, refused, fingerprint: undefined }
}
