-- What the repositories hold, so that a start does not read every manifest again. Rebuilt from them.
create table resus_control.backups (
  system text not null,
  component text not null,
  id text not null,
  summary jsonb not null,
  primary key (system, component, id)
);
