-- What of the objectives was met, minute by minute; and what became of minutes that are older than two days.
create table resus_control.compliance_minutes (
  system text not null,
  component text not null,
  objective text not null,
  -- The first instant of the minute.
  at timestamptz not null,
  target double precision not null,
  -- Null where nothing was measured.
  actual double precision,
  verdict text not null check (verdict in ('met', 'broken', 'not proven')),
  primary key (system, component, objective, at)
);
-- For the roll-up, which goes by age alone.
create index on resus_control.compliance_minutes (at);

create table resus_control.compliance_hours (
  system text not null,
  component text not null,
  objective text not null,
  -- The first instant of the hour, in UTC.
  at timestamptz not null,
  -- Of its last minute.
  target double precision not null,
  actual_least double precision,
  actual_greatest double precision,
  minutes_met integer not null,
  minutes_broken integer not null,
  minutes_not_proven integer not null,
  primary key (system, component, objective, at)
);
create index on resus_control.compliance_hours (at);
