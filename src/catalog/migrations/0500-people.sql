-- People, what they log on with, and what they logged on to (docs/authority.md). No secret is in clear here: passwords are argon2id hashes, secrets of TOTP are sealed,
-- all else is a digest.
create table resus_control.people (
  id uuid primary key,
  name text not null,
  display_name text not null,
  email text,
  grants jsonb not null,
  -- Nobody is deleted: who has left is disabled.
  state text not null check (state in ('active', 'disabled')),
  -- PHC text; null: no log-on with a password.
  password text,
  -- Who an identity provider says they are.
  issuer text,
  subject text,
  -- Attempts since the last log-on that was whole, counted before they are looked at.
  failures integer not null default 0,
  locked_until timestamptz,
  made_by text not null,
  made_at timestamptz not null,
  reset_by text,
  reset_at timestamptz,
  last_seen_at timestamptz,
  check ((issuer is null) = (subject is null)),
  unique (issuer, subject)
);
create unique index people_by_name on resus_control.people (lower(name collate "C"));

create table resus_control.factors (
  id uuid primary key,
  person uuid not null references resus_control.people,
  kind text not null check (kind in ('totp', 'passkey')),
  label text not null,
  -- Of TOTP: AES-256-GCM, bound to the person and this row; and the time step of the last code that was taken.
  sealed_secret bytea,
  last_step integer,
  -- Of a passkey.
  credential_id text unique,
  public_key bytea,
  counter bigint,
  transports text[],
  made_at timestamptz not null,
  last_used_at timestamptz,
  check (case kind when 'totp' then sealed_secret is not null else credential_id is not null and public_key is not null and counter is not null end)
);
create index on resus_control.factors (person);

-- A log-on of a browser. Its secret changes; whoever shows an old one later than it may has stolen it, or was stolen from.
create table resus_control.session_families (
  id uuid primary key,
  person uuid not null references resus_control.people,
  factor text not null,
  -- What an identity provider granted for this log-on.
  grants jsonb not null,
  generation integer not null,
  secret bytea not null,
  previous bytea,
  previous_until timestamptz,
  made_at timestamptz not null,
  seen_at timestamptz not null,
  rotated_at timestamptz not null,
  ended_at timestamptz,
  ended_because text,
  address text,
  user_agent text
);
create index on resus_control.session_families (person) where ended_at is null;
create index on resus_control.session_families (made_at);

create table resus_control.tokens (
  id uuid primary key,
  person uuid not null references resus_control.people,
  name text not null,
  digest bytea not null unique,
  grants jsonb not null,
  made_at timestamptz not null,
  expires_at timestamptz not null,
  last_used_at timestamptz,
  revoked_at timestamptz
);
create index on resus_control.tokens (person);

-- What is good once and for minutes: a log-on that waits for its second factor, an enrolment under way, a challenge, an invitation. By the digest of what was handed out.
create table resus_control.tickets (
  digest bytea primary key,
  purpose text not null,
  person uuid references resus_control.people,
  data jsonb not null,
  sealed bytea,
  made_at timestamptz not null,
  expires_at timestamptz not null
);
create index on resus_control.tickets (expires_at);
create index on resus_control.tickets (person, purpose);
