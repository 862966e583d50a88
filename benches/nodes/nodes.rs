//! Clusters with the schema, servers over them, and questions to these servers.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use grantd::clock::Clock;
use serde_json::Value;

use crate::support::home::{grantd, secret_of};
use crate::support::postgres::session::Session;
use crate::support::postgres::{Postgres, Role, Setup};
use crate::support::status::{ISSUER, REVOKE};
use crate::support::{Connection, Encoding, GUARD, Home, Program, Request, request_of};

/// The master key of all stores in this bench.
pub(crate) const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Starts a cluster and makes the schema. Autovacuum is as in `deploy/cluster/postgresql.conf`.
pub(crate) fn cluster() -> Postgres {
    let settings = &[("autovacuum_naptime", "10s")];
    let cluster = Postgres::start_with(&Setup { settings, ..Setup::default() });
    let home = Home::without_key();
    let mut migrate = grantd(&home.path("."));
    migrate.args(["store", "migrate", "--node-role", Role::Node.name()]);
    let ended = with_store(&mut migrate, &cluster.url(Role::Owner)).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    cluster
}

/// Tells a command where its store is.
pub(crate) fn with_store<'a>(command: &'a mut Command, url: &str) -> &'a mut Command {
    command.env("GRANTD_STORE_URL", url).env("GRANTD_MASTER_KEY", MASTER_KEY)
}

/// Starts a server over the store at `url`.
pub(crate) fn start(url: &str) -> Program {
    start_at(Home::without_key(), url, None)
}

/// Starts a server over the store at `url`, in `home`, which listens on `address`.
pub(crate) fn start_at(home: Home, url: &str, address: Option<SocketAddr>) -> Program {
    // While a change is waited for, requests are refused many times.
    let variables = [
        ("GRANTD_STORE_URL", url),
        ("GRANTD_MASTER_KEY", MASTER_KEY),
        ("GRANTD_FAILURES__CLIENT_FAILURES", "100000"),
        ("GRANTD_FAILURES__SOURCE_FAILURES", "100000"),
    ];
    let address = address.map_or_else(|| "127.0.0.1:0".to_owned(), |it| it.to_string());
    let arguments = ["--listen", &address, "--issuer", ISSUER, "--allow-demo-clients"];
    Program::start_with(home, &arguments, &variables)
}

pub(crate) fn three(url: &str) -> [Program; 3] {
    [(); 3].map(|()| start(url))
}

/// Registers a client, or changes it.
pub(crate) fn put(session: &mut Session, client: &Value) {
    let id = client["client_id"].as_str().unwrap();
    session.run(&format!(
        "insert into grantd.client (client_id, entry) values ('{id}', $entry${client}$entry$)
         on conflict (client_id) do update set entry = excluded.entry"
    ));
}

pub(crate) fn ask_for_token(client: &str, secret: &str) -> Request {
    Request::token(Encoding::Urlencoded, &request_of(client, secret, &[]))
}

/// Returns a request about `token` by a client with this secret.
pub(crate) fn about(path: &str, client: &str, secret: &str, token: &str) -> Request {
    let form = [("client_id", client), ("client_secret", secret), ("token", token)];
    Request::new("POST", path).form(Encoding::Urlencoded, &form)
}

pub(crate) fn revoke(client: &str, token: &str) -> Request {
    about(REVOKE, client, &secret_of(client), token)
}

pub(crate) fn token_of(connection: &mut Connection, client: &str, secret: &str) -> String {
    let response = connection.ask(&ask_for_token(client, secret));
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["access_token"].as_str().expect("a token").to_owned()
}

/// Waits until `is_so` returns true, and returns the time since `begin` in seconds.
pub(crate) fn time_until(begin: Instant, mut is_so: impl FnMut() -> bool) -> f64 {
    while !is_so() {
        assert!(begin.elapsed() < GUARD * 3, "it has not come to that");
        std::thread::sleep(Duration::from_millis(1));
    }
    (Clock::system().instant() - begin).as_secs_f64()
}

/// Returns the processor time that the process has used so far, in seconds: the first number of each
/// thread's `schedstat`.
pub(crate) fn processor_time(process: u32) -> f64 {
    let threads = std::fs::read_dir(Path::new("/proc").join(process.to_string()).join("task"));
    let of_thread = |thread: std::io::Result<std::fs::DirEntry>| {
        // A thread may have ended since the directory was read.
        let times = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        times.split(' ').next()?.parse::<f64>().ok()
    };
    threads.unwrap().filter_map(of_thread).sum::<f64>() / 1e9
}

/// Returns the value that this share of the values does not exceed. Panics if there is no value.
pub(crate) fn at(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)]
}
