//! Checks what can be checked before a request's body is read.

use hyper::Version;
use hyper::header::{HOST, TRANSFER_ENCODING};
use hyper::http::request;

use crate::config::StartupLimits;
use crate::dialect::route::Route;
use crate::http::connection::{Fragment, VALIDATE_HEAD_BYTES, VALIDATE_HEAD_FIELDS};
use crate::oauth::error::Cause;

/// Checks the size of the head, the target, the host, the transfer coding and the method.
pub(super) fn check(
    limits: &StartupLimits,
    route: Route<'_>,
    request: &request::Parts,
) -> Result<(), Cause> {
    let headers = &request.headers;
    let uri = &request.uri;
    let target = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    let line = request.method.as_str().len() + target + "  HTTP/1.1\r\n".len();
    let fields: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum();
    let (mut max_fields, mut max_bytes) = (limits.header_fields, limits.header_bytes);
    if route == Route::Validate {
        max_fields = max_fields.max(VALIDATE_HEAD_FIELDS);
        max_bytes = max_bytes.max(VALIDATE_HEAD_BYTES);
    }
    if headers.len() > max_fields || line + fields > max_bytes {
        return Err(Cause::HeadTooLarge);
    }
    if request.extensions.get::<Fragment>().is_some() {
        return Err(Cause::Fragment);
    }
    check_host(request)?;
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (!coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some())
    {
        return Err(Cause::TransferEncoding);
    }
    match route {
        Route::Unknown(_) => Err(Cause::NotFound),
        _ if route.allows(request.method.as_str()) => Ok(()),
        _ => Err(Cause::MethodNotAllowed),
    }
}

/// Requires exactly one valid `Host` (RFC 9112, section 3.2); an HTTP/1.0 request may have none.
fn check_host(request: &request::Parts) -> Result<(), Cause> {
    let mut hosts = request.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (None, _) if request.version == Version::HTTP_10 => Ok(()),
        _ => Err(Cause::Host),
    }
}

/// Whether all characters are allowed in a host and port (RFC 3986, section 3.2).
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(b))
}
