import { createHash } from 'node:crypto'
import { keepConfiguration, newestConfiguration } from '../../authority/configurations.ts'
import { canonicalJson, type Json } from '../../authority/canonical-json.ts'
import { weakenings, type Change } from '../../authority/weakening.ts'
import { isStoreAway } from '../../catalog/store.ts'
import { configurationDocument, parseConfiguration, type Configuration } from '../../config/configuration.ts'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import type { Repository } from '../../repository/repository.ts'
import { plainData } from '../plain-data.ts'
import type { FileApprovals } from './file-approvals.ts'

export interface ConfigurationGateOptions {
  readonly isGuarded: () => boolean
  readonly approvals: FileApprovals
  readonly repositoryOf: (system: string) => Promise<Repository>
  readonly open: (configuration: Configuration) => Promise<Repository>
  readonly clock: Clock
  /** Systems that this node began with by their files, because nobody could say what was accepted. */
  readonly unproven: ReadonlySet<string>
}

/** What may come into force, and what waits for a second person. */
export interface Admitted {
  readonly systems: readonly Configuration[]
  /** One line for each that waits; the old one of it is in force. It is to be asked about again. */
  readonly waiting: readonly string[]
}

/** Once there are people, a file that weakens protection stays without effect until a second person has looked at it. */
export class ConfigurationGate {
  readonly #options: ConfigurationGateOptions
  readonly #unproven: Set<string>
  readonly #accepted = new WeakMap<Configuration, Configuration>()

  constructor(options: ConfigurationGateOptions) {
    this.#options = options
    this.#unproven = new Set(options.unproven)
  }

  async admit(inForce: readonly Configuration[], wanted: readonly Configuration[]): Promise<Admitted> {
    const proven = await this.#prove(inForce, wanted)
    const isHeld = proven.some((each) => !inForce.includes(each))
    if (!this.#options.isGuarded() && !isHeld) return { systems: wanted, waiting: [] }
    const waiting: string[] = []
    const systems = wanted.filter(({ system }) => !inForce.some((each) => each.system === system))
    for (const before of proven) {
      const after = wanted.find(({ system }) => system === before.system)
      const why = await this.#whyNot(before, after)
      if (why !== null) waiting.push(why)
      const admitted = why === null ? after : before
      if (admitted !== undefined) systems.push(admitted)
    }
    return { systems: systems.toSorted((left, right) => (left.path < right.path ? -1 : 1)), waiting }
  }

  /** What was accepted takes the place of what a file says, where nobody could know at the start; that is asked of the storage that the file names now. Throws what a storage throws. */
  async #prove(inForce: readonly Configuration[], wanted: readonly Configuration[]): Promise<readonly Configuration[]> {
    const proven: Configuration[] = []
    for (const before of inForce) {
      const after = wanted.find(({ system }) => system === before.system)
      if (this.#unproven.has(before.system)) await this.#proveOne(before, after ?? before)
      proven.push(this.#accepted.get(before) ?? before)
    }
    return proven
  }

  async #proveOne(inForce: Configuration, asked: Configuration): Promise<void> {
    const { system, path } = inForce
    try {
      const anchor = await newestConfiguration(await this.#options.open(asked))
      // It is held against what is in force until it takes its place.
      if (anchor !== undefined) this.#accepted.set(inForce, parseConfiguration(anchor.document, path))
    } catch (error) {
      // One that is to be made yet knows nothing.
      if (!(error instanceof Failure) || error.code !== 'REPOSITORY_MISSING') throw error
    }
    this.#unproven.delete(system)
  }

  /** Null when it may come into force. */
  async #whyNot(before: Configuration, after: Configuration | undefined): Promise<string | null> {
    const changes = changesOf(before, after)
    if (changes.length === 0) return null
    const digest = digestOf(before.system, after)
    const what = `the change of "${before.system}" (${changes
      .map(({ path }) => path || 'all of it')
      .slice(0, 5)
      .join(', ')}${changes.length > 5 ? ', …' : ''})`
    try {
      const leaves = leavesItsStorage(changes)
      if (await this.#isKnown(before.system, after, leaves)) return null
      const { path, system } = after ?? before
      const { state, id } = await this.#options.approvals.standing({
        system: leaves ? null : system,
        about: system,
        path,
        digest,
        changes,
      })
      if (state === 'approved') {
        // Kept before it is in force: what dies in between begins by it.
        if (after !== undefined) await this.#keep(after, id, leaves)
        return null
      }
      if (state === 'refused') return `${what} weakens protection and was refused, as request ${id}; the old one stays in force`
      return `${what} weakens protection and waits for a second person, as request ${id}; the old one stays in force`
    } catch (error) {
      if (!(error instanceof Failure) && !isStoreAway(error)) throw error
      return `${what} weakens protection, and whether a second person has approved it cannot be known now: ${(error as Error).message}`
    }
  }

  /** In the repository of what was in force; and in the new one, of two that may be gone, or to be made yet. */
  async #keep(configuration: Configuration, approval: string, leaves: boolean): Promise<void> {
    const { repositoryOf, open, clock } = this.#options
    const keepIn = async (repository: Repository) => keepConfiguration(repository, documentOf(configuration), approval, clock)
    if (!leaves) return await keepIn(await repositoryOf(configuration.system))
    await repositoryOf(configuration.system).then(keepIn).catch(ignoreFailure)
    await open(configuration).then(keepIn).catch(ignoreFailure)
  }

  /** What the repository has as accepted, another node has let through. */
  async #isKnown(system: string, after: Configuration | undefined, leaves: boolean): Promise<boolean> {
    if (after === undefined) return false
    const asked = this.#options.repositoryOf(system).then(newestConfiguration)
    // One that is gone for good is left by what the others have.
    const anchor = await (leaves ? asked.catch(ignoreFailure) : asked)
    return anchor !== undefined && canonicalJson(anchor.document) === canonicalJson(documentOf(after))
  }

  /** Whether what is in force here may be what the repository has as accepted: it does not weaken that, or two people wanted it. */
  async mayBeAnchored(configuration: Configuration): Promise<boolean> {
    const { system } = configuration
    const anchor = await newestConfiguration(await this.#options.repositoryOf(system))
    const changes = anchor === undefined ? [] : weakenings(anchor.document, documentOf(configuration))
    if (changes.length === 0) return true
    const decided = { system: leavesItsStorage(changes) ? null : system, digest: digestOf(system, configuration) }
    return (await this.#options.approvals.approvalOf(decided)) !== null
  }
}

/** What of these stays as it was at a start, when nobody can be asked: a file that weakens is looked at again when the store is there. */
export function heldAtStart(before: readonly Configuration[], wanted: readonly Configuration[]): readonly Configuration[] {
  const kept = before.filter(
    (each) =>
      changesOf(
        each,
        wanted.find(({ system }) => system === each.system),
      ).length > 0,
  )
  const isKept = (system: string) => kept.some((each) => each.system === system)
  return [...wanted.filter(({ system }) => !isKept(system)), ...kept]
}

/** Whether the decision may not lie in the system's own repository alone, which may be what is gone. */
function leavesItsStorage(changes: readonly Change[]): boolean {
  return changes.some(({ path }) => path === '' || path === 'repository' || path.startsWith('repository.'))
}

function ignoreFailure(error: unknown): undefined {
  if (!(error instanceof Failure)) throw error
  return undefined
}

/** A system that is gone has lost all. */
function changesOf(before: Configuration, after: Configuration | undefined): Change[] {
  if (after === undefined) return [{ path: '', before: before.system, after: null }]
  return weakenings(documentOf(before), documentOf(after))
}

function digestOf(system: string, after: Configuration | undefined): string {
  return createHash('sha256')
    .update(canonicalJson({ system, document: after === undefined ? null : documentOf(after) }))
    .digest('hex')
}

/** As plain data: what is undefined is not there. */
export function documentOf(configuration: Configuration): { readonly [name: string]: Json } {
  return plainData(configurationDocument(configuration)) as { readonly [name: string]: Json }
}
