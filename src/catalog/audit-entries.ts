import { sql, type Kysely } from 'kysely'
import type { Schema } from './schema.ts'

// Statements about the audit trail. What may be added to it, the store checks itself: see the migration.

/** Of all who add to the chain in one database, one at a time, until its transaction ends. Any number that nobody else takes. */
const LOCK = 7_320_510
const AUDIT = 'resus_audit'

export interface AuditRow {
  readonly seq: number
  readonly entry: string
  readonly previous: string
  readonly hash: string
}

export interface AuditFilter {
  /** Id or name. */
  readonly actor?: string | undefined
  readonly action?: string | undefined
  readonly outcome?: string | undefined
  readonly from?: Date | undefined
  readonly to?: Date | undefined
}

/** What lies in wait for the chain's beginning to be known. */
export interface WaitingEntry {
  readonly number: string
  readonly id: string
  readonly entry: string
}

/** Nobody else adds to the chain until this transaction ends. */
export async function lockChain(transaction: Kysely<Schema>): Promise<void> {
  await sql`select pg_advisory_xact_lock(${LOCK})`.execute(transaction)
}

/** The newest entry's place; undefined in a store that knows of none. */
export async function newestEntry(queries: Kysely<Schema>): Promise<(AuditRow & { readonly at: Date }) | undefined> {
  const row = await queries
    .withSchema(AUDIT)
    .selectFrom('audit_entries')
    .select(['seq', 'entry', 'previous', 'hash', 'at'])
    .orderBy('seq', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row === undefined ? undefined : { ...row, seq: Number(row.seq) }
}

export async function oldestEntry(queries: Kysely<Schema>): Promise<AuditRow | undefined> {
  const [row] = await entriesBehind(queries, 0, 1)
  return row
}

export async function hasHash(queries: Kysely<Schema>, { seq, hash }: { seq: number; hash: string }): Promise<boolean> {
  const row = await queries
    .withSchema(AUDIT)
    .selectFrom('audit_entries')
    .select('seq')
    .where('hash', '=', hash)
    .executeTakeFirst()
  return row?.seq === String(seq)
}

export async function hasEntry(queries: Kysely<Schema>, id: string): Promise<boolean> {
  const row = await queries.withSchema(AUDIT).selectFrom('audit_entries').select('seq').where('id', '=', id).executeTakeFirst()
  return row !== undefined
}

/** In this order. The store refuses what does not continue its chain. */
export async function insertEntries(queries: Kysely<Schema>, rows: readonly AuditRow[]): Promise<void> {
  if (rows.length === 0) return
  await queries
    .withSchema(AUDIT)
    .insertInto('audit_entries')
    .values(rows.map(({ seq, entry, previous, hash }) => ({ seq, entry, previous, hash })))
    .execute()
}

/** Behind a place of the chain, in order. */
export async function entriesBehind(queries: Kysely<Schema>, seq: number, limit: number): Promise<AuditRow[]> {
  const rows = await queries
    .withSchema(AUDIT)
    .selectFrom('audit_entries')
    .select(['seq', 'entry', 'previous', 'hash'])
    .where('seq', '>', String(seq))
    .orderBy('seq')
    .limit(limit)
    .execute()
  return rows.map((row) => ({ ...row, seq: Number(row.seq) }))
}

/** Newest first, older than `before`. */
export async function listEntries(
  queries: Kysely<Schema>,
  { before, limit, ...filter }: AuditFilter & { readonly before?: number | undefined; readonly limit: number },
): Promise<AuditRow[]> {
  const { actor, action, outcome, from, to } = filter
  const rows = await queries
    .withSchema(AUDIT)
    .selectFrom('audit_entries')
    .select(['seq', 'entry', 'previous', 'hash'])
    .$if(before !== undefined, (query) => query.where('seq', '<', String(before)))
    .$if(actor !== undefined, (query) => query.where((is) => is.or([is('actor', '=', actor!), is('actor_name', '=', actor!)])))
    .$if(action !== undefined, (query) => query.where('action', '=', action!))
    .$if(outcome !== undefined, (query) => query.where('outcome', '=', outcome!))
    .$if(from !== undefined, (query) => query.where('at', '>=', from!))
    .$if(to !== undefined, (query) => query.where('at', '<', to!))
    .orderBy('seq', 'desc')
    .limit(limit)
    .execute()
  return rows.map((row) => ({ ...row, seq: Number(row.seq) }))
}

export async function insertWaiting(queries: Kysely<Schema>, { id, entry }: { id: string; entry: string }): Promise<void> {
  await queries
    .insertInto('audit_waiting')
    .values({ id, entry })
    .onConflict((conflict) => conflict.column('id').doNothing())
    .execute()
}

export async function listWaiting(queries: Kysely<Schema>, limit: number): Promise<WaitingEntry[]> {
  return await queries.selectFrom('audit_waiting').selectAll().orderBy('number').limit(limit).execute()
}

export async function deleteWaiting(queries: Kysely<Schema>, numbers: readonly string[]): Promise<void> {
  if (numbers.length > 0) await queries.deleteFrom('audit_waiting').where('number', 'in', numbers).execute()
}

/** How far a copy of the trail is; undefined when it was never begun. */
export async function readMark(queries: Kysely<Schema>, target: string): Promise<number | undefined> {
  const row = await queries.selectFrom('audit_marks').select('seq').where('target', '=', target).executeTakeFirst()
  return row === undefined ? undefined : Number(row.seq)
}

/** Never back: of two that wrote at once, the later word may be the older. */
export async function writeMark(
  queries: Kysely<Schema>,
  { target, seq, at }: { readonly target: string; readonly seq: number; readonly at: Date },
): Promise<void> {
  await sql`
    insert into resus_control.audit_marks as m (target, seq, at) values (${target}, ${seq}, ${at})
    on conflict (target) do update set seq = greatest(m.seq, excluded.seq), at = excluded.at`.execute(queries)
}

/**
 * What keeps whoever asks from changing entries: `role`, they have no right to, and may not take it; `triggers`, that alone (they may remove them). Measured, with the rights that this connection has.
 */
export async function auditProtection(queries: Kysely<Schema>): Promise<'role' | 'triggers'> {
  const { rows } = await sql<{ holds: boolean }>`
    select not me.rolsuper and not me.rolcreaterole
      and not has_table_privilege(session_user, 'resus_audit.audit_entries', 'update, delete, truncate, trigger')
      and not pg_has_role(session_user, c.relowner, 'member') and not pg_has_role(session_user, n.nspowner, 'member') as holds
    from pg_roles me, pg_class c join pg_namespace n on n.oid = c.relnamespace
    where me.rolname = session_user and c.oid = 'resus_audit.audit_entries'::regclass`.execute(queries)
  return rows[0]?.holds === true ? 'role' : 'triggers'
}

export async function listMarks(queries: Kysely<Schema>): Promise<Map<string, number>> {
  const rows = await queries.selectFrom('audit_marks').select(['target', 'seq']).execute()
  return new Map(rows.map(({ target, seq }) => [target, Number(seq)]))
}
