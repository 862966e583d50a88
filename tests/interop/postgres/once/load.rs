//! Many uses share a statement, and the table of the guard does not grow.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use super::crowd::{Maker, now};
use crate::postgres::nodes::{start, wait_until_ready};
use crate::postgres::store::{on, versions};
use crate::support::postgres::{Postgres, Role, Setup};
use crate::support::{Connection, Home, StopOnDrop, wait_until};

/// The clients of one server that wait at the same time.
const CLIENTS: usize = 16;

#[test]
fn many_uses_share_a_statement_and_rows_that_are_over_go() {
    let settings = [("autovacuum_naptime", "1s"), ("log_autovacuum_min_duration", "0")];
    let cluster = Postgres::start_with(&Setup { settings: &settings, ..Setup::default() });
    let role = ["store", "migrate", "--node-role", Role::Node.name()];
    on(&Home::new(), &cluster.url(Role::Owner), &role).assert_fine();
    assert!(versions() >= 2);
    let maker = Maker::new();
    maker.clients().iter().for_each(|client| crate::postgres::nodes::put(&cluster, client));
    let url = cluster.url(Role::Node);
    let share = [("GRANTD_LIMITS__REPLAY_ENTRIES", "1000000")];
    let nodes = [(); 2].map(|()| start(&url, &[], &share));
    nodes.iter().for_each(wait_until_ready);
    for node in &nodes {
        wait_until(|| maker.make(now(), 60, 0).request.send(node.address).status == 200);
    }
    let number = |sql: &str| cluster.psql(sql).parse::<u64>().unwrap();
    let commits =
        || number("select xact_commit from pg_stat_database where datname = current_database()");
    let [next, uses] = [(); 2].map(|()| AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = StopOnDrop(&is_over);
        for node in nodes.iter().flat_map(|node| [node; CLIENTS]) {
            scope.spawn(|| {
                let mut connection = Connection::open(node.address);
                while !is_over.load(Ordering::Relaxed) {
                    // The rows of these uses are dropped 15 to 20 s later.
                    let claims = serde_json::json!({
                        "jti": format!("load-{}", next.fetch_add(1, Ordering::Relaxed)),
                        "iat": now(), "exp": now() + 5,
                    });
                    let status = connection.ask(&maker.assertion(&claims)).status;
                    // On a slow machine, some may be too late.
                    assert!([200, 400, 503].contains(&status), "{status}");
                    uses.fetch_add(u64::from(status == 200), Ordering::Relaxed);
                    sleep(Duration::from_millis(30));
                }
            });
        }
        let (mut commits_before, mut uses_before) = (commits(), 0);
        let mut sizes = Vec::new();
        for second in 0..45 {
            sleep(Duration::from_secs(1));
            let rows = number("select count(*) from grantd.guard");
            let size = number("select pg_total_relation_size('grantd.guard')");
            sizes.push((uses.load(Ordering::Relaxed), rows, size));
            if second == 5 {
                (commits_before, uses_before) = (commits(), uses.load(Ordering::Relaxed));
            }
        }
        let made = commits() - commits_before;
        let used = uses.load(Ordering::Relaxed) - uses_before;
        drop(stop);
        let rows = sizes.iter().map(|(_, rows, _)| *rows).max().unwrap();
        let [middle, last] = [sizes[sizes.len() / 2], sizes[sizes.len() - 1]];
        println!(
            "{used} uses in {made} commits; {} uses, {rows} rows at most, {} at the end; {} KiB at \
             half time, {} KiB at the end",
            last.0,
            last.1,
            middle.2 / 1024,
            last.2 / 1024
        );
        assert!(last.0 > 1000 && rows * 10 < last.0 * 9, "{sizes:?}");
        assert!(last.2 < middle.2 * 2, "{sizes:?}");
        assert!(made * 2 < used, "{used} uses in {made} commits");
    });
    // Only the birth is left.
    wait_until(|| number("select count(*) from grantd.guard where ends < 'infinity'") == 0);
    assert_eq!(number("select count(*) from grantd.guard"), 1);
}
