import { sql, type Kysely, type Selectable } from 'kysely'
import type { GrantRow, PeopleTable, Schema } from './schema.ts'

// Statements about people. Nobody is deleted.

export type Person = Selectable<PeopleTable>

export interface NewPersonRow {
  readonly id: string
  readonly name: string
  readonly displayName: string
  readonly email: string | null
  readonly grants: readonly GrantRow[]
  readonly identity: { readonly issuer: string; readonly subject: string } | null
  readonly madeBy: string
  readonly at: Date
}

/** False when the name, or the identity, is somebody's already. */
export async function insertPerson(queries: Kysely<Schema>, person: NewPersonRow): Promise<boolean> {
  const { id, name, displayName, email, grants, identity, madeBy, at } = person
  const row = await queries
    .insertInto('people')
    .values({
      id,
      name,
      display_name: displayName,
      email,
      grants: JSON.stringify(grants),
      state: 'active',
      issuer: identity?.issuer ?? null,
      subject: identity?.subject ?? null,
      made_by: madeBy,
      made_at: at,
    })
    .onConflict((conflict) => conflict.doNothing())
    .returning('id')
    .executeTakeFirst()
  return row !== undefined
}

export async function readPerson(queries: Kysely<Schema>, id: string): Promise<Person | undefined> {
  return await queries.selectFrom('people').selectAll().where('id', '=', id).executeTakeFirst()
}

/** The first so many behind a name, in the order of names; with how many factors each has. */
export async function listPeople(
  queries: Kysely<Schema>,
  { behind, limit }: { readonly behind: string; readonly limit: number },
): Promise<(Person & { readonly factors: number })[]> {
  const rows = await queries
    .selectFrom('people as p')
    .selectAll('p')
    .select((each) =>
      each
        .selectFrom('factors as f')
        .select(sql<number>`count(*)::int`.as('count'))
        .whereRef('f.person', '=', 'p.id')
        .as('factors'),
    )
    .where(sql<boolean>`lower(p.name collate "C") > lower(${behind} collate "C")`)
    .orderBy(sql`lower(p.name collate "C")`)
    .limit(limit)
    .execute()
  return rows.map((row) => ({ ...row, factors: row.factors ?? 0 }))
}

/** Whether anybody could log on, or ever could: somebody who was named and has chosen no password yet is nobody so far. */
export async function arePeopleKnown(queries: Kysely<Schema>): Promise<boolean> {
  const of = queries.selectFrom('people').select('id').where('password', 'is not', null)
  return (await of.limit(1).executeTakeFirst()) !== undefined
}

export interface PersonChange {
  readonly displayName?: string
  readonly email?: string | null
  readonly grants?: readonly GrantRow[]
  readonly state?: Person['state']
  readonly password?: string | null
  readonly reset?: { readonly by: string; readonly at: Date }
}

/** Undefined when there is no such person. */
export async function updatePerson(queries: Kysely<Schema>, id: string, change: PersonChange): Promise<Person | undefined> {
  const { displayName, email, grants, state, password, reset } = change
  return await queries
    .updateTable('people')
    .set({
      ...(displayName === undefined ? {} : { display_name: displayName }),
      ...(email === undefined ? {} : { email }),
      ...(grants === undefined ? {} : { grants: JSON.stringify(grants) }),
      ...(state === undefined ? {} : { state }),
      ...(password === undefined ? {} : { password }),
      ...(reset === undefined ? {} : { reset_by: reset.by, reset_at: reset.at, failures: 0, locked_until: null }),
    })
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirst()
}

/** From how many failures on an account is locked out: for so long, and for twice as long with each further one, up to so long. */
export interface LockOutRule {
  readonly failures: number
  readonly firstMs: number
  readonly longestMs: number
}

/**
 * Counts an attempt as failed before anybody looks at it, so that many at once are not more than many in a row. Undefined while locked out, disabled, or when there is
 * no such person: then it does not count.
 */
export async function claimAttempt(
  queries: Kysely<Schema>,
  { person, at, rule }: { readonly person: string; readonly at: Date; readonly rule: LockOutRule },
): Promise<Person | undefined> {
  const { failures, firstMs, longestMs } = rule
  const lockMs = sql<number>`least(${longestMs}::float8, ${firstMs}::float8 * power(2, least(failures + 1 - ${failures}::int, 20)))`
  return await queries
    .updateTable('people')
    .set({
      failures: sql<number>`failures + 1`,
      locked_until: sql<Date | null>`case when failures + 1 >= ${failures}::int then ${at}::timestamptz + make_interval(secs => ${lockMs} / 1000) end`,
    })
    .where('id', '=', person)
    .where('state', '=', 'active')
    .where((each) => each.or([each('locked_until', 'is', null), each('locked_until', '<=', at)]))
    .returningAll()
    .executeTakeFirst()
}

/** The attempt did not fail: it counts no longer. */
export async function releaseAttempt(queries: Kysely<Schema>, person: string): Promise<void> {
  await queries
    .updateTable('people')
    .set({ failures: sql<number>`greatest(failures - 1, 0)`, locked_until: null })
    .where('id', '=', person)
    .execute()
}

/** They have shown all they had to: nothing of before counts. */
export async function noteLogOn(queries: Kysely<Schema>, person: string, at: Date): Promise<void> {
  await queries
    .updateTable('people')
    .set({ failures: 0, locked_until: null, last_seen_at: at })
    .where('id', '=', person)
    .execute()
}
