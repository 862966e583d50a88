-- A machine of the database that is set back with its memory; bounds for secrets.

-- Such a machine keeps the start of PostgreSQL and the birth of the guard, and so the epoch. But its
-- transaction ids repeat, and the guard has forgotten uses. A node notices if the snapshot of its last
-- poll ended later than the present one.
create or replace function grantd.poll(last text)
returns table (
  epoch text, snapshot text, is_pruned boolean, since timestamptz, kind text, name text, seq bigint
)
language sql stable parallel unsafe
set jit = off set enable_seqscan = off set search_path = pg_catalog, pg_temp
begin atomic
  select
    e.epoch,
    pg_current_snapshot()::text,
    (
      select p.xid >= pg_snapshot_xmin(last::pg_snapshot)
        or pg_snapshot_xmax(last::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot())
      from grantd.pruned p where p.one
    ),
    e.since,
    c.kind,
    c.name,
    c.seq
  from grantd.epoch e
  left join lateral (
    select n.kind, n.name, n.seq from grantd.changes n
    where n.xid >= pg_snapshot_xmax(last::pg_snapshot)
    union all
    select n.kind, n.name, n.seq from grantd.changes n
    where n.xid = any (array(select pg_snapshot_xip(last::pg_snapshot)))
  ) c on true
  order by c.seq;
end;

-- Writes the birth of the guard anew if transaction ids have gone back since the snapshot `last`. Returns
-- whether it did. A new birth is always safe: what was signed before it is refused.
create function grantd.renew_epoch(last text) returns boolean
language plpgsql volatile security definer set jit = off set search_path = pg_catalog, pg_temp as $$
declare
  is_renewed boolean;
begin
  update grantd.guard g
  set born = greatest(g.born, clock_timestamp()), xid = pg_current_xact_id(),
    life = gen_random_uuid()
  where g.key = ''
    and pg_snapshot_xmax(last::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot())
    and exists (select from grantd.epoch);
  is_renewed := found;
  -- In a subtransaction, the birth has another transaction id than the row says, and does not count.
  if is_renewed and not exists (select from grantd.epoch) then
    raise exception 'no epoch begins in a subtransaction';
  end if;
  return is_renewed;
end $$;
revoke execute on function grantd.renew_epoch from public;

-- Each command that looks for master keys reads all secrets, and the nodes share few. A name stands in the
-- advice for a row that cannot be opened.
alter table grantd.secret add check (length(name) <= 100) not valid;
create function grantd.require_few_secrets() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if (select count(*) from grantd.secret) > 100 then
    raise exception 'there are more than 100 secrets: `grantd store status` names those of no server';
  end if;
  return null;
end $$;
create trigger few after insert on grantd.secret
for each statement execute function grantd.require_few_secrets();
revoke execute on function grantd.require_few_secrets from public;
