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
mod proxy;
mod route;
mod value;

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use crate::config::address::{ConfigError, IssuerUrl, ListenAddr, SocketMode};
pub use crate::config::layer::{Layer, setting_names};
pub use crate::config::limits::{FailureLimits, LiveLimits, StartupLimits};
pub use crate::config::proxy::{ClientCertificates, TrustedProxy};
pub use crate::config::route::{RouteSetting, TAKEN_PATHS};
pub(crate) use crate::config::value::{nearest, parse_switch};

/// The complete configuration of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The settings that a running server cannot change.
    pub startup: Startup,
    /// The settings that a running server changes when it reads the configuration again.
    pub live: Live,
}

/// Settings that need a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Startup {
    /// The addresses of the public listeners.
    #[serde(deserialize_with = "addresses")]
    pub listen: Vec<ListenAddr>,
    /// The address of the admin listener, which serves health and metrics.
    pub admin_listen: ListenAddr,
    /// The file mode of the Unix sockets in `listen` and `admin_listen`.
    pub socket_mode: SocketMode,
    /// The directory for data that must survive a restart, such as revocations.
    pub state: PathBuf,
    /// The number of event loops, each of which has connections of its own. The server has the same
    /// number of signing threads.
    #[serde(deserialize_with = "number::<_, _, 1, MAX_WORKERS>")]
    pub workers: usize,
    /// The implementation of RSA that signs tokens.
    pub signer: SignerChoice,
    /// The audit file. In this file, the server records each token that it issues, refuses or
    /// revokes, and each change of the configuration. `None`: the server writes no audit file.
    pub audit: Option<PathBuf>,
    /// The settings of the log.
    pub log: Log,
    /// The limits that need a restart.
    pub limits: StartupLimits,
}

impl Default for Startup {
    fn default() -> Self {
        Self {
            listen: vec![ListenAddr::Tcp("127.0.0.1:8080".to_owned())],
            admin_listen: ListenAddr::Tcp("127.0.0.1:8081".to_owned()),
            socket_mode: SocketMode::default(),
            state: "state".into(),
            workers: cores(),
            signer: SignerChoice::default(),
            audit: None,
            log: Log::default(),
            limits: StartupLimits::default(),
        }
    }
}

/// Settings that a reload may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Live {
    /// The file of the client registry.
    pub clients: PathBuf,
    /// The directory of signing keys.
    pub keys: PathBuf,
    /// The file that contains the admin token. Other machines need this token to use the admin
    /// listener. `None`: other machines may use only `/livez` and `/readyz`.
    pub admin_token_file: Option<PathBuf>,
    /// The issuer's URL. `None`: the issuer's URL is `http://`, followed by the first TCP address.
    pub issuer: Option<IssuerUrl>,
    /// Whether the demo clients, whose secrets are public, are served even if other machines can
    /// reach the server.
    pub allow_demo_clients: bool,
    /// The time, in seconds, for which a fetched key set may be cached.
    #[serde(deserialize_with = "number::<_, _, 1, 86_400>")]
    pub jwks_max_age: u64,
    /// The proxies that are trusted to forward a client's address.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// The proxies that are trusted to forward a client's certificate, and the headers that they
    /// use.
    pub client_certificate: ClientCertificates,
    /// Whether a DPoP proof must contain a nonce of this server (RFC 9449, section 8).
    pub dpop_nonce: bool,
    /// The audiences that are accepted in client assertions.
    pub assertion_audience: AssertionAudience,
    /// Token routes in addition to the documented ones.
    #[serde(rename = "route")]
    pub routes: Vec<RouteSetting>,
    /// The time, in seconds, for which the program still accepts requests after SIGTERM or SIGINT.
    /// During this time, `/readyz` answers 503.
    #[serde(deserialize_with = "number::<_, _, 0, LONG>")]
    pub shutdown_delay_seconds: u64,
    /// The budgets for failed authentication attempts.
    pub failures: FailureLimits,
    /// The limits that a reload may change.
    pub limits: LiveLimits,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            clients: "clients.json".into(),
            keys: "keys".into(),
            admin_token_file: None,
            issuer: None,
            allow_demo_clients: false,
            jwks_max_age: 300,
            trusted_proxies: Vec::new(),
            client_certificate: ClientCertificates::default(),
            dpop_nonce: false,
            assertion_audience: AssertionAudience::default(),
            routes: Vec::new(),
            shutdown_delay_seconds: 0,
            failures: FailureLimits::default(),
            limits: LiveLimits::default(),
        }
    }
}

impl Startup {
    /// Returns the names of the settings that differ from those of the server that is `running`. A
    /// change of them takes effect only after a restart.
    pub fn differences(&self, running: &Self) -> Vec<String> {
        layer::differences(self, running)
    }
}

impl Config {
    /// Whether clients may use the demo secrets, which are public. Returns true if the operator has
    /// set [`Live::allow_demo_clients`], or if no proxy is trusted and only this machine can reach
    /// the server.
    pub fn allows_demo_secrets(&self) -> bool {
        self.live.allow_demo_clients || self.is_local()
    }

    fn is_local(&self) -> bool {
        let Live { trusted_proxies, issuer, .. } = &self.live;
        trusted_proxies.is_empty()
            && self.live.certificate_proxies().next().is_none()
            && self.startup.listen.iter().all(ListenAddr::is_local)
            && issuer.as_ref().is_none_or(IssuerUrl::is_local)
    }
}

impl Live {
    /// Returns the proxies that are trusted to forward client certificates. If
    /// [`ClientCertificates::proxies`] is set, it lists these proxies. Otherwise, they are the
    /// entries of [`Live::trusted_proxies`] that are a single address or `unix`.
    pub fn certificate_proxies(&self) -> impl Iterator<Item = TrustedProxy> {
        let named = self.client_certificate.proxies.as_deref();
        let proxies = named.unwrap_or(&self.trusted_proxies).iter().copied();
        proxies.filter(move |proxy| named.is_some() || proxy.is_single())
    }

    /// Whether [`ClientCertificates::proxies`] is not set and [`Live::trusted_proxies`] contains a
    /// network. The hosts of this network are trusted to forward addresses, but not certificates.
    pub fn leaves_out_a_network(&self) -> bool {
        self.client_certificate.proxies.is_none()
            && self.trusted_proxies.iter().any(|proxy| !proxy.is_single())
    }

    /// Returns the faults of the configured routes.
    pub fn route_problems(&self) -> impl Iterator<Item = String> {
        let problems = route::problems(&self.routes);
        problems.map(|(index, problem)| format!("route: {}: {problem}", self.routes[index].path))
    }
}

/// Deserializes a number from `MIN` to `MAX`.
fn number<'de, D, T, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    deserializer.deserialize_u64(Number::<T, MIN, MAX>(PhantomData))
}

struct Number<T, const MIN: u64, const MAX: u64>(PhantomData<T>);

impl<T: TryFrom<u64>, const MIN: u64, const MAX: u64> Visitor<'_> for Number<T, MIN, MAX> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number from {MIN} to {MAX}")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        let number = Some(number).filter(|number| (MIN..=MAX).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| E::custom(format_args!("must be a number from {MIN} to {MAX}")))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        // Refuse a negative number: pass on `u64::MAX`, which is above every `MAX`.
        self.visit_u64(u64::try_from(number).unwrap_or(u64::MAX))
    }
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ListenAddr>, D::Error> {
    let addresses = Vec::deserialize(deserializer)?;
    if addresses.is_empty() {
        return Err(D::Error::custom("name at least one address to listen on"));
    }
    Ok(addresses)
}

/// The greatest value of the settings `workers` and `limits.password_threads`.
const MAX_WORKERS: u64 = 1024;
/// The greatest value of most settings that are sizes (1 GiB) or counts (about a thousand million).
/// A larger value would have no effect as a limit.
const MANY: u64 = 1 << 30;
/// The greatest value of most settings that are times: a year, in seconds.
const LONG: u64 = 31_536_000;

/// A kind of token service. The comment on each variant shows the method and the path of the
/// service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Dialect {
    /// `POST /connect/token`
    Connect,
    /// `POST /v1/api/oauth/token`
    Vision,
    /// `GET /v1/getAccessToken`
    Firstvision,
}

impl FromStr for Dialect {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "connect" => Ok(Self::Connect),
            "vision" => Ok(Self::Vision),
            "firstvision" => Ok(Self::Firstvision),
            _ => Err(ConfigError::new("a dialect is connect, vision or firstvision")),
        }
    }
}

/// The values that are accepted as the single audience of a client assertion (RFC 7523).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AssertionAudience {
    /// The issuer, the URL of the called endpoint, or the URL of the token endpoint: as a string,
    /// or as an array of one string.
    #[default]
    Endpoint,
    /// Only the issuer, as a string (RFC 7523bis, FAPI 2.0).
    Issuer,
}

/// The implementation of RSA that signs tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SignerChoice {
    /// The fastest implementation on this machine. Single signatures are computed by the faster of
    /// ring and aws-lc. While many tokens wait, the batch signer computes their signatures, if the
    /// processor and the keys support it.
    #[default]
    Auto,
    /// Like `auto`, but the server does not start if the processor or a key does not support the
    /// batch signer.
    Batch,
    /// ring, the reference implementation. It runs on every processor.
    Ring,
    /// aws-lc, which is faster than ring on most processors.
    AwsLc,
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The settings of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Log {
    /// The format of log lines.
    pub format: LogFormat,
    /// The least severe level that is logged.
    pub level: LogLevel,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LogFormat {
    /// `human` on a terminal, `json` elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// Text for people to read.
    Human,
}

/// The least severe level that is logged. Each request is logged as one line at `info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LogLevel {
    /// Failures of the server.
    Error,
    /// Conditions that need attention.
    Warn,
    /// Every request, and the start and the stop of the server.
    #[default]
    Info,
    /// Everything that `Info` logs, and events of single connections.
    Debug,
}

#[cfg(test)]
mod tests;
