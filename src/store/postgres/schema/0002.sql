-- The guard over clocks that are set, copies of the database, and deletions by hand.

-- `database` is that of the birth: a database that was copied with `create database … template` has
-- the rows of the other one and not what was used since. `dropped` is the latest end of all rows
-- that were dropped: what ends at this time or earlier may have been used. Otherwise it could be
-- used again after the clock of the database was set forward and back.
alter table grantd.guard
  add column database oid,
  add column dropped timestamptz;

-- Each row is written once and deleted once, so nearly all of the table is dead in the end.
alter table grantd.guard set (
  autovacuum_vacuum_scale_factor = 0.05,
  autovacuum_vacuum_insert_scale_factor = 0.2,
  autovacuum_analyze_scale_factor = 0.2,
  autovacuum_vacuum_cost_delay = 0
);

-- No statement looks for the rows of a client.
drop index grantd.guard_client_idx;

create or replace view grantd.epoch as
select
  concat_ws(
    '/',
    s.system_identifier,
    substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8),
    (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint,
    d.oid,
    g.life
  ) as epoch,
  greatest(g.born, pg_postmaster_start_time()) as since,
  g.dropped
from grantd.guard g, pg_control_system() s, pg_database d, pg_class t
where g.key = ''
  and g.system = s.system_identifier
  and g.database = d.oid
  and g.xmin::text = mod(g.xid::text::numeric, 4294967296)::text
  and d.datname = current_database()
  and t.oid = 'grantd.guard'::regclass
  and t.relpersistence = 'u';

-- A row is kept for 10 s after its end: a statement that began before the end may still insert
-- it, and would not find it. The birth is written anew with its transaction, but only while it
-- counts: a birth that came with a dump would otherwise count from then on.
create or replace function grantd.drop_uses(most bigint) returns bigint
language sql volatile security definer set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  with over as (
    select g.key from grantd.guard g
    where g.ends < clock_timestamp() - interval '10 seconds'
      -- While a transaction is open for hours, what was dropped stays in the index: do not read it
      -- each time.
      and g.ends > coalesce(
        (select e.dropped - interval '10 minutes' from grantd.epoch e), '-infinity'
      )
    order by g.ends limit most
    -- Each of several nodes drops other rows.
    for update skip locked
  ), dropped as (
    delete from grantd.guard g using over o where g.key = o.key returning g.ends
  ), noted as (
    update grantd.guard g set dropped = d.ends, xid = pg_current_xact_id()
    from (select ends from dropped order by ends desc limit 1) d
    where g.key = '' and (g.dropped is null or g.dropped < d.ends)
      and exists (select from grantd.epoch)
    returning 1
  )
  select (select count(*) from dropped) + 0 * (select count(*) from noted);
end;

create or replace function grantd.begin_epoch() returns void
language sql volatile security definer set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  with dead as (
    delete from grantd.guard where key = '' and not exists (select from grantd.epoch)
    returning 1
  ), future as (
    delete from grantd.changes where xid >= pg_snapshot_xmax(pg_current_snapshot())
      and not exists (select from grantd.epoch)
    returning 1
  ), unpruned as (
    update grantd.pruned set xid = '0' where not exists (select from grantd.epoch)
    returning 1
  )
  insert into grantd.guard (key, ends, born, xid, system, life, database)
  select '', 'infinity', clock_timestamp(), pg_current_xact_id(), s.system_identifier,
    gen_random_uuid(), d.oid
  from pg_control_system() s, pg_database d
  where d.datname = current_database()
    and (select count(*) from dead) + (select count(*) from future)
      + (select count(*) from unpruned) >= 0
  on conflict (key) do nothing;
end;

-- A use that is deleted could be used again, without a window in which older ones are refused.
-- TRUNCATE is safe: it deletes the birth, too, and no insert runs beside it.
create function grantd.keep_use() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'a use that is not over cannot be deleted from grantd.guard'
    using hint = 'To forget all uses, run: TRUNCATE grantd.guard';
end $$;
revoke execute on function grantd.keep_use from public;

create trigger keep before delete on grantd.guard for each row
when (old.key <> '' and old.ends > clock_timestamp())
execute function grantd.keep_use();
