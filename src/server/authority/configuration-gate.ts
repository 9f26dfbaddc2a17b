import { createHash } from 'node:crypto'
import { sql } from 'kysely'
import { canonicalJson, type Json } from '../../authority/canonical-json.ts'
import { isInUseBy, readDecision } from '../../authority/anchors.ts'
import type { Approvals } from '../../authority/approvals.ts'
import type { Principal } from '../../authority/principal.ts'
import { weakenings, type Change } from '../../authority/weakening.ts'
import { newestConfiguration } from '../../authority/configurations.ts'
import { isStoreAway, type Store } from '../../catalog/store.ts'
import type { Clock } from '../../clock.ts'
import { configurationDocument, type Configuration } from '../../config/configuration.ts'
import { Failure } from '../../errors.ts'
import type { Repository } from '../../repository/repository.ts'

/** What of a longer list people are shown. */
const CHANGES_SHOWN = 50

export interface ConfigurationGateOptions {
  readonly store: Store
  readonly clock: Clock
  readonly node: string
  readonly isGuarded: () => boolean
  readonly approvals: () => Approvals
  readonly repositoryOf: (system: string) => Promise<Repository>
}

/** What may come into force, and what waits for a second person. */
export interface Admitted {
  readonly systems: readonly Configuration[]
  /** One line for each that waits; the old one of it is in force. */
  readonly waiting: readonly string[]
}

/** What somebody wants to be in force, and what of it weakens. */
interface Wanted {
  readonly before: Configuration
  readonly after: Configuration | undefined
  readonly changes: readonly Change[]
}

/** Once there are people, a file that weakens protection stays without effect until a second person has looked at it. */
export class ConfigurationGate {
  readonly #options: ConfigurationGateOptions

  constructor(options: ConfigurationGateOptions) {
    this.#options = options
  }

  async admit(inForce: readonly Configuration[], wanted: readonly Configuration[]): Promise<Admitted> {
    if (!this.#options.isGuarded()) return { systems: wanted, waiting: [] }
    const systems = wanted.filter(({ system }) => !inForce.some((each) => each.system === system))
    const waiting: string[] = []
    for (const before of inForce) {
      const after = wanted.find(({ system }) => system === before.system)
      const why = await this.#whyNot(before, after)
      if (why !== null) waiting.push(why)
      const admitted = why === null ? after : before
      if (admitted !== undefined) systems.push(admitted)
    }
    return { systems: systems.toSorted((left, right) => (left.path < right.path ? -1 : 1)), waiting }
  }

  /** Null when it may come into force. */
  async #whyNot(before: Configuration, after: Configuration | undefined): Promise<string | null> {
    const why = await this.#waitsFor(before.system, { before, after, changes: changesOf(before, after) })
    return why === null ? null : `${why}; the old one stays in force`
  }

  /** Whether a repository may keep this as what is in force, behind what it has as that; null when it may. */
  async mayAnchor(before: Json, configuration: Configuration): Promise<string | null> {
    const changes = weakenings(before, documentOf(configuration))
    const why = await this.#waitsFor(configuration.system, { before: configuration, after: configuration, changes })
    return why === null ? null : `${why}; it is in force on this node, and no repository keeps it as that`
  }

  async #waitsFor(system: string, { before, after, changes }: Wanted): Promise<string | null> {
    if (changes.length === 0) return null
    const digest = digestOf(system, after)
    const what = `the change of "${system}" (${changes
      .map(({ path }) => path || 'all of it')
      .slice(0, 5)
      .join(', ')}${changes.length > 5 ? ', …' : ''})`
    try {
      if (await this.#isApproved(system, digest, after)) return null
      const id = await this.#ask({ configuration: after ?? before, digest, changes })
      return `${what} weakens protection and waits for a second person, as request ${id}`
    } catch (error) {
      if (!(error instanceof Failure) && !isStoreAway(error)) throw error
      return `${what} weakens protection, and whether a second person has approved it cannot be known now: ${(error as Error).message}`
    }
  }

  /** By a decision whose time is not over, as it would else be good for ever; or because it is in force elsewhere. */
  async #isApproved(system: string, digest: string, after: Configuration | undefined): Promise<boolean> {
    const { store, clock, repositoryOf } = this.#options
    const repository = await repositoryOf(system)
    const anchor = after === undefined ? undefined : await newestConfiguration(repository)
    if (anchor !== undefined && canonicalJson(anchor.document) === canonicalJson(documentOf(after!))) return true
    const rows = await store.sql
      .selectFrom('approvals')
      .select('id')
      .where('operation', '=', 'configuration')
      .where('system', '=', system)
      .where('state', 'in', ['approved', 'used'])
      .where(sql<boolean>`parameters ->> 'digest' = ${digest}`)
      .execute()
    for (const { id } of rows) {
      const decided = await readDecision(repository, id)
      if (decided?.decision !== 'approve' || decided.operation !== 'configuration' || decided.parameters['digest'] !== digest)
        continue
      if (Date.parse(decided.expiresAt) > clock.now() && !(await isInUseBy(repository, id, null))) return true
    }
    return false
  }

  /** Once for each change, however many nodes see it. */
  async #ask({
    configuration,
    digest,
    changes,
  }: {
    readonly configuration: Configuration
    readonly digest: string
    readonly changes: readonly Change[]
  }): Promise<string> {
    const { store, node, approvals } = this.#options
    const { system, path } = configuration
    const waiting = await store.sql
      .selectFrom('approvals')
      .select('id')
      .where('operation', '=', 'configuration')
      .where('state', '=', 'pending')
      .where(sql<boolean>`parameters ->> 'digest' = ${digest}`)
      .executeTakeFirst()
    if (waiting !== undefined) return waiting.id
    const by: Principal = {
      kind: 'bootstrap',
      id: `file:${path}`,
      person: null,
      name: `a change of ${path} on ${node}`,
      grants: [],
      factor: 'file',
    }
    const shown = changes.slice(0, CHANGES_SHOWN).map(({ path: at, before, after }) => ({ path: at, before, after }))
    const parameters = { digest, changes: shown, changesInAll: changes.length }
    return (await approvals().ask(by, { operation: 'configuration', parameters }, { system, component: null, facilities: [] })).id
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
  return JSON.parse(JSON.stringify(configurationDocument(configuration))) as { readonly [name: string]: Json }
}
