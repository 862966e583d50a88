//! Sends one HTTP/1.1 request to a running server, over TCP or a Unix socket.
//!
//! TLS is not supported: the commands that use this module connect to a server directly, not
//! through its TLS proxy.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, Response, Uri, http};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::cli::error::CliError;
use crate::config::ListenAddr;
use crate::http::listener::resolve;

/// A server: its address, and the value of the `Host` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: ListenAddr,
    host: String,
}

impl Target {
    /// Returns the target of a listener's address.
    pub(super) fn of_listener(address: &ListenAddr) -> Self {
        let host = match address {
            ListenAddr::Tcp(address) => address,
            ListenAddr::Unix(_) => "localhost",
        };
        Self { address: address.clone(), host: host.to_owned() }
    }

    /// Splits a URL into the server to connect to and the path with the query.
    pub(super) fn of_url(url: &str) -> Result<(Self, String), CliError> {
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok((Self::of_listener(&ListenAddr::Unix(path.into())), "/".to_owned()));
        }
        if url.starts_with("https://") {
            return Err(CliError(
                "https is not supported: use http:// with the server's own address, or curl"
                    .to_owned(),
            ));
        }
        let bad = || CliError("the URL must be http://host[:port][/path] or unix:/path".to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        let host = authority.host();
        let is_plain = uri.scheme_str() == Some("http") && !authority.as_str().contains('@');
        if !is_plain || host.is_empty() {
            return Err(bad());
        }
        // The port may be missing, but not malformed.
        let has_port = authority.as_str() != host;
        let port = if has_port { authority.port_u16().ok_or_else(bad)? } else { 80 };
        let address = ListenAddr::Tcp(format!("{host}:{port}"));
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok((Self { address, host: authority.to_string() }, path.to_owned()))
    }
}

/// Returns a GET request with the bearer token `bearer` (RFC 6750), if there is one.
pub(super) fn get(
    path: &str,
    bearer: Option<Zeroizing<String>>,
) -> http::Result<Request<Full<Bytes>>> {
    let mut request = Request::get(path);
    if let Some(bearer) = bearer {
        let field = Zeroizing::new(format!("Bearer {}", *bearer));
        let mut field = HeaderValue::from_str(&field)?;
        field.set_sensitive(true);
        request = request.header(AUTHORIZATION, field);
    }
    request.body(Full::default())
}

/// Sends a request and waits at most `limit` for the answer. Uses only the path and the query of the
/// request's URL.
pub(super) fn send(
    target: &Target,
    request: http::Result<Request<Full<Bytes>>>,
    limit: Duration,
) -> Result<Response<Bytes>, CliError> {
    let address = &target.address;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError(format!("{address}: cannot open sockets: {error}")))?;
    let exchanged =
        runtime.block_on(async { timeout(limit, connect_and_exchange(target, request)).await });
    match exchanged {
        Ok(answer) => answer.map_err(|error| {
            CliError(format!("{address}: cannot be reached: {error}; is the server running there?"))
        }),
        Err(_elapsed) => {
            let seconds = limit.as_millis().div_ceil(1000).max(1);
            let s = if seconds == 1 { "" } else { "s" };
            Err(CliError(format!("{address}: has not answered within {seconds} second{s}")))
        }
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn connect_and_exchange(
    target: &Target,
    request: http::Result<Request<Full<Bytes>>>,
) -> Result<Response<Bytes>, AnyError> {
    let mut request = request?;
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    request.headers_mut().insert(HOST, HeaderValue::from_str(&target.host)?);
    match &target.address {
        ListenAddr::Tcp(address) => {
            let addresses = resolve(address).await?;
            exchange(TcpStream::connect(&*addresses).await?, request).await
        }
        #[cfg(unix)]
        ListenAddr::Unix(path) => {
            exchange(tokio::net::UnixStream::connect(path).await?, request).await
        }
        #[cfg(not(unix))]
        ListenAddr::Unix(_) => Err("this system has no Unix sockets".into()),
    }
}

/// Sends `request` on a new connection and reads the whole answer.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, AnyError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    // An error of the connection also makes `answer` fail, so the result of `connection` is
    // ignored.
    join(answer, connection).await.0
}

/// The maximum size of an answer's body, in bytes.
const MAX_ANSWER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_into_server_and_path() {
        let tcp = |address: &str, host: &str, path: &str| {
            let address = ListenAddr::Tcp(address.to_owned());
            Some((Target { address, host: host.to_owned() }, path.to_owned()))
        };
        let unix = Target::of_listener(&ListenAddr::Unix("/run/a".into()));
        for (url, expected) in [
            ("http://a", tcp("a:80", "a", "/")),
            ("http://a:8080/x?y=z", tcp("a:8080", "a:8080", "/x?y=z")),
            ("http://[::1]:8080", tcp("[::1]:8080", "[::1]:8080", "/")),
            ("unix:/run/a", Some((unix, "/".to_owned()))),
            ("https://a", None),
            ("http://user:hunter2@a", None),
            ("ftp://a", None),
            ("a:80", None),
            ("/x", None),
            ("", None),
        ] {
            assert_eq!(Target::of_url(url).ok(), expected, "{url}");
        }
    }
}
