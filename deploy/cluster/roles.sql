-- The roles and the database. Run once, on the primary, as the superuser:
--   psql --dbname postgres --file roles.sql
-- It sets no password: README.md says how, so that none is in a file, a log or a list of processes.

\set ON_ERROR_STOP on

-- The limits of connections leave some of max_connections (100) to you, even if a password has leaked.
-- A node has three connections.

-- For you: owns the schema, the clients and the keys.
create role grantd_owner login connection limit 10;

-- For the nodes: reads clients, and can change none. `grantd store migrate --node-role grantd_node`
-- gives it what a node needs.
create role grantd_node login connection limit 60;

-- For standbys and base backups: reads every file of the server.
create role grantd_replica login replication;

create database grantd owner grantd_owner encoding 'UTF8' template template0;
revoke all on database grantd from public;
grant connect on database grantd to grantd_node;

-- Compiling a statement takes longer than any statement of a node.
alter role grantd_node set jit = off;

-- A node gives a statement up after 2 seconds, and one that reads all clients after 5 seconds without a
-- row or 200 seconds in all. Without these limits, the server might go on with it. They are settings of
-- the role, because through PgBouncer a node can set none.
alter role grantd_node set lock_timeout = '2s';
alter role grantd_node set statement_timeout = '10min';
alter role grantd_node set idle_in_transaction_session_timeout = '2min';

-- Before PostgreSQL 15, every role may create tables there.
\connect grantd
revoke create on schema public from public;
