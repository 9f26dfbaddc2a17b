-- Each row that gives somebody authority carries a seal of Resus's own, under a key that is not in the store: what somebody else has written, or changed, is worth nothing.
alter table resus_control.people
  add column seal bytea,
  -- Counts the changes of what is sealed: a row that was put back is older than what a repository has.
  add column version integer not null default 0;
alter table resus_control.tokens add column seal bytea;
alter table resus_control.session_families add column seal bytea;
alter table resus_control.tickets add column seal bytea;
alter table resus_control.approvals add column seal bytea;
-- Sessions and codes of before are good no more: whoever was logged on logs on again.
delete from resus_control.tickets;
update resus_control.session_families set ended_at = now(), ended_because = 'another version' where ended_at is null;
