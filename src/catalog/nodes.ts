import type { Kysely, Selectable } from 'kysely'
import type { NodeReach, NodesTable, Schema } from './schema.ts'

// Statements about nodes: who works here, and what each reaches.

export type Node = Selectable<NodesTable>

/** Says that a node lives, and what it reaches. */
export async function renewNode(
  queries: Kysely<Schema>,
  node: {
    readonly name: string
    readonly startedAt: Date
    readonly at: Date
    readonly version: string
    readonly reach: readonly NodeReach[]
  },
): Promise<void> {
  const { name, startedAt, at, version } = node
  const reach = JSON.stringify(node.reach)
  await queries
    .insertInto('nodes')
    .values({ name, started_at: startedAt, renewed_at: at, version, reach })
    .onConflict((conflict) => conflict.column('name').doUpdateSet({ started_at: startedAt, renewed_at: at, version, reach }))
    .execute()
}

/** Forgets nodes that were not seen since an instant: a host that was replaced has another name. What they were to receive is kept. */
export async function forgetNodes(queries: Kysely<Schema>, seenBefore: Date): Promise<void> {
  await queries.deleteFrom('nodes').where('renewed_at', '<', seenBefore).execute()
}

export async function listNodes(queries: Kysely<Schema>): Promise<Node[]> {
  return await queries.selectFrom('nodes').selectAll().orderBy('name').execute()
}
