//! The settings, by whether a reload may change them.

use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::address::{IssuerUrl, ListenAddr, SocketMode};
use crate::config::limits::{FailureLimits, LiveLimits, StartupLimits};
use crate::config::number::{LONG, MAX_WORKERS, cores, duration_or_off, number};
use crate::config::page::Page;
use crate::config::proxy::{ClientCertificates, TrustedProxy};
use crate::config::route::{self, RouteSetting};
use crate::config::store::StoreSettings;

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
    /// The settings of the store in PostgreSQL.
    pub store: StoreSettings,
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
            store: StoreSettings::default(),
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
    /// The time, in seconds, for which a signing key signs before the next one does. `None`: keys
    /// are rotated by hand.
    #[serde(rename = "keys.rotate_every", deserialize_with = "duration_or_off")]
    pub rotate_every: Option<u64>,
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
    /// The page for developers who use the server.
    pub page: Page,
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
            rotate_every: None,
            admin_token_file: None,
            issuer: None,
            allow_demo_clients: false,
            jwks_max_age: 300,
            trusted_proxies: Vec::new(),
            client_certificate: ClientCertificates::default(),
            dpop_nonce: false,
            assertion_audience: AssertionAudience::default(),
            page: Page::default(),
            routes: Vec::new(),
            shutdown_delay_seconds: 0,
            failures: FailureLimits::default(),
            limits: LiveLimits::default(),
        }
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

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ListenAddr>, D::Error> {
    let addresses = Vec::deserialize(deserializer)?;
    if addresses.is_empty() {
        return Err(D::Error::custom("name at least one address to listen on"));
    }
    Ok(addresses)
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
