-- Whoever migrates, generates, rebuilds and checks sees everything, and is never the service.
-- hospital_facility: one facility's rows, by hospital.current_facility(). hospital_group: sees all, changes only the registry.
-- hospital_worker: publishes, delivers messages, beats; sees all.
do $$
declare
  name text;
begin
  if not exists (select from pg_roles where rolname = 'hospital_worker') then
    create role hospital_worker nologin;
  end if;
  grant hospital_worker to hospital_service;
  grant usage on schema hospital to hospital_worker;

  for name in select tablename from pg_tables where schemaname = 'hospital' and tablename <> 'lanes' loop
    execute format('alter table hospital.%I enable row level security', name);
    execute format('alter table hospital.%I force row level security', name);
    execute format('create policy owner_all on hospital.%I to current_user using (true) with check (true)', name);
    execute format('create policy group_sees on hospital.%I for select to hospital_group using (true)', name);
    execute format('create policy worker_sees on hospital.%I for select to hospital_worker using (true)', name);
    execute format('grant select on hospital.%I to hospital_group, hospital_worker', name);
  end loop;

  -- Rows of one facility: seen and changed by it alone.
  foreach name in array array['locations', 'encounters', 'appointments', 'observations', 'medication_requests', 'invoices', 'consent_records',
    'document_references', 'messages'] loop
    execute format('create policy facility_sees on hospital.%I for select to hospital_facility
      using (facility = (select hospital.current_facility()))', name);
    execute format('create policy facility_adds on hospital.%I for insert to hospital_facility
      with check (facility = (select hospital.current_facility()))', name);
    execute format('create policy facility_changes on hospital.%I for update to hospital_facility
      using (facility = (select hospital.current_facility())) with check (facility = (select hospital.current_facility()))', name);
    execute format('grant select, insert, update on hospital.%I to hospital_facility', name);
  end loop;

  -- Rows that the other facility of a referral sees too, and nobody ever changes.
  foreach name in array array['events', 'provenances', 'audit_events'] loop
    execute format('create policy facility_sees on hospital.%I for select to hospital_facility
      using (facility = (select hospital.current_facility()) or other_facility = (select hospital.current_facility()))', name);
    execute format('create policy facility_adds on hospital.%I for insert to hospital_facility
      with check (facility = (select hospital.current_facility()))', name);
    execute format('create policy group_adds on hospital.%I for insert to hospital_group with check (true)', name);
    execute format('create policy worker_adds on hospital.%I for insert to hospital_worker with check (true)', name);
    execute format('grant select, insert on hospital.%I to hospital_facility, hospital_group, hospital_worker', name);
  end loop;
end
$$;

-- The registry of facilities is everybody's to read.
create policy facility_sees on hospital.facilities for select to hospital_facility, hospital_service using (true);
create policy group_adds on hospital.facilities for insert to hospital_group with check (true);
create policy group_changes on hospital.facilities for update to hospital_group using (true) with check (true);
grant select on hospital.facilities to hospital_facility, hospital_service;
grant insert, update on hospital.facilities to hospital_group;

create policy facility_sees on hospital.users for select to hospital_facility using (facility = (select hospital.current_facility()));
create policy service_sees on hospital.users for select to hospital_service using (true);
create policy group_adds on hospital.users for insert to hospital_group with check (true);
create policy group_changes on hospital.users for update to hospital_group using (true) with check (true);
grant select on hospital.users to hospital_facility, hospital_service;
grant insert, update on hospital.users to hospital_group;

-- A patient is seen where it is known and where it is referred to, and changed at home.
create policy facility_sees on hospital.patients for select to hospital_facility using (
  facility = (select hospital.current_facility())
  or exists (
    select from hospital.patient_facilities k
    where k.patient_id = patients.id and k.facility = (select hospital.current_facility()))
  or exists (
    select from hospital.referrals r
    where r.patient_id = patients.id and r.to_facility = (select hospital.current_facility()) and r.status in ('active', 'on-hold', 'completed'))
);
create policy facility_adds on hospital.patients for insert to hospital_facility
  with check (facility = (select hospital.current_facility()));
create policy facility_changes on hospital.patients for update to hospital_facility
  using (facility = (select hospital.current_facility())) with check (facility = (select hospital.current_facility()));
grant select, insert, update on hospital.patients to hospital_facility;

-- A function, because the policy of patients asks for patient_facilities, and a policy cannot ask for its own table. The caller's policies apply in it.
create function hospital.sees_patient(patient uuid) returns boolean
  language plpgsql stable
  as $$ begin return exists (select from hospital.patients where id = patient); end $$;

-- A facility comes to know a patient by making the record, or by being sent the patient. Never by naming an id.
create policy facility_sees on hospital.patient_facilities for select to hospital_facility
  using (facility = (select hospital.current_facility()));
create policy facility_adds on hospital.patient_facilities for insert to hospital_facility with check (
  facility = (select hospital.current_facility())
  and hospital.sees_patient(patient_id)
);
create policy facility_changes on hospital.patient_facilities for update to hospital_facility
  using (facility = (select hospital.current_facility())) with check (facility = (select hospital.current_facility()));
grant select, insert, update (mrn, version, updated_at) on hospital.patient_facilities to hospital_facility;

create policy facility_sees on hospital.referrals for select to hospital_facility
  using (facility = (select hospital.current_facility()) or to_facility = (select hospital.current_facility()));
create policy facility_adds on hospital.referrals for insert to hospital_facility
  with check (facility = (select hospital.current_facility()));
-- Whom it was sent to answers it while it is sent: not before, and not once it was taken back, or that facility would send itself the patient again.
create policy facility_changes on hospital.referrals for update to hospital_facility
  using (
    facility = (select hospital.current_facility())
    or to_facility = (select hospital.current_facility()) and status in ('active', 'on-hold', 'completed'))
  with check (facility = (select hospital.current_facility()) or to_facility = (select hospital.current_facility()));
-- Not the two facilities, and not the patient: whoever could change these could send itself a patient.
grant select, insert, update (status, reason, version, updated_at, content) on hospital.referrals to hospital_facility;

create policy worker_adds on hospital.messages for insert to hospital_worker with check (true);
create policy worker_changes on hospital.messages for update to hospital_worker using (true) with check (true);
grant insert, update on hospital.messages to hospital_worker;
create policy worker_adds on hospital.heartbeats for insert to hospital_worker with check (true);
grant insert on hospital.heartbeats to hospital_worker;
create policy worker_adds on hospital.checkpoints for insert to hospital_worker with check (true);
grant insert on hospital.checkpoints to hospital_worker;

-- Lanes hold numbers and hashes, and nothing of anybody.
grant select, insert, update on hospital.lanes to hospital_facility, hospital_group, hospital_worker;
grant usage, select on sequence hospital.events_position_seq to hospital_facility, hospital_group, hospital_worker;

-- Everything that FHIR shows, as one table; the reader's own row security applies (PostgreSQL 15).
create view hospital.fhir_resources with (security_invoker = true) as
  select 'Organization' as type, id, id as facility, version, updated_at, content from hospital.facilities
  union all select 'Location', id::text, facility, version, updated_at, content from hospital.locations
  union all select 'Patient', id::text, facility, version, updated_at, content from hospital.patients
  union all select 'Encounter', id::text, facility, version, updated_at, content from hospital.encounters
  union all select 'Appointment', id::text, facility, version, updated_at, content from hospital.appointments
  union all select 'Observation', id::text, facility, version, updated_at, content from hospital.observations
  union all select 'MedicationRequest', id::text, facility, version, updated_at, content from hospital.medication_requests
  union all select 'Invoice', id::text, facility, version, updated_at, content from hospital.invoices
  union all select 'Consent', id::text, facility, version, updated_at, content from hospital.consent_records
  union all select 'DocumentReference', id::text, facility, version, updated_at, content from hospital.document_references
  union all select 'ServiceRequest', id::text, facility, version, updated_at, content from hospital.referrals;
grant select on hospital.fhir_resources to hospital_facility, hospital_group, hospital_worker;
