-- Bounds for what the role of the nodes writes, so that its password alone stops no node.

alter table grantd.revocation
  add check (octet_length(key) in (16, 32)), add check (octet_length(client) <= 32);
alter table grantd.cut_off add check (octet_length(client) <= 32);
alter table grantd.signing_key
  add check (length(key_id) <= 100), add check (octet_length(document) <= 65536);
alter table grantd.secret add check (octet_length(sealed) <= 4096);
alter table grantd.guard
  add check (octet_length(key) <= 64), add check (octet_length(client) <= 32);
alter table grantd.secret_use
  add check (length(label) <= 1000), add check (uses between 0 and 4611686018427387904);

-- Returns an end, but at most the latest one that a token can have, with a tolerance for clocks (Unix
-- seconds). A lifetime is at most a year.
create function grantd.at_most(ends bigint) returns bigint
language sql volatile set search_path = pg_catalog, pg_temp
begin atomic
  select least(ends, extract(epoch from clock_timestamp())::bigint + 31536000 + 86400);
end;

-- Revokes tokens. The end of a row only grows: otherwise a row that was written with an early end would
-- hide a revocation, and end before the token.
create function grantd.revoke(keys bytea[], clients bytea[], ends bigint[]) returns void
language plpgsql volatile security definer set jit = off set search_path = pg_catalog, pg_temp as $$
begin
  insert into grantd.revocation as r (key, client, expires_at)
  -- Sorted, so that two nodes never wait for each other's rows.
  select distinct on (t.key) t.key, t.client, grantd.at_most(t.expires_at)
  from unnest(keys, clients, ends) as t (key, client, expires_at)
  order by t.key, t.expires_at desc
  on conflict (key) do update set expires_at = excluded.expires_at
  where r.expires_at < excluded.expires_at;
end $$;

create or replace function grantd.cut_off(clients bytea[], ends bigint[]) returns void
language plpgsql volatile security definer set jit = off set search_path = pg_catalog, pg_temp as $$
begin
  insert into grantd.cut_off as c (client, until)
  select t.client, grantd.at_most(t.until) from unnest(clients, ends) as t (client, until)
  order by t.client
  on conflict (client) do update set until = excluded.until where c.until < excluded.until;
end $$;

create or replace function grantd.shorten(ids text[], lifetimes bigint[], ends bigint[])
returns void
language plpgsql volatile security definer set jit = off set search_path = pg_catalog, pg_temp as $$
begin
  insert into grantd.shortened as s (client_id, lifetime, until)
  select t.id, least(t.lifetime, 31536000), grantd.at_most(t.until)
  from unnest(ids, lifetimes, ends) as t (id, lifetime, until)
  order by t.id
  on conflict (client_id) do update set
    lifetime = greatest(s.lifetime, excluded.lifetime), until = greatest(s.until, excluded.until)
  where s.lifetime < excluded.lifetime or s.until < excluded.until;
end $$;

-- In a subtransaction, the birth would be written with another transaction id than the row says, and
-- count no more.
create function grantd.require_epoch(has_epoch boolean) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  if has_epoch and not exists (select from grantd.epoch) then
    raise exception 'uses are not dropped in a subtransaction';
  end if;
end $$;

alter function grantd.drop_uses(bigint) rename to drop_uses_unchecked;
create function grantd.drop_uses(most bigint) returns bigint
language plpgsql volatile security definer set jit = off set search_path = pg_catalog, pg_temp as $$
declare
  has_epoch boolean := exists (select from grantd.epoch);
  dropped bigint := grantd.drop_uses_unchecked(most);
begin
  perform grantd.require_epoch(has_epoch);
  return dropped;
end $$;

-- A report that no node can read would stop the rotation, and so would very many of them.
alter function grantd.attend(text, text[], bigint[], bigint, bigint) rename to attend_unchecked;
create function grantd.attend(
  who text, published text[], ages bigint[], age bigint, term_seconds bigint
) returns table (fence bigint, now bigint)
language plpgsql volatile security definer set jit = off set search_path = pg_catalog, pg_temp as $$
begin
  if coalesce(array_ndims(published), 1) <> 1 or coalesce(array_ndims(ages), 1) <> 1
    or array_position(published, null) is not null or array_position(ages, null) is not null
    or exists (select from unnest(published) p where length(p) > 100)
    or exists (select from unnest(ages) a where a not between -1 and 31536000)
    or (select count(*) from grantd.node n where n.node <> who) >= 1000
  then
    raise exception 'a report of a node is malformed, or there are too many';
  end if;
  return query select * from grantd.attend_unchecked(who, published, ages, age, term_seconds);
end $$;

-- As many keys as this are a fault, or an attack.
create function grantd.require_few_keys() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if (select count(*) from grantd.signing_key k where k.retired_at is null) > 200 then
    raise exception 'there are more than 200 signing keys: retire some with `grantd key retire`';
  end if;
  return null;
end $$;
create trigger few after insert on grantd.signing_key
for each statement execute function grantd.require_few_keys();

revoke execute on function
  grantd.at_most, grantd.revoke, grantd.require_epoch, grantd.drop_uses,
  grantd.drop_uses_unchecked, grantd.attend, grantd.attend_unchecked, grantd.require_few_keys
from public;
