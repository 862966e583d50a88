//! The socket below hyper: it tells the watch what comes and goes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use memchr::{memchr, memchr_iter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::connection::watch::{Phase, Watch};
use crate::http::listener::{Reset, Stream};

/// A socket that reports to its watch.
pub(super) struct Watched {
    pub(super) stream: Stream,
    watch: Arc<Watch>,
    /// Whether the last bytes found the socket full.
    was_full: bool,
    pub(super) head: Head,
    /// Whether the client sends requests before it has the answers to earlier ones.
    is_pipelined: bool,
    /// From the end of what the client sends until the answer is out: the end of the connection.
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
            reset: None,
        }
    }

    /// The client sends no more. While a request is served, hyper would take that for the end of the
    /// connection and drop the request: so it learns of it later, or of a reset.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let watch = &self.watch;
        if !matches!(watch.phase(), Phase::Serving | Phase::Writing) {
            return Poll::Ready(Ok(()));
        }
        if !watch.has_ended.swap(true, Ordering::Relaxed) {
            // The service may not have looked at a body yet that is there: it has its turn first.
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

/// Counts the lines of the present head, and keeps what hyper has not read yet.
///
/// hyper parses up to 100 fields without a heap allocation. For a larger head the connection goes on
/// in a second parser that takes more.
#[derive(Default)]
pub(super) struct Head {
    lines: usize,
    held: Vec<u8>,
    takes_more: bool,
}

impl Head {
    /// Whether these bytes, the first or the next of a head, have a fragment in the request line.
    fn has_fragment_in(&mut self, bytes: &[u8], begins: bool) -> bool {
        if begins {
            self.lines = 0;
        }
        self.lines == 0 && {
            let line_end = memchr(b'\n', bytes).unwrap_or(bytes.len());
            memchr(b'#', &bytes[..line_end]).is_some()
        }
    }

    /// Whether these bytes make the head a large one.
    fn is_made_large_by(&mut self, bytes: &[u8]) -> bool {
        self.lines += memchr_iter(b'\n', bytes).count();
        // The request line, and an empty one at the end, are no fields.
        !self.takes_more && self.lines > DEFAULT_FIELDS + 2
    }

    /// Puts the part of the head that one parser has read in front of the part that was held back.
    pub(super) fn give_to_another(&mut self, read: &[u8]) {
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
            return if let Poll::Ready(Ok(())) = poll { self.poll_end(cx) } else { poll };
        }
        let phase = self.watch.phase();
        self.watch.on_read();
        // The beginning of a later head may be among these bytes.
        self.is_pipelined |=
            phase == Phase::Writing || phase == Phase::Serving && self.watch.has_whole_request();
        let is_head = self.watch.expects_head.load(Ordering::Relaxed);
        if is_head && matches!(phase, Phase::Idle | Phase::Head) {
            let (begins, bytes) = (phase == Phase::Idle, &buffer.filled()[before..]);
            if self.head.has_fragment_in(bytes, begins) && !self.is_pipelined {
                self.watch.has_fragment.store(true, Ordering::Relaxed);
            }
            if self.head.is_made_large_by(bytes) {
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

/// Fields that hyper takes without being told to take more.
const DEFAULT_FIELDS: usize = 100;
