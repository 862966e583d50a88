//! One connection: hyper on a socket that is watched for clients that take too long.
//!
//! hyper's own header timer also runs while a connection idles, where it would cut off the pool of
//! a proxy in front. So the phases are timed here, on the socket itself:
//!
//! ```text
//! Idle --first byte--> Head --end of headers--> Serving --answer ready--> Writing --flushed--> Idle
//! 75 s                 5 s                      (its own deadline)        10 s a stall
//! ```
//!
//! Changing the phase is a store into memory. The one timer a connection has wakes rarely, looks
//! whether the phase it was set for has ended, and sleeps on.
//!
//! An answer that is there as soon as its request is read leaves a little later, when all other
//! connections that had something to read have had their turn. So a busy loop's answers leave one
//! right after the other, and whoever waits for them on this machine, a proxy or a load tester, is
//! woken for many at once: waking costs the kernel as much as sending.

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
use tokio::time::{sleep_until, timeout};

use crate::clock::Clock;
use crate::config::StartupLimits;
use crate::http::connection::socket::Watched;
pub(crate) use crate::http::connection::watch::{Phase, Watch};
use crate::http::listener::{Peer, Stream};

/// When and from where a request came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Who sent it.
    pub peer: Peer,
    /// When its first byte was read.
    pub first_byte: Instant,
}

/// What answers the requests of connections.
pub(crate) trait Handler: Send + Sync + 'static {
    /// The answer to one request.
    fn handle(
        &self,
        request: Request<Received>,
        arrival: Arrival,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// In the extensions of a request whose target had a fragment (RFC 9112, section 3.2: it has none).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment;

/// The body of a request that tells the watch when it is whole.
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

/// Serves requests on `stream` until either side ends it. Says so if it ends because of bytes that
/// are no request: hyper answers those itself, if at all.
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
            // What is left of a body is no request, and after the end of sending comes none.
            let is_last = watch.is_last_answer.load(Ordering::Relaxed)
                || watch.has_ended.load(Ordering::Relaxed)
                || !watch.has_whole_request.load(Ordering::Relaxed);
            if is_last {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let is_last = response.headers().contains_key(CONNECTION);
            watch.expects_head.store(!is_last, Ordering::Relaxed);
            watch.enter(Phase::Writing);
            Ok::<_, Infallible>(response)
        })
    });
    let mut builder = http1::Builder::new();
    // Above our own limit, so that what is over ours is still read, and answered in words.
    let head_bytes = limits.header_bytes.max(VALIDATE_HEAD_BYTES);
    builder.header_read_timeout(None).max_buf_size(head_bytes + HEADER_SLACK);
    let mut connection = builder.serve_connection(TokioIo::new(io), &service);

    let mut alarm = pin!(sleep_until(watch.next_look().into()));
    let expired = loop {
        tokio::select! {
            biased;
            // A connection that breaks has nobody left to tell.
            over = poll_fn(|cx| {
                watch.has_read.store(false, Ordering::Relaxed);
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
                io.head.give_to_another(&parts.read_buf);
                builder.max_headers(limits.header_fields.max(LARGE_HEAD_FIELDS));
                connection = builder.serve_connection(TokioIo::new(io), &service);
            }
            () = alarm.as_mut() => {
                if watch.deadline() <= Clock::instant() {
                    break watch.phase();
                }
                alarm.as_mut().reset(watch.next_look().into());
            }
            () = watch.evicted.notified() => {
                // An answer that waits for the next turn has its turn now.
                watch.has_read.store(false, Ordering::Relaxed);
                let _ = (&mut connection).now_or_never();
                return Ok(());
            }
        }
    };
    if expired == Phase::Head {
        let mut stream = connection.into_parts().io.into_inner().stream;
        // The answer is small and the socket empty; whoever does not take it gets nothing.
        let _ = timeout(FAREWELL, stream.write_all(HEAD_TIMEOUT)).await;
    }
    Ok(())
}

/// The bytes that stood where a request was to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotHttp {
    /// The beginning of TLS: a client that was set up with `https://` for a port without it.
    Tls,
    /// The preface of HTTP/2.
    Http2,
    /// A head that is larger than is read.
    LargeHead,
    /// Anything else.
    Other,
}

impl NotHttp {
    pub(crate) const ALL: [Self; 4] = [Self::Tls, Self::Http2, Self::LargeHead, Self::Other];

    /// The kind of bytes that ended a connection with `error`, and left `unread` behind.
    fn of(error: &hyper::Error, unread: &[u8]) -> Result<(), Self> {
        if error.is_parse_too_large() {
            return Err(Self::LargeHead);
        }
        if !error.is_parse() {
            return Ok(());
        }
        // RFC 8446, section 5.1: a handshake record of any version. RFC 9113, section 3.4.
        Err(match unread {
            [0x16, 0x03, ..] => Self::Tls,
            _ if unread.starts_with(b"PRI * ") => Self::Http2,
            _ => Self::Other,
        })
    }

    /// The name in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::LargeHead => "large_head",
            Self::Other => "other",
        }
    }

    /// What happened, and what helps.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Tls => {
                "a client speaks TLS here: set it up with http://, or send it to the proxy that has \
                 the certificate"
            }
            Self::Http2 => "a client speaks HTTP/2 here: set it, or the proxy, to HTTP/1.1",
            Self::LargeHead => "a client sent a head that is too large to be read",
            Self::Other => "a client sent bytes that are no HTTP/1 request",
        }
    }
}

/// Answers a connection that there is no room for.
pub(crate) async fn turn_away(mut stream: Stream) {
    let _ = timeout(FAREWELL, stream.write_all(NO_ROOM)).await;
}

/// Fields and bytes that the head of a question about a token may have: it may be a copy of a head
/// that was sent to an API.
pub(crate) const VALIDATE_HEAD_FIELDS: usize = 128;
pub(crate) const VALIDATE_HEAD_BYTES: usize = 32 * 1024;

/// Fields that are still read, and answered in words.
const LARGE_HEAD_FIELDS: usize = 256;

/// Bytes of headers beyond our own limit that hyper still takes in.
const HEADER_SLACK: usize = 8 * 1024;

/// How long a client gets to take a last word.
const FAREWELL: Duration = Duration::from_secs(1);

/// No request was read, so there is no route whose shape this could have.
const HEAD_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-type: application/json\r\ncache-control: no-store\r\nconnection: close\r\n\
    content-length: 27\r\n\r\n{\"error\":\"invalid_request\"}";

const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\ncache-control: no-store\r\nconnection: close\r\n\
    retry-after: 1\r\ncontent-length: 35\r\n\r\n{\"error\":\"temporarily_unavailable\"}";

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::AtomicUsize;

    use tokio::runtime::Builder;
    use tokio::task::yield_now;

    use super::*;

    /// Counts, with each request, the clients that have an answer by then.
    struct Looking {
        clients: Vec<TcpStream>,
        requests: AtomicUsize,
        answers: AtomicUsize,
    }

    impl Looking {
        fn answered(&self) -> usize {
            self.clients.iter().filter(|client| client.peek(&mut [0]).is_ok()).count()
        }
    }

    impl Handler for Looking {
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
    fn the_first_answer_of_a_turn_leaves_when_the_last_request_is_read() {
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
        let looking = Arc::new(Looking { clients, requests, answers });
        let begin = Clock::instant();
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            for (stream, peer) in servers {
                let stream = Box::new(tokio::net::TcpStream::from_std(stream).unwrap());
                let limits = StartupLimits::default();
                let watch = Arc::new(Watch::new(&limits, Arc::default()));
                let looking = Arc::clone(&looking);
                tokio::spawn(async move { serve(stream, peer, watch, &limits, &*looking).await });
            }
            while looking.answered() < 3 {
                assert!(begin.elapsed() < Duration::from_secs(60), "somebody waits");
                yield_now().await;
            }
        });
        assert_eq!(looking.requests.load(Ordering::Relaxed), 3);
        assert_eq!(looking.answers.load(Ordering::Relaxed), 0);
    }
}
