//! Asserts that a token costs as many heap allocations with a store in PostgreSQL as with files.
//!
//! This test has a binary of its own, because its counting allocator replaces the global allocator
//! of the whole process.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot continue panics on the spot"
)]

#[path = "../../benches/support/allocations.rs"]
#[expect(dead_code, reason = "shared with the bench")]
mod allocations;
#[path = "../support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with the other tests")]
mod support;

use grantd::config::StoreUrl;

use crate::allocations::support::demo::demo;
use crate::support::Home;
use crate::support::command::run;
use crate::support::home::set_mode;
use crate::support::postgres::{Postgres, Role};

const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn a_token_allocates_no_more_with_a_store_than_with_files() {
    let (directory, files) = demo();
    let with_files = allocations::of_tokens(&files);

    let (cluster, home) = (Postgres::start(), Home::new());
    let master_key = home.write("master.key", MASTER_KEY);
    set_mode(&master_key, 0o600);
    let node = Role::Node.name();
    let (clients, keys) = (&files.live.clients, &files.live.keys);
    let [clients, keys] = [clients, keys].map(|path| path.to_str().unwrap());
    for arguments in [
        &["store", "migrate", "--node-role", node][..],
        &["store", "import", "--clients", clients, "--keys", keys],
    ] {
        let mut command = home.command(arguments);
        command.env("GRANTD_STORE_URL", cluster.url(Role::Owner));
        run(command.env("GRANTD_MASTER_KEY", MASTER_KEY)).assert_fine();
    }
    let mut config = files.clone();
    config.startup.state = directory.path().join("state-beside-the-store");
    config.startup.store.url = Some(StoreUrl::parse(&cluster.url(Role::Node)).unwrap());
    config.startup.store.master_key_file = Some(master_key);
    // No poll falls into a count.
    config.startup.store.poll_ms = 60_000;
    let with_store = allocations::of_tokens(&config);
    println!("allocations of a token with files: {with_files:?}, with a store: {with_store:?}");
    for (files, store) in with_files.into_iter().zip(with_store) {
        assert!(store < files + 0.5, "{store} allocations, and {files} with files");
    }
}
