import type { Database, Transaction } from '../database/database.ts'
import { engageHold, type Hold } from './hold.ts'

/** The cluster in which a database is. A restore to an instant begins a new timeline; a copy or a dump is another database. */
interface ClusterIdentity {
  readonly systemIdentifier: string
  readonly timeline: number
  readonly databaseOid: string
}

const IDENTITY = `select system_identifier as "systemIdentifier", timeline, database_oid as "databaseOid" from `

export type ClusterState =
  | { readonly kind: 'known' }
  /** Nobody has looked yet. */
  | { readonly kind: 'new' }
  | { readonly kind: 'restored'; readonly reason: string }

/** Whether this database is where the workers left it. */
export async function clusterState(transaction: Transaction): Promise<ClusterState> {
  const known = (await transaction.client.query<ClusterIdentity>(`${IDENTITY} hospital.known_cluster`)).rows[0]
  if (known === undefined) return { kind: 'new' }
  const reason = difference(known, await currentIdentity(transaction))
  return reason === undefined ? { kind: 'known' } : { kind: 'restored', reason }
}

/**
 * Engages the hold when this database is not where the workers left it, and remembers where it is: in one transaction, so that a database which was restored
 * never delivers anything before a person has released the hold. Gives the hold that it engaged.
 */
export async function holdIfRestored(database: Database, actor: string): Promise<Hold | undefined> {
  const context = { kind: 'worker', actor } as const
  if ((await database.transaction(context, clusterState)).kind === 'known') return undefined
  return await database.transaction(context, async (transaction) => {
    // Of two that look at once, the second sees what the first has remembered.
    await transaction.client.query('lock table hospital.known_cluster in share row exclusive mode')
    const state = await clusterState(transaction)
    if (state.kind === 'known') return undefined
    const now = await currentIdentity(transaction)
    await transaction.client.query(
      `insert into hospital.known_cluster (system_identifier, timeline, database_oid) values ($1, $2, $3)
       on conflict (only_row) do update set system_identifier = excluded.system_identifier, timeline = excluded.timeline,
         database_oid = excluded.database_oid, recorded_at = now()`,
      [now.systemIdentifier, now.timeline, now.databaseOid],
    )
    return state.kind === 'new'
      ? undefined
      : await engageHold(transaction, { reason: state.reason, person: 'the hospital itself' })
  })
}

async function currentIdentity({ client }: Transaction): Promise<ClusterIdentity> {
  return (await client.query<ClusterIdentity>(`${IDENTITY} hospital.cluster_identity()`)).rows[0]!
}

function difference(known: ClusterIdentity, now: ClusterIdentity): string | undefined {
  if (known.systemIdentifier !== now.systemIdentifier) {
    return `this database was restored into another cluster (system identifier ${known.systemIdentifier} to ${now.systemIdentifier})`
  }
  if (known.timeline !== now.timeline) return `this database was restored (timeline ${known.timeline} to ${now.timeline})`
  if (known.databaseOid !== now.databaseOid) {
    return `this database is a copy of another (database ${known.databaseOid} to ${now.databaseOid})`
  }
  return undefined
}
