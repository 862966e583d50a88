//! The configuration of a server.
//!
//! Each setting is one field. A setting that a reload may change is a field of [`Live`]. A setting
//! that needs a restart is a field of [`Startup`]. The field defines the default and the range of
//! the setting. The name of the field defines the names of the setting in the configuration file,
//! in the environment and in faults. A test compares the fields with the table in
//! `docs/settings.md`.

mod address;
mod layer;
mod limits;
mod number;
mod page;
mod proxy;
mod route;
mod scalar;
mod settings;
mod store;
mod value;

pub use crate::config::address::{ConfigError, IssuerUrl, ListenAddr, SocketMode};
pub use crate::config::layer::{Layer, setting_names};
pub use crate::config::limits::{FailureLimits, LiveLimits, StartupLimits};
pub use crate::config::page::{Page, PageDocument, PageSwitch};
pub use crate::config::proxy::{ClientCertificates, TrustedProxy};
pub use crate::config::route::{Dialect, RouteSetting, TAKEN_PATHS};
pub use crate::config::settings::{
    AssertionAudience, Config, Live, Log, LogFormat, LogLevel, SignerChoice, Startup,
};
pub use crate::config::store::{StoreHost, StoreSettings, StoreUrl};
pub(crate) use crate::config::value::{nearest, parse_switch};

#[cfg(test)]
mod tests;
