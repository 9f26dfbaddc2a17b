-- What was asked for and takes two people. The decision that counts is in the repository; this is what people look at.
create table resus_control.approvals (
  id uuid primary key,
  operation text not null,
  system text,
  component text,
  facilities jsonb not null,
  parameters jsonb not null,
  digest text not null,
  asked_by text not null,
  asked_name text not null,
  asked_at timestamptz not null,
  expires_at timestamptz not null,
  state text not null check (state in ('pending', 'approved', 'refused', 'revoked', 'expired', 'used', 'failed')),
  decided_by text,
  decided_name text,
  decided_at timestamptz,
  factor text,
  reason text,
  ended_at timestamptz,
  outcome jsonb,
  escalated_at timestamptz
);
create index on resus_control.approvals (asked_at desc, id desc);
create index on resus_control.approvals (state) where state in ('pending', 'approved');

-- What allowed it, where that took a second person.
alter table resus_control.tasks add column clearance text;
