//! A server over PostgreSQL against a server over files.

use std::process::Stdio;

use grantd::clock::Clock;
use grantd::internal::keys::change;
use grantd::internal::keys::directory::KeyDirectory;
use grantd::internal::keys::life::Retention;
use grantd::internal::time::UnixTime;
use serde_json::Value;

use crate::common::request::URLENCODED;
use crate::common::service::Service;
use crate::common::spread::Spread;
use crate::common::{cores, demo, wrk};
use crate::nodes::{cluster, put, with_store};
use crate::support::postgres::session::Session;
use crate::support::postgres::{Postgres, Role};

const CONNECTIONS: u32 = 32;

pub(crate) fn measure(pairs: usize, seconds: u64) {
    let _awake = cores::Awake::start();
    let (directory, config) = demo::demo();
    let retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };
    let now = Clock::system().unix_seconds();
    change::generate(&mut KeyDirectory::new(&config.live.keys), 2048, &retention, UnixTime(now))
        .unwrap();
    let files = Service::grantd(&config, directory.path(), "auto");
    let cluster = cluster();
    let store = over(&cluster, directory.path());
    let rate = |server: &Service, seconds| {
        wrk::rate(&wrk::load(server.address, &URLENCODED, CONNECTIONS, seconds))
    };
    // These seconds of load are not part of the results.
    rate(&files, 1);
    rate(&store, 1);
    let measured: Vec<[f64; 2]> = (0..pairs)
        .map(|pair| {
            if pair % 2 == 0 {
                let files = rate(&files, seconds);
                [files, rate(&store, seconds)]
            } else {
                let store = rate(&store, seconds);
                [rate(&files, seconds), store]
            }
        })
        .collect();
    let of = |value: fn(&[f64; 2]) -> f64| Spread::of(measured.iter().map(value));
    println!("\ngrants a second, one core for the server; {pairs} pairs, median (min–max)");
    println!("over files       {:.0}", of(|pair| pair[0]));
    println!("over PostgreSQL  {:.0}", of(|pair| pair[1]));
    println!("ratio            {:.3}", of(|pair| pair[1] / pair[0]));
}

/// Starts a server as [`Service::grantd`] does, but over a store with the same clients.
fn over(cluster: &Postgres, directory: &std::path::Path) -> Service {
    let shipped: Value = serde_json::from_str(include_str!("../../clients.json")).unwrap();
    let mut session = Session::open(cluster);
    for client in shipped["clients"].as_array().unwrap() {
        put(&mut session, client);
    }
    let address = cores::free_address();
    let mut command = cores::on(cores::MEASURED, env!("CARGO_BIN_EXE_grantd"));
    command.args(["serve", "--workers", "1", "--signer", "auto"]);
    command.args(["--listen", &address.to_string(), "--admin-listen", "127.0.0.1:0"]);
    command.args(["--log-format", "json", "--log-level", "info"]).stderr(Stdio::null());
    command.arg("--state").arg(directory.join("state-of-store")).current_dir(directory);
    with_store(&mut command, &cluster.url(Role::Node));
    Service::start(command, address)
}
