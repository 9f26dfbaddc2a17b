-- Appends one event and brings the projections up to it, in the caller's transaction and with the caller's rights. `expected` is the version that
-- the caller has seen: 0 when the stream must be new, null when any will do. Errors: HS409, it is another; HS423, the lane is not there.
create function hospital.record(
  id uuid, stream text, expected integer, type text, schema_version smallint, facility text, other_facility text, actor text, payload jsonb,
  lane smallint
) returns hospital.events
  language plpgsql
  as $$
declare
  head record;
  e hospital.events;
begin
  -- Before the position is drawn: so a checkpoint knows that no position below the ones it saw is still to come (hospital.drawn_position).
  perform pg_current_xact_id();
  select h.version, h.hash, h.at into head from hospital.events h where h.stream = record.stream order by h.version desc limit 1;
  if expected is not null and coalesce(head.version, 0) <> expected then
    raise exception '% is at version %, not %', stream, coalesce(head.version, 0), expected using errcode = 'HS409';
  end if;
  e.position := nextval(pg_get_serial_sequence('hospital.events', 'position'));
  e.id := id;
  e.stream := stream;
  e.version := coalesce(head.version, 0) + 1;
  e.type := type;
  e.schema_version := schema_version;
  e.facility := facility;
  e.other_facility := other_facility;
  e.actor := actor;
  -- A clock that was set back does not take a record's last change back.
  e.at := greatest(date_trunc('milliseconds', clock_timestamp()), head.at);
  e.payload := payload;
  e.previous_hash := coalesce(head.hash, hospital.no_hash());
  e.hash := hospital.event_hash(e.previous_hash, e);
  update hospital.lanes l set sequence = l.sequence + 1, hash = hospital.lane_hash(l.hash, e.hash) where l.lane = record.lane
  returning l.sequence, l.hash into e.lane_sequence, e.lane_hash;
  if not found then
    raise exception 'there is no lane %', lane using errcode = 'HS423';
  end if;
  e.lane := lane;
  insert into hospital.events overriding system value select e.*;
  perform hospital.project(e.position, e.position, split_part(e.stream, '/', 1));
  return e;
end
  $$;

-- What a reader needs to know before a checkpoint: no event at or below this position is still to come, once every transaction before `xmax` has
-- ended. Two calls: the position and the number first, and then whether all that ran have ended.
create function hospital.drawn_position(out upto bigint, out xmax xid8)
  language plpgsql
  as $$
begin
  select case when s.is_called then s.last_value else 0 end into upto from hospital.events_position_seq s;
  -- A number of our own, drawn after the position was read, is greater than that of whoever drew a position until then. A snapshot's xmax would not be:
  -- it is one past the last transaction that has ended, and one that still runs may have it.
  xmax := pg_current_xact_id();
end
  $$;

create function hospital.has_settled(xmax xid8) returns boolean
  language sql volatile
  as $$ select pg_snapshot_xmin(pg_current_snapshot()) >= xmax $$;
