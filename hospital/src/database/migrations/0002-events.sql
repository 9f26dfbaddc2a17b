-- Every change of state, for ever. All other tables of state are projections of this one.
create table hospital.events (
  position bigint generated always as identity primary key,
  id uuid not null,
  -- What changed: 'Patient/7f1c…', 'Organization/FAC001'. One stream is one thing; its versions are 1, 2, 3 and so on.
  -- Compared byte by byte, so that an index finds all streams of one kind.
  -- A count in the expression ({1,64}) makes it ten times slower than the length beside it.
  stream text collate "C" not null check (stream ~ '^[A-Z][A-Za-z]+/[A-Za-z0-9.-]+$' and length(split_part(stream, '/', 2)) <= 64),
  version integer not null check (version > 0),
  type text not null,
  schema_version smallint not null check (schema_version > 0),
  -- Whose change it is, and the one other facility that sees it (a referral).
  facility text not null,
  other_facility text,
  actor text not null,
  at timestamptz not null,
  payload jsonb not null,
  -- Over the previous event's hash of the same stream, and this one's content: hospital.event_hash.
  previous_hash bytea not null,
  hash bytea not null,
  -- A second chain, over all streams that one connection wrote: lanes are how many writers append at once without waiting for each other.
  lane smallint not null,
  lane_sequence bigint not null,
  lane_hash bytea not null,
  unique (stream, version),
  -- A UUID can be written in several ways, and two streams of one thing would fight for its row.
  constraint events_stream_id_check check (
    split_part(stream, '/', 1) <> all (array['Patient', 'Location', 'Encounter', 'Appointment', 'Observation', 'MedicationRequest', 'Invoice', 'Consent',
      'DocumentReference', 'ServiceRequest', 'Message'])
    or split_part(stream, '/', 2) = split_part(stream, '/', 2)::uuid::text),
  constraint events_known_patient_check check (
    stream not like 'PatientFacility/%' or stream = 'PatientFacility/' || (payload ->> 'facility') || '.' || (payload ->> 'patient'))
);

-- No value can be confused with another: each is preceded by its length, and jsonb prints one way only.
create function hospital.event_hash(previous bytea, e hospital.events) returns bytea
  language sql immutable parallel safe
  as $$
    select sha256(previous || convert_to((
      select string_agg(length(part)::text || ':' || part, '' order by number)
      from unnest(array[
        e.id::text, e.stream, e.version::text, e.type, e.schema_version::text, e.facility, coalesce(e.other_facility, ''), e.actor,
        (extract(epoch from e.at) * 1000000)::bigint::text, e.payload::text
      ]) with ordinality as parts(part, number)), 'UTF8'))
  $$;

create function hospital.lane_hash(previous bytea, hash bytea) returns bytea
  language sql immutable parallel safe
  as $$ select sha256(previous || hash) $$;

create function hospital.no_hash() returns bytea
  language sql immutable parallel safe
  as $$ select '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea $$;

create function hospital.refuse_change() returns trigger
  language plpgsql
  as $$
    begin
      raise exception '% is append-only: % is refused', tg_table_name, lower(tg_op)
        using errcode = 'restrict_violation', hint = 'append another event';
    end
  $$;

create trigger append_only before update or delete or truncate on hospital.events
  for each statement execute function hospital.refuse_change();

-- The end of each lane. A connection holds an advisory lock on the lane that it writes, so no two ever wait for the same row.
create table hospital.lanes (
  lane smallint primary key,
  sequence bigint not null default 0,
  hash bytea not null default hospital.no_hash()
) with (fillfactor = 10);

-- From time to time, over all streams: what a stream's own chain cannot tell is that whole streams, or its newest events, are missing.
create table hospital.checkpoints (
  number bigint primary key check (number > 0),
  at timestamptz not null,
  -- All events above the previous checkpoint's position and up to this one.
  position bigint not null,
  events bigint not null,
  previous_hash bytea not null,
  -- sha256(previous_hash, the hash of each of these events in the order of positions)
  hash bytea not null
);

create trigger append_only before update or delete or truncate on hospital.checkpoints
  for each statement execute function hospital.refuse_change();
