import type { Clock } from '../clock.ts'
import { newestConfiguration } from '../authority/configurations.ts'
import { parseConfiguration, type Configuration } from '../config/configuration.ts'
import { loadSystems, serverFileOf } from '../config/systems.ts'
import { Failure } from '../errors.ts'
import { AcceptedConfiguration } from './accepted-configuration.ts'
import { heldAtStart } from './authority/configuration-gate.ts'
import { hadNobody, isAnybodyKnown } from './authority/known-people.ts'
import { configurationFingerprint } from './configuration-watch.ts'
import { inTime, openRepositories, type OpenedRepositories } from './opened-repositories.ts'
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
  /** Of what is in force: it is to be kept, or is what was kept, or is not known well enough to be kept. */
  readonly copy: 'keep' | 'kept' | 'files'
  /** Systems of which nobody can say yet what was accepted. */
  readonly unproven: ReadonlySet<string>
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
  const { repositories, ...loaded } = await loadInForce(options, accepted, wanted.state)
  if (loaded.refused !== null) report(loaded.refused)
  const server = await settingsInForce(serverFile, wanted, { repositories, clock })
  if (server.refused !== null) report(server.refused)
  return { server, serverFile, repositories, accepted, fingerprint, ...loaded }
}

type Loaded = InForce & Pick<Beginning, 'repositories'> & { readonly fingerprint?: undefined }

/**
 * What is in force: the files; or, where they are refused, what was accepted last: protection does not wait for a typing mistake to be found. Once there are people, what was accepted last is also
 * in force where a file weakens it: a second person is asked as soon as the node is at work.
 */
async function loadInForce({ configPath, clock }: BeginOptions, accepted: AcceptedConfiguration, state: string): Promise<Loaded> {
  const unproven = new Set<string>()
  let wanted: readonly Configuration[]
  try {
    wanted = (await loadSystems(configPath)).systems
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const systems = await accepted.load()
    if (systems === undefined) throw error
    const refused = `the configuration is refused, what was accepted last is in force: ${error.message}`
    return { systems, refused, copy: 'kept', unproven, repositories: await openRepositories(systems, clock) }
  }
  const kept = (await isAnybodyKnown(state)) ? ((await accepted.load()) ?? []) : []
  const isKept = ({ system }: Configuration) => kept.some((each) => each.system === system)
  const unkept = wanted.filter((each) => !isKept(each))
  const asked = await askAccepted(unkept, clock)
  if (!(await hadNobody(state))) for (const { system } of asked.unknown) unproven.add(system)
  const systems = heldAtStart([...kept, ...asked.anchored], wanted)
  const repositories = await openRepositories(systems, clock, asked.opened)
  if (systems.every((each) => wanted.includes(each))) {
    return { systems, ...ofUnproven(unproven), unproven, repositories }
  }
  const refused =
    'a change of the configuration weakens protection: what was accepted last is in force until a second person has looked at it'
  // What a repository knows is in no copy yet.
  const copy = systems.some((each) => asked.anchored.includes(each)) ? 'keep' : 'kept'
  return { systems, refused, copy, unproven, repositories, fingerprint: undefined }
}

/** Where nobody can say what was accepted, protection begins by the file; what of it weakens is taken back as soon as the storage answers. */
function ofUnproven(unproven: ReadonlySet<string>): Pick<Loaded, 'refused' | 'copy' | 'fingerprint'> {
  if (unproven.size === 0) return { refused: null, copy: 'keep' }
  const names = [...unproven].map((each) => `"${each}"`).join(', ')
  const refused = `what was accepted for ${names} cannot be known now, neither this host nor a storage says it: the file is in force until a storage answers`
  return { refused, copy: 'files', fingerprint: undefined }
}

interface Asked {
  readonly opened: OpenedRepositories['opened']
  /** What the repositories know as accepted. */
  readonly anchored: readonly Configuration[]
  /** Whose repository does not say. */
  readonly unknown: readonly Configuration[]
}

async function askAccepted(systems: readonly Configuration[], clock: Clock): Promise<Asked> {
  const { opened, missing } = await openRepositories(systems, clock)
  const anchored: Configuration[] = []
  const answered = new Set(missing)
  const each = [...opened].map(async ([configuration, repository]) => {
    try {
      const anchor = await newestConfiguration(repository)
      if (anchor !== undefined) anchored.push(parseConfiguration(anchor.document, configuration.path))
      answered.add(configuration)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
    }
  })
  await inTime(clock, Promise.all(each))
  return { opened, anchored: [...anchored], unknown: systems.filter((configuration) => !answered.has(configuration)) }
}
