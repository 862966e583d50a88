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

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use memchr::memchr_iter;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use crate::clock::Clock;
use crate::config::Limits;
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
        request: Request<Incoming>,
        arrival: Arrival,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// Serves requests on `stream` until either side ends it. Says so if it ends because of bytes that
/// are no request: hyper answers those itself, if at all.
pub(crate) async fn serve(
    stream: Stream,
    peer: Peer,
    watch: Arc<Watch>,
    limits: &Limits,
    handler: &impl Handler,
) -> Result<(), NotHttp> {
    let io = Watched { stream, watch: Arc::clone(&watch), was_full: false, head: Head::default() };
    let service = service_fn(|request: Request<Incoming>| {
        let arrival = Arrival { peer, first_byte: watch.begin_serving() };
        let watch = &watch;
        let has_body = !request.body().is_end_stream();
        handler.handle(request, arrival).map(move |mut response| {
            if watch.is_last_answer.load(Ordering::Relaxed) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let is_last = response.headers().contains_key(CONNECTION);
            watch.expects_head.store(!has_body && !is_last, Ordering::Relaxed);
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
                match Pin::new(&mut connection).poll(cx) {
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

/// What stood where a request was to begin.
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

    /// What it was that ended a connection with `error`, and left `unread` behind.
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

/// Where a connection stands, as the socket and the service see it.
pub(crate) struct Watch {
    phase: AtomicU8,
    /// When the phase began and when it must end, in nanoseconds after `origin`.
    since: AtomicU64,
    deadline: AtomicU64,
    /// When the first byte of the present request was read.
    first_byte: AtomicU64,
    /// Whether bytes were read in this turn of the connection, and an answer to them has to wait for
    /// its next.
    has_read: AtomicBool,
    /// Whether what is read next is a head for certain: not the rest of a body that was not read,
    /// nor what follows the last answer.
    expects_head: AtomicBool,
    /// Whether the present head has more fields than hyper takes without being told.
    has_large_head: AtomicBool,
    origin: Instant,
    times: Times,
    is_last_answer: Arc<AtomicBool>,
    evicted: Notify,
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// For the client to begin a request.
    Idle,
    /// For the client to finish the headers.
    Head,
    /// For the client to finish the body, then for us.
    Serving,
    /// For the client to take the answer.
    Writing,
}

#[derive(Clone, Copy)]
struct Times {
    idle: u64,
    head: u64,
    write_stall: u64,
}

impl Watch {
    /// A watch that begins to idle now. While `is_last_answer` is set, every answer says that it
    /// is its connection's last.
    pub(crate) fn new(limits: &Limits, is_last_answer: Arc<AtomicBool>) -> Self {
        let nanos = |seconds: u64| seconds.saturating_mul(1_000_000_000);
        let times = Times {
            idle: nanos(limits.idle_seconds),
            head: nanos(limits.header_seconds),
            write_stall: nanos(limits.write_stall_seconds),
        };
        Self {
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU64::new(0),
            deadline: AtomicU64::new(times.idle),
            first_byte: AtomicU64::new(0),
            has_read: AtomicBool::new(false),
            expects_head: AtomicBool::new(true),
            has_large_head: AtomicBool::new(false),
            origin: Clock::instant(),
            times,
            is_last_answer,
            evicted: Notify::new(),
        }
    }

    /// Ends the connection at its next turn, in whatever state it is.
    pub(crate) fn evict(&self) {
        self.evicted.notify_one();
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Serving,
            _ => Phase::Writing,
        }
    }

    /// How long the present phase has lasted.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_nanos(self.now().saturating_sub(self.since.load(Ordering::Relaxed)))
    }

    fn deadline(&self) -> Instant {
        let nanos = self.deadline.load(Ordering::Relaxed);
        // The far end of time is beyond what an instant holds: a year will do.
        let year = Duration::from_secs(31_536_000);
        self.origin + Duration::from_nanos(nanos).min(year)
    }

    /// When to look at the deadline again: no phase that begins until then can end before it.
    fn next_look(&self) -> Instant {
        let Times { idle, head, write_stall } = self.times;
        let shortest = Duration::from_nanos(idle.min(head).min(write_stall));
        self.deadline().min(Clock::instant() + shortest)
    }

    fn now(&self) -> u64 {
        u64::try_from((Clock::instant() - self.origin).as_nanos()).unwrap_or(u64::MAX)
    }

    fn enter(&self, phase: Phase) {
        self.enter_at(phase, self.now());
    }

    /// Reading the clock is a good part of what a change of phase costs; whoever has a time at hand
    /// that is right to the millisecond passes it in.
    fn enter_at(&self, phase: Phase, now: u64) {
        let time = match phase {
            Phase::Idle => self.times.idle,
            Phase::Head => self.times.head,
            // The service keeps its own deadline, so that it can answer in the route's own words.
            Phase::Serving => u64::MAX,
            Phase::Writing => self.times.write_stall,
        };
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
        self.deadline.store(now.saturating_add(time), Ordering::Relaxed);
    }

    /// The headers are there. Says when the request's first byte was.
    fn begin_serving(&self) -> Instant {
        let first_byte = if self.phase() == Phase::Head {
            self.first_byte.load(Ordering::Relaxed)
        } else {
            // Pipelined: it came with the request before.
            self.now()
        };
        self.enter_at(Phase::Serving, first_byte);
        self.origin + Duration::from_nanos(first_byte)
    }

    fn on_read(&self) {
        let phase = self.phase();
        // What comes behind a request that is answered already does not hold the answer up again.
        if phase != Phase::Writing {
            self.has_read.store(true, Ordering::Relaxed);
        }
        if phase == Phase::Idle {
            let now = self.now();
            self.first_byte.store(now, Ordering::Relaxed);
            self.enter_at(Phase::Head, now);
        }
    }

    /// The socket has taken bytes again after it had been full.
    fn on_progress(&self) {
        if self.phase() == Phase::Writing {
            self.enter(Phase::Writing);
        }
    }

    /// hyper flushes when it has written all that it had.
    fn on_flushed(&self) {
        if self.phase() == Phase::Writing {
            self.enter_at(Phase::Idle, self.since.load(Ordering::Relaxed));
        }
    }
}

/// A socket that reports to its watch.
struct Watched {
    stream: Stream,
    watch: Arc<Watch>,
    /// Whether the last bytes found the socket full.
    was_full: bool,
    head: Head,
}

/// Counts the lines of the present head, and keeps what hyper has not read yet.
///
/// hyper parses up to 100 fields without a heap allocation. For a larger head the connection goes on
/// in a second parser that takes more.
#[derive(Default)]
struct Head {
    lines: usize,
    held: Vec<u8>,
    takes_more: bool,
}

impl Head {
    /// Whether these bytes, read where a head may go on, make it a large one.
    fn is_made_large_by(&mut self, bytes: &[u8], begins: bool) -> bool {
        if self.takes_more {
            return false;
        }
        if begins {
            self.lines = 0;
        }
        self.lines += memchr_iter(b'\n', bytes).count();
        // The request line, and an empty one at the end, are no fields.
        self.lines > DEFAULT_FIELDS + 2
    }

    /// Puts the part of the head that one parser has read in front of the part that was held back.
    fn give_to_another(&mut self, read: &[u8]) {
        self.held.splice(..0, read.iter().copied());
        self.takes_more = true;
    }

    /// Moves held bytes into `buffer`. Whether there were any.
    fn fill(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let length = self.held.len().min(buffer.remaining());
        let is_held = self.takes_more && length > 0;
        if is_held {
            buffer.put_slice(&self.held[..length]);
            self.held.drain(..length);
        }
        is_held
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.head.fill(buffer) {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() == before {
            return poll;
        }
        let phase = self.watch.phase();
        self.watch.on_read();
        let is_head = self.watch.expects_head.load(Ordering::Relaxed);
        if is_head && matches!(phase, Phase::Idle | Phase::Head) {
            let (begins, bytes) = (phase == Phase::Idle, &buffer.filled()[before..]);
            if self.head.is_made_large_by(bytes, begins) {
                self.head.held = bytes.to_vec();
                buffer.set_filled(before);
                self.watch.has_large_head.store(true, Ordering::Relaxed);
                return Poll::Pending;
            }
        }
        poll
    }
}

/// Takes one piece at a time: to copy an answer costs less than the kernel's way with two.
impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.watch.has_read.load(Ordering::Relaxed) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if poll.is_ready() && self.was_full {
            self.watch.on_progress();
        }
        self.was_full = poll.is_pending();
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        if poll.is_ready() {
            self.watch.on_flushed();
        }
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Fields and bytes that the head of a question about a token may have: it may be a copy of a head
/// that was sent to an API.
pub(crate) const VALIDATE_HEAD_FIELDS: usize = 128;
pub(crate) const VALIDATE_HEAD_BYTES: usize = 32 * 1024;

/// Fields that hyper takes without being told to take more.
const DEFAULT_FIELDS: usize = 100;
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
            _request: Request<Incoming>,
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
                let limits = Limits::default();
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
