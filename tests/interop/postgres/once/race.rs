//! The same assertion or proof at all servers at once.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::crowd::{Maker, now};
use crate::postgres::nodes::{cluster_with, three};
use crate::support::postgres::Role;
use crate::support::{Connection, wait_until};

/// Four clients at a time, each of which asks the three servers at once.
#[test]
fn of_the_same_use_at_all_servers_at_once_one_is_accepted_a_thousand_times() {
    const ROUNDS: usize = 1000;
    const LANES: usize = 4;
    let maker = Maker::new();
    let cluster = cluster_with(&maker.clients());
    let nodes = three(&cluster.url(Role::Node));
    for node in &nodes {
        wait_until(|| maker.make(now(), 60, 0).request.send(node.address).status == 200);
    }
    let before = commits(&cluster);
    // A round counts if the database has answered all three in time.
    let (counted, slow) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while counted.load(Ordering::Relaxed) < ROUNDS {
                    let request = maker.make(now(), 60, 0).request;
                    let together = Barrier::new(nodes.len());
                    let mut statuses = thread::scope(|scope| {
                        let asks = nodes.each_ref().map(|node| {
                            scope.spawn(|| {
                                let mut connection = Connection::open(node.address);
                                together.wait();
                                connection.ask(&request).status
                            })
                        });
                        asks.map(|ask| ask.join().unwrap())
                    });
                    statuses.sort_unstable();
                    if statuses.contains(&503) {
                        assert!(statuses.iter().filter(|status| **status == 200).count() <= 1);
                        assert!(slow.fetch_add(1, Ordering::Relaxed) < ROUNDS / 10);
                    } else {
                        assert_eq!(statuses, [200, 400, 400]);
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let rows = cluster.psql("select count(*) from grantd.guard where key <> ''");
    assert!(rows.parse::<usize>().unwrap() >= ROUNDS + nodes.len(), "{rows}");
    let made = commits(&cluster) - before;
    println!("{ROUNDS} uses at {} servers at once: {made} commits", nodes.len());
}

fn commits(cluster: &crate::support::postgres::Postgres) -> u64 {
    let sql = "select xact_commit from pg_stat_database where datname = current_database()";
    cluster.psql(sql).parse().unwrap()
}
