import { createHash } from 'node:crypto'
import { sql } from 'kysely'
import { readDecision, readUse } from '../../authority/anchors.ts'
import type { Approvals } from '../../authority/approvals.ts'
import type { Principal } from '../../authority/principal.ts'
import type { Change } from '../../authority/weakening.ts'
import type { Store } from '../../catalog/store.ts'
import type { Clock } from '../../clock.ts'
import type { Repository } from '../../repository/repository.ts'

/** What of a longer list people are shown. */
const CHANGES_SHOWN = 50

export interface FileApprovalsOptions {
  readonly store: Store
  readonly node: string
  readonly clock: Clock
  readonly approvals: () => Approvals
  /** Of a system; null: all that can be reached. */
  readonly repositoriesOf: (system: string | null) => Promise<readonly Repository[]>
}

/** A change of a file that weakens: which one is what its digest says. */
export interface FileChange {
  /** In whose repository the decision lies; null: in all that can be reached, for what belongs to no system, or leaves its storage. */
  readonly system: string | null
  /** The system that changes, if one does. */
  readonly about?: string
  readonly path: string
  readonly digest: string
  readonly changes: readonly Change[]
}

/** How it stands with a change: `approved` by a decision that a repository has; `refused` not long ago, and not asked about again until then; or `asked` for. */
export interface Standing {
  readonly state: 'approved' | 'refused' | 'asked'
  /** Of the request. */
  readonly id: string
}

/** Asks for a second person where a file was changed, once for each change, however many nodes see it. */
export class FileApprovals {
  readonly #options: FileApprovalsOptions

  constructor(options: FileApprovalsOptions) {
    this.#options = options
  }

  /** Asks where nobody has. Throws what the store and the storages throw: then nobody knows. */
  async standing(change: FileChange): Promise<Standing> {
    const approved = await this.approvalOf(change)
    if (approved !== null) return { state: 'approved', id: approved }
    for (const state of ['refused', 'pending'] as const) {
      const row = await this.#rows(change, [state]).executeTakeFirst()
      if (row !== undefined) return { state: state === 'pending' ? 'asked' : state, id: row.id }
    }
    return { state: 'asked', id: await this.#ask(change) }
  }

  /** The request that two people have agreed on, as a repository has the decision; null for none. A row of the store alone says nothing. */
  async approvalOf(change: Pick<FileChange, 'system' | 'digest'>): Promise<string | null> {
    const { clock, repositoriesOf } = this.#options
    // One that is pending may have been decided on: its decision is in the repository first.
    const rows = await this.#rows(change, ['pending', 'approved', 'used']).execute()
    if (rows.length === 0) return null
    const repositories = await repositoriesOf(change.system)
    for (const { id } of rows) {
      for (const repository of repositories) {
        const decided = await readDecision(repository, id)
        if (decided?.decision !== 'approve' || decided.operation !== 'configuration') continue
        if (Date.parse(decided.expiresAt) <= clock.now() || decided.parameters['digest'] !== change.digest) continue
        // What was taken back has a use by nobody.
        if ((await readUse(repository, id))?.run !== null) return id
      }
    }
    return null
  }

  #rows(
    { system, digest }: Pick<FileChange, 'system' | 'digest'>,
    states: readonly ('pending' | 'approved' | 'used' | 'refused')[],
  ) {
    const { store, clock } = this.#options
    return store.sql
      .selectFrom('approvals')
      .select('id')
      .where('operation', '=', 'configuration')
      .where('system', system === null ? 'is' : '=', system)
      .where('state', 'in', states)
      .where('expires_at', '>', new Date(clock.now()))
      .where(sql<boolean>`parameters ->> 'digest' = ${digest}`)
      .orderBy('asked_at', 'desc')
  }

  /** Two nodes that see the same change at the same time ask under the same. */
  async #newId(digest: string): Promise<string> {
    const { store, clock } = this.#options
    const before = await store.sql
      .selectFrom('approvals')
      .select('id')
      .where('operation', '=', 'configuration')
      // One that another node asks for at this moment is not before.
      .where('state', 'not in', ['pending', 'approved'])
      .where(sql<boolean>`parameters ->> 'digest' = ${digest}`)
      .orderBy('asked_at', 'desc')
      .executeTakeFirst()
    // A store that has forgotten all of them must not come to the id of one whose decision a repository has.
    const day = new Date(clock.now()).toISOString().slice(0, 10)
    const bytes = createHash('sha256')
      .update(`${digest} ${before?.id ?? ''} ${day}`)
      .digest()
      .subarray(0, 16)
    return uuidOf(bytes)
  }

  async #ask({ system, about, path, digest, changes }: FileChange): Promise<string> {
    const { node, approvals } = this.#options
    const by: Principal = {
      kind: 'bootstrap',
      id: `file:${path}`,
      person: null,
      name: `a change of ${path} on ${node}`,
      grants: [],
      factor: 'file',
    }
    const shown = changes.slice(0, CHANGES_SHOWN).map(({ path: at, before, after }) => ({ path: at, before, after }))
    const parameters = { ...(about === undefined ? {} : { system: about }), digest, changes: shown, changesInAll: changes.length }
    const request = { operation: 'configuration' as const, parameters, id: await this.#newId(digest) }
    return (await approvals().ask(by, request, { system, component: null })).id
  }
}

/** Of version 8, which says nothing. */
function uuidOf(bytes: Buffer): string {
  const hex = bytes.toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}
