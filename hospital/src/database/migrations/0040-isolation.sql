-- What everybody has without being given it. The hospital's roles are given all that they need by name, functions of later migrations included.
do $$
declare
  function regprocedure;
begin
  -- A table of a session's own could be taken for one of ours wherever a name is not qualified.
  execute format('revoke temporary on database %I from public', current_database());
  for function in
    select p.oid from pg_proc p where p.pronamespace = 'hospital'::regnamespace
    and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) where grantee = 0)
  loop
    execute format('revoke execute on function %s from public', function);
    execute format('grant execute on function %s to hospital_facility, hospital_group, hospital_worker, hospital_service', function);
  end loop;
end
$$;
revoke create on schema public from public;
alter default privileges revoke execute on functions from public;
alter default privileges in schema hospital grant execute on functions to hospital_facility, hospital_group, hospital_worker, hospital_service;

-- An event goes on with what its writer sees. A rebuild replays events without row security, so what row security would not let happen has to be kept
-- out of them: not even a version far ahead can be put into another facility's stream.
create function hospital.sees_event(stream text, version integer, hash bytea) returns boolean
  language plpgsql stable
  as $$
begin
  return exists (select from hospital.events e where e.stream = sees_event.stream and e.version = sees_event.version and e.hash = sees_event.hash);
end
  $$;
drop policy facility_adds on hospital.events;
create policy facility_adds on hospital.events for insert to hospital_facility with check (
  facility = (select hospital.current_facility())
  and (version = 1 or hospital.sees_event(stream, version - 1, previous_hash))
);
