//! Measures three servers that share a store in PostgreSQL, through faults and under load.
//!
//! Starts nginx, PostgreSQL clusters and the servers on this machine, which therefore share the
//! processor with the load. Two parts:
//!
//! - `faults`: secret grants and assertions at a fixed rate through nginx, while a server is killed
//!   and another one hangs, PostgreSQL is stopped, its primary is killed and the standby promoted,
//!   and the record of used assertions is emptied. Some assertions that were accepted are sent
//!   again, to whichever server nginx picks.
//! - `uses`: 2,000 assertions a second over three servers for two minutes: the time of each, the
//!   commits of PostgreSQL, and the size of the table of uses.
//!
//! `cargo bench --bench cluster` prints both, writes `docs/cluster-faults.csv` and
//! `docs/cluster-uses.csv`, a line for each second, and draws both as `docs/cluster.svg`. With
//! `--test`, and under `cargo test`, all is short, the files go into the target directory, and only
//! the answers are checked. Needs Linux, and the nginx and the PostgreSQL that `tests/run` installs.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failing bench may panic")]

use std::fs;
use std::path::PathBuf;

mod chart;
mod faults;
mod load;
mod seconds;
mod uses;

#[path = "../nodes/nodes.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
mod nodes;
#[path = "../nodes/presenter.rs"]
mod presenter;

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
mod common;

/// The clusters and servers that the tests start.
#[path = "../../tests/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use the rest of it")]
mod support;

/// How much is measured. All times are in seconds.
struct Plan {
    /// The secret grants in a second through the faults.
    grants: f64,
    /// The assertions in a second through the faults.
    assertions: f64,
    /// The time between two faults.
    calm: f64,
    /// The duration of a fault.
    fault: f64,
    /// The assertions in a second over three servers without faults.
    uses: f64,
    /// The duration of that load.
    uses_seconds: f64,
    /// The lifetime of these assertions.
    uses_lifetime: u64,
}

const MEASURE: Plan = Plan {
    grants: 300.0,
    assertions: 60.0,
    calm: 16.0,
    fault: 10.0,
    uses: 2000.0,
    uses_seconds: 120.0,
    uses_lifetime: 10,
};

const TEST: Plan = Plan {
    grants: 60.0,
    assertions: 20.0,
    calm: 1.0,
    fault: 1.0,
    uses: 60.0,
    uses_seconds: 3.0,
    uses_lifetime: 1,
};

fn main() {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let is_test = has("--test") || !has("--bench");
    let (plan, to) = if is_test {
        (TEST, PathBuf::from(env!("CARGO_TARGET_TMPDIR")))
    } else {
        (MEASURE, PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs"))
    };
    let faults = faults::measure(&plan);
    println!("{faults}");
    let uses = uses::measure(&plan);
    println!("{uses}");
    fs::write(to.join("cluster-faults.csv"), faults.csv()).unwrap();
    fs::write(to.join("cluster-uses.csv"), uses.csv()).unwrap();
    fs::write(to.join("cluster.svg"), chart::svg(&faults, &uses)).unwrap();
}
