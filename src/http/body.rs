//! Reads a request's body within its limits, or discards it.

use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use tokio::runtime::Handle;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::oauth::error::Cause;

/// The time until which a body is read.
#[derive(Clone, Copy)]
pub(crate) struct Deadline<'c> {
    pub(crate) clock: &'c Clock,
    pub(crate) at: Instant,
}

impl Deadline<'_> {
    async fn limit<F: Future>(self, future: F) -> Result<F::Output, Elapsed> {
        timeout(self.clock.until(self.at), future).await
    }
}

/// Reads the whole body. The body is refused if it is larger than `limit` bytes or does not end
/// before `deadline`.
///
/// If `Content-Length` exceeds the limit, the body is refused before `100 Continue` is sent.
pub(crate) async fn collect(
    headers: &HeaderMap,
    body: impl Body<Data = Bytes>,
    limit: usize,
    deadline: Deadline<'_>,
) -> Result<Bytes, Cause> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        discard(headers, body, deadline).await;
        return Err(Cause::ContentEncoding);
    }
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        discard(headers, body, deadline).await;
        return Err(Cause::BodyTooLarge);
    }

    let mut body = pin!(body);
    let read = async {
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = body.as_mut().frame().await {
            let Ok(data) = frame.map_err(|_| Cause::BodyAborted)?.into_data() else { continue };
            if first.len() + rest.len() + data.len() > limit {
                return Err(Cause::BodyTooLarge);
            }
            // Most bodies are one frame, which needs no copy.
            if first.is_empty() {
                first = data;
            } else {
                rest.extend_from_slice(&data);
            }
        }
        Ok(if rest.is_empty() { first } else { [first, rest.freeze()].concat().into() })
    };
    let whole = {
        let mut read = pin!(read);
        // Most bodies arrive together with the head and need no timer.
        match read.as_mut().now_or_never() {
            Some(whole) => whole,
            None => deadline.limit(read).await.unwrap_or(Err(Cause::RequestTimeout)),
        }
    };

    if whole == Err(Cause::BodyTooLarge) {
        // The result is ignored: the answer is sent in any case.
        let _ = deadline.limit(drain(body)).await;
    }
    whole
}

/// Reads and discards a body, up to [`MAX_DISCARDED_BYTES`] and until `deadline`.
///
/// If the server closes a connection while bytes still arrive, the kernel resets the connection,
/// and the client may lose the answer. If the client waits for `100 Continue`, it has not sent the
/// body yet, so nothing is read.
pub(crate) async fn discard(
    headers: &HeaderMap,
    body: impl Body<Data = Bytes>,
    deadline: Deadline<'_>,
) {
    let empty =
        headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0") && body.is_end_stream();
    if !empty && !headers.contains_key(EXPECT) {
        let _ = deadline.limit(drain(pin!(body))).await;
    }
}

/// Starts a task that discards a body for at most [`BACKGROUND_TIME`]. The answer does not wait for
/// this task.
pub(crate) fn discard_in_background(
    headers: &HeaderMap,
    body: impl Body<Data = Bytes> + Send + 'static,
) {
    if body.is_end_stream() || headers.contains_key(EXPECT) {
        return;
    }
    // An embedder may call this without a tokio runtime. The body then does not come from a socket
    // of this server, so dropping it resets nothing.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move { timeout(BACKGROUND_TIME, drain(pin!(body))).await });
    }
}

async fn drain(mut body: Pin<&mut impl Body<Data = Bytes>>) {
    let mut left = MAX_DISCARDED_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            break;
        }
    }
}

const BACKGROUND_TIME: Duration = Duration::from_millis(500);

/// The maximum number of bytes of a body that are read and discarded. If a body is larger, the
/// client may lose its answer.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;
