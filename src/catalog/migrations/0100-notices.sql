-- What is wrong, from the first time it was seen until people know that it is over. At most one that is not closed for each key.
create table resus_control.alarms (
  id uuid primary key,
  key text not null,
  -- The worst since it opened.
  severity text not null check (severity in ('info', 'warning', 'alarm')),
  title text not null,
  text text not null,
  system text not null,
  component text,
  code text,
  -- How often it was raised.
  count integer not null,
  -- open: it is so. recovering: it is over, and people are still to be told. closed: it is over.
  state text not null check (state in ('open', 'recovering', 'closed')),
  opened_at timestamptz not null,
  raised_at timestamptz not null,
  cleared_at timestamptz,
  clear_text text,
  -- The severities with which it went into notices; those who got one of these get the rest.
  told_as text[] not null default '{}',
  told_at timestamptz,
  -- When there is next something to tell about it: the opening, a reminder, the recovery.
  due_at timestamptz
);
create unique index alarms_not_closed on resus_control.alarms (key) where state <> 'closed';
create index on resus_control.alarms (due_at) where due_at is not null;
create index on resus_control.alarms (opened_at desc, id desc);

-- What people are told. Its content never changes; its id is in the message, so that one that came twice is known.
create table resus_control.notices (
  id uuid primary key,
  kind text not null check (kind in ('alarms', 'digest')),
  -- Of which there is one, whoever makes it: a day's digest.
  once_key text unique,
  made_at timestamptz not null,
  -- The alarms in it: on each channel they are told about in this order.
  alarm_ids uuid[] not null,
  content jsonb not null
);
create index on resus_control.notices (made_at desc, id desc);

-- A notice on its way to one channel. Written with the notice, before anything is sent.
create table resus_control.deliveries (
  notice_id uuid not null references resus_control.notices on delete cascade,
  channel text not null,
  -- Of the entries, those that concern one of these; as the channel was set when the notice was made.
  severities text[] not null,
  state text not null check (state in ('waiting', 'sent', 'given-up')),
  -- How often it was claimed; whoever claimed it last may say what became of it.
  attempts integer not null default 0,
  next_attempt_at timestamptz not null,
  claimed_by text,
  claimed_until timestamptz,
  ended_at timestamptz,
  -- In words: the reply's status, or what failed.
  outcome text,
  primary key (notice_id, channel)
);
create index on resus_control.deliveries (channel, next_attempt_at) where state = 'waiting';
