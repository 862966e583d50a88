-- The rotation of signing keys: which server leads, what each one publishes, and what the leader may
-- write.

-- The times of a key (Unix seconds), as in its document, which the database cannot read. A server
-- uses no key whose document says otherwise. `null` if an earlier release wrote the key.
alter table grantd.signing_key add column published_at bigint, add column signs_from bigint;

-- Work that one node does for all. `fence` is another number in each term: a node that was stopped
-- longer than its term still has the number of that, and can write nothing with it.
create table grantd.lease (
  name text primary key,
  holder text not null,
  ends timestamptz not null,
  fence bigint not null
);
insert into grantd.lease values ('keys', '', '-infinity', 0);

-- The nodes that serve, and the keys that each one publishes: since when (Unix seconds), 0 if since
-- it began to serve. `max_age` is how long, in seconds, verifiers may use its key sets.
create table grantd.node (
  node text primary key,
  seen timestamptz not null,
  keys text[] not null,
  since bigint[] not null,
  max_age bigint not null
);

-- The nodes that may be answering requests. A node that has reported nothing for its term and twice
-- the age of a key set holds nothing up any more.
create function grantd.live_nodes() returns setof grantd.node
language sql stable set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  select n.* from grantd.node n
  where n.seen > clock_timestamp() - make_interval(secs => 30 + 2 * n.max_age)
  order by n.node;
end;

-- Notes that this node serves, and which keys it publishes, each for how many seconds (-1: since it
-- began to serve). Begins or prolongs its term if it may lead, which is if it asks for some seconds.
-- Returns the number of the term, `null` if another node leads, and the time.
create function grantd.attend(
  who text, published text[], ages bigint[], age bigint, term_seconds bigint
) returns table (fence bigint, now bigint)
language plpgsql volatile security definer set jit = off set search_path = pg_catalog, pg_temp as $$
declare
  term bigint;
begin
  if who = '' or length(who) > 200 or cardinality(published) > 1000
    or cardinality(published) <> cardinality(ages) or age not between 0 and 86400
    or term_seconds > 30
  then
    raise exception 'a report of a node is malformed';
  end if;
  insert into grantd.node as n (node, seen, keys, since, max_age)
  select who, clock_timestamp(), published, array(
      select case when a.seconds < 0 then 0
        else extract(epoch from clock_timestamp())::bigint - a.seconds end
      from unnest(ages) with ordinality a (seconds, place) order by a.place
    ), age
  on conflict (node) do update
  set seen = excluded.seen, keys = excluded.keys, since = excluded.since, max_age = excluded.max_age;
  delete from grantd.node n
  where n.seen < clock_timestamp() - make_interval(secs => 3600 + 2 * n.max_age);
  if term_seconds > 0 then
    -- The clock is read when the row is locked: a transaction that has waited must not take a term
    -- that another one has begun meanwhile.
    update grantd.lease l
    set holder = who, ends = clock_timestamp() + make_interval(secs => term_seconds),
      fence = l.fence + (l.holder <> who or l.ends <= clock_timestamp())::int
    where l.name = 'keys' and (l.holder = who or l.ends <= clock_timestamp())
    returning l.fence into term;
  else
    update grantd.lease l set ends = '-infinity' where l.name = 'keys' and l.holder = who
      and l.ends > clock_timestamp();
  end if;
  return query select term, extract(epoch from clock_timestamp())::bigint;
end $$;

-- Notes that this node serves no more, and ends its term.
create function grantd.leave(who text) returns void
language sql volatile security definer set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  delete from grantd.node n where n.node = who;
  update grantd.lease l set ends = '-infinity' where l.name = 'keys' and l.holder = who;
end;

-- Whether the term of this number lasts. Keeps others from beginning one until the transaction ends.
create function grantd.leads(who text, term bigint) returns boolean
language plpgsql volatile security definer set jit = off set search_path = pg_catalog, pg_temp as $$
begin
  perform from grantd.lease l where l.name = 'keys' for update;
  return exists (
    select from grantd.lease l where l.name = 'keys' and l.holder = who and l.fence = term
      and l.ends > clock_timestamp()
  );
end $$;

-- Adds the next signing key, if the caller leads, knows all keys that are there, and none of them is
-- a next key. Returns whether it did.
create function grantd.add_next_key(
  id text, sealed bytea, published bigint, signs bigint, known text[], who text, term bigint
) returns boolean
language plpgsql volatile security definer set jit = off set search_path = pg_catalog, pg_temp as $$
declare
  is_leader boolean;
  now bigint;
begin
  -- As the commands that change keys do.
  perform pg_advisory_xact_lock(7454127460278599682);
  is_leader := grantd.leads(who, term);
  now := extract(epoch from clock_timestamp());
  if not is_leader
    or published < now - 3600 or signs <= now
    or exists (select from grantd.signing_key k where k.retired_at is null and k.signs_from > now)
    or known is distinct from array(
      select k.key_id from grantd.signing_key k where k.retired_at is null order by k.key_id
    )
  then
    return false;
  end if;
  insert into grantd.signing_key (key_id, document, published_at, signs_from)
  values (id, sealed, published, signs);
  return true;
end $$;

-- Lets a key that would sign within the hour begin later, if the caller leads. Returns whether it did.
create function grantd.postpone_key(
  id text, sealed bytea, published bigint, signs bigint, who text, term bigint
) returns boolean
language plpgsql volatile security definer set jit = off set search_path = pg_catalog, pg_temp as $$
declare
  is_leader boolean;
  now bigint;
begin
  perform pg_advisory_xact_lock(7454127460278599682);
  is_leader := grantd.leads(who, term);
  now := extract(epoch from clock_timestamp());
  if not is_leader or signs > now + 7 * 86400 then
    return false;
  end if;
  update grantd.signing_key k set document = sealed, signs_from = signs
  where k.key_id = id and k.retired_at is null
    and k.published_at = published and k.signs_from < signs
    and k.signs_from > now and k.signs_from < now + 3600;
  return found;
end $$;

-- A node may add the first key, and later ones only as the leader.
create function grantd.require_first_key() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if not pg_has_role((select c.relowner from pg_class c where c.oid = tg_relid), 'usage')
    and exists (select from grantd.signing_key k where k.retired_at is null)
  then
    raise exception 'permission denied: only the owner adds a further signing key'
      using errcode = 'insufficient_privilege';
  end if;
  return null;
end $$;
create trigger first before insert on grantd.signing_key
for each statement execute function grantd.require_first_key();

revoke execute on function
  grantd.live_nodes, grantd.attend, grantd.leave, grantd.leads, grantd.add_next_key,
  grantd.postpone_key
from public;
