//! The socket below hyper. It reports reads and writes to the connection's [`Watch`], hides a
//! half-close by the client while a request is served, and holds back large heads.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use memchr::{memchr, memchr_iter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::connection::watch::{Phase, Watch};
use crate::http::listener::{Reset, Stream};

/// A socket that reports its reads and writes to the connection's [`Watch`].
pub(super) struct Watched {
    pub(super) stream: Stream,
    watch: Arc<Watch>,
    /// Whether the last write found the send buffer full.
    was_full: bool,
    pub(super) head: Head,
    /// Whether the client has ever pipelined, that is, sent bytes of a request before it received
    /// the answer to its previous request.
    is_pipelined: bool,
    /// Whether hyper waits for bytes. While it holds bytes of the next request, it does not.
    is_reading: bool,
    /// Completes when the peer resets the connection. `None` until the client half-closes the
    /// connection while a request is served.
    reset: Option<Reset>,
}

impl Watched {
    pub(super) fn new(stream: Stream, watch: Arc<Watch>) -> Self {
        Self {
            stream,
            watch,
            was_full: false,
            head: Head::default(),
            is_pipelined: false,
            is_reading: false,
            reset: None,
        }
    }

    /// Handles a half-close by the client. hyper would treat it as the end of the connection and
    /// drop the request that is being served, so the half-close is hidden from hyper until the
    /// answer is written. A reset is reported to hyper at once.
    fn poll_half_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let watch = &self.watch;
        if !matches!(watch.phase(), Phase::Serving | Phase::Writing) {
            return Poll::Ready(Ok(()));
        }
        if !watch.is_half_closed.swap(true, Ordering::Relaxed) {
            // hyper may have buffered body bytes that the service has not read yet. Poll again
            // after the service has read them.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !watch.has_whole_request.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let stream = &*self.stream;
        let reset = self.reset.get_or_insert_with(|| stream.reset());
        reset.as_mut().poll(cx).map(|()| Err(io::ErrorKind::ConnectionReset.into()))
    }
}

/// Counts the lines of the current head, and holds back the bytes of a large one.
///
/// hyper parses up to 100 fields without a heap allocation. If a head has more fields, `serve`
/// replaces hyper's connection by a second one, which allows more fields and reads the head again
/// from `held`.
#[derive(Default)]
pub(super) struct Head {
    lines: usize,
    held: Vec<u8>,
    /// Whether hyper's connection was replaced.
    is_replayed: bool,
}

impl Head {
    /// Whether the request line has a fragment within `bytes`, the next part of a head. If `begins`
    /// is `true`, `bytes` are the first part, and the count of lines restarts.
    fn has_fragment_in(&mut self, bytes: &[u8], begins: bool) -> bool {
        if begins {
            self.lines = 0;
        }
        self.lines == 0 && {
            let line_end = memchr(b'\n', bytes).unwrap_or(bytes.len());
            memchr(b'#', &bytes[..line_end]).is_some()
        }
    }

    /// Counts the lines of `bytes`, the next part of a head. Returns whether the head now has more
    /// fields than hyper's first connection allows.
    fn grows_large(&mut self, bytes: &[u8]) -> bool {
        self.lines += memchr_iter(b'\n', bytes).count();
        // Two lines are not fields: the request line and the empty line at the end.
        !self.is_replayed && self.lines > DEFAULT_FIELDS + 2
    }

    /// Inserts `read`, the bytes that hyper's first connection had buffered, in front of the held
    /// bytes. hyper's second connection then reads all of these bytes.
    pub(super) fn replay(&mut self, read: &[u8]) {
        self.held.splice(..0, read.iter().copied());
        self.is_replayed = true;
    }

    /// Moves held bytes into `buffer`. Returns whether any bytes were moved.
    fn fill(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let length = self.held.len().min(buffer.remaining());
        let is_held = self.is_replayed && length > 0;
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
        self.is_reading = poll.is_pending();
        if buffer.filled().len() == before {
            return if let Poll::Ready(Ok(())) = poll { self.poll_half_close(cx) } else { poll };
        }
        let phase = self.watch.phase();
        self.watch.on_read();
        // If requests are pipelined, a head may begin in the middle of a read. The request line of
        // such a head cannot be found, so this connection is no longer checked for fragments.
        self.is_pipelined |=
            phase == Phase::Writing || phase == Phase::Serving && self.watch.has_whole_request();
        let is_head = self.watch.expects_head.load(Ordering::Relaxed);
        if is_head && matches!(phase, Phase::Idle | Phase::Head) {
            let (begins, bytes) = (phase == Phase::Idle, &buffer.filled()[before..]);
            if self.head.has_fragment_in(bytes, begins) && !self.is_pipelined {
                self.watch.has_fragment.store(true, Ordering::Relaxed);
            }
            if self.head.grows_large(bytes) {
                self.head.held = bytes.to_vec();
                buffer.set_filled(before);
                self.watch.has_large_head.store(true, Ordering::Relaxed);
                return Poll::Pending;
            }
        }
        poll
    }
}

/// `poll_write_vectored` is not implemented: hyper then copies an answer's head and body into one
/// buffer, which costs less than a `writev`.
impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.watch.has_read_in_poll.load(Ordering::Relaxed) {
            // The answer is written in the connection's next poll. The module `connection` explains
            // why.
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
        // hyper notices a reset only by reading.
        let is_unread = !self.is_reading && self.watch.waits_for_server();
        if is_unread && self.stream.poll_is_reset(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
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

/// hyper's default limit of header fields.
const DEFAULT_FIELDS: usize = 100;
