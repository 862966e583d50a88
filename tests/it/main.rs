//! Tests of the server from outside. Most of them run the real binary and use real sockets. Tests
//! that move the clock run the library in their own process. All these tests need nothing but Rust;
//! tests that need other programs are in `tests/interop`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot continue panics on the spot"
)]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each of the two test programs uses a part of it")]
mod support;

mod admin;
mod apply;
mod assertion;
mod audit;
mod basic;
mod check;
mod cli;
mod cli_client;
mod cli_config;
mod cli_faults;
mod cli_import;
mod cli_key;
mod cli_output;
mod cli_token;
mod cli_update;
mod client_habits;
mod core_dump;
mod descriptors;
mod dialects;
mod dpop;
mod embed;
mod explain;
mod faults;
mod faulty_files;
mod file_access;
mod files;
mod firstvision;
mod framing;
mod in_force;
mod introspection;
mod key_leak;
mod key_life;
mod key_rotation;
mod layers;
mod limits;
mod lost_files;
mod metadata;
mod mtls;
mod multipart;
mod names;
mod not_http;
#[cfg(feature = "page")]
mod openapi;
#[cfg(feature = "page")]
mod page;
mod password_hashes;
mod properties;
mod rate_limit;
mod reload;
mod request_log;
mod reuse;
mod revocation;
mod secret_use;
mod secrets;
mod server_timing;
mod service_manager;
mod settings;
mod shared_state;
mod shortened_lifetimes;
mod shutdown;
mod state_files;
mod throttle;
mod token;
mod token_cases;
mod token_rules;
mod unix_socket;
mod validate;
mod vision;
mod waiting_files;
