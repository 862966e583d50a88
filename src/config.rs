//! The configuration of a server.
//!
//! A setting is one field, with its default and the numbers that it may be: of [`Startup`] if it needs a
//! restart, of [`Live`] if a reload may change it. Its place in the file, its variable and its name in
//! faults follow from the field; its row in `docs/settings.md` is held against it by a test.

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

/// Everything that a server needs to know before it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What a running server cannot change.
    pub startup: Startup,
    /// What a running server takes over when it reads the configuration again.
    pub live: Live,
}

/// Settings that need a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Startup {
    /// The addresses of the public listeners.
    #[serde(deserialize_with = "addresses")]
    pub listen: Vec<ListenAddr>,
    /// The address of the admin listener: health and metrics.
    pub admin_listen: ListenAddr,
    /// The mode of the Unix sockets among these.
    pub socket_mode: SocketMode,
    /// The directory of what must outlive a restart.
    pub state: PathBuf,
    /// Event loops, each with its own connections, and as many signing threads.
    #[serde(deserialize_with = "number::<_, _, 1, MAX_WORKERS>")]
    pub workers: usize,
    /// The implementation of RSA.
    pub signer: SignerChoice,
    /// The file of what was issued, refused and changed; `None`: no audit.
    pub audit: Option<PathBuf>,
    /// How to log.
    pub log: Log,
    /// Sizes and times that are fixed at the start.
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
pub struct Live {
    /// The client registry.
    pub clients: PathBuf,
    /// The directory of signing keys.
    pub keys: PathBuf,
    /// The file with the token by which other machines may ask the admin listener; `None`: they may
    /// not.
    pub admin_token_file: Option<PathBuf>,
    /// The issuer's URL; `None`: made from the first TCP address.
    pub issuer: Option<IssuerUrl>,
    /// Serve the demo clients even where other machines can reach them.
    pub allow_demo_clients: bool,
    /// How long a fetched key set may be used, in seconds.
    #[serde(deserialize_with = "number::<_, _, 1, 86_400>")]
    pub jwks_max_age: u64,
    /// The proxies that are believed about a client's address.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// The proxies that are believed about a client's certificate, and their headers.
    pub client_certificate: ClientCertificates,
    /// Whether a DPoP proof must have a nonce of this server (RFC 9449, section 8).
    pub dpop_nonce: bool,
    /// What the assertions of clients may name as their audience.
    pub assertion_audience: AssertionAudience,
    /// Token routes beside the documented ones.
    #[serde(rename = "route")]
    pub routes: Vec<RouteSetting>,
    /// Seconds from the end signal in which requests are still accepted, while `/readyz` says 503.
    #[serde(deserialize_with = "number::<_, _, 0, LONG>")]
    pub shutdown_delay_seconds: u64,
    /// How often authentication may fail.
    pub failures: FailureLimits,
    /// Sizes and times of a request.
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

impl Config {
    /// Takes over the startup settings from `running`, and names those that are different here.
    pub fn hold_back(&mut self, running: &Self) -> Vec<String> {
        let held_back = layer::differences(&self.startup, &running.startup);
        self.startup.clone_from(&running.startup);
        held_back
    }

    /// Whether the demo secrets, which are public, may be used: if only this machine can reach the
    /// server, directly and not through a proxy, or if the operator allows it.
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
    /// The proxies that are believed about client certificates.
    pub fn certificate_proxies(&self) -> impl Iterator<Item = TrustedProxy> {
        let named = self.client_certificate.proxies.as_deref();
        let proxies = named.unwrap_or(&self.trusted_proxies).iter().copied();
        proxies.filter(move |proxy| named.is_some() || proxy.is_single())
    }

    /// Whether a network is trusted and yet not believed about certificates, because
    /// [`ClientCertificates::proxies`] is not set.
    pub fn leaves_out_a_network(&self) -> bool {
        self.client_certificate.proxies.is_none()
            && self.trusted_proxies.iter().any(|proxy| !proxy.is_single())
    }

    /// The first fault of the operator's own routes.
    pub fn route_problem(&self) -> Option<String> {
        let (index, problem) = route::problem(&self.routes)?;
        Some(format!("route: {}: {problem}", self.routes[index].path))
    }
}

/// A number from `MIN` to `MAX`.
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
        // Below zero is below every `MIN`, or above every `MAX`.
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

/// The most threads of one kind.
const MAX_WORKERS: u64 = 1024;
/// A gibibyte, or a thousand million: more is no limit.
const MANY: u64 = 1 << 30;
/// A year.
const LONG: u64 = 31_536_000;

/// The documented token services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

/// What a client's assertion (RFC 7523) may name as its one audience.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssertionAudience {
    /// The issuer, or the URL of the endpoint that was called or of the token endpoint; a string, or
    /// an array of one.
    #[default]
    Endpoint,
    /// The issuer as a string (RFC 7523bis, FAPI 2.0).
    Issuer,
}

/// The implementation of RSA that signs tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignerChoice {
    /// The fastest on this machine: batches where many tokens wait, and the quicker of ring and aws-lc
    /// for single signatures.
    #[default]
    Auto,
    /// As `auto`, and no start without batches.
    Batch,
    /// ring, on every CPU: the reference.
    Ring,
    /// aws-lc, which is quicker on most.
    AwsLc,
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How to log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// The format of lines.
    pub format: LogFormat,
    /// The lowest level that is written.
    pub level: LogLevel,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// `human` on a terminal, `json` elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people to read.
    Human,
}

/// The lowest level of a line that is written. Each request is one line of `info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Failures of the server.
    Error,
    /// What needs attention.
    Warn,
    /// Every request, start, stop.
    #[default]
    Info,
    /// Connections too.
    Debug,
}

#[cfg(test)]
mod tests;
