-- Who works here: each node renews its row, and says which components it reaches.
create table resus_control.nodes (
  name text primary key,
  started_at timestamptz not null,
  renewed_at timestamptz not null,
  version text not null,
  -- [{ system, component, reached, why }]
  reach jsonb not null
);

-- Work that was asked for, by a person or a schedule. The queue (pg-boss) says who does it; this says what became of it.
create table resus_control.tasks (
  id uuid primary key,
  system text not null,
  -- Null where it is about all of the system.
  component text,
  kind text not null,
  -- What never runs twice at once for one component.
  lane text not null,
  parameters jsonb not null,
  requested_by text not null,
  -- The schedule and the instant it fell due: one task for each.
  schedule_key text unique,
  state text not null check (state in ('waiting', 'running', 'done', 'failed', 'cancelled')),
  attempts integer not null default 0,
  node text,
  created_at timestamptz not null,
  -- Not before: a retry waits.
  due_at timestamptz not null,
  started_at timestamptz,
  ended_at timestamptz,
  progress jsonb,
  exit_status integer,
  -- The command's JSON document.
  result jsonb,
  error_code text,
  error_message text,
  error_hint text,
  cancel_requested boolean not null default false,
  -- How many events there are.
  last_event integer not null default 0
);
create index on resus_control.tasks (created_at desc, id desc);
create index on resus_control.tasks (system, component, kind, created_at desc);
create index on resus_control.tasks (due_at) where state in ('waiting', 'running');

-- Everything that happened to a task, numbered from 1: its states and its log.
create table resus_control.task_events (
  task_id uuid not null references resus_control.tasks on delete cascade,
  number integer not null,
  at timestamptz not null,
  kind text not null check (kind in ('state', 'log')),
  data jsonb not null,
  primary key (task_id, number)
);

-- What a request that starts work was answered, so that it can be sent again.
create table resus_control.idempotency_keys (
  key text primary key,
  request_hash bytea not null,
  task_id uuid not null references resus_control.tasks on delete cascade,
  created_at timestamptz not null
);

-- What each schedule of a component has asked for last.
create table resus_control.schedule_runs (
  system text not null,
  component text not null,
  kind text not null,
  due_at timestamptz not null,
  task_id uuid not null,
  primary key (system, component, kind)
);
