//! Builds the server from a configuration and runs it, in the program `grantd` or embedded in
//! another program.
//!
//! The server installs nothing global: no subscriber, recorder, panic hook or signal handler. It
//! has [`Startup::workers`](crate::config::Startup::workers) event loops. The first event loop is
//! the caller's runtime, which polls [`Server::serve`]. The other event loops are threads. When the
//! server ends, it stops these threads and closes their connections.

mod collectors;
mod in_force;
mod judge;
mod reload;
mod rotation;
mod sources;
mod start_error;

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::{Config, IssuerUrl, StartupLimits};
use crate::endpoint::Context;
pub use crate::fault::Fault;
use crate::guard::password_pool::PasswordPool;
use crate::guard::throttle::Throttle;
use crate::http::accept::Connections;
use crate::http::admin::Admin;
use crate::http::descriptors::allowed_connections;
use crate::http::event_loops::{EventLoops, Threads};
pub use crate::http::listener::{Listener, Peer};
pub use crate::http::service::{Arrival, Service};
#[cfg(feature = "postgres")]
use crate::keys::change::successor_bits;
use crate::keys::key_set::KeySet;
#[cfg(feature = "postgres")]
use crate::keys::rotation::PlannedKey;
use crate::oauth::client_assertion::AudienceForm;
use crate::random::Random;
pub(crate) use crate::server::judge::{about_certificate_proxies, about_state_directory, judge};
pub use crate::server::reload::{Reloaded, Reloader};
#[cfg(feature = "postgres")]
use crate::server::sources::FIRST_KEY_BITS;
use crate::server::sources::Sources;
pub use crate::server::start_error::StartError;
use crate::signing::backends::Backends;
use crate::signing::engine::Engine;
use crate::snapshot::Snapshot;
#[doc(hidden)]
pub use crate::snapshot::news::News;
use crate::state::key_rotation::KeyRotation;
use crate::state::verified_tokens::VerifiedTokens;
#[cfg(feature = "postgres")]
use crate::store::postgres::{
    follow::{Follower, Following, Sink},
    rotation::Serving,
};
use crate::telemetry::audit::Event;
use crate::telemetry::metrics::{self, Metrics};
use crate::telemetry::refusals::Refusals;
#[cfg(feature = "opentelemetry")]
use crate::telemetry::traces::Traces;

/// Serves on `listener` until `shutdown` completes. Then waits until all connections have ended or
/// the drain time is over.
///
/// Ignores the addresses in `config`: the server listens only on `listener`, and has no admin
/// listener.
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
    config.startup.listen = vec![listener.address()?];
    let server = Server::new(&config, Clock::system(), Random::system())?;
    server.serve(vec![listener], None, shutdown).await;
    Ok(())
}

/// A server that is built but does not serve yet.
#[derive(Debug)]
pub struct Server {
    context: Arc<Context>,
    service: Arc<Service>,
    reloader: Arc<Reloader>,
    connections: Arc<Connections>,
    admin_connections: Arc<Connections>,
    loops: Arc<EventLoops>,
    threads: Threads,
    is_ready: Arc<AtomicBool>,
    /// The thread that follows the store, if there is one.
    #[cfg(feature = "postgres")]
    following: Option<Following>,
}

impl Server {
    /// Reads all files, creates a signing key if there is none, and starts the threads.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the server cannot start.
    pub fn new(config: &Config, clock: Clock, random: Random) -> Result<Self, StartError> {
        let sources = sources::open(config, &clock, &random)?;
        let Sources { clients, keys, mut in_force, key_files, admin_token, issuer, .. } = sources;
        let Sources { lifetimes, retention, loss, audit, revocations, uses, .. } = sources;
        let Sources { decoy_key, secret_uses, store, .. } = sources;
        let limits = &config.startup.limits;
        let state = &config.startup.state;
        let lifetimes_fault = lifetimes.write(&clients, state).err().map(|fault| fault.to_string());
        for warning in lifetimes_fault.clone().into_iter().chain(about_state_directory(state)) {
            warn!("{warning}");
        }
        in_force.lacks_lifetimes = lifetimes_fault.is_some();
        in_force.degraded[0].clone_from(&lifetimes_fault);
        let keys = KeySet::new(keys, retention);
        let signing_key = keys.signing_key(clock.now().into()).map(|key| &*key.private_key);
        let backends = Backends::new(config.startup.signer, signing_key);
        let is_batched = backends.prepare(keys.private_keys())?;
        let (single, threads) = (backends.single, config.startup.workers);
        let engine = Engine::start(backends, threads, limits.signing_queue, clock.clone())?;
        let signer = if is_batched { format!("batch, {single}") } else { single.to_string() };
        info!(%signer, threads, "signing");
        let passwords =
            PasswordPool::start(limits.password_threads, limits.password_queue, &random)?;
        let snapshot = Snapshot::new(Arc::new(clients), keys, issuer, config.clone());
        let snapshot = Snapshot { admin_token, lifetimes, ..snapshot };
        let snapshot = ArcSwap::from_pointee(snapshot);
        let key_rotation = Arc::<KeyRotation>::default();
        let metrics = Arc::new(Metrics::new().map_err(io::Error::other)?);
        metrics::init(&metrics.assertion_audiences, AudienceForm::ALL.map(AudienceForm::label));
        let context = Arc::new(Context {
            snapshot,
            engine,
            passwords,
            decoy_key,
            secret_uses,
            loss,
            revocations,
            metrics,
            refusals: Refusals::default(),
            raw_pairs: AtomicU64::new(0),
            throttle: Throttle::new(limits.failure_entries, clock.instant()),
            audit,
            verified: VerifiedTokens::default(),
            reload_fault: ArcSwapOption::from(lifetimes_fault.map(Arc::new)),
            clock,
            random,
            uses,
            key_rotation,
            store,
            nonces: OnceLock::new(),
        });
        context.prepare(config)?;
        collectors::register(&context, signer);
        let service = Service::new(Arc::clone(&context))?;
        let (loops, threads) = EventLoops::start(config.startup.workers)?;
        let allowed = allowed_connections(limits.connections, config.startup.workers);
        let connections = Connections::new(
            context.clock.clone(),
            StartupLimits { connections: allowed, ..limits.clone() },
            Arc::clone(&context.metrics),
            Arc::clone(&loops),
        );
        let reloader = Arc::new(Reloader::new(Arc::clone(&context), in_force, key_files));
        #[cfg(feature = "postgres")]
        let following = follow(sources.follower, &context, &reloader)?;
        let unseen = Arc::new(Metrics::new().map_err(io::Error::other)?);
        Ok(Self {
            service: Arc::new(service),
            reloader,
            admin_connections: Arc::new(connections.for_admin(unseen)),
            connections: Arc::new(connections),
            context,
            loops,
            threads,
            is_ready: Arc::new(AtomicBool::new(true)),
            #[cfg(feature = "postgres")]
            following,
        })
    }

    /// Returns the service that answers requests, for embedders with an HTTP server of their own.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Returns the server's metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.context.metrics
    }

    /// Returns the recorder of the server's spans. The caller may set the provider that exports the
    /// spans.
    #[cfg(feature = "opentelemetry")]
    pub fn traces(&self) -> &Traces {
        &self.service.traces
    }

    /// Returns the reloader, which makes the running server read its files again.
    pub fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
    }

    pub(crate) fn event_loops(&self) -> Arc<EventLoops> {
        Arc::clone(&self.loops)
    }

    /// Returns a function that makes `/readyz` answer 503. That function returns the time for which
    /// the server must still accept requests after the call.
    pub(crate) fn end_of_readiness(&self) -> impl FnOnce() -> Duration + use<> {
        let (context, is_ready) = (Arc::clone(&self.context), Arc::clone(&self.is_ready));
        move || {
            is_ready.store(false, Ordering::Relaxed);
            Duration::from_secs(context.snapshot().config.live.shutdown_delay_seconds)
        }
    }

    /// Returns the issuer's URL.
    pub fn issuer(&self) -> IssuerUrl {
        self.context.snapshot().issuer.clone()
    }

    /// Serves on all listeners until `shutdown` completes. Then `/readyz` answers 503, no new
    /// connections are accepted, and each connection closes after its next answer, but at the
    /// latest when the drain time is over.
    pub async fn serve(
        self,
        listeners: Vec<Listener>,
        admin: Option<Listener>,
        shutdown: impl Future<Output = ()>,
    ) {
        let (stop, stopped) = watch::channel(());
        let accept = |listener| {
            let (connections, service) = (Arc::clone(&self.connections), Arc::clone(&self.service));
            tokio::spawn(connections.accept(listener, service, stopped.clone()))
        };
        let accepting: Vec<_> = listeners.into_iter().map(accept).collect();
        let (stop_admin, admin_stopped) = watch::channel(());
        if let Some(listener) = admin {
            let admin =
                Admin { context: Arc::clone(&self.context), is_ready: Arc::clone(&self.is_ready) };
            let connections = Arc::clone(&self.admin_connections);
            tokio::spawn(connections.accept(listener, Arc::new(admin), admin_stopped));
        }

        let issuer = self.issuer();
        self.context.write_audit(&Event::Started { issuer: issuer.as_str() });
        shutdown.await;
        self.context.write_audit(&Event::Stopping);
        info!("stopping: no new connections are accepted");
        self.is_ready.store(false, Ordering::Relaxed);
        drop(stop);
        for task in accepting {
            // Ignore an error: it means that the accept loop has panicked. The loop accepts no more
            // connections in this case, either.
            let _ = task.await;
        }
        match self.connections.drain().await {
            0 => info!("stopped"),
            left => {
                warn!(left, "stopped: the drain time ended before these connections had finished");
            }
        }
        #[cfg(feature = "postgres")]
        drop(self.following);
        self.context.uses.end();
        drop(stop_admin);
        drop(self.threads);
    }
}

/// Starts to follow the store.
#[cfg(feature = "postgres")]
fn follow(
    follower: Option<Follower>,
    context: &Arc<Context>,
    reloader: &Arc<Reloader>,
) -> Result<Option<Following>, Fault> {
    let Some(follower) = follower else { return Ok(None) };
    let reloader = Arc::clone(reloader);
    let [of_snapshot, of_keys] = [(); 2].map(|()| Arc::clone(context));
    let sink = Sink {
        apply: Box::new(move |news| drop(reloader.apply(news))),
        snapshot: Box::new(move || of_snapshot.snapshot()),
        serving: Box::new(move || serving(&of_keys)),
        key_rotation: Arc::clone(&context.key_rotation),
    };
    follower.start(sink).map(Some)
}

/// Returns the keys in force.
#[cfg(feature = "postgres")]
fn serving(context: &Context) -> Serving {
    let snapshot = context.snapshot();
    let at = context.key_time(&snapshot, context.clock.now());
    let keys = &snapshot.keys;
    Serving {
        keys: PlannedKey::all(keys),
        published: keys.published(at).map(|key| key.key_id().to_owned()).collect(),
        retention: keys.retention,
        rotate_every: snapshot.config.live.rotate_every,
        bits: keys.signing_key(at).map_or(FIRST_KEY_BITS, |key| successor_bits(key)),
    }
}
