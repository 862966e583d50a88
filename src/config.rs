//! What the server is told: from flags, environment, a TOML file and defaults, resolved once.

mod address;
mod limits;
mod place;
mod proxy;
mod route;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

pub use crate::config::address::{ConfigError, IssuerUrl, ListenAddr, SocketMode};
pub use crate::config::limits::{FailureLimits, Limits};
use crate::config::place::field_at;
pub use crate::config::proxy::{ClientCertificates, TrustedProxy};
pub use crate::config::route::{RouteSetting, TAKEN_PATHS};
use crate::fault::{Fault, Position, text};

/// Everything that `serve` needs, resolved: nothing optional is left but what may truly be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where requests are answered.
    pub listen: Vec<ListenAddr>,
    /// Where operators ask: health and metrics.
    pub admin_listen: ListenAddr,
    /// Who may connect to the Unix sockets among these.
    pub socket_mode: SocketMode,
    /// The file with the token by which other machines ask there; `None`: they may not.
    pub admin_token_file: Option<PathBuf>,
    /// The client registry.
    pub clients: PathBuf,
    /// The directory of signing keys.
    pub keys: PathBuf,
    /// The directory of what the server itself has to remember.
    pub state: PathBuf,
    /// The issuer's URL; `None`: made from the address it listens on.
    pub issuer: Option<IssuerUrl>,
    /// Event loops, each with its own connections, and signing threads beside them.
    pub workers: usize,
    /// What signs.
    pub signer: SignerChoice,
    /// Serve the demo clients even where others can reach them.
    pub allow_demo_clients: bool,
    /// How long a fetched key set may be used, in seconds.
    pub jwks_max_age: u64,
    /// The proxies that are believed about a client's address.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Who may state a client's certificate, and how.
    pub client_certificate: ClientCertificates,
    /// Whether a proof of possession must have a nonce of this server (RFC 9449, section 8).
    pub dpop_nonce: bool,
    /// What the assertions of clients may name as their audience.
    pub assertion_audience: AssertionAudience,
    /// Token routes beside the documented ones.
    pub routes: Vec<RouteSetting>,
    /// What one client may cost.
    pub limits: Limits,
    /// How often authentication may fail.
    pub failures: FailureLimits,
    /// Where to write down what was issued, refused and changed; `None`: nowhere.
    pub audit: Option<PathBuf>,
    /// How to log.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![ListenAddr::Tcp("127.0.0.1:8080".to_owned())],
            admin_listen: ListenAddr::Tcp("127.0.0.1:8081".to_owned()),
            socket_mode: SocketMode::default(),
            admin_token_file: None,
            clients: "clients.json".into(),
            keys: "keys".into(),
            state: "state".into(),
            issuer: None,
            workers: cores(),
            signer: SignerChoice::Auto,
            allow_demo_clients: false,
            jwks_max_age: 300,
            trusted_proxies: Vec::new(),
            client_certificate: ClientCertificates::default(),
            dpop_nonce: false,
            assertion_audience: AssertionAudience::default(),
            routes: Vec::new(),
            limits: Limits::default(),
            failures: FailureLimits::default(),
            audit: None,
            log: Log::default(),
        }
    }
}

impl Config {
    /// Takes over from `running` what a process cannot change while it runs, and names those of them
    /// that are different here.
    pub fn hold_back(&mut self, running: &Self) -> Vec<&'static str> {
        let mut held_back = Vec::new();
        macro_rules! hold_back {
            ($($setting:ident $(. $part:ident)?),*) => {$(
                if self.$setting$(.$part)? != running.$setting$(.$part)? {
                    self.$setting$(.$part)?.clone_from(&running.$setting$(.$part)?);
                    held_back.push(concat!(stringify!($setting) $(, ".", stringify!($part))?));
                }
            )*};
        }
        hold_back!(
            listen,
            admin_listen,
            socket_mode,
            state,
            workers,
            signer,
            audit,
            log,
            limits.header_bytes,
            limits.header_seconds,
            limits.write_stall_seconds,
            limits.idle_seconds,
            limits.connections,
            limits.signing_queue,
            limits.password_queue,
            limits.password_threads,
            limits.revocations,
            limits.replay_entries,
            limits.failure_entries,
            limits.drain_seconds
        );
        held_back
    }

    /// The proxies that are believed about client certificates.
    pub fn certificate_proxies(&self) -> impl Iterator<Item = TrustedProxy> {
        let named = self.client_certificate.proxies.as_deref();
        let proxies = named.unwrap_or(&self.trusted_proxies).iter().copied();
        proxies.filter(move |proxy| named.is_some() || proxy.is_single())
    }

    /// Whether a network is trusted that certificates are not taken from, for want of
    /// [`ClientCertificates::proxies`].
    pub fn leaves_out_a_network(&self) -> bool {
        self.client_certificate.proxies.is_none()
            && self.trusted_proxies.iter().any(|proxy| !proxy.is_single())
    }

    /// The faults of the operator's own routes.
    pub fn route_problem(&self) -> Option<String> {
        let (index, problem) = route::problem(&self.routes)?;
        Some(format!("route: {}: {problem}", self.routes[index].path))
    }

    /// Whether the demo secrets, which are public, may be used: if only this machine can reach the
    /// server and is sent to it, not through a proxy either, or if the operator says so.
    pub fn allows_demo_secrets(&self) -> bool {
        self.allow_demo_clients || self.is_local()
    }

    fn is_local(&self) -> bool {
        self.trusted_proxies.is_empty()
            && self.certificate_proxies().next().is_none()
            && self.listen.iter().all(ListenAddr::is_local)
            && self.issuer.as_ref().is_none_or(IssuerUrl::is_local)
    }
}

/// The same settings as they stand in a file or come from the command line: each may be missing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// See [`Config::listen`].
    #[serde(default, deserialize_with = "addresses")]
    pub listen: Option<Vec<ListenAddr>>,
    /// See [`Config::admin_listen`].
    pub admin_listen: Option<ListenAddr>,
    /// See [`Config::socket_mode`].
    pub socket_mode: Option<SocketMode>,
    /// See [`Config::admin_token_file`].
    pub admin_token_file: Option<PathBuf>,
    /// See [`Config::clients`].
    pub clients: Option<PathBuf>,
    /// See [`Config::keys`].
    pub keys: Option<PathBuf>,
    /// See [`Config::state`].
    pub state: Option<PathBuf>,
    /// See [`Config::issuer`].
    pub issuer: Option<IssuerUrl>,
    /// See [`Config::workers`].
    #[serde(default, deserialize_with = "some_number::<_, _, 1, MAX_WORKERS>")]
    pub workers: Option<usize>,
    /// See [`Config::signer`].
    pub signer: Option<SignerChoice>,
    /// See [`Config::allow_demo_clients`].
    pub allow_demo_clients: Option<bool>,
    /// See [`Config::jwks_max_age`].
    #[serde(default, deserialize_with = "some_number::<_, _, 1, 86_400>")]
    pub jwks_max_age: Option<u64>,
    /// See [`Config::trusted_proxies`].
    pub trusted_proxies: Option<Vec<TrustedProxy>>,
    /// See [`Config::client_certificate`].
    pub client_certificate: Option<ClientCertificates>,
    /// See [`Config::dpop_nonce`].
    pub dpop_nonce: Option<bool>,
    /// See [`Config::assertion_audience`].
    pub assertion_audience: Option<AssertionAudience>,
    /// See [`Config::routes`]; in the file, each is a `[[route]]`.
    #[serde(default, rename = "route")]
    pub routes: Vec<RouteSetting>,
    /// See [`Config::limits`].
    pub limits: Option<Limits>,
    /// See [`Config::failures`].
    pub failures: Option<FailureLimits>,
    /// See [`Config::audit`].
    pub audit: Option<PathBuf>,
    /// See [`Config::log`].
    pub log: Option<Log>,
}

impl Settings {
    /// Reads a TOML file.
    ///
    /// # Errors
    ///
    /// The [`Fault`], with its line.
    pub fn read(file: &Path) -> Result<Self, Fault> {
        let text = text::read(file)?;
        let fault = |problem: String, place: Option<usize>| {
            let fault = Fault::new(file, problem);
            let Some(place) = place else { return fault };
            let fault = fault.at(Position::of(&text, place));
            match field_at(&text, place) {
                Some(field) => fault.in_field(field),
                None => fault,
            }
        };
        let settings: Self = toml::from_str(&text).map_err(|error| {
            fault(error.message().to_owned(), error.span().map(|span| span.start))
        })?;
        match route::problem(&settings.routes) {
            Some((index, problem)) => Err(fault(problem, place::of_route(&text, index))),
            None => Ok(settings),
        }
    }

    /// These settings, and `others` where these have nothing to say.
    pub fn or(self, others: Self) -> Self {
        Self {
            listen: self.listen.or(others.listen),
            admin_listen: self.admin_listen.or(others.admin_listen),
            socket_mode: self.socket_mode.or(others.socket_mode),
            admin_token_file: self.admin_token_file.or(others.admin_token_file),
            clients: self.clients.or(others.clients),
            keys: self.keys.or(others.keys),
            state: self.state.or(others.state),
            issuer: self.issuer.or(others.issuer),
            workers: self.workers.or(others.workers),
            signer: self.signer.or(others.signer),
            allow_demo_clients: self.allow_demo_clients.or(others.allow_demo_clients),
            jwks_max_age: self.jwks_max_age.or(others.jwks_max_age),
            trusted_proxies: self.trusted_proxies.or(others.trusted_proxies),
            client_certificate: self.client_certificate.or(others.client_certificate),
            dpop_nonce: self.dpop_nonce.or(others.dpop_nonce),
            assertion_audience: self.assertion_audience.or(others.assertion_audience),
            routes: if self.routes.is_empty() { others.routes } else { self.routes },
            limits: self.limits.or(others.limits),
            failures: self.failures.or(others.failures),
            audit: self.audit.or(others.audit),
            log: self.log.or(others.log),
        }
    }

    /// Fills what is missing with the defaults.
    ///
    /// # Errors
    ///
    /// What a setting must not be, in words.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let default = Config::default();
        let config = Config {
            listen: self.listen.unwrap_or(default.listen),
            admin_listen: self.admin_listen.unwrap_or(default.admin_listen),
            socket_mode: self.socket_mode.unwrap_or_default(),
            admin_token_file: self.admin_token_file,
            clients: self.clients.unwrap_or(default.clients),
            keys: self.keys.unwrap_or(default.keys),
            state: self.state.unwrap_or(default.state),
            issuer: self.issuer,
            workers: self.workers.unwrap_or(default.workers),
            signer: self.signer.unwrap_or(default.signer),
            allow_demo_clients: self.allow_demo_clients.unwrap_or(default.allow_demo_clients),
            jwks_max_age: self.jwks_max_age.unwrap_or(default.jwks_max_age),
            trusted_proxies: self.trusted_proxies.unwrap_or_default(),
            client_certificate: self.client_certificate.unwrap_or_default(),
            dpop_nonce: self.dpop_nonce.unwrap_or(default.dpop_nonce),
            assertion_audience: self.assertion_audience.unwrap_or(default.assertion_audience),
            routes: self.routes,
            limits: self.limits.unwrap_or(default.limits),
            failures: self.failures.unwrap_or(default.failures),
            audit: self.audit,
            log: self.log.unwrap_or(default.log),
        };
        if config.listen.is_empty() {
            return Err(ConfigError::new(NO_ADDRESS));
        }
        Ok(config)
    }
}

/// A number from `MIN` to `MAX`.
fn number<'de, D, T, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let number = i128::deserialize(deserializer)?;
    u64::try_from(number)
        .ok()
        .filter(|number| (MIN..=MAX).contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| D::Error::custom(format_args!("must be a number from {MIN} to {MAX}")))
}

fn some_number<'de, D, T, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    number::<D, T, MIN, MAX>(deserializer).map(Some)
}

fn addresses<'de, D>(deserializer: D) -> Result<Option<Vec<ListenAddr>>, D::Error>
where
    D: Deserializer<'de>,
{
    let addresses = Vec::deserialize(deserializer)?;
    if addresses.is_empty() { Err(D::Error::custom(NO_ADDRESS)) } else { Ok(Some(addresses)) }
}

const NO_ADDRESS: &str = "name at least one address to listen on";

/// Threads of each kind.
pub const MAX_WORKERS: u64 = 1024;
/// A gibibyte or a thousand million of anything is no limit any more.
const MANY: u64 = 1 << 30;
/// A year.
const LONG: u64 = 31_536_000;

/// The documented token services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
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

impl TryFrom<String> for Dialect {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

/// What a client's assertion (RFC 7523) may name as its one audience.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssertionAudience {
    /// The issuer, or the URL of the endpoint that was called or of the token endpoint; a string, or
    /// an array of one.
    #[default]
    Endpoint,
    /// The issuer as a string (RFC 7523bis, FAPI 2.0).
    Issuer,
}

/// What signs tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SignerChoice {
    /// The fastest that this machine has: batches where many wait, and for single signatures
    /// whichever of ring and aws-lc is quicker.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// In which shape.
    pub format: LogFormat,
    /// From which weight upwards.
    pub level: LogLevel,
}

/// The shape of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// `human` on a terminal, `json` elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For eyes.
    Human,
}

/// The least weight of a line that is written. Each request is one line of `info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// What broke.
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
mod tests {
    use super::*;

    #[test]
    fn what_a_process_cannot_change_is_held_back_and_named() {
        let running = Config::default();
        let mut next = Config { workers: running.workers + 1, jwks_max_age: 7, ..running.clone() };
        next.limits.idle_seconds += 1;
        next.limits.body_bytes += 1;
        assert_eq!(next.hold_back(&running), ["workers", "limits.idle_seconds"]);
        assert_eq!((next.workers, next.jwks_max_age), (running.workers, 7));
        assert_eq!(next.limits.idle_seconds, running.limits.idle_seconds);
        assert_eq!(next.limits.body_bytes, running.limits.body_bytes + 1);
        assert_eq!(next.hold_back(&running), [] as [&str; 0]);
    }

    #[test]
    fn flags_win_over_file_and_file_over_defaults() {
        let flags = Settings { workers: Some(3), ..Settings::default() };
        let file: Settings = toml::from_str("workers = 5\njwks_max_age = 60").unwrap();
        let config = flags.or(file).resolve().unwrap();
        assert_eq!((config.workers, config.jwks_max_age), (3, 60));
        assert_eq!(config.limits.body_bytes, 16 * 1024);
        assert!(Settings { listen: Some(vec![]), ..Settings::default() }.resolve().is_err());
        for bad in ["workers = 0", "workers = 1025", "jwks_max_age = 0", "[limits]\nbody_bytes = 0"]
        {
            assert!(toml::from_str::<Settings>(bad).is_err(), "{bad}");
        }
    }
}
