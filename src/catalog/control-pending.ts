import { sql } from 'kysely'
import type { UnreadableObject } from './schema.ts'
import type { Store } from './store.ts'

// Statements about what is to be written to the repositories. Times are the store's own: only they are compared with each other.

/** So long a node may write to a system's repository without saying so again. */
const WRITER_SECONDS = 60

/** A thing that has changed. */
export interface PendingChange {
  readonly kind: string
  readonly id: string
  /** Which change it was: a later one is not forgotten with this one. */
  readonly change: string
}

/** Whether this node writes to a system's repository from now on, for a minute: `held` when nobody else can have written since it said so last. */
export async function claimWriting(
  store: Store,
  { system, node }: { system: string; node: string },
): Promise<'held' | 'gained' | undefined> {
  const { rows } = await sql<{ held: boolean }>`
    with before as (
      select from resus_control.control_writers where system = ${system} and node = ${node} and until >= clock_timestamp()
    )
    insert into resus_control.control_writers as w (system, node, until)
    values (${system}, ${node}, clock_timestamp() + ${WRITER_SECONDS} * interval '1 s')
    on conflict (system) do update set node = excluded.node, until = excluded.until
    where w.node = excluded.node or w.until < clock_timestamp()
    returning exists (select from before) as held`.execute(store.sql)
  const [row] = rows
  return row === undefined ? undefined : row.held ? 'held' : 'gained'
}

/** Lets another node write at once. */
export async function releaseWriting(store: Store, { system, node }: { system: string; node: string }): Promise<void> {
  await sql`delete from resus_control.control_writers where system = ${system} and node = ${node}`.execute(store.sql)
}

/**
 * Says for each system what concerns several, or none: an alarm of Resus itself concerns each; a notice those whose alarms are in it, and each when one of Resus itself is, or
 * it is a digest.
 */
export async function spreadChanges(store: Store, systems: readonly string[]): Promise<void> {
  await sql`
    with gone as (
      delete from resus_control.control_pending where (system, kind, id) in (
        select system, kind, id from resus_control.control_pending where system = '' for update skip locked)
      returning kind, id
    )
    insert into resus_control.control_pending (system, kind, id)
    select s, g.kind, g.id from gone g cross join unnest(${systems}::text[]) s
    where g.kind <> 'notice' or exists (
      select from resus_control.notices n where n.id = g.id::uuid and (n.kind = 'digest' or exists (
        select from jsonb_array_elements(n.content -> 'entries') e where e ->> 'system' in (s, 'Resus'))))
    order by g.kind, g.id, s
    on conflict (system, kind, id) do update set change = nextval('resus_control.control_changes')`.execute(store.sql)
}

/** What is to be written of a system, in the order in which it happened. */
export async function pendingChanges(store: Store, system: string, limit: number): Promise<PendingChange[]> {
  const { rows } = await sql<PendingChange>`
    select kind, id, change::text from resus_control.control_pending
    where system = ${system} and due_at <= clock_timestamp()
    order by change limit ${limit}`.execute(store.sql)
  return rows
}

/** Of what has changed again since, nothing is forgotten; what is just being changed is written once more. */
export async function forgetChanges(store: Store, system: string, written: readonly PendingChange[]): Promise<void> {
  await sql`
    delete from resus_control.control_pending where (system, kind, id) in (
      select p.system, p.kind, p.id from resus_control.control_pending p
      join jsonb_to_recordset(${JSON.stringify(written)}::jsonb) as w(kind text, id text, change bigint)
        on p.system = ${system} and p.kind = w.kind and p.id = w.id and p.change = w.change
      for update of p skip locked)`.execute(store.sql)
}

/** For how long the oldest of each system waits. */
export async function pendingSeconds(store: Store): Promise<ReadonlyMap<string, number>> {
  const { rows } = await sql<{ system: string; seconds: number }>`
    select system, extract(epoch from clock_timestamp() - min(due_at))::float8 as seconds
    from resus_control.control_pending where due_at <= clock_timestamp() group by system`.execute(store.sql)
  return new Map(rows.map(({ system, seconds }) => [system, seconds]))
}

/** What nobody has written for so long is of a system that is not there any more. */
export async function forgetOldChanges(store: Store, days: number): Promise<void> {
  await sql`delete from resus_control.control_pending where due_at < clock_timestamp() - ${days} * interval '1 day'`.execute(
    store.sql,
  )
}

/** Systems whose records are in this store, and what of them could not be read. */
export async function rebuiltSystems(store: Store): Promise<ReadonlyMap<string, readonly UnreadableObject[]>> {
  const rows = await store.sql.selectFrom('control_rebuilt').select(['system', 'unreadable']).execute()
  return new Map(rows.map(({ system, unreadable }) => [system, unreadable]))
}

/** Says that a system's records are in this store, but for these. */
export async function noteRebuilt(
  store: Store,
  { system, at, unreadable }: { system: string; at: Date; unreadable: readonly UnreadableObject[] },
): Promise<void> {
  const text = JSON.stringify(unreadable)
  await store.sql
    .insertInto('control_rebuilt')
    .values({ system, at, unreadable: text })
    .onConflict((conflict) => conflict.column('system').doUpdateSet({ unreadable: text }))
    .execute()
}
