-- Roles belong to the whole cluster, so they may be there already: another hospital's database made them, or a restore of one.
do $$
begin
  if not exists (select from pg_roles where rolname = 'hospital_facility') then
    create role hospital_facility nologin;
  end if;
  if not exists (select from pg_roles where rolname = 'hospital_group') then
    create role hospital_group nologin;
  end if;
  -- The service logs in as nobody else. It has no right to a row of any facility until it takes one of the two roles above.
  if not exists (select from pg_roles where rolname = 'hospital_service') then
    create role hospital_service login noinherit;
  end if;
end
$$;

grant hospital_facility, hospital_group to hospital_service;

create schema hospital;
grant usage on schema hospital to hospital_facility, hospital_group, hospital_service;

-- The facility that this transaction works for. The service sets it with SET LOCAL, beside SET LOCAL ROLE: both end with the transaction, so a pooled
-- connection carries neither into the next request. Empty or never set means no facility, and equals none.
create function hospital.current_facility() returns text
  language sql stable parallel safe
  as $$ select nullif(current_setting('hospital.facility', true), '') $$;
