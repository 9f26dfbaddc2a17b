import { createHash } from 'node:crypto'
import { sql } from 'kysely'
import { newestConfiguration } from '../../authority/configurations.ts'
import { canonicalJson, type Json } from '../../authority/canonical-json.ts'
import { readDecision } from '../../authority/anchors.ts'
import type { Approvals } from '../../authority/approvals.ts'
import type { Principal } from '../../authority/principal.ts'
import { weakenings, type Change } from '../../authority/weakening.ts'
import { isStoreAway, type Store } from '../../catalog/store.ts'
import { configurationDocument, type Configuration } from '../../config/configuration.ts'
import type { Clock } from '../../clock.ts'
import { Failure } from '../../errors.ts'
import type { Repository } from '../../repository/repository.ts'

/** What of a longer list people are shown. */
const CHANGES_SHOWN = 50

export interface ConfigurationGateOptions {
  readonly store: Store
  readonly node: string
  readonly clock: Clock
  readonly isGuarded: () => boolean
  readonly approvals: () => Approvals
  readonly repositoryOf: (system: string) => Promise<Repository>
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
    const changes = changesOf(before, after)
    if (changes.length === 0) return null
    const digest = digestOf(before.system, after)
    const what = `the change of "${before.system}" (${changes
      .map(({ path }) => path || 'all of it')
      .slice(0, 5)
      .join(', ')}${changes.length > 5 ? ', …' : ''})`
    try {
      if (await this.#isKnown(before.system, after)) return null
      if (await this.#isApproved(before.system, digest)) return null
      const id = await this.#ask({ configuration: after ?? before, digest, changes })
      return `${what} weakens protection and waits for a second person, as request ${id}; the old one stays in force`
    } catch (error) {
      if (!(error instanceof Failure) && !isStoreAway(error)) throw error
      return `${what} weakens protection, and whether a second person has approved it cannot be known now: ${(error as Error).message}`
    }
  }

  /** What the repository has as accepted, another node has let through. */
  async #isKnown(system: string, after: Configuration | undefined): Promise<boolean> {
    if (after === undefined) return false
    const anchor = await newestConfiguration(await this.#options.repositoryOf(system))
    return anchor !== undefined && canonicalJson(anchor.document) === canonicalJson(documentOf(after))
  }

  /** Whether what is in force here may be what the repository has as accepted: it does not weaken that, or two people wanted it. */
  async mayBeAnchored(configuration: Configuration): Promise<boolean> {
    const { system } = configuration
    const anchor = await newestConfiguration(await this.#options.repositoryOf(system))
    if (anchor === undefined || weakenings(anchor.document, documentOf(configuration)).length === 0) return true
    return await this.#isApproved(system, digestOf(system, configuration))
  }

  async #isApproved(system: string, digest: string): Promise<boolean> {
    const { store, clock, repositoryOf } = this.#options
    const rows = await store.sql
      .selectFrom('approvals')
      .select('id')
      .where('operation', '=', 'configuration')
      .where('system', '=', system)
      .where('state', 'in', ['approved', 'used'])
      .where('expires_at', '>', new Date(clock.now()))
      .where(sql<boolean>`parameters ->> 'digest' = ${digest}`)
      .execute()
    for (const { id } of rows) {
      const decided = await readDecision(await repositoryOf(system), id)
      if (decided?.decision !== 'approve' || decided.operation !== 'configuration') continue
      if (Date.parse(decided.expiresAt) > clock.now() && decided.parameters['digest'] === digest) return true
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
    return (await approvals().ask(by, { operation: 'configuration', parameters }, { system, component: null })).id
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
  const text = JSON.stringify(configurationDocument(configuration), (_, value: unknown) =>
    // What neither the store nor a digest takes.
    typeof value === 'string' ? value.toWellFormed().replaceAll('\0', '\ufffd') : value,
  )
  return JSON.parse(text) as { readonly [name: string]: Json }
}
