import { createHash } from 'node:crypto'
import { keepSettings, newestSettings } from '../../authority/accepted-settings.ts'
import { canonicalJson, type Json } from '../../authority/canonical-json.ts'
import { isObject, type Change } from '../../authority/weakening.ts'
import type { Clock } from '../../clock.ts'
import type { Repository } from '../../repository/repository.ts'
import { hasSecret, readAcceptedSettings, writeAcceptedSettings } from '../accepted-settings-file.ts'
import { heldBack, settingsData, type SettingsInForce } from '../settings-in-force.ts'
import type { FileApprovals } from './file-approvals.ts'

const SOON_MS = 5_000
const AGAIN_MS = 30_000

export interface SettingsGateOptions {
  readonly inForce: SettingsInForce
  /** Of server.yaml. */
  readonly path: string
  readonly clock: Clock
  readonly isGuarded: () => boolean
  readonly approvals: FileApprovals
  /** Of all systems; and whether none of them is away. */
  readonly repositories: () => Promise<{ readonly repositories: readonly Repository[]; readonly isWhole: boolean }>
  readonly report: (text: string) => void
}

/** Once there are people, the repositories know which settings of this server were accepted; what weakens them waits for a second person, and comes into force at the start after that. */
export class SettingsGate {
  readonly #options: SettingsGateOptions
  /** Why what the file said at the start is not in force; null when it is. */
  refused: string | null
  #isDone = false
  #hasLooked = false
  #looking: Promise<void> | undefined

  constructor(options: SettingsGateOptions) {
    this.#options = options
    this.refused = options.inForce.refused
  }

  /** Until it is to be looked at again: people may come at any time, and what waits is looked at when it is decided. */
  get pauseMs(): number {
    return this.#options.isGuarded() && this.#hasLooked ? AGAIN_MS : SOON_MS
  }

  /** Asks, and keeps what may be kept. Throws what the store and the storages throw: it is tried again. */
  async look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => (this.#looking = undefined))
    await this.#looking
  }

  async #look(): Promise<void> {
    const { isGuarded, inForce, path, approvals } = this.#options
    if (this.#isDone || !isGuarded()) return
    const { repositories, isWhole } = await this.#options.repositories()
    this.#hasLooked = true
    if (repositories.length === 0) return
    const { node, state: directory } = inForce.settings
    // What this node has gone by counts where the repositories have lost it.
    const newest = (await newestSettings(repositories, node)) ?? (await readAcceptedSettings(directory))
    // One that is away may know more.
    if (newest === undefined && !isWhole) return
    const held = newest === undefined ? undefined : heldBack(newest.document, inForce.wanted)
    if (held === undefined || held.changes.length === 0) return await this.#accept(repositories, { approval: null, isWhole })
    const { changes, document } = held
    // What strengthens beside it is not taken back by one either.
    await this.#keep(repositories, document, null)
    const change = { system: null, path, digest: this.#digestOf(changes), changes: changes.map(withoutSecrets) }
    const { state, id } = await approvals.standing(change)
    if (state === 'approved') return await this.#accept(repositories, { approval: id, isWhole })
    const names = changes.map((each) => each.path).join(', ')
    const became = state === 'refused' ? 'was refused' : 'waits for a second person'
    this.#say(`${path}: ${names}: weakens protection and ${became}, as request ${id}; what was accepted last is in force`)
  }

  /** What the file says, with all that was held back of it. */
  async #accept(
    repositories: readonly Repository[],
    { approval, isWhole }: { readonly approval: string | null; readonly isWhole: boolean },
  ): Promise<void> {
    const { inForce, path } = this.#options
    const wanted = settingsData(inForce.wanted)
    await this.#keep(repositories, wanted, approval)
    const isInForce = canonicalJson(wanted) === canonicalJson(settingsData(inForce.settings.document))
    this.#say(isInForce ? null : `${path}: what waited is accepted, and in force at the next start`)
    this.#isDone = isWhole
  }

  async #keep(repositories: readonly Repository[], document: Readonly<Record<string, Json>>, approval: string | null) {
    const { inForce, clock } = this.#options
    const { node, state } = inForce.settings
    const kept = await keepSettings(repositories, { node, document, approval }, clock)
    await writeAcceptedSettings(state, kept)
  }

  #digestOf(changes: readonly Change[]): string {
    const { node } = this.#options.inForce.settings
    const named = changes.map(({ path, before, after }) => ({ path, before, after }))
    return createHash('sha256')
      .update(canonicalJson({ server: node, changes: named }))
      .digest('hex')
  }

  /** Once. */
  #say(text: string | null): void {
    if (text === this.refused) return
    this.refused = text
    if (text !== null) this.#options.report(text)
  }
}

/** As people may read it. */
function withoutSecrets({ path, before, after }: Change): Change {
  return { path, before: withoutSecret(path, before), after: withoutSecret(path, after) }
}

function withoutSecret(path: string, value: Json): Json {
  return path === 'deadMan' && isObject(value) && hasSecret(value) ? { ...value, url: '(not shown)' } : value
}
