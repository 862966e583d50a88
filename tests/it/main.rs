//! The server as its clients and operators meet it: the real binary over real sockets, and the
//! library in process wherever a test has to move the clock. Nothing but Rust is needed; what needs
//! other programs stands in `tests/interop`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop where it is"
)]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the two programs of tests need a part of it each")]
mod support;

mod admin;
mod assertion;
mod audit;
mod basic;
mod check;
mod cli;
mod cli_client;
mod cli_config;
mod cli_key;
mod cli_output;
mod cli_token;
mod cli_update;
mod client_habits;
mod dialects;
mod dpop;
mod explain;
mod faults;
mod file_access;
mod files;
mod firstvision;
mod framing;
mod in_force;
mod introspection;
mod key_leak;
mod key_life;
mod layers;
mod limits;
mod metadata;
mod mtls;
mod multipart;
mod names;
mod not_http;
mod password_hashes;
mod properties;
mod reload;
mod request_log;
mod reuse;
mod revocation;
mod secret_use;
mod secrets;
mod server_timing;
mod service_manager;
mod settings;
mod shutdown;
mod throttle;
mod token;
mod token_cases;
mod token_rules;
mod unix_socket;
mod validate;
mod vision;
mod waiting_files;
