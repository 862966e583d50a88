//! The PostgreSQL and the PgBouncer that other tests use.

mod commands;
mod faults;
mod faulty_keys;
mod garbage;
mod impostor;
mod lifetimes;
mod lost;
mod manual;
mod missed;
mod moving;
pub(crate) mod nodes;
mod once;
mod rotation;
mod secret_uses;
mod snapshot;
pub(crate) mod store;

use std::io::Read;
use std::net::TcpStream;

use crate::support::postgres::bouncer::PgBouncer;
use crate::support::postgres::{DATABASE, Postgres, Role, Setup, Stop, is_postgres, psql_at};
use crate::support::{GUARD, wait_until};

/// The identity that tells one history of a database from another.
const IDENTITY: &str = "select system_identifier from pg_control_system()";

#[test]
fn a_cluster_has_two_roles_and_neither_is_a_superuser() {
    let cluster = Postgres::start();
    for id in cluster.processes() {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        assert!(!status.contains("\nUid:\t0\t"), "{status}");
    }
    for role in Role::ALL {
        let ended = cluster.psql_as(role, "select current_user, current_database()");
        assert_eq!(ended.assert_fine(), format!("{}|{DATABASE}\n", role.name()));
        let superuser = format!("select rolsuper from pg_roles where rolname = '{}'", role.name());
        assert_eq!(cluster.psql(&superuser), "f");
        let wrong = cluster.url(role).replace(role.password(), "wrong");
        psql_at(&wrong, "select 1").assert_error(2, &["password authentication failed"]);
        let superuser = cluster.url(role).replace(role.name(), "postgres");
        psql_at(&superuser, "select 1").assert_error(2, &["password authentication failed"]);
    }
    cluster.psql_as(Role::Node, "create table t (i int)").assert_error(1, &["permission denied"]);
    cluster.psql_as(Role::Node, "create schema s").assert_error(1, &["permission denied"]);
    let made = "create schema s; create table s.t (i int); insert into s.t values (1)";
    cluster.psql_as(Role::Owner, made).assert_fine();
    cluster.psql_as(Role::Node, "select * from s.t").assert_error(1, &["permission denied"]);
    cluster.psql_as(Role::Owner, "create role r").assert_error(1, &["permission denied"]);
}

/// Makes a table that survives a crash and one that does not, with a row in each.
fn make_tables(cluster: &Postgres) {
    cluster.psql("create table kept (i int); create unlogged table lost (i int)");
    fill(cluster);
}

fn fill(cluster: &Postgres) {
    cluster.psql("insert into kept values (1); insert into lost values (1)");
}

fn rows(cluster: &Postgres) -> String {
    cluster.psql("select (select count(*) from kept), (select count(*) from lost)")
}

#[test]
fn a_cluster_stops_in_each_way_and_starts_again() {
    let mut cluster = Postgres::start();
    make_tables(&cluster);
    let mut identity = cluster.psql(IDENTITY);
    identity.push_str(&cluster.port.to_string());
    for (how, expected) in [(Stop::Smart, "1|1"), (Stop::Fast, "1|1"), (Stop::Immediate, "1|0")] {
        cluster.stop(how);
        cluster.psql_as(Role::Node, "select 1").assert_error(2, &["Connection refused"]);
        cluster.start_again();
        assert_eq!(rows(&cluster), expected, "{how:?}");
    }
    fill(&cluster);
    let processes = cluster.processes();
    cluster.kill();
    assert!(processes.into_iter().all(|id| !is_postgres(id)));
    cluster.start_again();
    assert_eq!(rows(&cluster), "2|0");
    fill(&cluster);
    let main = cluster.processes()[0];
    cluster.kill_one_process();
    assert_eq!((rows(&cluster).as_str(), cluster.processes()[0]), ("3|0", main));
    assert_eq!(cluster.psql(IDENTITY) + &cluster.port.to_string(), identity);
    assert!(cluster.log().contains("terminated by signal 9"), "{}", cluster.log());
}

#[test]
fn a_frozen_cluster_answers_when_it_goes_on() {
    let cluster = Postgres::start();
    cluster.freeze();
    for id in cluster.processes() {
        let stopped = || {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
            status.contains("State:\tT")
        };
        wait_until(stopped);
    }
    // The system accepts the connection; the request for TLS is answered with one byte.
    let mut connection = TcpStream::connect(("127.0.0.1", cluster.port)).unwrap();
    std::io::Write::write_all(&mut connection, &[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    connection.set_nonblocking(true).unwrap();
    let early = connection.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(early, Err(std::io::ErrorKind::WouldBlock));
    cluster.go_on();
    connection.set_nonblocking(false).unwrap();
    connection.set_read_timeout(Some(GUARD)).unwrap();
    assert_eq!(connection.read(&mut [0]).unwrap(), 1);
    assert_eq!(cluster.psql("select 1"), "1");
}

#[test]
fn a_standby_is_promoted_without_what_it_has_not_got() {
    let mut primary = Postgres::start();
    make_tables(&primary);
    let standby = primary.standby();
    primary.psql("insert into kept values (2)");
    standby.catch_up_with(&primary);
    assert_eq!(standby.psql("select count(*), pg_is_in_recovery() from kept"), "2|t");
    standby.stop_following();
    primary.psql("insert into kept values (3)");
    primary.kill();
    standby.promote();
    assert_eq!(rows(&standby), "2|0");
    fill(&standby);
    assert_eq!(standby.psql("select pg_is_in_recovery()"), "f");
    let timeline = "select substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";
    assert_eq!(standby.psql(timeline), "00000002");
    standby.psql_as(Role::Node, "select 1").assert_fine();
}

#[test]
fn copies_of_a_cluster_have_what_each_kind_keeps() {
    let mut cluster = Postgres::start();
    make_tables(&cluster);
    let mut backup = cluster.base_backup();
    let dump = cluster.dump(&[]);
    cluster.stop(Stop::Fast);
    let mut cold = cluster.cold_copy();
    let identity = {
        cluster.start_again();
        cluster.psql(IDENTITY)
    };
    for (copy, expected) in [(&mut backup, "1|0"), (&mut cold, "1|1")] {
        copy.start_again();
        assert_eq!((rows(copy).as_str(), copy.psql(IDENTITY)), (expected, identity.clone()));
    }
    let other = Postgres::start_with(&Setup { own_identity: true, ..Setup::default() });
    other.restore(&dump);
    assert_eq!(rows(&other), "1|1");
    assert_ne!(other.psql(IDENTITY), identity);
}

#[test]
fn pgbouncer_keeps_a_server_for_a_transaction() {
    let mut cluster = Postgres::start();
    let mut bouncer = PgBouncer::before_with(&cluster, &[("default_pool_size", "1")]);
    for role in Role::ALL {
        let ended = psql_at(&bouncer.url(role), "select current_user");
        assert_eq!(ended.assert_fine().trim(), role.name());
        let wrong = bouncer.url(role).replace(role.password(), "wrong");
        psql_at(&wrong, "select 1").assert_error(2, &["FATAL"]);
    }
    // Transaction mode: what one client sets, the next one has.
    psql_at(&bouncer.url(Role::Node), "set statement_timeout = '77s'").assert_fine();
    let seen = psql_at(&bouncer.url(Role::Node), "show statement_timeout");
    assert_eq!(seen.assert_fine().trim(), "77s");
    let other = Postgres::start();
    other.psql("create table only_here (i int); grant select on only_here to grantd_node");
    bouncer.move_to(&other);
    let url = bouncer.url(Role::Node);
    let is_there = || psql_at(&url, "table only_here").code == Some(0);
    wait_until(is_there);
    cluster.stop(Stop::Fast);
    assert!(is_there(), "{}", bouncer.log());
    bouncer.kill();
    psql_at(&bouncer.url(Role::Node), "select 1").assert_error(2, &["Connection refused"]);
    bouncer.start_again();
    assert!(is_there(), "{}", bouncer.log());
}

#[test]
fn with_tls_nothing_is_served_without_it_and_the_certificate_has_a_name() {
    let cluster = Postgres::start_with(&Setup { tls: true, ..Setup::default() });
    let authority = cluster.authority();
    let url = cluster.url(Role::Node);
    let with = |url: &str, mode: &str| {
        let url = format!("{url}?sslmode={mode}&sslrootcert={}", authority.display());
        psql_at(&url, "select ssl from pg_stat_ssl where pid = pg_backend_pid()")
    };
    assert_eq!(with(&url, "verify-full").assert_fine(), "t\n");
    let unnamed = url.replace("localhost", "127.0.0.1");
    with(&unnamed, "verify-full").assert_error(2, &["does not match host name"]);
    with(&unnamed, "disable").assert_error(2, &["no encryption"]);
    let other = Postgres::start_with(&Setup { tls: true, ..Setup::default() });
    let strange = format!("{url}?sslmode=verify-full&sslrootcert={}", other.authority().display());
    psql_at(&strange, "select 1").assert_error(2, &["certificate verify failed"]);
    let bouncer = PgBouncer::before(&cluster);
    let through = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(psql_at(&bouncer.url(Role::Node), through).assert_fine(), "t\n");
}

#[test]
fn nothing_is_left_of_a_cluster_that_is_dropped() {
    let running = Postgres::start();
    let frozen = Postgres::start();
    frozen.freeze();
    let processes = [running.processes(), frozen.processes()].concat();
    assert!(processes.len() > 8 && processes.iter().all(|id| is_postgres(*id)));
    drop((running, frozen));
    assert!(processes.iter().all(|id| !is_postgres(*id)));
}
