//! Serves one connection with hyper, and enforces a deadline for each phase of the connection.
//!
//! hyper's own header timer also runs while a connection is idle, so it would close the pooled
//! connections of a proxy. Therefore hyper's timer is off, and this module measures the phases by
//! the reads and writes of the socket:
//!
//! ```text
//! Idle --first byte--> Head --end of headers--> Serving --answer ready--> Writing --flushed--> Idle
//! 75 s                 5 s                      (its own deadline)        10 s per stall
//! ```
//!
//! When a connection enters a phase, the deadline of the phase is stored, but no timer is set. Each
//! connection has one timer. If the timer fires before the stored deadline, it is set again.
//!
//! A poll of the connection may both read a request and produce its answer. The answer is then
//! written in the next poll, after the event loop has polled the other readable connections. So a
//! busy event loop writes many answers in a row. A peer on the same machine, such as a proxy or a
//! load tester, is then woken once for many answers. This saves time in the kernel, where a wake
//! costs as much as a send.

mod socket;
mod watch;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::config::StartupLimits;
use crate::http::connection::socket::Watched;
pub(crate) use crate::http::connection::watch::{Phase, Watch};
use crate::http::listener::{Peer, Stream};

/// Where and when a request arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The other end of the connection.
    pub peer: Peer,
    /// When the request's first byte was read.
    pub first_byte: Instant,
}

/// Answers the requests of a connection.
pub(crate) trait Handler: Send + Sync + 'static {
    fn handle(
        &self,
        request: Request<Received>,
        arrival: Arrival,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// A request extension: the target had a fragment, which RFC 9112, section 3.2 does not allow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment;

/// A request body that tells the connection's [`Watch`] when the whole body was read.
pub(crate) struct Received {
    body: Incoming,
    watch: Arc<Watch>,
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let poll = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(poll, Poll::Ready(None)) || self.body.is_end_stream() {
            self.watch.has_whole_request.store(true, Ordering::Relaxed);
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves requests on `stream` until either side closes it.
///
/// # Errors
///
/// [`NotHttp`] if the peer sent something other than an HTTP/1 request. The service was not called
/// for this input, but hyper may have sent an error to the peer.
pub(crate) async fn serve(
    stream: Stream,
    peer: Peer,
    watch: Arc<Watch>,
    limits: &StartupLimits,
    handler: &impl Handler,
) -> Result<(), NotHttp> {
    let io = Watched::new(stream, Arc::clone(&watch));
    let service = service_fn(|mut request: Request<Incoming>| {
        let arrival = Arrival { peer, first_byte: watch.begin_serving() };
        let watch = &watch;
        watch.has_whole_request.store(request.body().is_end_stream(), Ordering::Relaxed);
        if watch.has_fragment.swap(false, Ordering::Relaxed) {
            request.extensions_mut().insert(Fragment);
        }
        let request = request.map(|body| Received { body, watch: Arc::clone(watch) });
        handler.handle(request, arrival).map(move |mut response| {
            if watch.is_last_answer() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let is_last = response.headers().contains_key(CONNECTION);
            watch.expects_head.store(!is_last, Ordering::Relaxed);
            watch.enter(Phase::Writing);
            Ok::<_, Infallible>(response)
        })
    });
    let mut builder = http1::Builder::new();
    // hyper's limit is set higher than the configured limit. A head whose size is between the two
    // limits reaches the service, which refuses it in the route's dialect.
    let head_bytes = limits.header_bytes.max(VALIDATE_HEAD_BYTES);
    builder.header_read_timeout(None).max_buf_size(head_bytes + HEADER_SLACK);
    let mut connection = builder.serve_connection(TokioIo::new(io), &service);

    // The number of polls that are left to an evicted connection.
    let mut last_polls = 0;
    let mut alarm = pin!(sleep(watch.until_next_check()));
    let expired = loop {
        tokio::select! {
            biased;
            over = poll_fn(|cx| {
                watch.has_read_in_poll.store(false, Ordering::Relaxed);
                match connection.poll_unpin(cx) {
                    Poll::Ready(ended) => Poll::Ready(Some(ended)),
                    Poll::Pending if watch.has_large_head.load(Ordering::Relaxed) => {
                        Poll::Ready(None)
                    }
                    Poll::Pending => Poll::Pending,
                }
            }) => {
                if let Some(ended) = over {
                    let Err(error) = ended else { return Ok(()) };
                    return NotHttp::of(&error, &connection.into_parts().read_buf);
                }
                watch.has_large_head.store(false, Ordering::Relaxed);
                let parts = connection.into_parts();
                let mut io = parts.io.into_inner();
                io.head.replay(&parts.read_buf);
                // hyper allocates memory for this many fields; a field has four bytes or more.
                let fields = limits.header_fields + MORE_FIELDS;
                builder.max_headers(fields.min((head_bytes + HEADER_SLACK) / 4));
                connection = builder.serve_connection(TokioIo::new(io), &service);
            }
            () = alarm.as_mut() => {
                if watch.is_over() {
                    break watch.phase();
                }
                alarm.set(sleep(watch.until_next_check()));
            }
            () = watch.evicted.notified() => last_polls = LAST_POLLS,
            () = yield_now(), if last_polls > 0 => {
                last_polls -= 1;
                if last_polls == 0 && !watch.outlives_eviction() {
                    return Ok(());
                }
            }
        }
    };
    if expired == Phase::Head {
        let mut stream = connection.into_parts().io.into_inner().stream;
        // The result is ignored: the answer is small and the send buffer is empty, so the write
        // fails only if the peer is gone.
        let _ = timeout(LAST_WRITE_TIMEOUT, stream.write_all(HEAD_TIMEOUT)).await;
    }
    Ok(())
}

/// Bytes that a peer sent instead of an HTTP/1 request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotHttp {
    /// A TLS handshake: the client uses `https://` on a port without TLS.
    Tls,
    /// The connection preface of HTTP/2.
    Http2,
    /// A head that exceeds hyper's limits. It does not reach the service, so hyper refuses it.
    LargeHead,
    /// Anything else.
    Other,
}

impl NotHttp {
    pub(crate) const ALL: [Self; 4] = [Self::Tls, Self::Http2, Self::LargeHead, Self::Other];

    /// Classifies the `error` with which hyper ended a connection. `unread` contains the bytes that
    /// hyper received but did not parse. Returns `Ok` if `error` is not a parse error but, for
    /// example, an I/O error. Such an error is not reported.
    fn of(error: &hyper::Error, unread: &[u8]) -> Result<(), Self> {
        if error.is_parse_too_large() {
            return Err(Self::LargeHead);
        }
        if !error.is_parse() {
            return Ok(());
        }
        // A TLS handshake record of any version (RFC 8446, section 5.1), or the HTTP/2 preface (RFC
        // 9113, section 3.4).
        Err(match unread {
            [0x16, 0x03, ..] => Self::Tls,
            _ if unread.starts_with(b"PRI * ") => Self::Http2,
            _ => Self::Other,
        })
    }

    /// Returns the label for metrics and the log, and the text for the log: what happened and how
    /// to correct it.
    pub(crate) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Tls => (
                "tls",
                "a client speaks TLS to this plain HTTP port: change its URL to http://, or connect \
                 it to the proxy that has the certificate",
            ),
            Self::Http2 => (
                "http2",
                "a client speaks HTTP/2, which is not supported here: set the client, or the proxy \
                 in front, to HTTP/1.1",
            ),
            Self::LargeHead => (
                "large_head",
                "a client sent a request head that is too large to be read: send fewer or shorter \
                 header fields",
            ),
            Self::Other => ("other", "a client sent bytes that are not an HTTP/1 request"),
        }
    }
}

/// Answers 503 on a connection that exceeds the limit of open connections.
pub(crate) async fn reject(mut stream: Stream) {
    let _ = timeout(LAST_WRITE_TIMEOUT, stream.write_all(TOO_MANY_CONNECTIONS)).await;
}

/// The maximum number of header fields in a request to `/connect/validate`, unless the configured
/// limit is higher. A proxy may copy all header fields of an API request into such a request.
pub(crate) const VALIDATE_HEAD_FIELDS: usize = 128;
/// The maximum size of the head of a request to `/connect/validate`, in bytes, unless the
/// configured limit is higher.
pub(crate) const VALIDATE_HEAD_BYTES: usize = 32 * 1024;

/// The maximum number of header fields that hyper accepts is higher than the configured limit by
/// this number. A head whose number of fields is between the two limits reaches the service, which
/// refuses it in the route's dialect.
const MORE_FIELDS: usize = 192;

/// The size limit that hyper applies to a head is higher than the configured limit by this number
/// of bytes.
const HEADER_SLACK: usize = 8 * 1024;

/// The number of times that an evicted connection is polled before it is closed. These polls read
/// what the client has already sent, and write an answer that was deferred. Before each of them, the
/// event loop asks the system which sockets are readable; otherwise, the polls would not see a
/// request that has just arrived.
const LAST_POLLS: u32 = 4;

/// The maximum time to write the last answer on a connection.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// The answer to a head that did not end in time. The request's route is not known then, so the
/// answer always has the format of the dialect `connect`.
const HEAD_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-type: application/json\r\ncache-control: no-store\r\nconnection: close\r\n\
    content-length: 27\r\n\r\n{\"error\":\"invalid_request\"}";

const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\ncache-control: no-store\r\nconnection: close\r\n\
    retry-after: 1\r\ncontent-length: 35\r\n\r\n{\"error\":\"temporarily_unavailable\"}";

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::AtomicUsize;

    use tokio::runtime::Builder;

    use super::*;
    use crate::clock::Clock;

    /// When a request is handled, counts the clients that have already received an answer.
    struct AnswerCounter {
        clients: Vec<TcpStream>,
        requests: AtomicUsize,
        answers: AtomicUsize,
    }

    impl AnswerCounter {
        fn answered(&self) -> usize {
            self.clients.iter().filter(|client| client.peek(&mut [0]).is_ok()).count()
        }
    }

    impl Handler for AnswerCounter {
        fn handle(
            &self,
            _request: Request<Received>,
            _arrival: Arrival,
        ) -> impl Future<Output = Response<Full<Bytes>>> + Send {
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.answers.fetch_add(self.answered(), Ordering::Relaxed);
            ready(Response::default())
        }
    }

    #[test]
    fn answers_are_written_after_all_waiting_requests_are_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (clients, servers): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| {
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
                let (server, address) = listener.accept().unwrap();
                client.set_nonblocking(true).unwrap();
                server.set_nonblocking(true).unwrap();
                (client, (server, Peer::Tcp(address)))
            })
            .unzip();
        let (requests, answers) = Default::default();
        let counter = Arc::new(AnswerCounter { clients, requests, answers });
        let begin = Clock::system().instant();
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            for (stream, peer) in servers {
                let stream = Box::new(tokio::net::TcpStream::from_std(stream).unwrap());
                let limits = StartupLimits::default();
                let watch = Arc::new(Watch::new(&limits, Clock::system(), Arc::default()));
                let counter = Arc::clone(&counter);
                tokio::spawn(async move { serve(stream, peer, watch, &limits, &*counter).await });
            }
            while counter.answered() < 3 {
                assert!(begin.elapsed() < Duration::from_secs(60), "a client has no answer");
                yield_now().await;
            }
        });
        assert_eq!(counter.requests.load(Ordering::Relaxed), 3);
        assert_eq!(counter.answers.load(Ordering::Relaxed), 0);
    }
}
