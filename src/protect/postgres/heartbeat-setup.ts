import pg from 'pg'

// The table of the heartbeat, in the protected database.
//
//   resus.heartbeat (id smallint primary key, sequence bigint, at timestamptz)        one row, id 1
//
// What it costs: each second one update of one row, 130 bytes of WAL (11 MB a day) and one fsync. The update is HOT: the index is not
// touched, and versions that nobody sees any more are pruned as soon as a tenth of the page is used (fillfactor), so that the table stays within
// one page and its full-page images are small. A transaction that is open for hours
// keeps all versions meanwhile, 50 bytes each (180 kB an hour); autovacuum takes them back. 31 million transaction ids a year, of the
// 200 million after which PostgreSQL freezes once. A server that nobody else uses has WAL every second: with `archive_timeout` it
// switches segments for it, and the receiver stores a piece every few seconds.

/**
 * The SQL that makes it, for a superuser or the owner of the database to run in the database of `connection`; it may be run again. Refuses a database
 * that publishes all its tables: its subscribers would stop at a table that they do not have.
 */
export function heartbeatSetup(role = 'resus'): string {
  const name = pg.escapeIdentifier(role)
  return `begin;
do $$ begin
  if exists (select from pg_catalog.pg_publication where puballtables) then
    raise exception 'this database publishes all its tables: the subscribers would stop at a new one'
      using hint = 'name another database of the same cluster in "connection"';
  end if;
end $$;
create schema if not exists resus;
create table if not exists resus.heartbeat (
  id smallint primary key default 1 check (id = 1),
  sequence bigint not null,
  at timestamptz not null
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
comment on table resus.heartbeat is 'Resus writes here once a second: what a recovery has of it says how much was lost.';
insert into resus.heartbeat (sequence, at) values (0, clock_timestamp()) on conflict do nothing;
revoke all on schema resus from public;
revoke all on table resus.heartbeat from public;
grant usage on schema resus to ${name};
grant select, update on table resus.heartbeat to ${name};
commit;
`
}
