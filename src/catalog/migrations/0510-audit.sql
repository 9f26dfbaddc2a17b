-- The audit trail (docs/authority.md, "What remains"): entries are added at the ends of one chain, and never changed.
create schema resus_audit;

create table resus_audit.audit_entries (
  seq bigint primary key check (seq > 0),
  -- Exactly what was hashed: jsonb would put it in another order.
  entry text not null,
  previous text not null check (previous ~ '^[0-9a-f]{64}$'),
  hash text not null unique check (hash ~ '^[0-9a-f]{64}$'),
  -- Of the entry, for filters: set below, so that they cannot say anything else than it.
  id uuid not null unique,
  at timestamptz not null,
  actor text not null,
  actor_name text not null,
  action text not null,
  outcome text not null
);
create index on resus_audit.audit_entries (actor, seq);
create index on resus_audit.audit_entries (action, seq);
create index on resus_audit.audit_entries (at);

-- An entry goes behind the newest, or, where a store is filled from a repository, before the oldest; it has to fit there.
create function resus_audit.continue_chain() returns trigger language plpgsql set search_path = pg_catalog as $$
declare
  body jsonb := new.entry::jsonb;
  oldest record;
  newest record;
begin
  if encode(sha256(decode(new.previous, 'hex') || convert_to(new.entry, 'UTF8')), 'hex') <> new.hash or (body ->> 'seq')::bigint <> new.seq then
    raise exception 'entry % of the audit trail does not have this hash', new.seq using errcode = 'integrity_constraint_violation';
  end if;
  select seq, previous into oldest from resus_audit.audit_entries order by seq limit 1;
  select seq, hash into newest from resus_audit.audit_entries order by seq desc limit 1;
  if newest.seq is not null
      and not (new.seq = newest.seq + 1 and new.previous = newest.hash) and not (new.seq = oldest.seq - 1 and new.hash = oldest.previous) then
    raise exception 'entry % does not continue the audit trail', new.seq using errcode = 'integrity_constraint_violation';
  end if;
  new.id := (body ->> 'id')::uuid;
  new.at := (body ->> 'at')::timestamptz;
  new.actor := coalesce(body -> 'actor' ->> 'id', '');
  new.actor_name := coalesce(body -> 'actor' ->> 'name', '');
  new.action := body ->> 'action';
  new.outcome := body ->> 'outcome';
  return new;
end $$;
create trigger continue_chain before insert on resus_audit.audit_entries for each row execute function resus_audit.continue_chain();

create function resus_audit.refuse() returns trigger language plpgsql set search_path = pg_catalog as $$
begin
  raise exception 'the audit trail is not changed: % is refused', tg_op using errcode = 'insufficient_privilege';
end $$;
create trigger refuse_change before update or delete or truncate on resus_audit.audit_entries
  for each statement execute function resus_audit.refuse();
-- Also in a session that says that it is a replica.
alter table resus_audit.audit_entries enable always trigger refuse_change;
alter table resus_audit.audit_entries enable always trigger continue_chain;

-- Where we may make roles, the trail belongs to one as whom nobody can log on. Roles are of the whole cluster: it may be there already, and be another's, then we make one of our own. Where we may make none, the triggers are all.
do $$
declare
  me name := current_user;
  owner name;
  is_super boolean;
  may_make boolean;
begin
  select rolsuper, rolsuper or rolcreaterole into is_super, may_make from pg_roles where rolname = me;
  foreach owner in array case when may_make then array['resus_audit', 'resus_audit_' || me]::name[] else '{}' end loop
    begin
      begin
        execute format('create role %I nologin', owner);
      exception when duplicate_object or unique_violation then
        null;
      end;
      if not is_super then
        execute format('grant %I to %I', owner, me);
      end if;
      execute format('alter schema resus_audit owner to %I', owner);
      execute format('alter table resus_audit.audit_entries owner to %I', owner);
      execute format('alter function resus_audit.continue_chain() owner to %I', owner);
      execute format('alter function resus_audit.refuse() owner to %I', owner);
      if not is_super then
        execute format('grant usage on schema resus_audit to %I', me);
        execute format('grant select, insert on resus_audit.audit_entries to %I', me);
        execute format('revoke %I from %I', owner, me);
      end if;
      exit;
    exception when insufficient_privilege then
      -- All of this turn is undone.
      null;
    end;
  end loop;
end $$;

-- What happened before it was known where the chain goes on: it has to be read from the repositories first.
create table resus_control.audit_waiting (
  number bigint generated always as identity primary key,
  id uuid not null unique,
  entry text not null
);

-- How far each copy of the trail is: repositories by system ("repository:<system>"), and the receiver of syslog ("syslog:<host>:<port>").
create table resus_control.audit_marks (
  target text primary key,
  seq bigint not null,
  at timestamptz not null
);
