import pg from 'pg'

// Who works with the store. Our own server has a superuser, for whom no right counts; so it makes the tables, and all else is done as another role, which owns none of them.

const ROLE = 'resus_store'
/** A name without a password, and a socket: how one connects to a server of our own. */
const BY_SOCKET = /^(postgres(?:ql)?:\/\/)[^:@/]+(@\/)/
const CONNECT_TIMEOUT_MS = 5_000

/** May be run again; each time, for what a migration has added. `create role` is of the whole cluster: another database's migration may do so at the same time. */
const GRANT = `
do $$
begin
  if not (select rolsuper from pg_roles where rolname = current_user) then
    return;
  end if;
  begin
    create role ${ROLE} login;
  exception when duplicate_object or unique_violation then
    null;
  end;
  execute format('grant create on database %I to ${ROLE}', current_database());
  grant usage on schema resus_control, resus_audit to ${ROLE};
  grant select, insert, update, delete on all tables in schema resus_control to ${ROLE};
  grant usage, select on all sequences in schema resus_control to ${ROLE};
  revoke insert, update, delete on resus_control.migrations from ${ROLE};
  grant select, insert on resus_audit.audit_entries to ${ROLE};
end $$`

/** The queue makes and changes its own tables: also those that it made as superuser, in a store from before there was this role. */
const GIVE_QUEUE = `
do $$
declare
  each record;
begin
  if not (select rolsuper from pg_roles where rolname = current_user) or to_regnamespace('resus_queue') is null then
    return;
  end if;
  for each in
    select format('alter schema resus_queue owner to ${ROLE}') as change from pg_namespace n
      where nspname = 'resus_queue' and nspowner <> '${ROLE}'::regrole
    union all
    select format('alter %s %s owner to ${ROLE}', case relkind when 'v' then 'view' when 'S' then 'sequence' else 'table' end, c.oid::regclass)
      from pg_class c where relnamespace = 'resus_queue'::regnamespace and relowner <> '${ROLE}'::regrole and (relkind in ('r', 'p', 'v')
        or relkind = 'S' and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i')))
    union all
    select format('alter function %s owner to ${ROLE}', p.oid::regprocedure) from pg_proc p
      where pronamespace = 'resus_queue'::regnamespace and proowner <> '${ROLE}'::regrole
    union all
    select format('alter type %s owner to ${ROLE}', t.oid::regtype) from pg_type t
      where typnamespace = 'resus_queue'::regnamespace and typowner <> '${ROLE}'::regrole and typtype in ('e', 'd')
  loop
    execute each.change;
  end loop;
end $$`

/** On a server of our own: makes the role, and gives it what the control plane needs; of the audit trail to read it, and to add to it. */
export async function giveRights(client: pg.Client, connectionString: string): Promise<void> {
  if (!BY_SOCKET.test(connectionString)) return
  await client.query(GRANT)
  await client.query(GIVE_QUEUE)
}

/** How to connect as that role: to a server of our own; as it was given elsewhere. */
export async function workingConnection(connectionString: string): Promise<string> {
  if (!BY_SOCKET.test(connectionString)) return connectionString
  const working = connectionString.replace(BY_SOCKET, `$1${ROLE}$2`)
  const client = new pg.Client({ connectionString: working, connectionTimeoutMillis: CONNECT_TIMEOUT_MS })
  client.on('error', () => undefined)
  try {
    await client.connect()
    const may = "select has_schema_privilege('resus_control', 'usage') as may"
    const { rows } = await client.query<{ may: boolean }>(may)
    return rows[0]?.may === true ? working : connectionString
  } catch {
    // Somebody else's server by a socket: it has no such role, or does not let it in. `auditProtection` says what holds then.
    return connectionString
  } finally {
    await client.end().catch(() => undefined)
  }
}
