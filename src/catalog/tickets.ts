import { sql, type Kysely, type Selectable } from 'kysely'
import type { Schema, TicketsTable } from './schema.ts'

// Statements about what is good once.

export type Ticket = Selectable<TicketsTable>
/** What the seal of one is over. */
export type SealedTicket = Pick<Ticket, 'digest' | 'purpose' | 'person' | 'data' | 'sealed' | 'expires_at'>

export interface NewTicket {
  readonly digest: Buffer
  readonly purpose: string
  readonly person: string
  readonly data: Readonly<Record<string, unknown>>
  readonly sealed?: Buffer
  readonly at: Date
  readonly expiresAt: Date
}

/** How many of one purpose a person may have at once: the newest. */
const OPEN_MAX = 20

/** Also forgets what has expired, and the oldest of too many. */
export async function insertTicket(queries: Kysely<Schema>, ticket: NewTicket, seal: Buffer): Promise<void> {
  const { digest, purpose, person, data, sealed, at, expiresAt } = ticket
  await sql`
    delete from resus_control.tickets where expires_at <= ${at}::timestamptz or digest in (
      select digest from resus_control.tickets where person = ${person}::uuid and purpose = ${purpose}
      order by made_at desc offset ${OPEN_MAX - 1})`.execute(queries)
  await queries
    .insertInto('tickets')
    .values({
      digest,
      purpose,
      person,
      data: JSON.stringify(data),
      sealed: sealed ?? null,
      made_at: at,
      expires_at: expiresAt,
      seal,
    })
    .execute()
}

/** Marks something as used that we did not have to keep until now. False when it was: of two at once, on whatever node, one gets it. */
export async function useOnce(
  queries: Kysely<Schema>,
  { digest, purpose, at, expiresAt }: Pick<NewTicket, 'digest' | 'purpose' | 'at' | 'expiresAt'>,
): Promise<boolean> {
  await queries.deleteFrom('tickets').where('expires_at', '<=', at).execute()
  const row = await queries
    .insertInto('tickets')
    .values({ digest, purpose, person: null, data: '{}', made_at: at, expires_at: expiresAt })
    .onConflict((conflict) => conflict.doNothing())
    .returning('digest')
    .executeTakeFirst()
  return row !== undefined
}

export interface WhichTicket {
  readonly digest: Buffer
  readonly purpose: string
  readonly at: Date
}

/** Looks at one that is still good, without using it. */
export async function readTicket(queries: Kysely<Schema>, { digest, purpose, at }: WhichTicket): Promise<Ticket | undefined> {
  const of = queries.selectFrom('tickets').selectAll().where('digest', '=', digest).where('purpose', '=', purpose)
  return await of.where('expires_at', '>', at).executeTakeFirst()
}

/** Uses one: of two at once, on whatever node, one gets it. */
export async function takeTicket(queries: Kysely<Schema>, { digest, purpose, at }: WhichTicket): Promise<Ticket | undefined> {
  const of = queries.deleteFrom('tickets').where('digest', '=', digest).where('purpose', '=', purpose)
  return await of.where('expires_at', '>', at).returningAll().executeTakeFirst()
}

/** Of somebody whose factors or state have changed: what was under way is worth nothing. */
export async function deleteTickets(queries: Kysely<Schema>, person: string): Promise<void> {
  await queries.deleteFrom('tickets').where('person', '=', person).execute()
}
