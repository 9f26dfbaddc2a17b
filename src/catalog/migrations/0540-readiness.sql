-- How ready components were, hour by hour (docs/readiness.md).
create table resus_control.readiness (
  system text not null,
  component text not null,
  -- The first instant of the hour, in UTC.
  at timestamptz not null,
  score double precision not null,
  primary key (system, component, at)
);
create index on resus_control.readiness (at);
