//! Measures the cost of a large registry.
//!
//! Writes a registry of a million clients, creates a server with this registry, and prints the time
//! until the server is ready to serve, the peak and settled resident memory, the time of a reload,
//! the time in which changes of clients are put in force, and the time of one look-up.
//! `GRANTD_BENCH_CLIENTS` sets another number of clients.

#![expect(clippy::unwrap_used, reason = "a failing bench may panic")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use grantd::clock::Clock;
use grantd::internal::registry::client_file;
use grantd::internal::registry::clients::{Registry, Update};
use grantd::random::Random;
use grantd::server::{News, Server};
use support::demo;

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

fn main() {
    // In test mode a small registry is enough.
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let given = std::env::var("GRANTD_BENCH_CLIENTS").ok();
    let clients = given.map_or(if is_test { 1000 } else { 1_000_000 }, |n| n.parse().unwrap());
    let (_directory, config) = demo::demo();
    let bytes = write_registry(&config.live.clients, clients);
    // Creates and drops another server first, so that one-time initialization of the process is not
    // measured. The generation of a signing key is measured, because each server generates its own.
    drop(Server::new(&demo::demo().1, Clock::system(), Random::system()));

    let before = memory("VmRSS");
    let begin = Clock::system().instant();
    let server = Server::new(&config, Clock::system(), Random::system()).unwrap();
    let start = Clock::system().instant() - begin;
    let (settled, peak) = (memory("VmRSS"), memory("VmHWM"));
    println!("clients: {clients}, file: {} MB", bytes >> 20);
    println!("start: {:.2} s", start.as_secs_f64());
    println!("memory: {settled} MB settled, {peak} MB at its peak, {before} MB before");
    let begin = Clock::system().instant();
    assert!(!server.reloader().reload(Ok(config.clone())).is_applied);
    let reload = Clock::system().instant() - begin;
    println!("reload of unchanged files: {:.2} s", reload.as_secs_f64());
    for changes in [1, clients / 10] {
        println!("apply {changes} changes: {:.2} ms", apply(&server, changes, clients) * 1e3);
    }
    drop(server);

    let registry = client_file::load(&config.live.clients).unwrap().registry;
    println!("look-up: {} ns", look_up(&registry, clients).as_nanos());
}

/// Writes a registry with this number of clients and returns the size of the file in bytes. Each
/// client has one secret, two scopes, an audience and a claim.
fn write_registry(file: &Path, clients: usize) -> usize {
    let mut text = String::from("{\"clients\": [\n");
    for index in 0..clients {
        let comma = if index == 0 { "" } else { ",\n" };
        write!(text, "{comma}{}", entry(index, index)).unwrap();
    }
    text.push_str("\n]}\n");
    std::fs::write(file, &text).unwrap();
    text.len()
}

/// Returns the entry of a client, whose secret is the one with this number.
fn entry(index: usize, secret: usize) -> String {
    // The hash is 43 characters of base64url. The last character is `A`, because the two unused
    // bits of the last character must be zero.
    format!(
        "{{\"client_id\":\"client-{index:08}\",\"enabled\":true,\"secrets\":[{{\
         \"label\":\"first\",\"hash\":\"$sha256${secret:042}A\"}}],\
         \"auth_methods\":[\"client_secret_basic\",\"client_secret_post\"],\
         \"scopes\":[\"external-api\",\"orders.read\"],\"default_scopes\":[\"external-api\"],\
         \"audience\":[\"https://api.example/orders\"],\"token_lifetime\":3600,\
         \"claims\":{{\"tenant\":\"tenant-{:04}\"}}}}",
        index % 1000
    )
}

/// Returns the mean time in seconds in which new secrets of `changes` of the clients are put in
/// force.
fn apply(server: &Server, changes: usize, clients: usize) -> f64 {
    let rounds = 5;
    let mut taken = Duration::ZERO;
    for round in 1..=rounds {
        let news = (0..changes).map(|number| {
            let index = (number * (clients / changes) + round * 7_368_787) % clients;
            let entry = entry(index, index + round * clients);
            let client = client_file::check_entry(Path::new("news"), 1, &entry).unwrap();
            Update::Put(Box::new(client))
        });
        let news = News { clients: news.collect(), ..News::default() };
        let begin = Clock::system().instant();
        assert!(server.reloader().apply(news).is_applied);
        taken += Clock::system().instant() - begin;
    }
    taken.as_secs_f64() / f64::from(u32::try_from(rounds).unwrap())
}

/// Returns the mean time of one look-up. A million look-ups are made, in an order that defeats the
/// processor's caches.
fn look_up(registry: &Registry, clients: usize) -> Duration {
    let count: u32 = 1_000_000;
    let ids: Vec<String> = (0..count as usize)
        .map(|index| format!("client-{:08}", (index * 7_368_787) % clients))
        .collect();
    let begin = Clock::system().instant();
    for id in &ids {
        assert!(registry.get(black_box(id)).is_some());
    }
    (Clock::system().instant() - begin) / count
}

/// Returns a field of `/proc/self/status` in MiB, or 0 if there is no procfs.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}
