//! The time until a change is in force on three servers.

use std::thread::sleep;
use std::time::Duration;

use grantd::clock::Clock;
use serde_json::json;

use crate::grants::{self, Waits};
use crate::nodes::{about, ask_for_token, at, cluster, put, three, time_until, token_of};
use crate::support::home::{hash_of, secret_of};
use crate::support::postgres::bouncer::PgBouncer;
use crate::support::postgres::session::Session;
use crate::support::postgres::{Postgres, Role};
use crate::support::registry::{client_json, client_with_hash};
use crate::support::status::{INACTIVE, INTROSPECT, REVOKE};
use crate::support::{Connection, Program};

pub(crate) fn measure(changes: usize) {
    let cluster = cluster();
    println!(
        "{changes} changes on three servers: ms until in force on all, and the longest stall of a bare loop"
    );
    println!("{:<36} {:>7} {:>7} {:>7} {:>7}  slowest", "", "p50", "p99", "max", "stall");
    let nodes = three(&cluster.url(Role::Node));
    Observed::new(&cluster, &nodes).print("directly", "direct", changes);
    let mut open = Session::open(&cluster);
    let late = client_json("late", &json!({}));
    open.run("begin");
    put(&mut open, &late);
    Observed::new(&cluster, &nodes).print("beside an open writing transaction", "beside", changes);
    drop((open, nodes));
    let bouncer = PgBouncer::before(&cluster);
    let nodes = three(&bouncer.url(Role::Node));
    Observed::new(&cluster, &nodes).print("through PgBouncer", "bounced", changes);
}

/// The servers, with a connection to each.
struct Observed {
    session: Session,
    connections: Vec<Connection>,
    /// The number of changes so far.
    made: u64,
    /// In milliseconds, with what was changed.
    times: Vec<(f64, &'static str)>,
}

impl Observed {
    fn new(cluster: &Postgres, nodes: &[Program]) -> Self {
        let connections = nodes.iter().map(|node| Connection::open(node.address)).collect();
        Self { session: Session::open(cluster), connections, made: 0, times: vec![] }
    }

    fn print(mut self, way: &str, name: &str, changes: usize) {
        let ((), Waits { stalls, .. }) = grants::beside(&[], "", 1.0, || {
            (0..changes / 4).for_each(|number| self.change(&format!("{name}-{number}"), number));
        });
        let times: Vec<f64> = self.times.iter().map(|(time, _)| *time).collect();
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| at(&times, share));
        let (_, slowest) = self.times.iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        println!("{way:<36} {p50:>7.0} {p99:>7.0} {max:>7.0} {:>7.0}  {slowest}", at(&stalls, 1.0));
    }

    /// Makes each of the four changes once, with a client of its own.
    fn change(&mut self, client: &str, number: usize) {
        let (secret, new) = (secret_of(client), format!("{}.new", secret_of(client)));
        let added = client_json(client, &json!({}));
        let grants = |secret: &str, status: u16| {
            let request = ask_for_token(client, secret);
            move |connection: &mut Connection| connection.ask(&request).status == status
        };
        self.time("added", |it| put(&mut it.session, &added), grants(&secret, 200));
        let rotated = client_with_hash(client, &hash_of(&new));
        self.time("rotated", |it| put(&mut it.session, &rotated), grants(&new, 200));

        let revoking = number % self.connections.len();
        let token = token_of(&mut self.connections[revoking], client, &new);
        let revoke = about(REVOKE, client, &new, &token);
        let introspect = about(INTROSPECT, client, &new, &token);
        for connection in &mut self.connections {
            assert_ne!(connection.ask(&introspect).text(), INACTIVE);
        }
        self.time(
            "revoked",
            |it| assert_eq!(it.connections[revoking].ask(&revoke).status, 200),
            |connection| connection.ask(&introspect).text() == INACTIVE,
        );
        let mut disabled = rotated;
        disabled["enabled"] = json!(false);
        self.time("disabled", |it| put(&mut it.session, &disabled), grants(&new, 400));
    }

    /// Makes a change and waits until `is_in_force` on all servers.
    fn time(
        &mut self,
        name: &'static str,
        change: impl FnOnce(&mut Self),
        is_in_force: impl Fn(&mut Connection) -> bool,
    ) {
        // Otherwise all changes would come just after a poll, which has the previous one.
        sleep(Duration::from_millis(self.made * 83 % 199));
        self.made += 1;
        let begin = Clock::system().instant();
        change(self);
        let time = time_until(begin, || self.connections.iter_mut().all(&is_in_force));
        self.times.push((time * 1e3, name));
    }
}
