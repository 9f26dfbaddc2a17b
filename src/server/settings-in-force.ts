import { newestSettings } from '../authority/accepted-settings.ts'
import type { Json } from '../authority/canonical-json.ts'
import { knowsPeople } from '../authority/clearance.ts'
import { holdBack, type HeldBack } from '../authority/settings-weakening.ts'
import type { Clock } from '../clock.ts'
import { Failure } from '../errors.ts'
import type { Repository } from '../repository/repository.ts'
import { readAcceptedSettings } from './accepted-settings-file.ts'
import { hadNobody, isAnybodyKnown } from './authority/known-people.ts'
import { inTime, type OpenedRepositories } from './opened-repositories.ts'
import { plainData } from './plain-data.ts'
import { isPlainBeyondLoopback, parseSettings, settingsOf, type ServerSettings, type SettingsDocument } from './settings.ts'

/** What of server.yaml is in force. */
export interface SettingsInForce {
  readonly settings: ServerSettings
  /** What the file says. */
  readonly wanted: SettingsDocument
  /** Why that is not all in force; null when it is. */
  readonly refused: string | null
}

/** What could be known at a start. */
type Known =
  | { readonly kind: 'accepted'; readonly document: Readonly<Record<string, Json>> }
  /** Nobody was ever known here, or every repository answers, and neither they nor this node have settings yet: what the file says is in force. */
  | { readonly kind: 'none' }
  | { readonly kind: 'unknown' }

/**
 * The settings that a server begins with: what weakens protection in its file stays as it was accepted last. Where nobody can say what that was, nothing is given that restores or a provider's
 * groups would come by; protection begins all the same.
 */
export async function settingsInForce(
  file: string,
  wanted: ServerSettings,
  { repositories, clock }: { readonly repositories: OpenedRepositories; readonly clock: Clock },
): Promise<SettingsInForce> {
  const known = await find(wanted, repositories, clock)
  if (known.kind === 'none') return { settings: wanted, wanted: wanted.document, refused: null }
  const accepted = known.kind === 'accepted' ? understood(known.document, wanted.document) : undefined
  const held = accepted ?? withheld(wanted.document)
  if (held.changes.length === 0) return { settings: wanted, wanted: wanted.document, refused: null }
  const names = held.changes.map(({ path }) => path).join(', ')
  const refused =
    accepted !== undefined
      ? `${file}: ${names}: weakens protection, and stays as it was until a second person has looked at it`
      : `${file}: ${names}: is without effect: what was accepted cannot be read from any storage; start it again when it can`
  return { settings: settingsOf(parseSettings(held.document), file), wanted: wanted.document, refused }
}

/** What of these changes weakens. Throws CONFIG_INVALID for a document that is none. */
export function heldBack(before: Readonly<Record<string, Json>>, wanted: SettingsDocument): HeldBack {
  const isPlain = (document: Readonly<Record<string, Json>>) => isPlainBeyondLoopback(parseSettings(document))
  return holdBack(settingsData(parseSettings(before)), settingsData(wanted), isPlain)
}

/** Undefined for what a later version may have kept in another way. */
function understood(before: Readonly<Record<string, Json>>, wanted: SettingsDocument): HeldBack | undefined {
  try {
    return heldBack(before, wanted)
  } catch (error) {
    if (error instanceof Failure) return undefined
    throw error
  }
}

/** As plain data: what is undefined is not there. */
export function settingsData(document: SettingsDocument): Readonly<Record<string, Json>> {
  return plainData(document) as Readonly<Record<string, Json>>
}

async function find(settings: ServerSettings, { opened, missing, isWhole }: OpenedRepositories, clock: Clock): Promise<Known> {
  const repositories = [...opened.values()]
  const asked = await inTime(clock, ask(repositories, settings.node)).catch((error: unknown) => {
    if (error instanceof Failure) return undefined
    throw error
  })
  if (asked?.document !== undefined) return { kind: 'accepted', document: asked.document }
  const haveAnswered = asked?.isWhole === true && isWhole
  const isAnybodyHere = await isAnybodyKnown(settings.state)
  if (haveAnswered && !isAnybodyHere) return { kind: 'none' }
  // A storage that is not mounted looks like one that is to be made yet.
  const kept = isAnybodyHere ? await readAcceptedSettings(settings.state) : undefined
  if (kept !== undefined) return { kind: 'accepted', document: kept.document }
  if (haveAnswered && missing.length === 0 && repositories.length > 0) return { kind: 'none' }
  const isNobodyKnown = asked?.isAnybody !== true && (await hadNobody(settings.state))
  return { kind: isNobodyKnown ? 'none' : 'unknown' }
}

/** What cannot be read in one keeps no other from saying what it knows. */
async function ask(repositories: readonly Repository[], node: string) {
  const asked = await Promise.allSettled(
    repositories.map(async (repository) => {
      await newestSettings([repository], node)
      return { repository, isAnybody: await knowsPeople(repository) }
    }),
  )
  const answered = asked.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
  const newest = await newestSettings(
    answered.map(({ repository }) => repository),
    node,
  )
  return {
    document: newest?.document,
    isAnybody: answered.some(({ isAnybody }) => isAnybody),
    isWhole: answered.length === repositories.length,
  }
}

/** By what nobody can say was accepted nobody restores, and nobody is let in. */
function withheld(wanted: SettingsDocument): HeldBack {
  const { identityProvider: _, ...rest } = wanted
  return heldBack(settingsData({ ...rest, restoreRoots: [] }), wanted)
}
