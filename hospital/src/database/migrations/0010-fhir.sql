-- What the FHIR face needs beside the projections.

-- The last number of each facility's medical records. No projection: a number that was given out stays given out, whatever becomes of the event that
-- it was for. `cluster` is where the counter last counted: a database that was recovered to an earlier moment counts on another timeline,
-- in another cluster or in another database, and has forgotten numbers that are on wristbands and papers by now.
create table hospital.mrn_counters (
  facility text primary key references hospital.facilities,
  last bigint not null check (last >= 0),
  cluster text not null
);

-- Which facility sent which file. A document may only name a file that its own facility sent: otherwise whoever knows a file's hash could read it,
-- or ask whether another facility has it. Like a token, it is no event: what matters is the document that names the file.
create table hospital.uploads (
  facility text not null references hospital.facilities,
  sha256 text not null check (sha256 ~ '^[0-9a-f]{64}$'),
  size_bytes bigint not null check (size_bytes >= 0),
  -- Base64, as FHIR's Attachment.hash wants it.
  sha1 text not null,
  at timestamptz not null default now(),
  primary key (facility, sha256)
);

do $$
declare
  name text;
begin
  foreach name in array array['mrn_counters', 'uploads'] loop
    execute format('alter table hospital.%I enable row level security', name);
    execute format('alter table hospital.%I force row level security', name);
    execute format('create policy owner_all on hospital.%I to current_user using (true) with check (true)', name);
    execute format('create policy group_sees on hospital.%I for select to hospital_group using (true)', name);
    execute format('create policy worker_sees on hospital.%I for select to hospital_worker using (true)', name);
    execute format('create policy facility_sees on hospital.%I for select to hospital_facility
      using (facility = (select hospital.current_facility()))', name);
    execute format('create policy facility_adds on hospital.%I for insert to hospital_facility
      with check (facility = (select hospital.current_facility()))', name);
    execute format('create policy facility_changes on hospital.%I for update to hospital_facility
      using (facility = (select hospital.current_facility())) with check (facility = (select hospital.current_facility()))', name);
    execute format('grant select on hospital.%I to hospital_group, hospital_worker', name);
    execute format('grant select, insert, update on hospital.%I to hospital_facility', name);
  end loop;
end
$$;

-- Where this transaction writes: the cluster, its timeline, which every recovery changes, and the database, which every copy and every dump that is loaded
-- changes. The timeline is that of the WAL which is being written: pg_control_checkpoint() names the old one until the first checkpoint after a promotion.
create function hospital.cluster_identity(out system_identifier text, out timeline integer, out database_oid bigint)
  language sql volatile
  as $$
    select (select c.system_identifier::text from pg_control_system() c),
      ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer,
      (select d.oid::bigint from pg_database d where d.datname = current_database())
  $$;

-- The next medical record number of the facility that asks: eight digits or more, never one that it has given out. Two that ask at once wait for each other,
-- so that no number is lost or used twice.
create function hospital.next_mrn() returns text
  language plpgsql
  as $$
declare
  -- More than any facility registers between a recovery point and the loss of what came after it.
  lost_window constant bigint := 10000;
  own constant text := hospital.current_facility();
  line constant text := (select concat_ws('/', i.system_identifier, i.timeline, i.database_oid) from hospital.cluster_identity() i);
  counter hospital.mrn_counters;
  result text;
begin
  insert into hospital.mrn_counters (facility, last, cluster) values (own, 0, line) on conflict do nothing;
  select * into strict counter from hospital.mrn_counters c where c.facility = own for update;
  if counter.cluster <> line then
    counter.last := counter.last + lost_window;
  end if;
  loop
    counter.last := counter.last + 1;
    result := lpad(counter.last::text, greatest(8, length(counter.last::text)), '0');
    exit when not exists (select from hospital.patient_facilities k where k.facility = own and k.mrn = result);
    -- Numbers that came by another way (a generator, a migration from paper): behind the greatest of them.
    select greatest(counter.last, max(k.mrn::bigint)) into counter.last
    from hospital.patient_facilities k where k.facility = own and k.mrn ~ '^\d{8,17}$';
  end loop;
  update hospital.mrn_counters c set last = counter.last, cluster = line where c.facility = own;
  return result;
end
  $$;

-- By what a patient is searched. Row security lets an index help only for comparisons that PostgreSQL knows to tell nothing of rows one may not see:
-- equality and order of plain text are such, and JSON's operators are not. So what is usual stands in columns, and a flag says that there is more.
create function hospital.search_key(value text) returns text
  language sql immutable parallel safe
  as $$ select lower(regexp_replace(normalize(value, NFD), '[\u0300-\u036f]', '', 'g')) $$;

alter table hospital.patients
  add column family_key text collate "C" generated always as (hospital.search_key(family)) stored,
  add column given_key text collate "C" generated always as (hospital.search_key(given)) stored,
  add column given_2_key text collate "C" generated always as (hospital.search_key(content #>> '{name,0,given,1}')) stored,
  add column has_more_names boolean generated always as (
    content #> '{name,1}' is not null or content #> '{name,0,given,2}' is not null) stored,
  add column identifier_1 text collate "C" generated always as (content #>> '{identifier,0,value}') stored,
  add column identifier_2 text collate "C" generated always as (content #>> '{identifier,1,value}') stored,
  add column identifier_3 text collate "C" generated always as (content #>> '{identifier,2,value}') stored,
  add column has_more_identifiers boolean generated always as (content #> '{identifier,3}' is not null) stored;

create index on hospital.patients (family_key);
create index on hospital.patients (given_key);
create index on hospital.patients (given_2_key) where given_2_key is not null;
create index on hospital.patients (id) where has_more_names;
create index on hospital.patients (birth_date);
create index on hospital.patients (identifier_1);
create index on hospital.patients (identifier_2) where identifier_2 is not null;
create index on hospital.patients (identifier_3) where identifier_3 is not null;
create index on hospital.patients (id) where has_more_identifiers;

-- Written in the order of time, so that a few kB are enough to find a day.
create index on hospital.provenances using brin (recorded_at);
create index on hospital.audit_events using brin (recorded_at);

-- One plan for every range of positions, kept by each connection, and it goes by the index. PostgreSQL would find a plan for each range cheaper, and then
-- spend more on planning than on the one event of a write (3.0 against 1.6 ms of CPU beside 100 000 events); and a plan that was made
-- while there were few events would read all of them when there are many.
alter function hospital.project(bigint, bigint, text) set plan_cache_mode = force_generic_plan;
alter function hospital.project(bigint, bigint, text) set enable_seqscan = off;
