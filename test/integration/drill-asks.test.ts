import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { rehearse } from '../services/drilling.ts'
import { skipUnlessInstalled } from '../services/postgres.ts'
import { protectedCluster } from '../services/protected-cluster.ts'

// Whoever may define something in the hospital's database does not run programs by way of a drill.

for (const major of [18, 15]) {
  const skip = await skipUnlessInstalled(major)

  test(
    `PostgreSQL ${major}: what a role of the hospital put in a table's place or into an index runs no program in a drill`,
    { skip },
    async (t) => {
      await using cluster = await protectedCluster(t, { major })
      const ran = join(cluster.stateDirectory, '..', 'the-program-ran')
      await cluster.query(`
        create role app login; grant create on schema public to app; create schema resus authorization app;
        revoke connect on database postgres from public;
        create table visits (id bigint generated always as identity primary key); insert into visits default values;
        create function public.on_ddl() returns event_trigger language plpgsql as $$ begin raise exception 'an event trigger ran'; end $$;
        alter table visits enable row level security; alter table visits force row level security;
        revoke all on visits from public`)
      await cluster.query(`
        set role app;
        create table public.patients (id int, name text); insert into public.patients values (1, 'one');
        create function public.run() returns int language plpgsql as $$
          begin
            if current_setting('cluster_name') = 'resus verify' then copy (select 1) to program 'touch ${ran}'; end if;
            return 1;
          end $$;
        create function public.evil(int) returns int language plpgsql immutable as $$ begin perform public.run(); return $1; end $$;
        create table public.ledger (id serial primary key, note text); insert into public.ledger (note) values ('x');
        create index on public.ledger ((public.evil(1)));
        alter table public.patients rename to patients_kept;
        create view public.patients as select id, name from public.patients_kept where public.evil(id) = id;
        create table resus.heartbeat (id int, sequence bigint, at timestamptz); insert into resus.heartbeat values (1, 5, now());
        create index on resus.heartbeat ((public.evil(1)));
        reset role;
        create event trigger refuse on ddl_command_start execute function public.on_ddl()`)
      await cluster.backup()
      const { predicate, found } = await rehearse(cluster, {
        sql: [
          { name: 'patients', query: 'select count(*) from patients', expect: { least: 0 } },
          { name: 'visits', query: 'select count(*) from visits', expect: { equals: 1 } },
          {
            name: 'reset',
            query: `select current_setting('is_superuser') || session_user::text like 'off%'`,
            expect: { equals: true },
          },
        ],
      })
      assert.equal(existsSync(ran), false)
      assert.deepEqual([predicate.verdict, found('sql: patients').verdict], ['failed', 'failed'])
      assert.match(found('sql: patients').found, /SQLSTATE 42501/)
      assert.equal(found('sql: visits').verdict, 'verified', found('sql: visits').found)
      assert.equal(found('sql: reset').verdict, 'verified', found('sql: reset').found)
    },
  )
}
