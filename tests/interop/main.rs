//! The server beside other people's programs: proxies, clients, load testers, Prometheus, systemd and a
//! Debian of its own. `tests/run` installs them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop where it is"
)]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the two programs of tests need a part of it each")]
mod support;

mod clients;
mod deploy;
mod load;
mod night;
#[cfg(feature = "opentelemetry")]
mod opentelemetry;
mod readme;
