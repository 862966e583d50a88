//! Faults of servers and of the database.

use std::thread::sleep;
use std::time::Duration;

use super::crowd::{Crowd, Maker, back};
use crate::postgres::nodes::{cluster_with, start_in, three, wait_until_ready};
use crate::support::Home;
use crate::support::postgres::bouncer::PgBouncer;
use crate::support::postgres::{Postgres, Role};

#[test]
fn servers_that_are_killed_or_stopped_accept_nothing_twice() {
    let maker = Maker::new();
    let cluster = cluster_with(&maker.clients());
    let url = cluster.url(Role::Node);
    let [killed, stopped, third] = three(&url);
    let crowd = Crowd::of("servers", maker, [&killed, &stopped, &third]);
    let mut killed = Some(killed);
    crowd.run(|| {
        crowd.wait_for_the_first(&cluster);
        crowd.during("kill -9 of a server", Some(0), || {
            let home = killed.take().expect("a server").into_home();
            let again = start_in(home, &url, &[], &[]);
            crowd.move_to(0, &again);
            killed = Some(again);
            back(&cluster)
        });
        crowd.during("SIGSTOP of a server", Some(1), || {
            stopped.stop();
            sleep(Duration::from_secs(10));
            stopped.go_on();
            back(&cluster)
        });
        crowd.during("short SIGSTOPs of a server", Some(1), || {
            for _ in 0..20 {
                stopped.stop();
                sleep(Duration::from_millis(100));
                stopped.go_on();
            }
            back(&cluster)
        });
        // An empty state directory.
        crowd.during("kill -9 of a server that forgets everything", Some(0), || {
            drop(killed.take());
            let again = start_in(Home::without_key(), &url, &[], &[]);
            crowd.move_to(0, &again);
            killed = Some(again);
            back(&cluster)
        });
    });
}

#[test]
fn a_database_that_crashes_or_is_emptied_accepts_nothing_twice() {
    let maker = Maker::new();
    let mut cluster = cluster_with(&maker.clients());
    let nodes = three(&cluster.url(Role::Node));
    let crowd = Crowd::of("database", maker, &nodes);
    crowd.run(|| {
        crowd.wait_for_the_first(&cluster);
        crowd.during("kill -9 of PostgreSQL", None, || {
            cluster.kill();
            cluster.start_again();
            back(&cluster)
        });
        crowd.during("kill -9 of a process of PostgreSQL", None, || {
            cluster.kill_one_process();
            back(&cluster)
        });
        crowd.during("TRUNCATE of the guard", None, || {
            cluster.psql("truncate grantd.guard");
            back(&cluster)
        });
    });
    nodes.iter().for_each(wait_until_ready);
}

/// The settings of PgBouncer are those of the recipe for it.
#[test]
fn a_database_that_crashes_behind_pgbouncer_accepts_nothing_twice() {
    let maker = Maker::new();
    let mut cluster = cluster_with(&maker.clients());
    let settings =
        [("query_wait_timeout", "5"), ("server_login_retry", "1"), ("server_connect_timeout", "2")];
    let bouncer = PgBouncer::before_with(&cluster, &settings);
    let nodes = three(&bouncer.url(Role::Node));
    let crowd = Crowd::of("pgbouncer", maker, &nodes);
    crowd.run(|| {
        crowd.wait_for_the_first(&cluster);
        crowd.during("kill -9 of PostgreSQL behind PgBouncer", None, || {
            cluster.kill();
            cluster.start_again();
            back(&cluster)
        });
    });
}

#[test]
fn a_standby_that_is_promoted_accepts_nothing_twice() {
    let maker = Maker::new();
    let mut primary = cluster_with(&maker.clients());
    let standby = primary.standby();
    let url = Postgres::url_of(Role::Node, &[&primary, &standby]);
    let nodes = three(&url);
    let crowd = Crowd::of("promotion", maker, &nodes);
    crowd.run(|| {
        crowd.wait_for_the_first(&primary);
        crowd.during("promotion of a standby", None, || {
            primary.kill();
            standby.promote();
            back(&standby)
        });
    });
    nodes.iter().for_each(wait_until_ready);
}
