//! Servers whose clocks are wrong.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use grantd::clock::ManualClock;
use grantd::config::StoreUrl;
use grantd::random::Random;

use super::crowd::{Crowd, Maker, back, back_now, now};
use crate::postgres::nodes::{cluster_with, start};
use crate::postgres::store::MASTER_KEY;
use crate::support::home::set_mode;
use crate::support::postgres::{Postgres, Role};
use crate::support::status::ISSUER;
use crate::support::{Home, Library, StopOnDrop};

/// Starts a server of `cluster` whose clock is set by [`run`].
fn library(cluster: &Postgres) -> Library {
    let home = Home::without_key();
    let file = home.write("master.key", MASTER_KEY);
    set_mode(&file, 0o600);
    let mut config = Library::config(&home);
    config.live.issuer = Some(ISSUER.parse().unwrap());
    config.startup.store.url = Some(StoreUrl::parse(&cluster.url(Role::Node)).unwrap());
    config.startup.store.master_key_file = Some(file);
    Library::start_configured(home, &config, now(), Random::system())
}

/// Lets the time of a clock pass, `offset` seconds ahead of the true one, until `is_over`.
fn run(clock: &ManualClock, offset: &AtomicI64, is_over: &AtomicBool) {
    let mut passed = now();
    while !is_over.load(Ordering::Relaxed) {
        let now = now();
        if now > passed {
            clock.advance(now - passed);
            passed = now;
        }
        clock.set(now.saturating_add_signed(offset.load(Ordering::Relaxed)));
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn servers_whose_clocks_are_set_accept_nothing_twice() {
    const HOUR: i64 = 3600;
    const SET: usize = 2;
    let maker = Maker::new();
    let cluster = cluster_with(&maker.clients());
    let [one, two] = [(); 2].map(|()| start(&cluster.url(Role::Node), &[], &[]));
    let set = library(&cluster);
    let crowd = Crowd::new("clocks", maker, &[one.address, two.address, set.address]);
    [&one, &two].into_iter().for_each(|node| crowd.watch(node));
    let (offset, is_over) = (AtomicI64::new(0), AtomicBool::new(false));
    let clock = &set.clock;
    thread::scope(|scope| {
        scope.spawn(|| run(clock, &offset, &is_over));
        let _stop = StopOnDrop(&is_over);
        let at = |seconds: i64| {
            offset.store(seconds, Ordering::Relaxed);
            sleep(Duration::from_millis(100));
        };
        crowd.run(|| {
            crowd.wait_for_the_first(&cluster);
            // Clients with the same clock as the server. By the database's clock, what they sign is over
            // or of the future, and nothing of it may be accepted again after the uses are lost.
            let sign_by_the_clock = |seconds: i64| {
                let at = |of_client| now().saturating_add_signed(of_client);
                let signed: Vec<_> = [seconds, seconds, seconds + 9, seconds + 9]
                    .map(|seconds| crowd.maker.make(at(seconds), 60, SET))
                    .into();
                for one in &signed {
                    let answer = one.request.send(set.address);
                    if seconds > 0 {
                        answer.assert_refused(503, "temporarily_unavailable");
                        assert_eq!(answer.header("retry-after"), Some("1"));
                    } else {
                        // It may have been used before the birth.
                        assert_eq!(answer.status, 400, "{}", answer.text());
                    }
                }
                signed
            };
            let mut signed = Vec::new();
            for (name, seconds) in [
                ("a server's clock an hour ahead", HOUR),
                ("a server's clock an hour behind", -HOUR),
                ("a server's clock an hour ahead once more", HOUR),
            ] {
                crowd.during(name, Some(SET), || {
                    at(seconds);
                    signed.extend(sign_by_the_clock(seconds));
                    sleep(Duration::from_secs(2));
                    at(0);
                    back_now()
                });
            }
            crowd.during("TRUNCATE of the guard", None, || {
                cluster.psql("truncate grantd.guard");
                back(&cluster)
            });
            crowd.during("a server's clock an hour and then 9 s ahead", Some(SET), || {
                at(HOUR);
                for one in &signed {
                    assert_ne!(one.request.send(set.address).status, 200);
                }
                // The server's own tolerance allows what the database's does not.
                at(9);
                let ahead = crowd.maker.make(now() + 18, 60, SET);
                ahead.request.send(set.address).assert_refused(503, "temporarily_unavailable");
                at(0);
                back_now()
            });
        });
    });
}
