-- What is to be written to the repositories, because the store may be lost: which thing has changed, and not how it is. One row for each thing, however often it changes,
-- so that what waits is bounded by what the store keeps. Written by triggers, in the transaction of the change itself, whoever makes it.
create sequence resus_control.control_changes;
create table resus_control.control_pending (
  -- '' where it belongs to no system, or to several.
  system text not null,
  kind text not null,
  id text not null,
  -- Of what changed again while it was being written, another one.
  change bigint not null default nextval('resus_control.control_changes'),
  -- From when on it can be written. By the store's clock alone.
  due_at timestamptz not null default clock_timestamp(),
  primary key (system, kind, id)
);
create index on resus_control.control_pending (system, change);

-- Which node writes to a system's repository: one at a time, so that the order stays.
create table resus_control.control_writers (
  system text primary key,
  node text not null,
  until timestamptz not null
);

-- Systems whose records this store has, or never needed.
create table resus_control.control_rebuilt (
  system text primary key,
  at timestamptz not null,
  -- Objects of its repository that do not open: [{ key, problem }].
  unreadable jsonb not null
);

-- Known from a record of the repository alone: without its log.
alter table resus_control.tasks add column from_repository boolean not null default false;

create function resus_control.note_change(of_system text, of_kind text, of_id text) returns void language sql as $$
  insert into resus_control.control_pending (system, kind, id) values (of_system, of_kind, of_id)
  on conflict (system, kind, id) do update set change = nextval('resus_control.control_changes')
$$;

-- What a rebuild writes came from there.
create function resus_control.is_rebuild() returns boolean language sql as $$
  select coalesce(current_setting('resus.rebuild', true), '') = 'on'
$$;

create function resus_control.note_task() returns trigger language plpgsql as $$
begin
  perform resus_control.note_change(new.system, 'task', new.id::text);
  return null;
end $$;
create trigger note_end after update of state on resus_control.tasks for each row
  when (old.state is distinct from new.state and new.state in ('done', 'failed', 'cancelled'))
  execute function resus_control.note_task();

create function resus_control.note_alarm() returns trigger language plpgsql as $$
begin
  if not resus_control.is_rebuild() then
    perform resus_control.note_change(case new.system when 'Resus' then '' else new.system end, 'alarm', new.id::text);
  end if;
  return null;
end $$;
create trigger note_opened after insert on resus_control.alarms for each row execute function resus_control.note_alarm();
-- That it is raised again every few seconds is no news.
create trigger note_changed after update of severity, state, told_as, told_at on resus_control.alarms for each row
  when ((old.severity, old.state, old.told_as, old.told_at) is distinct from (new.severity, new.state, new.told_as, new.told_at))
  execute function resus_control.note_alarm();

create function resus_control.note_notice() returns trigger language plpgsql as $$
begin
  if not resus_control.is_rebuild() then
    perform resus_control.note_change('', 'notice', case tg_table_name when 'notices' then to_jsonb(new) ->> 'id' else to_jsonb(new) ->> 'notice_id' end);
  end if;
  return null;
end $$;
create trigger note_made after insert on resus_control.notices for each row execute function resus_control.note_notice();
create trigger note_delivered after update of state on resus_control.deliveries for each row
  when (old.state is distinct from new.state) execute function resus_control.note_notice();

-- An hour is written when it is over, and once more for a minute that came late.
create function resus_control.note_hours() returns trigger language plpgsql as $$
begin
  insert into resus_control.control_pending (system, kind, id, due_at)
  select distinct system, 'compliance', component || ' ' || to_char(hour at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), hour + interval '65 min'
  from (select system, component, date_trunc('hour', at, 'UTC') as hour from inserted) as hours
  on conflict (system, kind, id) do nothing;
  return null;
end $$;
create trigger note_hour after insert on resus_control.compliance_minutes referencing new table as inserted
  for each statement execute function resus_control.note_hours();

-- What there is already.
insert into resus_control.control_pending (system, kind, id)
  select system, 'task', id::text from resus_control.tasks where state in ('done', 'failed', 'cancelled') order by ended_at;
insert into resus_control.control_pending (system, kind, id)
  select case system when 'Resus' then '' else system end, 'alarm', id::text from resus_control.alarms order by opened_at;
insert into resus_control.control_pending (system, kind, id) select '', 'notice', id::text from resus_control.notices order by made_at;
insert into resus_control.control_pending (system, kind, id)
  select distinct system, 'compliance', component || ' ' || to_char(date_trunc('hour', at, 'UTC') at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
  from (select system, component, at from resus_control.compliance_hours union select system, component, at from resus_control.compliance_minutes) as kept
  where at < date_trunc('hour', now(), 'UTC');
