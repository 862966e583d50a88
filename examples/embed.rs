//! Embeds grantd in another program: issues a token without a socket, then serves on a socket that
//! the program has bound.
//!
//! ```console
//! cargo run --example embed
//! ```

use std::error::Error;
use std::path::Path;

use bytes::Bytes;
use grantd::clock::Clock;
use grantd::config::Config;
use grantd::random::Random;
use grantd::server::{Arrival, Listener, Peer, Server};
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const FORM: &str = "application/x-www-form-urlencoded";
/// The token request of a demo client in the shipped `clients.json`.
const BODY: &str = "grant_type=client_credentials&client_id=demo-client\
                    &client_secret=demo-secret-for-local-use-only-0001";

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        println!("without a socket: {}", without_a_socket(directory.path()).await?);
        println!("over a socket: {}", over_a_socket(directory.path()).await?);
        Ok(())
    })
}

/// Returns a configuration with the shipped registry, and with keys and state in `directory`.
fn config(directory: &Path) -> Config {
    let mut config = Config::default();
    config.live.clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients.json");
    config.live.keys = directory.join("keys");
    config.startup.state = directory.join("state");
    config
}

/// Hands one request to the service and returns the body of its answer.
async fn without_a_socket(directory: &Path) -> Result<String, Box<dyn Error>> {
    let server = Server::new(&config(directory), Clock::system(), Random::system())?;
    let request = Request::post("/connect/token")
        .header("Host", "localhost")
        .header("Content-Type", FORM)
        .body(Full::new(Bytes::from_static(BODY.as_bytes())))?;
    let arrival = Arrival { peer: Peer::Unix, first_byte: Clock::system().instant() };
    let answer = server.service().respond(request, arrival).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let body = answer.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec())?)
}

/// Serves until one client has received its answer, and returns that answer.
async fn over_a_socket(directory: &Path) -> Result<String, Box<dyn Error>> {
    let server = Server::new(&config(directory), Clock::system(), Random::system())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(vec![Listener::from(listener)], None, async {
        // Ignore the result: the server stops at a message, and also if the sender is dropped.
        let _ = stopped.await;
    }));
    let mut connection = TcpStream::connect(address).await?;
    let request = format!(
        "POST /connect/token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: {FORM}\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    // Sending fails if the server has already ended, which is no error here.
    let _ = stop.send(());
    serving.await?;
    Ok(answer)
}
