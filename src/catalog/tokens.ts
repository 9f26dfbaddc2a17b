import { sql, type Kysely, type Selectable } from 'kysely'
import type { GrantRow, Schema, TokensTable } from './schema.ts'

// Statements about API tokens.

export type TokenRow = Selectable<TokensTable>
/** What the seal of one is over. */
export type SealedToken = Pick<TokenRow, 'id' | 'person' | 'name' | 'digest' | 'grants' | 'made_at' | 'expires_at'>

export interface NewTokenRow {
  readonly id: string
  readonly person: string
  readonly name: string
  readonly digest: Buffer
  readonly grants: readonly GrantRow[]
  readonly at: Date
  readonly expiresAt: Date
}

/** False when the person has as many as they may. Whoever makes another at the same time waits for the person's row. */
export async function insertToken(
  queries: Kysely<Schema>,
  token: NewTokenRow & { readonly seal: Buffer },
  liveMax: number,
): Promise<boolean> {
  const { id, person, name, digest, grants, at, expiresAt, seal } = token
  return await queries.transaction().execute(async (transaction) => {
    await transaction.selectFrom('people').select('id').where('id', '=', person).forUpdate().execute()
    const live = await transaction
      .selectFrom('tokens')
      .select('id')
      .where('person', '=', person)
      .where('revoked_at', 'is', null)
      .where('expires_at', '>', at)
      .execute()
    if (live.length >= liveMax) return false
    await transaction
      .insertInto('tokens')
      .values({ id, person, name, digest, grants: JSON.stringify(grants), made_at: at, expires_at: expiresAt, seal })
      .execute()
    return true
  })
}

export async function readToken(queries: Kysely<Schema>, digest: Buffer): Promise<TokenRow | undefined> {
  return await queries.selectFrom('tokens').selectAll().where('digest', '=', digest).executeTakeFirst()
}

/** Those of before there were seals. */
export async function listUnsealedTokens(queries: Kysely<Schema>): Promise<TokenRow[]> {
  return await queries.selectFrom('tokens').selectAll().where('seal', 'is', null).execute()
}

export async function putTokenSeal(
  queries: Kysely<Schema>,
  { id, seal }: { readonly id: string; readonly seal: Buffer },
): Promise<void> {
  await queries.updateTable('tokens').set({ seal }).where('id', '=', id).execute()
}

/** Newest first; those that were revoked or have expired too. */
export async function listTokens(queries: Kysely<Schema>, person: string, limit: number): Promise<TokenRow[]> {
  const of = queries.selectFrom('tokens').selectAll().where('person', '=', person)
  return await of.orderBy('made_at', 'desc').orderBy('id').limit(limit).execute()
}

/** Undefined when the person has no such token. */
/** All of somebody's. */
export async function revokeTokens(queries: Kysely<Schema>, person: string, at: Date): Promise<void> {
  await queries
    .updateTable('tokens')
    .set({ revoked_at: at })
    .where('person', '=', person)
    .where('revoked_at', 'is', null)
    .execute()
}

export async function revokeToken(
  queries: Kysely<Schema>,
  { person, id, at }: { readonly person: string; readonly id: string; readonly at: Date },
): Promise<TokenRow | undefined> {
  return await queries
    .updateTable('tokens')
    .set({ revoked_at: sql<Date>`coalesce(revoked_at, ${at}::timestamptz)` })
    .where('id', '=', id)
    .where('person', '=', person)
    .returningAll()
    .executeTakeFirst()
}

/** Notes a use, unless one was noted since. */
export async function noteTokenUse(
  queries: Kysely<Schema>,
  { id, at, unlessSince }: { readonly id: string; readonly at: Date; readonly unlessSince: Date },
): Promise<void> {
  const of = queries.updateTable('tokens').set({ last_used_at: at }).where('id', '=', id)
  await of.where((each) => each.or([each('last_used_at', 'is', null), each('last_used_at', '<', unlessSince)])).execute()
}

/** Those that ended, one way or the other, before. */
export async function deleteOldTokens(queries: Kysely<Schema>, endedBefore: Date): Promise<void> {
  const of = queries.deleteFrom('tokens')
  await of.where((each) => each.or([each('expires_at', '<', endedBefore), each('revoked_at', '<', endedBefore)])).execute()
}
