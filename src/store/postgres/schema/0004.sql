-- Lifetimes of tokens that were shortened, shared by all nodes; uses of the secrets of clients that are
-- gone.

-- A row for each client whose lifetime was shortened while its tokens may still be used, and one with
-- an empty id that counts for all clients: the longest lifetime, and the latest expiry of a token that
-- was issued with it (Unix seconds), with a tolerance.
drop table grantd.lifetime;
create table grantd.shortened (
  client_id text collate "C" primary key,
  lifetime bigint not null check (lifetime between 0 and 4294967295),
  until bigint not null
);

-- Notes lifetimes that were shortened. They only grow, so the password of a node removes none.
create function grantd.shorten(ids text[], lifetimes bigint[], ends bigint[]) returns void
language sql volatile security definer set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  insert into grantd.shortened as s (client_id, lifetime, until)
  -- Sorted, so that two nodes never wait for each other's rows.
  select t.id, t.lifetime, t.until from unnest(ids, lifetimes, ends) as t (id, lifetime, until)
  order by t.id
  on conflict (client_id) do update set
    lifetime = greatest(s.lifetime, excluded.lifetime), until = greatest(s.until, excluded.until)
  where s.lifetime < excluded.lifetime or s.until < excluded.until;
end;

-- A row is kept for an hour longer than it counts, as in the file.
create function grantd.drop_shortened(most bigint) returns bigint
language sql volatile security definer set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  with over as (
    select s.client_id from grantd.shortened s
    where s.until < extract(epoch from clock_timestamp())::bigint - 3600
    limit most for update skip locked
  ), dropped as (
    delete from grantd.shortened s using over o where s.client_id = o.client_id returning 1
  )
  select count(*) from dropped;
end;

revoke execute on function grantd.shorten, grantd.drop_shortened from public;

create function grantd.note_shortened() returns trigger
language plpgsql security definer set jit = off set search_path = pg_catalog, pg_temp as $$
begin
  insert into grantd.changes (kind, name) select 'l', n.client_id from new_rows n;
  return null;
end $$;

create trigger inserted after insert on grantd.shortened referencing new table as new_rows
for each statement execute function grantd.note_shortened();
create trigger updated after update on grantd.shortened referencing new table as new_rows
for each statement execute function grantd.note_shortened();

-- Each of several nodes drops other rows, so that none waits for another.
create or replace function grantd.drop_revocations(most bigint) returns bigint
language sql volatile security definer set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  with ended as (
    select r.key from grantd.revocation r
    where r.expires_at < extract(epoch from clock_timestamp())::bigint - 3600
    limit most for update skip locked
  ), covered as (
    select r.key from grantd.revocation r join grantd.cut_off c on c.client = r.client
    where r.expires_at <= c.until
    limit most for update of r skip locked
  ), dropped as (
    delete from grantd.revocation r
    using (select key from ended union select key from covered) o where r.key = o.key
    returning 1
  )
  select count(*) from dropped;
end;

create or replace function grantd.drop_cut_offs(most bigint) returns bigint
language sql volatile security definer set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  with over as (
    select c.client from grantd.cut_off c
    where c.until < extract(epoch from clock_timestamp())::bigint - 3600
    limit most for update skip locked
  ), dropped as (
    delete from grantd.cut_off c using over o where c.client = o.client returning 1
  )
  select count(*) from dropped;
end;

create or replace function grantd.drop_changes(most bigint) returns bigint
language sql volatile security definer set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  with over as (
    select n.seq from grantd.changes n
    where n.at < clock_timestamp() - interval '1 hour'
      and n.xid < pg_snapshot_xmin(pg_current_snapshot())
    order by n.at limit most for update skip locked
  ), dropped as (
    delete from grantd.changes n using over o where n.seq = o.seq returning n.xid
  ), noted as (
    update grantd.pruned p set xid = greatest(p.xid, d.xid)
    from (select xid from dropped order by xid desc limit 1) d
    returning 1
  )
  select (select count(*) from dropped) + 0 * (select count(*) from noted);
end;

-- With a client, the uses of its secrets are dropped. They are locked in the order in which nodes
-- add to them.
create or replace function grantd.note_client() returns trigger
language plpgsql security definer set jit = off set search_path = pg_catalog, pg_temp as $$
begin
  if tg_op = 'INSERT' then
    insert into grantd.changes (kind, name) select 'c', n.client_id from new_rows n;
  elsif tg_op = 'DELETE' then
    insert into grantd.changes (kind, name) select 'c', o.client_id from old_rows o;
    with locked as materialized (
      select s.client_id, s.label from grantd.secret_use s
      where s.client_id in (select o.client_id from old_rows o)
      order by s.client_id, s.label for update
    )
    delete from grantd.secret_use s using locked l
    where s.client_id = l.client_id and s.label = l.label;
  else
    insert into grantd.changes (kind, name)
    select 'c', n.client_id from new_rows n union select 'c', o.client_id from old_rows o;
  end if;
  return null;
end $$;

delete from grantd.secret_use s
where not exists (select from grantd.client c where c.client_id = s.client_id);
