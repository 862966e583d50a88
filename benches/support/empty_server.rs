//! The empty hyper service as a process of its own.

use tokio::net::TcpListener;
use tokio::runtime::Builder;

use super::service::Service;
use super::{cores, empty_service};

/// The first argument of the child process.
const SERVE_EMPTY: &str = "serve-empty";

/// Starts the empty hyper service on the contestant's core.
pub(crate) fn start() -> Service {
    let address = cores::free_address();
    let mut command = cores::this_bench(cores::MEASURED);
    command.args([SERVE_EMPTY, &address.to_string()]);
    Service::start(command, address)
}

/// Serves and does not return if this process was started by [`start`]; otherwise returns `false`.
pub(crate) fn is_child(arguments: &[String]) -> bool {
    let [mode, address] = arguments else { return false };
    if mode != SERVE_EMPTY {
        return false;
    }
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime
        .block_on(async { empty_service::serve(TcpListener::bind(address).await.unwrap()).await });
    true
}
