import { sql, type Kysely, type Selectable } from 'kysely'
import type { GrantRow, Schema, SessionFamiliesTable } from './schema.ts'

// Statements about log-ons of browsers.

export type SessionFamily = Selectable<SessionFamiliesTable>
/** What the seal of one is over. */
export type SealedFamily = Pick<SessionFamily, 'id' | 'person' | 'factor' | 'grants' | 'made_at'>

export interface NewFamily {
  readonly id: string
  readonly person: string
  readonly factor: string
  readonly grants: readonly GrantRow[]
  readonly secret: Buffer
  readonly at: Date
  readonly address: string | null
  readonly userAgent: string | null
  readonly seal: Buffer
}

export async function insertFamily(queries: Kysely<Schema>, family: NewFamily): Promise<void> {
  const { id, person, factor, grants, secret, at, address, userAgent, seal } = family
  await queries
    .insertInto('session_families')
    .values({
      id,
      person,
      factor,
      grants: JSON.stringify(grants),
      generation: 1,
      secret,
      made_at: at,
      seen_at: at,
      rotated_at: at,
      address,
      user_agent: userAgent,
      seal,
    })
    .execute()
}

export async function readFamily(queries: Kysely<Schema>, id: string): Promise<SessionFamily | undefined> {
  return await queries.selectFrom('session_families').selectAll().where('id', '=', id).executeTakeFirst()
}

/** Those that have not ended, newest first. */
export async function listFamilies(queries: Kysely<Schema>, person: string): Promise<SessionFamily[]> {
  const of = queries.selectFrom('session_families').selectAll().where('person', '=', person).where('ended_at', 'is', null)
  return await of.orderBy('made_at', 'desc').execute()
}

/** Puts another secret in place of the current one. False when somebody else did so, or it has ended. */
export async function rotateFamily(
  queries: Kysely<Schema>,
  next: {
    readonly id: string
    readonly generation: number
    readonly secret: Buffer
    readonly at: Date
    /** Null where the one before goes on being that: nobody has seen the one in between. */
    readonly previousUntil: Date | null
  },
): Promise<boolean> {
  const { id, generation, secret, at, previousUntil } = next
  const row = await queries
    .updateTable('session_families')
    .set((each) => ({
      generation,
      ...(previousUntil === null ? {} : { previous: each.ref('secret'), previous_until: previousUntil }),
      secret,
      rotated_at: at,
    }))
    .where('id', '=', id)
    .where('generation', '=', generation - 1)
    .where('ended_at', 'is', null)
    .returning('id')
    .executeTakeFirst()
  return row !== undefined
}

/** The current secret was seen: the one before is good until then, and no longer. */
export async function shortenPrevious(queries: Kysely<Schema>, id: string, until: Date): Promise<void> {
  const of = queries.updateTable('session_families').set({ previous_until: until }).where('id', '=', id)
  await of.where('previous_until', '>', until).execute()
}

export async function touchFamily(queries: Kysely<Schema>, id: string, at: Date): Promise<void> {
  await queries.updateTable('session_families').set({ seen_at: at }).where('id', '=', id).where('seen_at', '<', at).execute()
}

/** False when it had ended already. */
export async function endFamily(
  queries: Kysely<Schema>,
  { id, because, at }: { readonly id: string; readonly because: string; readonly at: Date },
): Promise<boolean> {
  const of = queries.updateTable('session_families').set({ ended_at: at, ended_because: because }).where('id', '=', id)
  return (await of.where('ended_at', 'is', null).returning('id').executeTakeFirst()) !== undefined
}

/** Ends all of a person's, but for one and but for the newest so many; gives how many. */
export async function endFamilies(
  queries: Kysely<Schema>,
  end: { readonly person: string; readonly because: string; readonly at: Date; readonly but?: string; readonly newest?: number },
): Promise<number> {
  const { person, because, at, but = null, newest = 0 } = end
  const { rows } = await sql`
    update resus_control.session_families set ended_at = ${at}::timestamptz, ended_because = ${because}
    where id in (
      select id from resus_control.session_families
      where person = ${person}::uuid and ended_at is null and id is distinct from ${but}::uuid
      order by made_at desc offset ${newest})
    and ended_at is null returning id`.execute(queries)
  return rows.length
}

/** Of whatever was made before: nothing lasts that long. */
export async function deleteOldFamilies(queries: Kysely<Schema>, madeBefore: Date): Promise<void> {
  await queries.deleteFrom('session_families').where('made_at', '<', madeBefore).execute()
}
