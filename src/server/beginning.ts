import type { Configuration } from '../config/configuration.ts'
import { loadSystems } from '../config/systems.ts'
import { Failure } from '../errors.ts'
import type { AcceptedConfiguration } from './accepted-configuration.ts'
import { heldAtStart } from './authority/configuration-gate.ts'
import { isAnybodyKnown } from './authority/known-people.ts'
import type { ServerSettings } from './settings.ts'

export interface InForce {
  readonly systems: readonly Configuration[]
  /** Why the files as they are now are not in force, or not kept. */
  readonly refused: string | null
}

/** What a node begins with. */
export interface Beginning extends InForce {
  readonly settings: ServerSettings
  readonly accepted: AcceptedConfiguration
  /** Of the files as they are in force; undefined where they are to be looked at again. */
  readonly fingerprint: string | undefined
}

/**
 * What is in force: the files; or, where they are refused, what was accepted last: protection does not wait for a typing mistake to be found. Once there are people, what was accepted last is also
 * in force where a file weakens it: a second person is asked as soon as the node is at work.
 */
export async function loadBeginning(
  { configPath, report }: { readonly configPath: string; readonly report: (text: string) => void },
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
