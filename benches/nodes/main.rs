//! Measures servers that share a store in PostgreSQL.
//!
//! Starts PostgreSQL clusters and a PgBouncer of its own on this machine, which therefore share the
//! processor with the servers. Prints, in this order:
//!
//! - the time from a change (a client added, a secret rotated, a token revoked on one of three
//!   servers, a client disabled) until it is in force on all three: directly, beside a transaction
//!   that has written and stays open, and through PgBouncer in transaction mode;
//! - with many clients in the database, the time of a server's start, its memory, the cost of one
//!   change, the time of an import in one transaction until it is in force, and the waits for
//!   grants at a fixed rate without it and beside it;
//! - the grants of a server over PostgreSQL against those of a server over files, in pairs;
//! - what three servers under load answer while the database is away, and when all is well again.
//!
//! `cargo bench --bench nodes -- 200000` has that number of clients in the database instead of a
//! million; `-- changes`, `many`, `files` or `away` measures only that part. With `--test`, and under `cargo test`, all is small, and only the answers are checked.
//! Needs Linux, two cores, `wrk`, `taskset`, and the PostgreSQL and the PgBouncer that `tests/run`
//! installs.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failing bench may panic")]

use std::process::ExitCode;

use common::cores;

mod against_files;
mod away;
mod changes;
mod grants;
mod many;
mod nodes;
mod presenter;

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
mod common;

/// The clusters and servers that the tests start.
#[path = "../../tests/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use the rest of it")]
mod support;

/// How much is measured.
struct Plan {
    /// The number of changes for each way to the database.
    changes: usize,
    /// The number of clients in the database.
    clients: usize,
    /// The number of changes in one transaction.
    imported: usize,
    /// The duration of the load without the import, and the shortest beside it, in seconds.
    beside_seconds: f64,
    /// The number of pairs of a server over PostgreSQL and a server over files.
    pairs: usize,
    /// The duration of each load of a pair, in seconds.
    pair_seconds: u64,
    /// The time for which the database is away, in seconds.
    away_seconds: f64,
}

const MEASURE: Plan = Plan {
    changes: 200,
    clients: 1_000_000,
    imported: 100_000,
    beside_seconds: 15.0,
    pairs: 15,
    pair_seconds: 1,
    away_seconds: 30.0,
};

const TEST: Plan = Plan {
    changes: 8,
    clients: 2000,
    imported: 200,
    beside_seconds: 1.0,
    pairs: 1,
    pair_seconds: 1,
    away_seconds: 1.0,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let missing = cores::missing(&[("wrk", "wrk"), ("taskset", "util-linux")]);
    if !missing.is_empty() {
        eprintln!("nodes: something is missing: apt-get install {}", missing.join(" "));
        return ExitCode::FAILURE;
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let plan = if has("--bench") && !has("--test") {
        let clients = arguments.iter().find_map(|argument| argument.parse().ok());
        Plan { clients: clients.unwrap_or(MEASURE.clients), ..MEASURE }
    } else {
        TEST
    };
    let parts: [(&str, &dyn Fn()); 4] = [
        ("changes", &|| changes::measure(plan.changes)),
        ("many", &|| many::measure(&plan)),
        ("files", &|| against_files::measure(plan.pairs, plan.pair_seconds)),
        ("away", &|| away::measure(plan.away_seconds)),
    ];
    let is_named = parts.iter().any(|(name, _)| has(name));
    for (name, measure) in parts {
        if !is_named || has(name) {
            measure();
        }
    }
    ExitCode::SUCCESS
}
