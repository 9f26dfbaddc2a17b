import { sql, type Kysely, type Selectable } from 'kysely'
import type { ApprovalsTable, ApprovalState, Schema } from './schema.ts'

// Statements about what was asked for and takes two people.

export type Approval = Selectable<ApprovalsTable>

export interface NewApproval {
  readonly id: string
  readonly operation: string
  readonly system: string | null
  readonly component: string | null
  readonly parameters: Readonly<Record<string, unknown>>
  readonly digest: string
  readonly askedBy: { readonly id: string; readonly name: string }
  readonly askedAt: Date
  readonly expiresAt: Date
  readonly seal: Buffer
}

export async function insertApproval(queries: Kysely<Schema>, asked: NewApproval): Promise<void> {
  await queries
    .insertInto('approvals')
    .values({
      id: asked.id,
      operation: asked.operation,
      system: asked.system,
      component: asked.component,
      parameters: JSON.stringify(asked.parameters),
      digest: asked.digest,
      asked_by: asked.askedBy.id,
      asked_name: asked.askedBy.name,
      asked_at: asked.askedAt,
      expires_at: asked.expiresAt,
      state: 'pending',
      seal: asked.seal,
    })
    .onConflict((conflict) => conflict.column('id').doNothing())
    .execute()
}

export async function readApproval(queries: Kysely<Schema>, id: string): Promise<Approval | undefined> {
  return await queries.selectFrom('approvals').selectAll().where('id', '=', id).executeTakeFirst()
}

/** Newest first, behind one of an earlier page. */
export async function listApprovals(
  queries: Kysely<Schema>,
  filter: { readonly states?: readonly ApprovalState[] | undefined },
  page: { readonly limit: number; readonly behind?: { readonly askedAt: Date; readonly id: string } | undefined },
): Promise<Approval[]> {
  let query = queries.selectFrom('approvals').selectAll().orderBy('asked_at', 'desc').orderBy('id', 'desc').limit(page.limit)
  if (filter.states !== undefined) query = query.where('state', 'in', filter.states)
  const { behind } = page
  if (behind !== undefined) query = query.where(sql<boolean>`(asked_at, id) < (${behind.askedAt}, ${behind.id}::uuid)`)
  return await query.execute()
}

/** From one of these states to another; undefined when it is in none of them any more. */
export async function moveApproval(
  queries: Kysely<Schema>,
  id: string,
  from: readonly ApprovalState[],
  to: {
    readonly state: ApprovalState
    readonly at: Date
    readonly decided?: {
      readonly by: string
      readonly name: string
      readonly factor: string
      readonly reason: string | null
      readonly at: Date
    }
    readonly outcome?: unknown
  },
): Promise<Approval | undefined> {
  const { state, at, decided, outcome } = to
  return await queries
    .updateTable('approvals')
    .set({
      state,
      ...(state === 'approved' ? {} : { ended_at: at }),
      ...(decided === undefined
        ? {}
        : {
            decided_by: decided.by,
            decided_name: decided.name,
            decided_at: decided.at,
            factor: decided.factor,
            reason: decided.reason,
          }),
      ...(outcome === undefined ? {} : { outcome: JSON.stringify(outcome) }),
    })
    .where('id', '=', id)
    .where('state', 'in', from)
    .returningAll()
    .executeTakeFirst()
}

/** Those whose time is over. */
export async function expireApprovals(queries: Kysely<Schema>, at: Date): Promise<Approval[]> {
  return await queries
    .updateTable('approvals')
    .set({ state: 'expired', ended_at: at })
    .where('state', 'in', ['pending', 'approved'])
    .where('expires_at', '<=', at)
    .returningAll()
    .execute()
}

/** Those that nobody has decided on since an instant, and of which not everybody was told yet: told now. */
export async function escalateApprovals(queries: Kysely<Schema>, askedBefore: Date, at: Date): Promise<Approval[]> {
  return await queries
    .updateTable('approvals')
    .set({ escalated_at: at })
    .where('state', '=', 'pending')
    .where('asked_at', '<=', askedBefore)
    .where('escalated_at', 'is', null)
    .returningAll()
    .execute()
}
