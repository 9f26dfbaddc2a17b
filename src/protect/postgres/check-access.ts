import { ReplicationConnection } from '../../postgres/replication.ts'
import { failed, judge, notProven, passed, type CheckItem, type Judgement } from './check-item.ts'
import type { PostgresComponent } from './component.ts'
import { STRANGE_OWNER_HINT, strangeOwners } from './heartbeat-setup.ts'
import type { ServerSession } from './server-session.ts'

/** What a receiver and a heartbeat need of the server, beside what a backup needs. Changes nothing. */
export async function accessItems(
  component: PostgresComponent,
  session: ServerSession,
  signal: AbortSignal,
): Promise<CheckItem[]> {
  const { slot } = component.stream
  return [
    await judge('replication connection', 'let in', () => connectForReplication(component, signal)),
    await judge(`replication slot "${slot}"`, 'a physical one that has all its WAL', () => lookAtSlot(session, slot)),
    await judge('heartbeat', 'a table that this role may write', () => lookAtHeartbeat(session)),
  ]
}

async function connectForReplication({ connection }: PostgresComponent, signal: AbortSignal): Promise<Judgement> {
  const connectionString = connection.reveal().toString('utf8')
  await using replication = await ReplicationConnection.connect({ connectionString, applicationName: 'resus check', signal })
  const { timeline } = await replication.identifySystem()
  return passed(`yes, timeline ${timeline}`)
}

async function lookAtSlot(session: ServerSession, slot: string): Promise<Judgement> {
  const [found] = await session.query<{ type: string; status: string | null; active: boolean }>(
    'select slot_type as type, wal_status as status, active from pg_replication_slots where slot_name = $1',
    [slot],
  )
  if (found === undefined)
    return notProven('none', 'the receiver makes it when it connects first; until then the server keeps no WAL for it')
  if (found.type !== 'physical') return failed(`a ${found.type} one`, 'name another one in "stream.slot"')
  if (found.status === 'lost') return failed('its WAL is gone', 'start the receiver, which makes it anew, and take a backup')
  return passed(found.active ? 'in use by a receiver' : 'there, and nobody receives')
}

async function lookAtHeartbeat(session: ServerSession): Promise<Judgement> {
  const [found] = await session.query<{ there: boolean; strange: string | null; allowed: boolean }>(`
    select t.oid is not null as there,
      coalesce(has_schema_privilege(t.schema, 'usage') and has_table_privilege(t.oid, 'select') and has_table_privilege(t.oid, 'update'), false)
        as allowed,
      (select string_agg(format('the %s belongs to the role "%s"', object, owner), '; ') from (${strangeOwners('current_user')}) s) as strange
    from (select 1) one left join (
      select c.oid, n.oid as schema from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = 'resus' and c.relname = 'heartbeat' and c.relkind = 'r') t on true`)
  const hint = 'without it the RPO is not proven: "resus init --sql-only" prints the SQL that makes it'
  if (found?.there !== true) return notProven('no table', hint)
  if (found.strange !== null) return notProven(`${found.strange}, whose triggers would run as ours`, STRANGE_OWNER_HINT)
  return found.allowed ? passed('yes') : notProven('this role may not write it', hint)
}
