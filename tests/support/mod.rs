//! Shared by all tests: servers, a client that sends exact bytes, forms, and token verification.

pub(crate) mod canary;
#[cfg(feature = "opentelemetry")]
pub(crate) mod collector;
pub(crate) mod command;
pub(crate) mod form;
pub(crate) mod home;
pub(crate) mod http;
pub(crate) mod library;
pub(crate) mod nginx;
pub(crate) mod ports;
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod registry;
pub(crate) mod sibling;
pub(crate) mod signer;
pub(crate) mod status;
pub(crate) mod token;

pub(crate) use form::{ENCODINGS, Encoding};
pub(crate) use home::Home;
pub(crate) use http::{Connection, Request, Response};
pub(crate) use library::Library;
pub(crate) use program::Program;
pub(crate) use signer::Signer;
pub(crate) use token::Token;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grantd::clock::Clock;

/// The time limit of every wait. A test that waits longer fails instead of hanging. A successful
/// wait is much shorter.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

/// Waits until `is_so` returns true, for [`GUARD`] at most.
#[track_caller]
pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool) {
    let begin = Clock::system().instant();
    while !is_so() {
        assert!(begin.elapsed() < GUARD, "it has not come to that");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sets its value when dropped, even by a panic, so that the threads of a load end.
pub(crate) struct StopOnDrop<'l>(pub(crate) &'l AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The parameters of the shipped registry's demo client.
pub(crate) const DEMO: [(&str, &str); 3] = [
    ("client_id", "demo-client"),
    ("client_secret", "demo-secret-for-local-use-only-0001"),
    ("grant_type", "client_credentials"),
];

pub(crate) const TOKEN: &str = "/connect/token";

/// The demo client's parameters, followed by these.
pub(crate) fn demo_with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    DEMO.iter().chain(more).copied().collect()
}

/// The demo client's parameters, except those whose names are in `names`.
pub(crate) fn demo_without(names: &[&str]) -> Vec<(&'static str, &'static str)> {
    DEMO.into_iter().filter(|(name, _)| !names.contains(name)).collect()
}

/// The parameters of a client of [`registry::registry`].
pub(crate) fn request_of<'a>(
    client: &'a str,
    secret: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let own =
        [("client_id", client), ("client_secret", secret), ("grant_type", "client_credentials")];
    own.iter().chain(more).copied().collect()
}
