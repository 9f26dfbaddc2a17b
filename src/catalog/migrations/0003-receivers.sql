-- Which node receives a component's WAL. A lease that is not renewed is taken over, where nothing that was acknowledged can be on the dead node alone.
create table resus_control.receiver_leases (
  system text not null,
  component text not null,
  node text not null,
  renewed_at timestamptz not null,
  -- Ended in good order: whoever comes first may go on.
  released boolean not null default false,
  primary key (system, component)
);
