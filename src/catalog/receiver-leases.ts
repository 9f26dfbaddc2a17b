import { sql, type Kysely } from 'kysely'
import type { Schema } from './schema.ts'

// Statements about receivers: which node receives what.

export interface ReceiverClaim {
  readonly system: string
  readonly component: string
  /** Whether a dead node's lease may be taken over: not where it alone may have what was acknowledged. */
  readonly takesOver: boolean
}

export interface ReceiverLease {
  readonly system: string
  readonly component: string
}

/** Renews and takes leases; gives those that the node holds now. Of two nodes that ask at once, one gets it. */
export async function claimReceivers(
  queries: Kysely<Schema>,
  claim: { readonly node: string; readonly at: Date; readonly deadBefore: Date; readonly wanted: readonly ReceiverClaim[] },
): Promise<ReceiverLease[]> {
  const { node, at, deadBefore, wanted } = claim
  if (wanted.length === 0) return []
  const rows = JSON.stringify(wanted.map(({ system, component, takesOver }) => ({ system, component, takes_over: takesOver })))
  const { rows: held } = await sql<ReceiverLease>`
    with wanted as (select * from jsonb_to_recordset(${rows}::jsonb) as w(system text, component text, takes_over boolean))
    insert into resus_control.receiver_leases as l (system, component, node, renewed_at)
    select system, component, ${node}, ${at}::timestamptz from wanted order by system, component
    on conflict (system, component) do update set node = excluded.node, renewed_at = excluded.renewed_at, released = false
    where l.node = excluded.node or l.released or (l.renewed_at < ${deadBefore}::timestamptz and exists (
      select from wanted w where w.system = l.system and w.component = l.component and w.takes_over))
    returning l.system, l.component`.execute(queries)
  return held
}

/** Says that a node has ended these receivers in good order. */
export async function releaseReceivers(queries: Kysely<Schema>, node: string, leases: readonly ReceiverLease[]): Promise<void> {
  for (const { system, component } of leases) {
    await queries
      .updateTable('receiver_leases')
      .set({ released: true })
      .where('node', '=', node)
      .where('system', '=', system)
      .where('component', '=', component)
      .execute()
  }
}

/** Who receives what. */
export async function listReceivers(queries: Kysely<Schema>): Promise<(ReceiverLease & { readonly node: string })[]> {
  return await queries
    .selectFrom('receiver_leases')
    .select(['system', 'component', 'node'])
    .where('released', '=', false)
    .execute()
}
