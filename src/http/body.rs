//! Collecting a request's body under its limits.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use crate::clock::Clock;
use crate::oauth::error::Cause;

/// Reads the whole body, which may have `limit` bytes and take until `deadline`.
///
/// A body that announces too much is not asked for: its client gets no `100 Continue`.
pub(crate) async fn collect<B>(
    headers: &HeaderMap,
    body: B,
    limit: usize,
    deadline: Instant,
) -> Result<Bytes, Cause>
where
    B: Body<Data = Bytes>,
{
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
            // Nearly every body is one frame, which needs no copy.
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
        // Nearly every body comes with its headers, and needs no timer.
        match read.as_mut().now_or_never() {
            Some(whole) => whole,
            None => timeout_at(deadline, read).await.unwrap_or(Err(Cause::RequestTimeout)),
        }
    };

    if whole == Err(Cause::BodyTooLarge) {
        drain(body, deadline).await;
    }
    whole
}

/// Reads and forgets a body that nobody will look at.
///
/// A connection that is closed while bytes arrive is reset, and a reset can overtake the answer
/// that explains it; so the client is let finish, within bounds. One that waits for `100 Continue`
/// has sent nothing.
pub(crate) async fn discard<B>(headers: &HeaderMap, body: B, deadline: Instant)
where
    B: Body<Data = Bytes>,
{
    let empty =
        headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0") && body.is_end_stream();
    if !empty && !headers.contains_key(EXPECT) {
        drain(pin!(body), deadline).await;
    }
}

/// Reads and forgets a body in the background for a moment, so that the answer leaves at once.
pub(crate) fn linger<B>(headers: &HeaderMap, body: B)
where
    B: Body<Data = Bytes> + Send + 'static,
{
    if body.is_end_stream() || headers.contains_key(EXPECT) {
        return;
    }
    // Without a runtime there is no socket that could be reset.
    if let Ok(runtime) = Handle::try_current() {
        let deadline = (Clock::instant() + LINGERING).into();
        runtime.spawn(async move { drain(pin!(body), deadline).await });
    }
}

async fn drain<B>(mut body: std::pin::Pin<&mut B>, deadline: Instant)
where
    B: Body<Data = Bytes>,
{
    let mut left = MAX_DISCARDED_BYTES;
    // Whether it ended, failed or took too long, the answer is next.
    let _ = timeout_at(deadline, async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    })
    .await;
}

const LINGERING: Duration = Duration::from_millis(500);

/// Beyond this a client is not confused but hostile.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;
