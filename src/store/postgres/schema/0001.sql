-- Clients, keys and revocations, and the outbox that tells every node what has changed.

-- An entry of the registry, as the text of its JSON object. `position` is the order in an export.
create table grantd.client (
  client_id text collate "C" primary key check (client_id <> ''),
  entry text not null,
  position bigint generated always as identity
);

-- A signing key: the text of its file (PEM, with its times), sealed.
create table grantd.signing_key (
  key_id text collate "C" primary key check (key_id <> ''),
  document bytea not null,
  retired_at timestamptz
);

-- Revoked tokens, with the time at which the token expires (Unix seconds).
create table grantd.revocation (
  key bytea primary key,
  client bytea not null,
  expires_at bigint not null
);
create index on grantd.revocation (expires_at);
create index on grantd.revocation (client);

-- Clients whose tokens are revoked up to an expiry (Unix seconds).
create table grantd.cut_off (
  client bytea primary key,
  until bigint not null
);

-- Secrets that all nodes share, sealed.
create table grantd.secret (
  name text primary key,
  sealed bytea not null
);

-- How often the secrets of clients were used, and when last (Unix seconds).
create table grantd.secret_use (
  client_id text collate "C" not null,
  label text collate "C" not null,
  uses bigint not null,
  last_used bigint not null,
  -- When a node added to the sum last: the others read what has changed since.
  at timestamptz not null default clock_timestamp(),
  primary key (client_id, label)
);
create index on grantd.secret_use (at);

-- The lifetimes that were shortened while their tokens may still be used: one JSON document.
create table grantd.lifetime (
  one boolean primary key default true check (one),
  document text not null
);

-- Uses of assertions and proofs. The row with the empty key is the birth of the table's contents:
-- it is lost with them, and does not count in a copy (see the view `epoch`).
create unlogged table grantd.guard (
  key bytea primary key,
  client bytea,
  ends timestamptz not null,
  born timestamptz,
  xid xid8,
  system bigint,
  life uuid,
  check ((key = '') = (born is not null))
);
create index on grantd.guard (ends);
create index on grantd.guard (client);

-- The outbox. Its rows say what has changed, not how: a node reads the row that is named.
-- Kinds: c client, k signing key, r revocation, o cut-off (the last two named in hexadecimal),
-- * a whole table.
create table grantd.changes (
  seq bigint generated always as identity primary key,
  xid xid8 not null default pg_current_xact_id(),
  at timestamptz not null default clock_timestamp(),
  kind text not null,
  name text not null
);
create index on grantd.changes (xid);
create index on grantd.changes (at);

-- The highest transaction whose rows were deleted from the outbox.
create table grantd.pruned (
  one boolean primary key default true check (one),
  xid xid8 not null default '0'
);
insert into grantd.pruned default values;

-- The epoch, while the birth is the very row that was written: not the copy in a dump, and in an
-- unlogged table. While the epoch stays, no transaction id repeats and the guard forgets nothing.
create view grantd.epoch as
select
  concat_ws(
    '/',
    s.system_identifier,
    substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8),
    (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint,
    d.oid,
    g.life
  ) as epoch,
  greatest(g.born, pg_postmaster_start_time()) as since
from grantd.guard g, pg_control_system() s, pg_database d, pg_class t
where g.key = ''
  and g.system = s.system_identifier
  and g.xmin::text = mod(g.xid::text::numeric, 4294967296)::text
  and d.datname = current_database()
  and t.oid = 'grantd.guard'::regclass
  and t.relpersistence = 'u';

-- A poll: the epoch, the snapshot to pass to the next poll, and the changes that the last one did
-- not see. A function, because a setting that belongs to it is in force behind a pooler, too:
-- with jit, a poll takes 100 ms.
create function grantd.poll(last text)
returns table (
  epoch text, snapshot text, is_pruned boolean, since timestamptz, kind text, name text, seq bigint
)
language sql stable parallel unsafe
set jit = off set enable_seqscan = off set search_path = pg_catalog, pg_temp
begin atomic
  select
    e.epoch,
    pg_current_snapshot()::text,
    (select p.xid >= pg_snapshot_xmin(last::pg_snapshot) from grantd.pruned p where p.one),
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
revoke execute on function grantd.poll from public;

-- What a node may drop. The functions have the rights of the owner and drop only what is over, so
-- the password of a node removes no revocation and no change that still counts. Each drops at most
-- `most` rows and returns how many.
create function grantd.drop_uses(most bigint) returns bigint
language sql volatile security definer set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  with over as (
    select g.key from grantd.guard g where g.ends < clock_timestamp() order by g.ends limit most
  ), dropped as (
    delete from grantd.guard g using over o where g.key = o.key returning 1
  )
  select count(*) from dropped;
end;

-- A row is kept for an hour after the token has expired, as in the file: the clock of a node may be
-- set back. The rows of a cut-off are not needed.
create function grantd.drop_revocations(most bigint) returns bigint
language sql volatile security definer set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  with over as (
    (select r.key from grantd.revocation r
      where r.expires_at < extract(epoch from clock_timestamp())::bigint - 3600 limit most)
    union
    (select r.key from grantd.revocation r join grantd.cut_off c on c.client = r.client
      where r.expires_at <= c.until limit most)
  ), dropped as (
    delete from grantd.revocation r using over o where r.key = o.key returning 1
  )
  select count(*) from dropped;
end;

create function grantd.drop_cut_offs(most bigint) returns bigint
language sql volatile security definer set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  with over as (
    select c.client from grantd.cut_off c
    where c.until < extract(epoch from clock_timestamp())::bigint - 3600 limit most
  ), dropped as (
    delete from grantd.cut_off c using over o where c.client = o.client returning 1
  )
  select count(*) from dropped;
end;

-- A node that is away for longer than an hour reads everything anew. The note of what was dropped
-- is written in the same transaction. Rows that began after the oldest open transaction are kept: a
-- poll looks back to that transaction, so without them, each poll would read everything anew.
create function grantd.drop_changes(most bigint) returns bigint
language sql volatile security definer set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  with over as (
    select n.seq from grantd.changes n
    where n.at < clock_timestamp() - interval '1 hour'
      and n.xid < pg_snapshot_xmin(pg_current_snapshot())
    order by n.at limit most
  ), dropped as (
    delete from grantd.changes n using over o where n.seq = o.seq returning n.xid
  ), noted as (
    update grantd.pruned p set xid = greatest(p.xid, d.xid)
    from (select xid from dropped order by xid desc limit 1) d
    returning 1
  )
  select (select count(*) from dropped) + 0 * (select count(*) from noted);
end;

-- Writes the birth of the guard, unless there is one that counts. A birth that does not count came
-- with a dump, and is removed. The rows of the outbox that came with the dump may be of
-- transactions that this server has yet to run.
create function grantd.begin_epoch() returns void
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
  insert into grantd.guard (key, ends, born, xid, system, life)
  select '', 'infinity', clock_timestamp(), pg_current_xact_id(), system_identifier,
    gen_random_uuid()
  from pg_control_system()
  where (select count(*) from dead) + (select count(*) from future)
    + (select count(*) from unpruned) >= 0
  on conflict (key) do nothing;
end;

-- Moves the cut-offs of clients to later times.
create function grantd.cut_off(clients bytea[], ends bigint[]) returns void
language sql volatile security definer set jit = off set search_path = pg_catalog, pg_temp
begin atomic
  insert into grantd.cut_off as c (client, until)
  -- Sorted, so that two nodes never wait for each other's rows.
  select t.client, t.until from unnest(clients, ends) as t (client, until)
  order by t.client
  on conflict (client) do update set until = excluded.until where c.until < excluded.until;
end;

revoke execute on function
  grantd.drop_uses, grantd.drop_revocations, grantd.drop_cut_offs, grantd.drop_changes,
  grantd.begin_epoch, grantd.cut_off
from public;

-- The triggers write the outbox with the rights of the owner, so a node needs none to write it.
-- They run after the row is locked, so two changes of one row have their `seq` in their order.
create function grantd.note_client() returns trigger
language plpgsql security definer set jit = off set search_path = pg_catalog, pg_temp as $$
begin
  if tg_op = 'INSERT' then
    insert into grantd.changes (kind, name) select 'c', n.client_id from new_rows n;
  elsif tg_op = 'DELETE' then
    insert into grantd.changes (kind, name) select 'c', o.client_id from old_rows o;
  else
    insert into grantd.changes (kind, name)
    select 'c', n.client_id from new_rows n union select 'c', o.client_id from old_rows o;
  end if;
  return null;
end $$;

create function grantd.note_signing_key() returns trigger
language plpgsql security definer set jit = off set search_path = pg_catalog, pg_temp as $$
begin
  if tg_op = 'INSERT' then
    insert into grantd.changes (kind, name) select 'k', n.key_id from new_rows n;
  elsif tg_op = 'DELETE' then
    insert into grantd.changes (kind, name) select 'k', o.key_id from old_rows o;
  else
    insert into grantd.changes (kind, name)
    select 'k', n.key_id from new_rows n union select 'k', o.key_id from old_rows o;
  end if;
  return null;
end $$;

-- A revocation that ends by its time is no change, so its removal is not noted.
create function grantd.note_revocation() returns trigger
language plpgsql security definer set jit = off set search_path = pg_catalog, pg_temp as $$
begin
  insert into grantd.changes (kind, name) select 'r', encode(n.key, 'hex') from new_rows n;
  return null;
end $$;

create function grantd.note_cut_off() returns trigger
language plpgsql security definer set jit = off set search_path = pg_catalog, pg_temp as $$
begin
  insert into grantd.changes (kind, name) select 'o', encode(n.client, 'hex') from new_rows n;
  return null;
end $$;

create function grantd.note_table() returns trigger
language plpgsql security definer set jit = off set search_path = pg_catalog, pg_temp as $$
begin
  insert into grantd.changes (kind, name) values ('*', tg_table_name);
  return null;
end $$;

create trigger inserted after insert on grantd.client referencing new table as new_rows
for each statement execute function grantd.note_client();
create trigger updated after update on grantd.client
referencing old table as old_rows new table as new_rows
for each statement execute function grantd.note_client();
create trigger deleted after delete on grantd.client referencing old table as old_rows
for each statement execute function grantd.note_client();
create trigger truncated after truncate on grantd.client
for each statement execute function grantd.note_table();

create trigger inserted after insert on grantd.signing_key referencing new table as new_rows
for each statement execute function grantd.note_signing_key();
create trigger updated after update on grantd.signing_key
referencing old table as old_rows new table as new_rows
for each statement execute function grantd.note_signing_key();
create trigger deleted after delete on grantd.signing_key referencing old table as old_rows
for each statement execute function grantd.note_signing_key();
create trigger truncated after truncate on grantd.signing_key
for each statement execute function grantd.note_table();

create trigger inserted after insert on grantd.revocation referencing new table as new_rows
for each statement execute function grantd.note_revocation();
create trigger updated after update on grantd.revocation referencing new table as new_rows
for each statement execute function grantd.note_revocation();
create trigger truncated after truncate on grantd.revocation
for each statement execute function grantd.note_table();

create trigger inserted after insert on grantd.cut_off referencing new table as new_rows
for each statement execute function grantd.note_cut_off();
create trigger updated after update on grantd.cut_off referencing new table as new_rows
for each statement execute function grantd.note_cut_off();
create trigger truncated after truncate on grantd.cut_off
for each statement execute function grantd.note_table();
