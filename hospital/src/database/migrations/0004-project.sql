-- The handlers of events. Each is one statement that brings a projection to what the events of a range of positions say: the live path calls it for
-- the one event that it has just appended, the generator and `hospital rebuild` for all of them. Done twice, it changes nothing: a row is only
-- replaced by a greater version of its stream. Tables are not named with their schema, so that a rebuild can project into another one.

-- These are stable, as what they call is (casts of text to times, jsonb_build_object): PostgreSQL inlines an immutable function only if its body is
-- immutable too, and a call that is not inlined costs as much as all else that is done to a row.

-- FHIR's date and dateTime may be a year or a month (https://hl7.org/fhir/R4/datatypes.html#dateTime). A time without a zone does not exist in FHIR.
create function hospital.fhir_date(value text) returns date
  language sql stable parallel safe
  as $$ select case length(value) when 4 then value || '-01-01' when 7 then value || '-01' else left(value, 10) end::date $$;

create function hospital.fhir_time(value text) returns timestamptz
  language sql stable parallel safe
  as $$
    select case length(value)
      when 4 then value || '-01-01T00:00:00Z' when 7 then value || '-01T00:00:00Z' when 10 then value || 'T00:00:00Z' else value
    end::timestamptz
  $$;

-- 'Patient/7f1c…' as the id 7f1c…; null for anything that is no reference to that type.
create function hospital.reference_id(reference jsonb, type text) returns text
  language sql immutable parallel safe
  as $$
    select case when split_part(reference ->> 'reference', '/', 1) = type then split_part(reference ->> 'reference', '/', 2) end
  $$;

-- What old versions of the software wrote, in today's shape.
--   Patient, schema 1: { patient: { surname, forenames, sex: 'M'|'F', born, mobile, lga, mrn } }; schema 2: { resource: FHIR Patient }
create function hospital.upcast(stream text, schema_version smallint, facility text, payload jsonb) returns jsonb
  language sql stable parallel safe
  as $$
    select case
      when schema_version = 1 and stream like 'Patient/%' and payload ? 'patient' then jsonb_build_object('resource', jsonb_strip_nulls(jsonb_build_object(
        'resourceType', 'Patient',
        'id', split_part(stream, '/', 2),
        'active', true,
        'identifier', jsonb_build_array(jsonb_build_object(
          'use', 'usual', 'system', 'https://his.osun.example/mrn/' || facility, 'value', payload #> '{patient,mrn}')),
        'name', jsonb_build_array(jsonb_build_object(
          'use', 'official', 'family', payload #> '{patient,surname}', 'given', payload #> '{patient,forenames}')),
        'gender', case payload #>> '{patient,sex}' when 'M' then 'male' when 'F' then 'female' else 'unknown' end,
        'birthDate', payload #> '{patient,born}',
        'telecom', case when payload #> '{patient,mobile}' is not null then jsonb_build_array(jsonb_build_object(
          'system', 'phone', 'use', 'mobile', 'value', payload #> '{patient,mobile}')) end,
        'address', case when payload #> '{patient,lga}' is not null then jsonb_build_array(jsonb_build_object(
          'use', 'home', 'district', payload #> '{patient,lga}', 'state', 'Osun', 'country', 'NG')) end,
        'managingOrganization', jsonb_build_object('reference', 'Organization/' || facility))))
      else payload
    end
  $$;

create type hospital.stream_state as (
  id text, facility text, other_facility text, version integer, created_at timestamptz, updated_at timestamptz, payload jsonb, content jsonb);

-- The newest event of each stream of one kind within a range.
create function hospital.latest(first_position bigint, last_position bigint, kind text) returns setof hospital.stream_state
  language sql stable
  as $$
    select split_part(e.stream, '/', 2), e.facility, e.other_facility, e.version, e.first_at, e.at, e.upcast, e.upcast -> 'resource'
    from (
      select distinct on (stream) stream, facility, other_facility, version, at, min(at) over (partition by stream) as first_at,
        hospital.upcast(stream, schema_version, facility, payload) as upcast
      from hospital.events
      where position between first_position and last_position and stream like kind || '/%'
      order by stream, version desc
    ) e
  $$;

-- kind: the type of stream, when the caller knows that the range has no other.
create function hospital.project(first_position bigint, last_position bigint, kind text default null) returns void
  language plpgsql
  as $$
declare
  a constant bigint := first_position;
  b constant bigint := last_position;
begin
  if kind is null or kind = 'Organization' then
    insert into facilities as t
    select id, content ->> 'name', coalesce(content #>> '{address,0,district}', ''), coalesce(content #>> '{type,0,coding,0,code}', ''),
      coalesce((content ->> 'active')::boolean, true), version, created_at, updated_at, content
    from hospital.latest(a, b, 'Organization')
    on conflict (id) do update set name = excluded.name, lga = excluded.lga, type = excluded.type, active = excluded.active,
      version = excluded.version, updated_at = excluded.updated_at, content = excluded.content
    where t.version < excluded.version;
  end if;

  if kind is null or kind = 'User' then
    insert into users as t
    select id, payload ->> 'name', payload ->> 'role', payload ->> 'facility', (payload ->> 'active')::boolean, version, created_at, updated_at
    from hospital.latest(a, b, 'User')
    on conflict (id) do update set name = excluded.name, role = excluded.role, facility = excluded.facility, active = excluded.active,
      version = excluded.version, updated_at = excluded.updated_at
    where t.version < excluded.version;
  end if;

  if kind is null or kind = 'Location' then
    insert into locations as t
    select id::uuid, facility, coalesce(content ->> 'name', ''), coalesce(content ->> 'status', 'active'), version, created_at, updated_at, content
    from hospital.latest(a, b, 'Location')
    on conflict (id) do update set name = excluded.name, status = excluded.status,
      version = excluded.version, updated_at = excluded.updated_at, content = excluded.content
    where t.version < excluded.version;
  end if;

  if kind is null or kind = 'Patient' then
    insert into patients as t
    select id::uuid, facility, content #>> '{name,0,family}', content #>> '{name,0,given,0}', hospital.fhir_date(content ->> 'birthDate'),
      content ->> 'gender', jsonb_path_query_first(content, '$.telecom[*] ? (@.system == "phone").value') #>> '{}',
      content #>> '{address,0,district}', coalesce((content ->> 'active')::boolean, true), version, created_at, updated_at, content
    from hospital.latest(a, b, 'Patient')
    on conflict (id) do update set family = excluded.family, given = excluded.given, birth_date = excluded.birth_date, gender = excluded.gender,
      phone = excluded.phone, lga = excluded.lga, active = excluded.active,
      version = excluded.version, updated_at = excluded.updated_at, content = excluded.content
    where t.version < excluded.version;

    -- The home facility knows its patients by the number in the record.
    insert into patient_facilities as t
    select facility, id::uuid,
      jsonb_path_query_first(content, '$.identifier[*] ? (@.system == $system).value',
        jsonb_build_object('system', 'https://his.osun.example/mrn/' || facility)) #>> '{}',
      version, created_at, updated_at
    from hospital.latest(a, b, 'Patient')
    on conflict (facility, patient_id) do update set mrn = excluded.mrn, version = excluded.version, updated_at = excluded.updated_at
    where t.version < excluded.version;
  end if;

  if kind is null or kind = 'PatientFacility' then
    insert into patient_facilities as t
    select payload ->> 'facility', (payload ->> 'patient')::uuid, payload ->> 'mrn', version, created_at, updated_at
    from hospital.latest(a, b, 'PatientFacility')
    on conflict (facility, patient_id) do update set mrn = excluded.mrn, version = excluded.version, updated_at = excluded.updated_at
    where t.version < excluded.version;
  end if;

  if kind is null or kind = 'Encounter' then
    insert into encounters as t
    select id::uuid, facility, hospital.reference_id(content -> 'subject', 'Patient')::uuid,
      hospital.reference_id(content #> '{location,0,location}', 'Location')::uuid, coalesce(content #>> '{class,code}', ''), content ->> 'status',
      hospital.fhir_time(content #>> '{period,start}'), hospital.fhir_time(content #>> '{period,end}'), version, created_at, updated_at, content
    from hospital.latest(a, b, 'Encounter')
    on conflict (id) do update set patient_id = excluded.patient_id, location_id = excluded.location_id, class = excluded.class,
      status = excluded.status, started_at = excluded.started_at, ended_at = excluded.ended_at,
      version = excluded.version, updated_at = excluded.updated_at, content = excluded.content
    where t.version < excluded.version;
  end if;

  if kind is null or kind = 'Appointment' then
    insert into appointments as t
    select id::uuid, facility,
      split_part(jsonb_path_query_first(content, '$.participant[*].actor.reference ? (@ starts with "Patient/")') #>> '{}', '/', 2)::uuid,
      content ->> 'status', hospital.fhir_time(content ->> 'start'), hospital.fhir_time(content ->> 'end'), version, created_at, updated_at, content
    from hospital.latest(a, b, 'Appointment')
    on conflict (id) do update set patient_id = excluded.patient_id, status = excluded.status, starts_at = excluded.starts_at,
      ends_at = excluded.ends_at, version = excluded.version, updated_at = excluded.updated_at, content = excluded.content
    where t.version < excluded.version;
  end if;

  if kind is null or kind = 'Observation' then
    insert into observations as t
    select id::uuid, facility, hospital.reference_id(content -> 'subject', 'Patient')::uuid,
      hospital.reference_id(content -> 'encounter', 'Encounter')::uuid, content ->> 'status', content #>> '{category,0,coding,0,code}',
      coalesce(content #>> '{code,coding,0,code}', ''), content #>> '{code,coding,0,system}', (content #>> '{valueQuantity,value}')::numeric,
      content #>> '{valueQuantity,code}', hospital.fhir_time(content ->> 'effectiveDateTime'), hospital.fhir_time(content ->> 'issued'),
      version, created_at, updated_at, content
    from hospital.latest(a, b, 'Observation')
    on conflict (id) do update set patient_id = excluded.patient_id, encounter_id = excluded.encounter_id, status = excluded.status,
      category = excluded.category, code = excluded.code, code_system = excluded.code_system, value = excluded.value, unit = excluded.unit,
      effective_at = excluded.effective_at, issued_at = excluded.issued_at,
      version = excluded.version, updated_at = excluded.updated_at, content = excluded.content
    where t.version < excluded.version;
  end if;

  if kind is null or kind = 'MedicationRequest' then
    insert into medication_requests as t
    select id::uuid, facility, hospital.reference_id(content -> 'subject', 'Patient')::uuid,
      hospital.reference_id(content -> 'encounter', 'Encounter')::uuid, content ->> 'status',
      content #>> '{medicationCodeableConcept,coding,0,code}', content #>> '{medicationCodeableConcept,coding,0,system}',
      hospital.fhir_time(content ->> 'authoredOn'), version, created_at, updated_at, content
    from hospital.latest(a, b, 'MedicationRequest')
    on conflict (id) do update set patient_id = excluded.patient_id, encounter_id = excluded.encounter_id, status = excluded.status,
      code = excluded.code, code_system = excluded.code_system, authored_at = excluded.authored_at,
      version = excluded.version, updated_at = excluded.updated_at, content = excluded.content
    where t.version < excluded.version;
  end if;

  if kind is null or kind = 'Invoice' then
    insert into invoices as t
    select id::uuid, facility, hospital.reference_id(content -> 'subject', 'Patient')::uuid, content ->> 'status',
      (content #>> '{totalNet,value}')::numeric, content #>> '{totalNet,currency}', hospital.fhir_time(content ->> 'date'),
      version, created_at, updated_at, content
    from hospital.latest(a, b, 'Invoice')
    on conflict (id) do update set patient_id = excluded.patient_id, status = excluded.status, total = excluded.total,
      currency = excluded.currency, issued_at = excluded.issued_at,
      version = excluded.version, updated_at = excluded.updated_at, content = excluded.content
    where t.version < excluded.version;
  end if;

  if kind is null or kind = 'Consent' then
    insert into consent_records as t
    select id::uuid, facility, hospital.reference_id(content -> 'patient', 'Patient')::uuid, content ->> 'status',
      content #>> '{scope,coding,0,code}', hospital.fhir_time(content ->> 'dateTime'), version, created_at, updated_at, content
    from hospital.latest(a, b, 'Consent')
    on conflict (id) do update set patient_id = excluded.patient_id, status = excluded.status, scope = excluded.scope,
      given_at = excluded.given_at, version = excluded.version, updated_at = excluded.updated_at, content = excluded.content
    where t.version < excluded.version;
  end if;

  if kind is null or kind = 'DocumentReference' then
    insert into document_references as t
    select id::uuid, facility, hospital.reference_id(content -> 'subject', 'Patient')::uuid,
      hospital.reference_id(content #> '{context,encounter,0}', 'Encounter')::uuid, content ->> 'status',
      content #>> '{type,coding,0,code}', content #>> '{type,coding,0,system}', hospital.fhir_time(content ->> 'date'),
      payload #>> '{file,sha256}', (payload #>> '{file,sizeBytes}')::bigint, version, created_at, updated_at, content
    from hospital.latest(a, b, 'DocumentReference')
    on conflict (id) do update set patient_id = excluded.patient_id, encounter_id = excluded.encounter_id, status = excluded.status,
      code = excluded.code, code_system = excluded.code_system, authored_at = excluded.authored_at, sha256 = excluded.sha256,
      size_bytes = excluded.size_bytes, version = excluded.version, updated_at = excluded.updated_at, content = excluded.content
    where t.version < excluded.version;
  end if;

  -- Both facilities append to a referral's stream, and only the first may make it, so the two cases are told apart before row security looks.
  if kind is null or kind = 'ServiceRequest' then
    merge into referrals t
    using (
      select id::uuid, hospital.reference_id(content -> 'requester', 'Organization') as facility,
        hospital.reference_id(content #> '{performer,0}', 'Organization') as to_facility,
        hospital.reference_id(content -> 'subject', 'Patient')::uuid as patient_id, content ->> 'status' as status,
        coalesce(content #>> '{reasonCode,0,text}', content #>> '{reasonCode,0,coding,0,display}') as reason,
        hospital.fhir_time(content ->> 'authoredOn') as authored_at, version, created_at, updated_at, content
      from hospital.latest(a, b, 'ServiceRequest')
    ) e on t.id = e.id
    when matched and t.version < e.version then
      update set status = e.status, reason = e.reason, version = e.version, updated_at = e.updated_at, content = e.content
    when not matched then
      insert values (e.id, e.facility, e.to_facility, e.patient_id, e.status, e.reason, e.authored_at, e.version, e.created_at, e.updated_at,
        e.content);
  end if;

  if kind is null or kind = 'Message' then
    insert into messages as t
    select id::uuid, facility, payload ->> 'kind', (payload ->> 'patient')::uuid, payload ->> 'recipient', payload ->> 'body', payload ->> 'cause',
      payload ->> 'status', (payload ->> 'attempts')::integer, version, created_at, updated_at
    from hospital.latest(a, b, 'Message')
    on conflict (id) do update set status = excluded.status, attempts = excluded.attempts,
      version = excluded.version, updated_at = excluded.updated_at
    where t.version < excluded.version;
  end if;

  if kind is null or kind = 'Heartbeat' then
    insert into heartbeats
    select version, at, position, payload ->> 'file' from hospital.events
    where position between a and b and stream = 'Heartbeat/1'
    on conflict (sequence) do nothing;
  end if;

  if kind is null or kind = 'Hold' then
    insert into holds as t
    select id, (payload ->> 'held')::boolean, payload ->> 'reason', payload ->> 'person', version, created_at, updated_at
    from hospital.latest(a, b, 'Hold')
    on conflict (id) do update set held = excluded.held, reason = excluded.reason, person = excluded.person,
      version = excluded.version, updated_at = excluded.updated_at
    where t.version < excluded.version;
  end if;

  -- Who made a version, for every thing that FHIR shows.
  if kind is null or kind not in ('User', 'PatientFacility', 'Message', 'Heartbeat', 'Hold') then
    insert into provenances
    select id, facility, other_facility, stream, version, type, actor, at from hospital.events
    where position between a and b and (kind is not null or stream !~ '^(User|PatientFacility|Message|Heartbeat|Hold)/')
    on conflict (id) do nothing;
  end if;

  insert into audit_events
  select id, lane, lane_sequence, lane_hash, facility, other_facility, case version when 1 then 'C' else 'U' end, type, actor, stream, version, at
  from hospital.events
  where position between a and b
  on conflict (id) do nothing;
end
  $$;
