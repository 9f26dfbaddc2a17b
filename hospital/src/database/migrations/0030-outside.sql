-- What leaves the hospital: events published to topics, messages to people, and the hold on them.

-- What consumers of a topic are told of an event, as JSON. The audit topic's has nothing clinical in it: who did what to which stream, and the chains.
create function hospital.topic_value(e hospital.events, audit boolean) returns json
  -- Stable, as what it calls is: PostgreSQL then puts it into the query, and does not call it for each row.
  language sql stable
  as $$
    select case when audit
      then json_build_object(
        'id', e.id, 'stream', e.stream, 'version', e.version, 'type', e.type, 'schemaVersion', e.schema_version, 'facility', e.facility,
        'otherFacility', e.other_facility, 'actor', e.actor, 'at', to_char(e.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'position', e.position, 'hash', encode(e.hash, 'hex'),
        'action', case e.version when 1 then 'C' else 'U' end, 'lane', e.lane, 'laneSequence', e.lane_sequence, 'laneHash', encode(e.lane_hash, 'hex'))
      else json_build_object(
        'id', e.id, 'stream', e.stream, 'version', e.version, 'type', e.type, 'schemaVersion', e.schema_version, 'facility', e.facility,
        'otherFacility', e.other_facility, 'actor', e.actor, 'at', to_char(e.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'position', e.position, 'hash', encode(e.hash, 'hex'), 'payload', e.payload)
    end
  $$;

-- The next events to publish, in the order of positions: no more than `rows_max`, and behind the first no more than fit into `bytes_max`.
create function hospital.events_to_publish(after bigint, upto bigint, rows_max integer, bytes_max bigint)
  returns table ("position" bigint, id uuid, stream text, value text, audit_value text)
  language sql stable
  as $$
    select s.position, s.id, s.stream, s.value, s.audit_value
    from (
      select v.*, sum(octet_length(v.value)) over (order by v.position rows unbounded preceding) as bytes, row_number() over (order by v.position) as n
      from (
        select e.position, e.id, e.stream, hospital.topic_value(e, false)::text as value, hospital.topic_value(e, true)::text as audit_value
        from hospital.events e
        where e.position > after and e.position <= upto
        order by e.position
        limit rows_max
      ) v
    ) s
    where s.bytes <= bytes_max or s.n = 1
    order by s.position
  $$;

-- The topics of a hospital without a broker. A record is a place in a topic: its content is the event's, which never changes.
create table hospital.published_topics (
  topic text primary key,
  retention_ms bigint not null,
  -- Survives the records that retention has removed.
  next_offset bigint not null default 0
);

create table hospital.published_records (
  topic text not null references hospital.published_topics,
  "offset" bigint not null,
  -- No foreign key: events are never removed, and a key would cost a lock on each of them.
  position bigint not null,
  published_at timestamptz not null default now(),
  primary key (topic, "offset")
);

create index on hospital.published_records (topic, published_at);

-- The same shape as a record of Kafka has.
create view hospital.published with (security_invoker = true) as
  select r.topic, r."offset", e.stream as key, hospital.topic_value(e, r.topic = 'audit')::jsonb as value,
    jsonb_build_object('id', e.id, 'position', e.position) as headers, r.published_at
  from hospital.published_records r
  join hospital.events e on e.position = r.position;

-- Records that the broker holds of events that this database does not: it was restored to an instant before them. Their content is still in the topic.
create table hospital.records_ahead (
  topic text not null,
  partition integer not null,
  "offset" bigint not null,
  position bigint not null,
  event_id text not null,
  key text not null,
  detected_at timestamptz not null default now(),
  -- The person who has dealt with it.
  acknowledged_by text,
  acknowledged_at timestamptz,
  primary key (topic, partition, "offset")
);

-- A projection of the stream Hold/1.
create table hospital.holds (
  id text primary key,
  held boolean not null,
  reason text not null,
  person text not null,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null
);

-- The cluster in which the workers last were. Another one means that this database was restored or copied.
create table hospital.known_cluster (
  only_row boolean primary key default true check (only_row),
  system_identifier text not null,
  timeline integer not null,
  database_oid bigint not null,
  recorded_at timestamptz not null default now()
);

do $$
declare
  name text;
begin
  foreach name in array array['published_topics', 'published_records', 'records_ahead', 'holds', 'known_cluster'] loop
    execute format('alter table hospital.%I enable row level security', name);
    execute format('alter table hospital.%I force row level security', name);
    execute format('create policy owner_all on hospital.%I to current_user using (true) with check (true)', name);
    execute format('create policy group_sees on hospital.%I for select to hospital_group using (true)', name);
    execute format('create policy worker_sees on hospital.%I for select to hospital_worker using (true)', name);
    execute format('create policy worker_adds on hospital.%I for insert to hospital_worker with check (true)', name);
    execute format('create policy worker_changes on hospital.%I for update to hospital_worker using (true) with check (true)', name);
    execute format('grant select on hospital.%I to hospital_group, hospital_worker', name);
    execute format('grant insert, update on hospital.%I to hospital_worker', name);
  end loop;
end
$$;

-- Retention.
create policy worker_removes on hospital.published_records for delete to hospital_worker using (true);
grant delete on hospital.published_records to hospital_worker;
grant select on hospital.published to hospital_group, hospital_worker;

-- The group's people hold and release; that there is a hold is no secret.
create policy group_adds on hospital.holds for insert to hospital_group with check (true);
create policy group_changes on hospital.holds for update to hospital_group using (true) with check (true);
grant insert, update on hospital.holds to hospital_group;
create policy facility_sees on hospital.holds for select to hospital_facility using (true);
grant select on hospital.holds to hospital_facility;
