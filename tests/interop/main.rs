//! Tests of the server together with other programs, which `tests/run` installs: proxies, clients,
//! databases, load generators, Prometheus, systemd and a chroot of Debian 12.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot continue panics on the spot"
)]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each of the two test programs uses a part of it")]
mod support;

mod clients;
mod cluster;
mod dependencies;
mod deploy;
mod kubernetes;
mod load;
mod one_token;
#[cfg(feature = "page")]
mod openapi;

#[cfg(feature = "opentelemetry")]
mod opentelemetry;
#[cfg(feature = "page")]
mod page;
mod postgres;
mod readme;
mod recipes;
mod under_load;
