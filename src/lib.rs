//! A small, very fast OAuth 2.0 token server: client credentials in, RS256 JWT out.
//!
//! # Layout
//!
//! Data goes down the floors and the answer comes straight back up; nothing below knows who is
//! above. `docs/architecture.md` draws it.
//!
//! * [`cli`]: the program's commands, one file each.
//! * [`server`]: the parts wired together; where embedding begins.
//! * [`http`]: sockets, limits, deadlines; (method, path) to a dialect or an endpoint.
//! * [`dialect`]: one file for each documented token service; reads and writes, decides nothing.
//! * [`endpoint`]: the story of one request, from values to values.
//! * [`issuer`], [`store`]: claims; where clients and keys are kept.
//! * [`oauth`], [`signing`]: the rules, pure; RSA signatures behind a queue.
//! * [`form`], [`jose`], [`config`], [`fault`], [`clock`], [`random`], [`tally`],
//!   [`telemetry`]: the ground.

pub mod cli;
pub mod clock;
pub mod config;
pub mod dialect;
pub mod endpoint;
pub mod fault;
pub mod form;
pub mod http;
pub mod issuer;
pub mod jose;
pub mod oauth;
pub mod random;
pub mod server;
pub mod signing;
pub mod store;
pub mod tally;
pub mod telemetry;
