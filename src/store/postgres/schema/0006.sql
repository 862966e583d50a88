-- A machine of the database that is set back with its memory; bounds for secrets; who leads the rotation.

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

-- A node without `keys.rotate_every` makes no key, so it leads only while no node with it reports.
alter table grantd.node add column makes_keys boolean not null default false;

create or replace function grantd.live_nodes() returns setof grantd.node
language sql stable set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  select n.* from grantd.node n
  where n.seen > clock_timestamp() - make_interval(secs => 30 + 2 * n.max_age)
  order by n.node;
end;

-- As `attend`, which nodes of earlier releases call.
create function grantd.report(
  who text, published text[], ages bigint[], age bigint, term_seconds bigint, makes boolean
) returns table (fence bigint, now bigint)
language plpgsql volatile security definer set jit = off set search_path = pg_catalog, pg_temp as $$
begin
  return query select * from grantd.attend(who, published, ages, age, case
    when makes or not exists (
      select from grantd.node n
      where n.makes_keys and n.node <> who and n.seen > clock_timestamp() - interval '30 seconds'
    ) then term_seconds
    else 0
  end);
  update grantd.node n set makes_keys = makes where n.node = who and n.makes_keys <> makes;
end $$;
revoke execute on function grantd.report from public;
