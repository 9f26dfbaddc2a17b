-- Projections: what the events say, in a shape that can be asked. Each row names the version of its stream that it shows.

create table hospital.facilities (
  id text primary key,
  name text not null,
  lga text not null,
  type text not null check (type in ('PRIMARY', 'SECONDARY', 'TERTIARY')),
  active boolean not null,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  content jsonb not null
);

create table hospital.users (
  id text primary key,
  name text not null,
  role text not null check (role in ('clinician', 'clerk', 'group')),
  -- Null for people of the group.
  facility text references hospital.facilities,
  active boolean not null,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  check ((role = 'group') = (facility is null))
);

create table hospital.patients (
  id uuid primary key,
  -- The home facility: it alone changes the record.
  facility text not null references hospital.facilities,
  family text,
  given text,
  birth_date date,
  gender text,
  phone text,
  lga text,
  active boolean not null,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  content jsonb not null
);

-- The master patient index: at which facilities a patient is known, and by which medical record number.
create table hospital.patient_facilities (
  facility text not null references hospital.facilities,
  patient_id uuid not null references hospital.patients,
  mrn text not null,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  primary key (facility, patient_id),
  unique (facility, mrn)
);

create table hospital.locations (
  id uuid primary key,
  facility text not null references hospital.facilities,
  name text not null,
  status text not null,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  content jsonb not null,
  unique (facility, id)
);

-- A foreign key carries the facility: a reference to another facility's row fails exactly as one to a row that does not exist.
create table hospital.encounters (
  id uuid primary key,
  facility text not null,
  patient_id uuid not null,
  location_id uuid,
  class text not null,
  status text not null,
  started_at timestamptz,
  ended_at timestamptz,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  content jsonb not null,
  unique (facility, id, patient_id),
  foreign key (facility, patient_id) references hospital.patient_facilities,
  foreign key (facility, location_id) references hospital.locations (facility, id)
);

create table hospital.appointments (
  id uuid primary key,
  facility text not null,
  patient_id uuid not null,
  status text not null,
  starts_at timestamptz,
  ends_at timestamptz,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  content jsonb not null,
  foreign key (facility, patient_id) references hospital.patient_facilities
);

create table hospital.observations (
  id uuid primary key,
  facility text not null,
  patient_id uuid not null,
  encounter_id uuid,
  status text not null,
  category text,
  code text not null,
  code_system text,
  value numeric,
  unit text,
  effective_at timestamptz,
  issued_at timestamptz,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  content jsonb not null,
  foreign key (facility, patient_id) references hospital.patient_facilities,
  foreign key (facility, encounter_id, patient_id) references hospital.encounters (facility, id, patient_id)
);

create table hospital.medication_requests (
  id uuid primary key,
  facility text not null,
  patient_id uuid not null,
  encounter_id uuid,
  status text not null,
  code text,
  code_system text,
  authored_at timestamptz,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  content jsonb not null,
  foreign key (facility, patient_id) references hospital.patient_facilities,
  foreign key (facility, encounter_id, patient_id) references hospital.encounters (facility, id, patient_id)
);

create table hospital.invoices (
  id uuid primary key,
  facility text not null,
  patient_id uuid not null,
  status text not null,
  total numeric,
  currency text,
  issued_at timestamptz,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  content jsonb not null,
  foreign key (facility, patient_id) references hospital.patient_facilities
);

create table hospital.consent_records (
  id uuid primary key,
  facility text not null,
  patient_id uuid not null,
  status text not null,
  scope text,
  given_at timestamptz,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  content jsonb not null,
  foreign key (facility, patient_id) references hospital.patient_facilities
);

-- The document itself is a file, found by its SHA-256.
create table hospital.document_references (
  id uuid primary key,
  facility text not null,
  patient_id uuid not null,
  encounter_id uuid,
  status text not null,
  code text,
  code_system text,
  authored_at timestamptz,
  sha256 text not null check (sha256 ~ '^[0-9a-f]{64}$'),
  size_bytes bigint not null,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  content jsonb not null,
  foreign key (facility, patient_id) references hospital.patient_facilities,
  foreign key (facility, encounter_id, patient_id) references hospital.encounters (facility, id, patient_id)
);

-- From one facility to another: both see it, and with it the patient; nobody else does.
create table hospital.referrals (
  id uuid primary key,
  facility text not null,
  to_facility text not null references hospital.facilities,
  patient_id uuid not null,
  status text not null,
  reason text,
  authored_at timestamptz,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  content jsonb not null,
  check (facility <> to_facility),
  foreign key (facility, patient_id) references hospital.patient_facilities
);

-- Who made which version of what: one for each version of each stream.
create table hospital.provenances (
  id uuid primary key,
  facility text not null,
  other_facility text,
  target text not null,
  target_version integer not null,
  activity text not null,
  actor text not null,
  recorded_at timestamptz not null,
  unique (target, target_version)
);

-- The same for auditors, as unbroken sequences: one for each lane.
create table hospital.audit_events (
  id uuid primary key,
  lane smallint not null,
  lane_sequence bigint not null,
  lane_hash bytea not null,
  facility text not null,
  other_facility text,
  -- C or U, of http://hl7.org/fhir/audit-event-action.
  action text not null,
  event_type text not null,
  actor text not null,
  entity text not null,
  entity_version integer not null,
  recorded_at timestamptz not null,
  unique (lane, lane_sequence)
);

-- What leaves the hospital: orders to laboratories, SMS to patients, claims. Each is asked for by an event.
create table hospital.messages (
  id uuid primary key,
  facility text not null references hospital.facilities,
  kind text not null check (kind in ('sms', 'laboratory-order', 'claim')),
  patient_id uuid,
  recipient text not null,
  body text not null,
  -- The stream that asked for it.
  cause text not null,
  status text not null check (status in ('queued', 'delivered', 'failed')),
  attempts integer not null,
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null
);

-- How far back a recovery really went: one row a second, one file, one event, each naming the others' number.
create table hospital.heartbeats (
  sequence bigint primary key,
  at timestamptz not null,
  event_position bigint not null,
  file text not null
);
