-- How large things are, hour by hour: storages, components, what is stored of them.
create table resus_control.sizes (
  system text not null,
  -- Empty for what belongs to the system: its storage.
  component text not null,
  name text not null,
  -- The first instant of the hour, in UTC.
  at timestamptz not null,
  bytes double precision not null,
  primary key (system, component, name, at)
);
create index on resus_control.sizes (at);
