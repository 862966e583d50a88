//! Turns an outcome into hyper's response.

use std::borrow::Cow;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::dialect::{Outcome, vision};
use crate::http::request_id::REQUEST_ID;
use crate::oauth::error::Cause;

pub(super) fn into_response(
    outcome: Outcome<'_>,
    request_id: HeaderValue,
) -> Response<Full<Bytes>> {
    let Outcome { answer, verdict } = outcome;
    let mut headers = HeaderMap::with_capacity(answer.headers.len() + 2);
    for (name, value) in answer.headers {
        let value = match value {
            Cow::Borrowed(value) => HeaderValue::from_static(value),
            // The value is built from constants and validated parts, so it is valid in a header.
            Cow::Owned(value) => {
                HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static(""))
            }
        };
        headers.append(HeaderName::from_static(name), value);
    }
    headers.insert(&REQUEST_ID, request_id);
    if let Err(refused) = verdict {
        if let Some(seconds) = refused.cause.retry_after() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if must_close(refused.cause) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    let mut response = Response::new(Full::new(answer.body));
    *response.headers_mut() = headers;
    // The fallback is never used: every status in the tables of the dialects is valid.
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// Copies the tracing headers of `vision` clients to the answer, except those that are too long.
pub(super) fn echo_client_headers(request: &HeaderMap, response: &mut HeaderMap) {
    for (name, max_length) in vision::CLIENT_HEADERS {
        if let Some(value) = request.get(name)
            && value.len() <= max_length
        {
            response.insert(HeaderName::from_static(name), value.clone());
        }
    }
}

/// Whether the connection must close after this refusal, because the next bytes may belong to the
/// refused request and not to a new one.
fn must_close(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::BodyAborted
            | Cause::BodyTooLarge
            | Cause::HeadTooLarge
            | Cause::Host
            | Cause::RequestTimeout
            | Cause::TransferEncoding
    )
}
