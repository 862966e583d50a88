//! TCP and Unix sockets: binding, accepting, and one stream type for both.

use std::fmt;
#[cfg(unix)]
use std::fs;
#[cfg(unix)]
use std::future::pending;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
#[cfg(unix)]
use std::os::fd::AsFd;
use std::path::Path;
use std::pin::Pin;
use std::task::Context;

use smallvec::SmallVec;
#[cfg(unix)]
use tokio::io::Interest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixSocket, UnixStream};

use crate::config::{ListenAddr, SocketMode};
#[cfg(unix)]
use crate::fs::identity::identity;
use crate::fs::whole_file::directory_of;
#[cfg(unix)]
use crate::http::descriptors;

/// A socket that accepts connections.
#[derive(Debug)]
pub enum Listener {
    /// A TCP socket on an IP address.
    Tcp(TcpListener),
    /// A Unix socket at a path.
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listener {
    /// Binds and listens. A Unix socket gets the mode `socket_mode`. If the path is already the
    /// socket of a process that has ended, this socket is replaced. Any other file at the path is
    /// an error.
    ///
    /// # Errors
    ///
    /// An error of the operating system. For a Unix socket also: the path is in use, or is not a
    /// socket.
    pub async fn bind(address: &ListenAddr, socket_mode: SocketMode) -> io::Result<Self> {
        match address {
            ListenAddr::Tcp(address) => bind_tcp(address).await.map(Self::Tcp),
            #[cfg(unix)]
            ListenAddr::Unix(path) => bind_unix(path, socket_mode).await.map(Self::Unix),
            #[cfg(not(unix))]
            ListenAddr::Unix(_) => {
                let _ = socket_mode;
                let problem = "this system has no Unix sockets";
                Err(io::Error::new(io::ErrorKind::Unsupported, problem))
            }
        }
    }

    /// Checks without listening whether [`Listener::bind`] could succeed, and returns the addresses
    /// that a TCP address resolves to. An address that is in use is not an error: the server whose
    /// configuration is checked may be running and may itself use this address.
    ///
    /// # Errors
    ///
    /// An error of the operating system.
    pub fn check(address: &ListenAddr) -> io::Result<Vec<SocketAddr>> {
        match address {
            ListenAddr::Tcp(address) => {
                let resolved =
                    address.to_socket_addrs().map_err(|error| unresolved(address, &error));
                let addresses: Vec<_> = resolved?.collect();
                first_of(&addresses, |address| match reserve(address) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
                    reserved => reserved.map(drop),
                })?;
                Ok(addresses)
            }
            ListenAddr::Unix(path) => {
                #[cfg(unix)]
                {
                    std::os::unix::net::SocketAddr::from_pathname(path)?;
                    // The socket belongs to a running server, or the service manager has created
                    // it.
                    if is_socket(path)? {
                        return Ok(Vec::new());
                    }
                }
                let directory = directory_of(path);
                // A missing directory is not an error: the service manager usually creates it when
                // it starts the server.
                if directory.exists() {
                    tempfile::tempfile_in(directory)?;
                }
                Ok(Vec::new())
            }
        }
    }

    /// The address that clients connect to, in the form that `serve --listen` takes.
    pub fn address(&self) -> io::Result<ListenAddr> {
        match self {
            Self::Tcp(listener) => Ok(ListenAddr::Tcp(listener.local_addr()?.to_string())),
            #[cfg(unix)]
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().map(Path::to_owned);
                path.map(ListenAddr::Unix).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
            }
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Each answer is a single write, so Nagle's algorithm would delay answers without
                // saving packets. The result is ignored: setting the option fails only if the
                // client has closed the connection, and the next read reports that.
                let _ = stream.set_nodelay(true);
                Ok((Accepted::Tcp(stream), Peer::Tcp(peer)))
            }
            #[cfg(unix)]
            Self::Unix(listener) => {
                let (stream, _unnamed) = listener.accept().await?;
                Ok((Accepted::Unix(stream), Peer::Unix))
            }
        }
    }
}

/// Binds and listens like [`TcpListener::bind`], with the larger backlog [`BACKLOG`].
async fn bind_tcp(address: &str) -> io::Result<TcpListener> {
    first_of(&resolve(address).await?, |address| reserve(address)?.listen(BACKLOG))
}

/// The result for the first of `addresses` for which `bind` succeeds, or the error for the last.
fn first_of<T>(
    addresses: &[SocketAddr],
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut result = Err(io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        result = result.or_else(|_| bind(*address));
    }
    result
}

/// Binds a socket to `address` without listening.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // With this option, a restarted server can bind while old connections are in TIME_WAIT. On
    // Windows, the option would also allow a second listener on the same address.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Looks up the addresses of `host:port`.
pub(crate) async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let found = lookup_host(address).await.map_err(|error| unresolved(address, &error))?;
    Ok(found.collect())
}

fn unresolved(address: &str, error: &io::Error) -> io::Error {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    io::Error::new(
        error.kind(),
        format!(
            "the name {host} has no address ({error}): check its spelling, /etc/hosts and the DNS \
             settings of this machine"
        ),
    )
}

#[cfg(unix)]
async fn bind_unix(path: &Path, mode: SocketMode) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    remove_stale(path).await?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    // The mode is set before `listen`, so that no client can connect under another mode.
    fs::set_permissions(path, fs::Permissions::from_mode(mode.bits()))?;
    socket.listen(BACKLOG)
}

/// Removes the socket of a process that has ended, if one is at `path`.
///
/// # Errors
///
/// If a process may be listening on the socket, or if a file of another type is at `path`. Also any
/// error of the operating system.
#[cfg(unix)]
async fn remove_stale(path: &Path) -> io::Result<()> {
    if !is_socket(path)? {
        return Ok(());
    }
    let found = fs::symlink_metadata(path)?;
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let now = fs::symlink_metadata(path)?;
            // Another process that starts at the same time may have replaced the socket.
            if identity(&now) == identity(&found) {
                fs::remove_file(path)?;
            }
            Ok(())
        }
        Err(error) => {
            let problem = format!("a socket is there that may be in use: {error}");
            Err(io::Error::new(error.kind(), problem))
        }
    }
}

/// Returns `true` if a socket is at this path, and `false` if nothing is there.
///
/// # Errors
///
/// If a file of another type is at this path. Also any error of the operating system.
#[cfg(unix)]
fn is_socket(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::FileTypeExt;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(found) if found.file_type().is_socket() => Ok(true),
        Ok(_) => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file is there, and no socket"))
        }
    }
}

/// The maximum number of connections that wait to be accepted. The operating system may apply a
/// lower limit. The usual limit of 128 is too low for proxies and load testers that open all their
/// connections at once: each connection over the limit is delayed by a second.
const BACKLOG: u32 = 4096;

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

#[cfg(unix)]
impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

/// An accepted connection, registered with the event loop that has accepted it.
pub(crate) enum Accepted {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Accepted {
    /// The stream to serve on the event loop that has accepted the connection.
    pub(crate) fn on_this_loop(self) -> Stream {
        match self {
            Self::Tcp(stream) => Box::new(stream),
            #[cfg(unix)]
            Self::Unix(stream) => Box::new(stream),
        }
    }

    /// Detaches the connection from its event loop. The returned function registers it with the
    /// event loop of its caller.
    pub(crate) fn detach(self) -> io::Result<Box<dyn FnOnce() -> io::Result<Stream> + Send>> {
        Ok(match self {
            Self::Tcp(stream) => {
                let stream = stream.into_std()?;
                Box::new(|| Ok(Box::new(TcpStream::from_std(stream)?)))
            }
            #[cfg(unix)]
            Self::Unix(stream) => {
                let stream = stream.into_std()?;
                Box::new(|| Ok(Box::new(UnixStream::from_std(stream)?)))
            }
        })
    }
}

/// A TCP or Unix stream.
pub(crate) type Stream = Box<dyn Socket>;

pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {
    /// Completes when the peer resets the connection, even if the peer has half-closed it before.
    /// Never completes on systems that do not report resets.
    fn reset(&self) -> Reset;

    /// Whether the peer has reset the connection. Otherwise, the task is woken when bytes arrive or
    /// the peer ends or resets the connection, unless unread bytes have arrived before.
    fn poll_is_reset(&self, cx: &mut Context<'_>) -> bool;
}

/// Whether the pending error of a socket ends its connection. A report that the peer cannot be
/// reached at the moment is also such an error, but TCP goes on.
fn is_reset(pending: io::Result<Option<io::Error>>) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut};
    let kind = pending.ok().flatten().map(|error| error.kind());
    matches!(kind, Some(BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut))
}

/// See [`Socket::reset`].
pub(crate) type Reset = Pin<Box<dyn Future<Output = ()> + Send>>;

#[cfg(not(unix))]
impl Socket for TcpStream {
    fn reset(&self) -> Reset {
        Box::pin(std::future::pending())
    }

    fn poll_is_reset(&self, cx: &mut Context<'_>) -> bool {
        self.poll_read_ready(cx).is_ready() && is_reset(self.take_error())
    }
}

/// Waits for the reset. For this, the descriptor is duplicated, because the original is already
/// registered with the event loop for reads and writes.
#[cfg(unix)]
macro_rules! watch_for_reset {
    ($socket:ty, $std:ty) => {
        impl Socket for $socket {
            fn reset(&self) -> Reset {
                let second = self.as_fd().try_clone_to_owned().ok();
                let second = second.filter(|second| !descriptors::are_scarce(second));
                let second = second.and_then(|it| <$socket>::from_std(<$std>::from(it)).ok());
                Box::pin(async move {
                    // Without the duplicate, the reset is noticed only when the answer is written.
                    let Some(socket) = second else { return pending().await };
                    while let Ok(ready) = socket.ready(Interest::WRITABLE).await {
                        if ready.is_write_closed() {
                            return;
                        }
                        let clear_readiness = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                        let _ = socket.try_io(Interest::WRITABLE, clear_readiness);
                    }
                })
            }

            fn poll_is_reset(&self, cx: &mut Context<'_>) -> bool {
                self.poll_read_ready(cx).is_ready() && is_reset(self.take_error())
            }
        }
    };
}

#[cfg(unix)]
watch_for_reset!(TcpStream, std::net::TcpStream);
#[cfg(unix)]
watch_for_reset!(UnixStream, std::os::unix::net::UnixStream);

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A process on this machine, connected through a Unix socket.
    Unix,
}

impl Peer {
    /// The peer's IP address and port; `None` for a Unix socket.
    pub(crate) fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(SocketAddr::V4(address)) => {
                // This code runs for the log line of every request. Each call of `f` takes time, so
                // the whole address is formatted first and then written by a single call.
                let mut text = SmallVec::<[u8; 21]>::new();
                for (byte, then) in address.ip().octets().into_iter().zip(*b"...:") {
                    text.extend_from_slice(itoa::Buffer::new().format(byte).as_bytes());
                    text.push(then);
                }
                text.extend_from_slice(itoa::Buffer::new().format(address.port()).as_bytes());
                f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_an_error_that_ends_a_connection_is_a_reset() {
        let pending = |error: io::Error| is_reset(Ok(Some(error)));
        // ECONNRESET and EPIPE; EHOSTUNREACH, ENETUNREACH and EPROTO, of which TCP recovers.
        for (numbers, expected) in [(&[104, 32][..], true), (&[113, 101, 71], false)] {
            for number in numbers {
                assert_eq!(pending(io::Error::from_raw_os_error(*number)), expected, "{number}");
            }
        }
        assert!(!is_reset(Ok(None)) && !is_reset(Err(io::ErrorKind::BrokenPipe.into())));
    }
}
