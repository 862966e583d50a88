//! `grantd serve`: runs the server until it is told to stop.

use std::io;

use tokio::runtime::Builder;
use tracing::info;

use crate::cli::reload::Source;
use crate::cli::{CliError, ServeArgs};
use crate::clock::Clock;
use crate::config::{Config, ListenAddr};
use crate::random::Random;
use crate::server::{Listener, Server};
use crate::telemetry::log_queue::LogQueue;
use crate::telemetry::logging;

pub(super) fn run(args: ServeArgs) -> Result<(), CliError> {
    let config = args.clone().resolve()?;
    let (log, _writer) =
        logging::install(&config.log).map_err(|error| CliError(format!("no log: {error}")))?;
    // One thread needs none of what several need to share their work.
    let mut runtime = match config.workers {
        1 => Builder::new_current_thread(),
        several => {
            let mut runtime = Builder::new_multi_thread();
            runtime.worker_threads(several).thread_name("event-loop");
            runtime
        }
    };
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(|error| CliError(format!("threads cannot be started: {error}")))?;
    runtime.block_on(serve(args, config, log))
}

async fn serve(args: ServeArgs, mut config: Config, log: LogQueue) -> Result<(), CliError> {
    let as_configured = config.listen.clone();
    let mut listeners = Vec::new();
    for address in &mut config.listen {
        let listener = bind(address).await?;
        // Port 0 stands for any; others have to be told which it became.
        if matches!(address, ListenAddr::Tcp(address) if address.ends_with(":0")) {
            *address = listener.address().map_err(|error| CliError(error.to_string()))?;
        }
        listeners.push(listener);
    }
    let admin = bind(&config.admin_listen).await?;
    let admin_address = admin.address().map_err(|error| CliError(error.to_string()))?;

    let source = Source::new(args, as_configured, config.listen.clone());
    let stop = stop_signal().map_err(|error| CliError(format!("no signals: {error}")))?;
    let server = Server::new(&config, Clock::system(), Random::system())
        .map_err(|error| CliError(error.to_string()))?;
    server.metrics().watch_log(log);
    for address in &config.listen {
        let issuer = server.issuer();
        info!(%address, %issuer, admin = %admin_address, workers = config.workers, "serving");
    }
    let reloads = tokio::spawn(source.reload(server.reloader())?);
    server.serve(listeners, Some(admin), stop).await;
    reloads.abort();
    Ok(())
}

async fn bind(address: &ListenAddr) -> Result<Listener, CliError> {
    Listener::bind(address).await.map_err(|error| {
        CliError(format!("{address}: cannot be listened on: {error}; free it or choose another"))
    })
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
