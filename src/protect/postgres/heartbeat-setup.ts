import pg from 'pg'

// The table of the heartbeat, in the protected database.
//
//   resus.heartbeat (id smallint primary key, sequence bigint, at timestamptz)        one row, id 1
//   resus.canary (facility text primary key, number bigint, at timestamptz, value bytea, facilities text[])
//                                         one row for each facility, and '' for the whole: renewed once an hour beside the heartbeat
//
// What it costs: each second one update of one row, 130 bytes of WAL (11 MB a day) and one fsync. The update is HOT: the index is not
// touched, and versions that nobody sees any more are pruned as soon as a tenth of the page is used (fillfactor), so that the table stays within
// one page and its full-page images are small. A transaction that is open for hours
// keeps all versions meanwhile, 50 bytes each (180 kB an hour); autovacuum takes them back. 31 million transaction ids a year, of the
// 200 million after which PostgreSQL freezes once. A server that nobody else uses has WAL every second: with `archive_timeout` it
// switches segments for it, and the receiver stores a piece every few seconds.

/**
 * The SQL that makes it, for a superuser to run in the database of `connection`; it may be run again. Refuses a schema or a table that somebody else owns:
 * their triggers would run as whoever writes. Refuses a database that publishes all its tables: its subscribers would stop at a table that they do not have.
 */
export function heartbeatSetup(role = 'resus'): string {
  const name = pg.escapeIdentifier(role)
  // First made, then looked at: what lies in a schema of a trusted owner cannot be exchanged any more. Each statement sees what others have committed.
  return `begin isolation level read committed;
set local search_path = pg_catalog, pg_temp;
set local resus.role = ${pg.escapeLiteral(role)};
create schema if not exists resus;
create table if not exists resus.heartbeat (
  id smallint primary key default 1 check (id = 1),
  sequence bigint not null,
  at timestamptz not null
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
create table if not exists resus.canary (
  facility text primary key,
  number bigint not null,
  at timestamptz not null,
  value bytea not null,
  facilities text[]
);
do $$
declare
  other record;
begin
  if exists (select from pg_catalog.pg_publication where puballtables) then
    raise exception 'this database publishes all its tables: the subscribers would stop at a new one'
      using hint = 'name another database of the same cluster in "connection"';
  end if;
  for other in ${strangeOwners("pg_catalog.current_setting('resus.role')")} loop
    raise exception 'the % belongs to the role "%", and its code would run with our rights', other.object, other.owner
      using hint = '${STRANGE_OWNER_HINT}';
  end loop;
end $$;
comment on table resus.heartbeat is 'Resus writes here once a second: what a recovery has of it says how much was lost.';
comment on table resus.canary is 'Resus renews these rows once an hour: a recovery that has them whole has what it should.';
insert into resus.heartbeat (sequence, at) values (0, clock_timestamp()) on conflict do nothing;
revoke all on schema resus from public;
revoke all on table resus.heartbeat, resus.canary from public;
grant usage on schema resus to ${name};
grant select, update on table resus.heartbeat to ${name};
grant select, insert, update on table resus.canary to ${name};
commit;
`
}

/** What to do about a heartbeat that is somebody else's. */
export const STRANGE_OWNER_HINT =
  'if nothing else uses it, let a superuser run "drop schema resus cascade", and make the heartbeat again; or name another database in "connection"'

/**
 * SQL for what of the heartbeat belongs to neither a superuser, nor whoever asks, nor `role`, an SQL expression: `object`, `owner`. Such an owner may put a
 * trigger on the table, or another table in its place, and that runs as whoever writes to it.
 */
export function strangeOwners(role: string): string {
  return `select o.object, r.rolname as owner from (
      select 'schema "resus"' as object, nspowner as owner from pg_catalog.pg_namespace where nspname = 'resus'
      union all select 'table "resus.' || c.relname || '"', c.relowner from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = 'resus' and c.relname in ('heartbeat', 'canary')
    ) o join pg_catalog.pg_roles r on r.oid = o.owner where not r.rolsuper and r.rolname not in (current_user, ${role})`
}
