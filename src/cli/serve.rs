//! `grantd serve`: runs the server until it is told to stop.

use std::io;

use tokio::runtime::Builder;
use tracing::{error, info, warn};

#[cfg(feature = "opentelemetry")]
use crate::cli::collector::Exporting;
use crate::cli::reload::{Reloads, Source};
use crate::cli::service_manager::{self, Socket};
use crate::cli::{CliError, ServeArgs, addresses};
use crate::clock::{Clock, LAST_MOMENT};
use crate::config::{Config, ListenAddr, SocketMode};
use crate::random::Random;
use crate::server::{Listener, Server};
use crate::telemetry::log_queue::LogQueue;
use crate::telemetry::logging;
use crate::telemetry::metrics::VERSION;

pub(super) fn run(args: ServeArgs) -> Result<(), CliError> {
    let sockets = service_manager::sockets().map_err(|error| {
        CliError(format!("a socket that was handed over is of no use: {error}"))
    })?;
    let config = args.clone().resolve()?;
    let (log, _writer) =
        logging::install(&config.log).map_err(|error| CliError(format!("no log: {error}")))?;
    log_panics();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError(format!("threads cannot be started: {error}")))?;
    let served = runtime.block_on(serve(args, config, sockets, log));
    // A file system that hangs must not keep the process from its end.
    runtime.shutdown_timeout(LAST_MOMENT);
    served
}

/// Panics are log lines too: written to standard error at once, one would hold its thread up while
/// standard error is not read.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        error!(thread = thread.name(), %panic, "a thread has panicked");
    }));
}

async fn serve(
    args: ServeArgs,
    mut config: Config,
    sockets: Vec<Socket>,
    log: LogQueue,
) -> Result<(), CliError> {
    let as_configured = config.listen.clone();
    let system = |error: io::Error| CliError(error.to_string());
    let mut listeners = Vec::new();
    if !sockets.is_empty() {
        // Whoever hands sockets over has said where to listen.
        config.listen.clear();
    }
    for socket in sockets {
        let listener = socket.listen().map_err(system)?;
        config.listen.push(listener.address().map_err(system)?);
        listeners.push(listener);
    }
    let to_bind = if listeners.is_empty() { &mut config.listen[..] } else { &mut [] };
    for address in to_bind {
        let listener = bind(address, addresses::LISTEN, config.socket_mode).await?;
        // Port 0 stands for any; others have to be told which it became.
        if matches!(address, ListenAddr::Tcp(address) if address.ends_with(":0")) {
            *address = listener.address().map_err(system)?;
        }
        listeners.push(listener);
    }
    let admin = bind(&config.admin_listen, addresses::ADMIN_LISTEN, config.socket_mode).await?;
    let admin_address = admin.address().map_err(system)?;

    let in_force = config.listen.clone();
    let reloads = Reloads::of(Source { args, as_configured, in_force })?;
    let server = Server::new(&config, Clock::system(), Random::system())
        .map_err(|error| CliError(error.to_string()))?;
    // Only now: a start that waits for a file can be ended like any process.
    let stop = stop_signal().map_err(|error| CliError(format!("no signals: {error}")))?;
    server.metrics().watch_log(log);
    #[cfg(feature = "opentelemetry")]
    let exporting = Exporting::start(server.traces())?;
    for address in &config.listen {
        let issuer = server.issuer();
        if issuer.is_unspecified() {
            warn!(%issuer, "no client can ask by this name: {}", addresses::ISSUER_ADVICE);
        }
        let workers = config.workers;
        info!(version = VERSION, %address, %issuer, admin = %admin_address, workers, "serving");
    }
    let reloads = tokio::spawn(reloads.run(server.reloader()));
    let alive = tokio::spawn(service_manager::keep_alive(server.event_loops()));
    service_manager::ready();
    let stop = async {
        stop.await;
        service_manager::stopping();
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

/// Completes at SIGTERM or SIGINT.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    {
        Ok(async {
            let _ = tokio::signal::ctrl_c().await;
        })
    }
}
