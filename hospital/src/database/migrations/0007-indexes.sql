create index on hospital.patients (facility, family, given);
create index on hospital.patients (facility, updated_at);
create index on hospital.patient_facilities (patient_id);
create index on hospital.locations (facility, updated_at);
create index on hospital.encounters (patient_id, started_at);
create index on hospital.encounters (facility, updated_at);
create index on hospital.appointments (patient_id, starts_at);
create index on hospital.appointments (facility, starts_at);
create index on hospital.observations (patient_id, effective_at);
create index on hospital.observations (encounter_id);
create index on hospital.observations (facility, updated_at);
create index on hospital.medication_requests (patient_id, authored_at);
create index on hospital.medication_requests (facility, updated_at);
create index on hospital.invoices (patient_id, issued_at);
create index on hospital.invoices (facility, updated_at);
create index on hospital.consent_records (patient_id);
create index on hospital.document_references (patient_id, authored_at);
create index on hospital.document_references (sha256);
create index on hospital.referrals (patient_id);
create index on hospital.referrals (to_facility, status);
create index on hospital.referrals (facility, updated_at);
create index on hospital.audit_events (facility, recorded_at);
create index on hospital.messages (created_at) where status = 'queued';
create index on hospital.messages (updated_at) where status = 'failed';

-- Who holds which token; outside the events, because a log that is kept for ever holds no credentials.
create table hospital.user_tokens (
  -- SHA-256 of the token, which is 32 random bytes.
  token_hash bytea primary key,
  user_id text not null references hospital.users,
  created_at timestamptz not null default now(),
  expires_at timestamptz
);
alter table hospital.user_tokens enable row level security;
alter table hospital.user_tokens force row level security;
create policy owner_all on hospital.user_tokens to current_user using (true) with check (true);
create policy service_sees on hospital.user_tokens for select to hospital_service using (true);
grant select on hospital.user_tokens to hospital_service;
