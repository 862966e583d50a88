//! Builds the server from a configuration and runs it, in the program or embedded in another one.
//!
//! It installs nothing global: no subscriber, recorder, panic hook or signal handler. It has
//! [`Config::workers`] event loops. The first is the caller's runtime, which polls
//! [`Server::serve`]; the others are threads that end with the server, as do the connections that
//! they serve.
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
//! let config = Config {
//!     clients: directory.join("clients.json"),
//!     keys: directory.join("keys"),
//!     state: directory.join("state"),
//!     ..Config::default()
//! };
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

mod counters;
mod reload;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::{Config, IssuerUrl, SignerChoice};
use crate::endpoint::Context;
use crate::fault::Fault;
use crate::http::accept::Connections;
use crate::http::admin::Admin;
use crate::http::event_loops::{EventLoops, Threads};
pub use crate::http::listener::{Listener, Peer};
pub use crate::http::service::{Arrival, Service};
use crate::jose::key_set::KeySet;
use crate::oauth::client_assertion::AudienceForm;
use crate::random::{NoEntropy, Random};
pub(crate) use crate::server::reload::judge;
use crate::server::reload::{Loaded, prepare};
pub use crate::server::reload::{Reloaded, Reloader};
use crate::signing::engine::Engine;
use crate::signing::single::Single;
use crate::store::decoy_key;
use crate::store::key_directory::{self, First};
use crate::store::password_pool::PasswordPool;
use crate::store::replay::ReplayGuard;
use crate::store::revocations::Revocations;
use crate::store::secret_uses::SecretUses;
use crate::store::snapshot::{Snapshot, Sources};
use crate::store::throttle::Throttle;
use crate::store::verified_tokens::VerifiedTokens;
use crate::telemetry::audit::{Audit, Event};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::Refusals;
#[cfg(feature = "opentelemetry")]
use crate::telemetry::traces::Traces;

/// Serves on `listener` until `shutdown` completes and the connections have ended or the drain time
/// is over.
///
/// `config` gives the files and limits; its listen addresses are ignored.
///
/// # Errors
///
/// [`StartError`] if the server does not start.
pub async fn run(
    mut config: Config,
    listener: impl Into<Listener>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let listener = listener.into();
    config.listen = vec![listener.address()?];
    let server = Server::new(&config, Clock::system(), Random::system())?;
    server.serve(vec![listener], None, shutdown).await;
    Ok(())
}

/// A server that is built but does not serve yet.
#[derive(Debug)]
pub struct Server {
    context: Arc<Context>,
    metrics: Arc<Metrics>,
    refusals: Arc<Refusals>,
    service: Arc<Service>,
    reloader: Arc<Reloader>,
    connections: Arc<Connections>,
    admin_connections: Arc<Connections>,
    loops: Arc<EventLoops>,
    threads: Threads,
}

impl Server {
    /// Reads all files, creates a signing key if there is none, and starts the threads.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn new(config: &Config, clock: Clock, random: Random) -> Result<Self, StartError> {
        let Loaded { clients, mut keys, admin_token, issuer, key_files } = Loaded::read(config)?;
        let revocations =
            Revocations::open(&config.state, config.limits.revocations, clock.clone())
                .map_err(|fault| StartError::Files(vec![fault]))?;
        let retention = Sources::of(config).retention(&clients);
        if keys.is_empty() {
            let now = clock.unix_seconds();
            let first = key_directory::first(&config.keys, FIRST_KEY_BITS, now);
            let First { keys: found, is_made } = first.map_err(StartError::Files)?;
            keys = found;
            if let (true, [key]) = (is_made, &keys[..]) {
                let (key_id, directory) = (key.key_id(), config.keys.display());
                info!(%key_id, %directory, bits = FIRST_KEY_BITS, "made the first signing key");
            }
        }

        let keys = KeySet::new(keys, retention);
        let single = match (config.signer, keys.signing_key(clock.unix_seconds())) {
            (SignerChoice::AwsLc, _) => Single::AwsLc,
            (SignerChoice::Auto | SignerChoice::Batch, Some(key)) => Single::fastest(key),
            _ => Single::Ring,
        };
        let engine = Engine::start(single, config.workers, config.limits.signing_queue)?;
        let is_batched = prepare(&engine, &keys, config.signer)?;
        let signer = if is_batched { format!("batch, {single}") } else { single.to_string() };
        info!(%signer, threads = config.workers, "signing");
        let (threads, capacity) = (config.limits.password_threads, config.limits.password_queue);
        let passwords = PasswordPool::start(threads, capacity, &random)?;
        let decoy_key = decoy_key::open(&config.state, &random)
            .map_err(|fault| StartError::Files(vec![fault]))?;
        let snapshot = Snapshot::new(clients, keys, issuer, config.clone());
        let snapshot = Snapshot { admin_token, ..snapshot };
        let replay = ReplayGuard::new(config.limits.replay_entries, clock.unix_seconds());
        let snapshot = ArcSwap::from_pointee(snapshot);
        let audit = match &config.audit {
            Some(file) => Some(Audit::to(file).map_err(|error| {
                StartError::Files(vec![Fault::cannot("written", file, &error)])
            })?),
            None => None,
        };
        let metrics = Arc::new(Metrics::new().map_err(io::Error::other)?);
        metrics.name_signer(&signer);
        let audience_forms = AudienceForm::ALL.map(AudienceForm::label);
        let context = Arc::new(Context {
            snapshot,
            engine,
            passwords,
            decoy_key,
            secret_uses: SecretUses::default(),
            revocations,
            assertion_audiences: metrics.assertion_audiences(audience_forms),
            raw_pairs: AtomicU64::new(0),
            throttle: Throttle::new(config.limits.failure_entries, Clock::instant()),
            audit,
            verified: VerifiedTokens::default(),
            reload_fault: ArcSwapOption::empty(),
            clock,
            random,
            replay,
            nonces: OnceLock::new(),
        });
        context.prepare(config).map_err(no_entropy)?;
        counters::register(&metrics, &context).map_err(io::Error::other)?;
        let refusals = Arc::<Refusals>::default();
        let service =
            Service::new(Arc::clone(&context), Arc::clone(&metrics), Arc::clone(&refusals))
                .map_err(no_entropy)?;
        let (loops, threads) = EventLoops::start(config.workers)?;
        let connections =
            Connections::new(config.limits.clone(), Arc::clone(&metrics), Arc::clone(&loops));
        let unseen = Arc::new(Metrics::new().map_err(io::Error::other)?);
        let admin_connections = Connections::new(config.limits.clone(), unseen, EventLoops::one());
        let service = Arc::new(service);
        let reloader =
            Arc::new(Reloader::new(Arc::clone(&context), Arc::clone(&metrics), key_files));
        Ok(Self {
            context,
            metrics,
            refusals,
            service,
            reloader,
            connections,
            admin_connections,
            loops,
            threads,
        })
    }

    /// The service that answers requests, for embedders with an HTTP server of their own.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The server's metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The server's spans, whose provider the caller may set.
    #[cfg(feature = "opentelemetry")]
    pub fn traces(&self) -> &Traces {
        &self.service.traces
    }

    /// The reloader, which makes the running server read its files again.
    pub fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
    }

    pub(crate) fn event_loops(&self) -> Arc<EventLoops> {
        Arc::clone(&self.loops)
    }

    /// The issuer's URL.
    pub fn issuer(&self) -> IssuerUrl {
        self.context.snapshot().issuer.clone()
    }

    /// Serves on all listeners until `shutdown` completes. Then `/readyz` answers 503, no new
    /// connections are accepted, and each connection closes with its next answer or when the drain
    /// time is over.
    pub async fn serve(
        self,
        listeners: Vec<Listener>,
        admin: Option<Listener>,
        shutdown: impl Future<Output = ()>,
    ) {
        let is_ready = Arc::new(AtomicBool::new(true));
        let (stop, stopped) = watch::channel(());
        // Completes when the sender is dropped.
        let until_dropped = |mut stopped: watch::Receiver<()>| async move {
            while stopped.changed().await.is_ok() {}
        };

        let mut accepting = Vec::new();
        for listener in listeners {
            let connections = Arc::clone(&self.connections);
            let service = Arc::clone(&self.service);
            let stop = until_dropped(stopped.clone());
            accepting.push(tokio::spawn(async move {
                connections.accept(listener, service, stop).await;
            }));
        }
        let (stop_admin, admin_stopped) = watch::channel(());
        if let Some(listener) = admin {
            let connections = Arc::clone(&self.admin_connections);
            let admin = Arc::new(Admin {
                context: Arc::clone(&self.context),
                metrics: Arc::clone(&self.metrics),
                refusals: Arc::clone(&self.refusals),
                is_ready: Arc::clone(&is_ready),
            });
            let stop = until_dropped(admin_stopped);
            tokio::spawn(async move { connections.accept(listener, admin, stop).await });
        }

        let issuer = self.issuer();
        self.context.write_audit(&Event::Started { issuer: issuer.as_str() });
        shutdown.await;
        self.context.write_audit(&Event::Stopping);
        info!("stopping: no new connections are accepted");
        is_ready.store(false, Ordering::Relaxed);
        drop(stop);
        for task in accepting {
            // An accept loop that panicked has stopped as well.
            let _ = task.await;
        }
        match self.connections.drain().await {
            0 => info!("stopped"),
            left => {
                warn!(left, "stopped: the drain time ended before these connections had finished");
            }
        }
        drop(stop_admin);
        drop(self.threads);
    }
}

/// Why a server does not start, or why a reload is refused. The text says what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// These clients need a certificate, but a trusted network may not forward any.
    CertificateProxies(String),
    /// Other machines could use these demo clients, whose secrets are public.
    DemoClients(Vec<String>),
    /// Some files have faults.
    Files(Vec<Fault>),
    /// The batch signer is configured, but the processor or a key does not support it.
    NoBatches,
    /// A reload found no key in this directory. Only the first start creates one.
    NoKeys(PathBuf),
    /// No issuer is configured, and no TCP address that its URL could be made from.
    NoIssuer,
    /// One of the operator's own routes has a path that is not allowed.
    Route(String),
    /// An error of the operating system.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CertificateProxies(clients) => write!(
                f,
                "client_certificate.proxies is not set, but some clients need a certificate \
                 ({clients}). Certificates are not accepted from the networks in trusted_proxies, \
                 where any host could pose as any client. Under [client_certificate], set proxies \
                 to the addresses of the proxies that verify certificates, or to \"unix\""
            ),
            Self::DemoClients(ids) => write!(
                f,
                "the demo clients ({}) have secrets that everyone knows, and other machines could \
                 use them: listen or the host of issuer is not limited to this machine, or \
                 trusted_proxies or client_certificate.proxies is set. Remove them from the client \
                 file, or pass --allow-demo-clients",
                ids.join(", ")
            ),
            Self::Files(faults) => {
                for (index, fault) in faults.iter().enumerate() {
                    write!(f, "{}{fault}", if index == 0 { "" } else { "\n" })?;
                }
                Ok(())
            }
            Self::NoBatches => f.write_str(
                "signer = batch (--signer, GRANTD_SIGNER) is not possible: this processor has no \
                 AVX-512 IFMA, or a key does not consist of two primes of 1024, 1536 or 2048 bits; \
                 set it to auto",
            ),
            Self::NoKeys(directory) => {
                let directory = directory.display();
                write!(
                    f,
                    "{directory}: holds no signing key; create one with `grantd key generate`"
                )
            }
            Self::NoIssuer => f.write_str(
                "the issuer's URL is not set, and there is no TCP address to derive it from: pass \
                 --issuer with the URL that clients use",
            ),
            Self::Route(problem) => f.write_str(problem),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

fn no_entropy(_: NoEntropy) -> io::Error {
    io::Error::other("the operating system provides no random bytes")
}

/// The size of the first signing key, as in the documented tokens.
const FIRST_KEY_BITS: u16 = 2048;
