//! Sends one HTTP/1.1 request to a running server, over TCP or a Unix socket.
//!
//! TLS is not supported: the commands that use this module connect to a server directly, not
//! through its TLS proxy.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::cli::error::CliError;
use crate::config::ListenAddr;
use crate::http::listener::resolve;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A TCP address as `host:port`, and the value of the `Host` header.
    Tcp { address: String, host: String },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Target {
    /// Returns the target of a listener's address.
    pub(super) fn of_listener(address: &ListenAddr) -> Self {
        match address {
            ListenAddr::Tcp(address) => {
                Self::Tcp { address: address.clone(), host: address.clone() }
            }
            ListenAddr::Unix(path) => Self::Unix(path.clone()),
        }
    }

    /// Splits a URL into the server to connect to and the path with the query.
    pub(super) fn of_url(url: &str) -> Result<(Self, String), CliError> {
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok((Self::Unix(path.into()), "/".to_owned()));
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
        let address = format!("{host}:{port}");
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok((Self::Tcp { address, host: authority.to_string() }, path.to_owned()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, .. } => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(super) struct Request<'a> {
    method: Method,
    path: &'a str,
    form: Option<Bytes>,
    bearer: Option<Zeroizing<String>>,
}

impl<'a> Request<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, form: None, bearer: None }
    }

    /// Creates a POST request with a form-encoded body.
    pub(super) fn post(path: &'a str, form: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, path, form: Some(form.into()), bearer: None }
    }

    /// Adds a bearer token (RFC 6750) if `bearer` is `Some`.
    pub(super) fn with_bearer(self, bearer: Option<Zeroizing<String>>) -> Self {
        Self { bearer, ..self }
    }

    fn into_http(self) -> hyper::http::Result<hyper::Request<Full<Bytes>>> {
        let mut built = hyper::Request::builder().method(self.method).uri(self.path);
        if self.form.is_some() {
            built = built.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        if let Some(bearer) = self.bearer {
            let field = Zeroizing::new(format!("Bearer {}", *bearer));
            let mut field = HeaderValue::from_str(&field)?;
            field.set_sensitive(true);
            built = built.header(AUTHORIZATION, field);
        }
        built.body(Full::new(self.form.unwrap_or_default()))
    }
}

/// The answer to a request.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// Sends a request and waits at most `limit` for the answer.
pub(super) fn send(
    target: &Target,
    request: Request<'_>,
    limit: Duration,
) -> Result<Answer, CliError> {
    let request = request.into_http().map_err(|error| unreachable(target, &error))?;
    let answer = exchange_with(target, request, limit)?;
    Ok(Answer { status: answer.status().as_u16(), body: answer.into_body() })
}

/// Sends any HTTP request to `target` and waits at most `limit` for the answer. Uses only the path
/// and the query of the URL in `request`.
pub(super) fn exchange_with(
    target: &Target,
    mut request: hyper::Request<Full<Bytes>>,
    limit: Duration,
) -> Result<Response<Bytes>, CliError> {
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError(format!("{target}: cannot open sockets: {error}")))?;
    let exchanged =
        runtime.block_on(async { timeout(limit, connect_and_exchange(target, request)).await });
    match exchanged {
        Ok(answer) => answer.map_err(|error| unreachable(target, &*error)),
        Err(_elapsed) => {
            let seconds = limit.as_secs();
            Err(CliError(format!("{target}: has not answered within {seconds} seconds")))
        }
    }
}

fn unreachable(target: &Target, error: &dyn fmt::Display) -> CliError {
    CliError(format!("{target}: cannot be reached: {error}; is the server running there?"))
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn connect_and_exchange(
    target: &Target,
    mut request: hyper::Request<Full<Bytes>>,
) -> Result<Response<Bytes>, AnyError> {
    let host = match target {
        Target::Tcp { host, .. } => HeaderValue::from_str(host)?,
        Target::Unix(_) => HeaderValue::from_static("localhost"),
    };
    request.headers_mut().insert(HOST, host);
    match target {
        Target::Tcp { address, .. } => {
            let addresses = resolve(address).await?;
            exchange(TcpStream::connect(&*addresses).await?, request).await
        }
        #[cfg(unix)]
        Target::Unix(path) => exchange(tokio::net::UnixStream::connect(path).await?, request).await,
        #[cfg(not(unix))]
        Target::Unix(_) => Err("this system has no Unix sockets".into()),
    }
}

/// Sends `request` on a new connection and reads the whole answer.
async fn exchange<S>(
    stream: S,
    request: hyper::Request<Full<Bytes>>,
) -> Result<Response<Bytes>, AnyError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
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
            let target = Target::Tcp { address: address.to_owned(), host: host.to_owned() };
            Some((target, path.to_owned()))
        };
        for (url, expected) in [
            ("http://a", tcp("a:80", "a", "/")),
            ("http://a:8080/x?y=z", tcp("a:8080", "a:8080", "/x?y=z")),
            ("http://[::1]:8080", tcp("[::1]:8080", "[::1]:8080", "/")),
            ("unix:/run/a", Some((Target::Unix("/run/a".into()), "/".to_owned()))),
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
