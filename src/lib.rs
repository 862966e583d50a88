//! A small, very fast OAuth 2.0 token server: it issues RS256 JWTs for client credentials.
//!
//! The program `grantd` is this library with a command line. To embed the server, pass a
//! configuration and a listening socket to [`server::run`]. A [`server::Server`] can also issue
//! tokens without a socket (`examples/embed.rs` shows both ways). The library installs nothing
//! global: no subscriber, recorder, panic hook or signal handler.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = std::env::temp_dir().join(format!("grantd-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory)?;
//! # std::fs::copy("clients.json", directory.join("clients.json"))?;
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! use grantd::config::Config;
//! use tokio::net::TcpListener;
//! use tokio::sync::oneshot;
//!
//! let mut config = Config::default();
//! config.live.clients = directory.join("clients.json");
//! config.live.keys = directory.join("keys");
//! config.startup.state = directory.join("state");
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let (stop, stopped) = oneshot::channel::<()>();
//! let server = tokio::spawn(grantd::server::run(config, listener, async {
//!     let _ = stopped.await;
//! }));
//! // … POST /connect/token …
//! stop.send(()).ok();
//! server.await??;
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })
//! # }
//! ```

#![cfg_attr(
    not(all(feature = "cli", feature = "postgres")),
    allow(
        dead_code,
        unused_imports,
        unused_mut,
        unused_variables,
        reason = "the command line and the store use the rest"
    )
)]

pub mod clock;
pub mod config;
pub mod random;
pub mod server;

mod cache;
#[cfg(feature = "cli")]
mod cli;
mod dialect;
mod endpoint;
mod fault;
mod form;
mod fs;
mod guard;
mod http;
mod issuer;
mod jose;
mod keys;
mod oauth;
#[cfg_attr(not(feature = "page"), path = "page/off.rs")]
mod page;
mod registry;
mod signing;
mod snapshot;
mod state;
#[cfg(feature = "postgres")]
mod store;
mod tally;
mod telemetry;
mod time;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub use crate::cli::run as run_program;

/// The modules that this package's own benches and tests use. Any release may change these modules.
#[cfg(feature = "internal")]
#[doc(hidden)]
pub mod internal {
    /// Makes private modules of the crate public, because `pub use` cannot.
    macro_rules! public {
        ($($module:ident)*) => {
            $(pub mod $module {
                pub use crate::$module::*;
            })*
        };
    }

    public! { form guard issuer jose keys oauth registry signing snapshot state telemetry time }
    #[cfg(feature = "page")]
    pub mod page {
        pub use crate::page::openapi::is_known;
    }
}
