//! `grantd serve`: runs the server until it is told to stop.

use std::io;

use tokio::runtime::Builder;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::cli::addresses;
#[cfg(feature = "opentelemetry")]
use crate::cli::collector::Exporting;
use crate::cli::error::CliError;
#[cfg(unix)]
use crate::cli::process;
use crate::cli::reload::{Reloads, Source, is_empty};
use crate::cli::service_manager;
use crate::cli::settings::ServeArgs;
use crate::clock::{Clock, LAST_MOMENT};
use crate::config::{Config, ListenAddr, SocketMode, Startup};
use crate::random::Random;
use crate::server::{Listener, Server};
use crate::telemetry::log_queue::LogQueue;
use crate::telemetry::logging;
use crate::telemetry::metrics::VERSION;

pub(super) fn run(args: ServeArgs) -> Result<(), CliError> {
    start(args.clone()).map_err(|error| args.with_places(&error))
}

/// Starts a server, and returns when it has stopped.
fn start(args: ServeArgs) -> Result<(), CliError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError(format!("threads cannot be started: {error}")))?;
    let sockets = {
        let _within = runtime.enter();
        let problem = "a socket from the service manager (LISTEN_FDS) cannot be used";
        service_manager::sockets().map_err(|error| CliError(format!("{problem}: {error}")))?
    };
    let config = args.clone().resolve()?;
    let (log, _writer) = logging::install(&config.startup.log)
        .map_err(|error| CliError(format!("logging cannot be set up: {error}")))?;
    log_panics();
    if let Some(problem) = args.without_effect(&config) {
        warn!("{problem}");
    }
    #[cfg(unix)]
    if let Err(error) = process::raise_descriptor_limit() {
        warn!(%error, "the limit of open files cannot be raised to its hard limit");
    }
    let served = runtime.block_on(serve(args, config, sockets, log));
    // Limit the wait for blocking tasks: a file system that hangs must not delay the exit.
    runtime.shutdown_timeout(LAST_MOMENT);
    served
}

/// Logs panics through the log queue. Rust's default panic hook writes to standard error. If
/// standard error is a full pipe that no process reads, this write would block the thread.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        error!(thread = thread.name(), %panic, "a thread has panicked");
    }));
}

async fn serve(
    args: ServeArgs,
    mut config: Config,
    mut listeners: Vec<Listener>,
    log: LogQueue,
) -> Result<(), CliError> {
    let as_configured = config.startup.listen.clone();
    let system = |error: io::Error| CliError(error.to_string());
    let Startup { listen, admin_listen, socket_mode, .. } = &mut config.startup;
    if listeners.is_empty() {
        for address in listen {
            let listener = bind(address, addresses::LISTEN, *socket_mode).await?;
            // Port 0 asks for any free port: replace it by the port that was bound.
            if matches!(address, ListenAddr::Tcp(address) if address.ends_with(":0")) {
                *address = listener.address().map_err(system)?;
            }
            listeners.push(listener);
        }
    } else {
        // The sockets from the service manager replace the configured addresses.
        let addresses: Result<_, _> = listeners.iter().map(Listener::address).collect();
        *listen = addresses.map_err(system)?;
    }
    let admin = bind(admin_listen, addresses::ADMIN_LISTEN, *socket_mode).await?;
    let admin_address = admin.address().map_err(system)?;

    let in_force = config.startup.listen.clone();
    let may_be_empty = args.config.as_deref().is_some_and(is_empty);
    let reloads = Reloads::of(Source { args, as_configured, in_force, may_be_empty })?;
    let server = Server::new(&config, Clock::system(), Random::system()).map_err(CliError::from)?;
    // Start to handle signals only now. Until this point, a signal ends the process at once, even
    // while the process waits for a file.
    let mut signals = StopSignals::new()
        .map_err(|error| CliError(format!("signals cannot be received: {error}")))?;
    server.metrics().log.get_or_init(|| log);
    #[cfg(feature = "opentelemetry")]
    let exporting = Exporting::start(server.traces())?;
    for address in &config.startup.listen {
        let issuer = server.issuer();
        if issuer.is_unspecified() {
            warn!(%issuer, "no client can ask by this name: {}", addresses::ISSUER_ADVICE);
        }
        let workers = config.startup.workers;
        info!(version = VERSION, %address, %issuer, admin = %admin_address, workers, "serving");
    }
    let reloads = tokio::spawn(reloads.run(server.reloader()));
    let alive = tokio::spawn(service_manager::keep_alive(server.event_loops()));
    service_manager::ready();
    let end_readiness = server.end_of_readiness();
    let stop = async move {
        signals.next().await;
        // Tell systemd that the server begins to stop. systemd's stop timeout starts with this
        // message.
        service_manager::stopping();
        let delay = end_readiness();
        if !delay.is_zero() {
            let seconds = delay.as_secs();
            info!(
                seconds,
                "not ready: stopping after shutdown_delay_seconds, or at a second signal"
            );
            // Ignore the result: the server stops after the delay, and also at a second signal.
            let _ = timeout(delay, signals.next()).await;
        }
    };
    server.serve(listeners, Some(admin), stop).await;
    reloads.abort();
    alive.abort();
    #[cfg(feature = "opentelemetry")]
    if let Some(exporting) = exporting {
        exporting.finish();
    }
    Ok(())
}

async fn bind(
    address: &ListenAddr,
    setting: &str,
    socket_mode: SocketMode,
) -> Result<Listener, CliError> {
    let bound = Listener::bind(address, socket_mode).await;
    bound.map_err(|error| addresses::problem(address, setting, &error))
}

/// Receives SIGTERM and SIGINT.
struct StopSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignals {
    #[cfg(unix)]
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(not(unix))]
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Completes when the next signal arrives.
    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}
