//! The dialects. A dialect parses the requests of one documented service and writes its answers in
//! the format of that service. Decisions about tokens are made in `endpoint`.

pub mod bearer;
pub mod connect;
pub mod firstvision;
pub mod introspection;
pub mod public_error;
pub mod refusal;
pub mod revocation;
pub(crate) mod route;
pub mod secrets;
pub mod vision;

use std::borrow::Cow;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::endpoint::Exchange;
use crate::endpoint::outcome::{Issued, Phases, Refused, Reuse, Served};
use crate::form::parameters::Parameters;
use crate::form::urlencoded;
use crate::oauth::client_authentication::Credentials;
use crate::oauth::client_certificate::ShownCertificate;
use crate::oauth::error::Cause;
use crate::oauth::header_field::HeaderField;

/// Everything that a dialect reads of a request, except the body.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// The `Authorization` header.
    pub authorization: HeaderField<'a>,
    /// The TLS client certificate that a trusted proxy has forwarded.
    pub certificate: &'a ShownCertificate,
    /// The `DPoP` header.
    pub dpop: HeaderField<'a>,
    /// The `Content-Type` header.
    pub content_type: Option<&'a [u8]>,
    /// The request's path, as sent.
    pub path: &'a str,
    /// The values of [`vision::CLIENT_HEADERS`].
    pub client_headers: [Option<&'a [u8]>; 4],
    /// The request's query, without the question mark.
    pub query: Option<&'a str>,
    /// The maximum number of parameters that a form may have.
    pub max_parameters: usize,
}

impl<'r> RequestHead<'r> {
    /// Reads the client's credentials from the head and from the body's `parameters`.
    ///
    /// # Errors
    ///
    /// The [`Cause`], if there are no credentials, more than one set of credentials, or malformed
    /// ones.
    fn credentials<'p>(&self, parameters: &'p Parameters<'_>) -> Result<Credentials<'p>, Cause>
    where
        'r: 'p,
    {
        Credentials::read(self.authorization, self.certificate, parameters)
    }

    /// Refuses a query that contains a parameter of a token request. Such a parameter may be a
    /// credential, and proxies log queries (RFC 6749, section 2.3.1). Also refuses a query that
    /// repeats a parameter of the body.
    ///
    /// # Errors
    ///
    /// [`Cause::ParameterInQuery`], or [`Cause::Form`] if the query cannot be parsed.
    fn check_query(&self, body: &Parameters<'_>) -> Result<(), Cause> {
        let Some(query) = self.query else { return Ok(()) };
        let query = urlencoded::parse(query.as_bytes(), self.max_parameters)?;
        if query.names().any(|name| Self::is_token_parameter(name) || body.contains(name)) {
            return Err(Cause::ParameterInQuery);
        }
        Ok(())
    }

    /// Whether a request to a token, introspection or revocation endpoint may have a parameter of
    /// this name.
    fn is_token_parameter(name: &str) -> bool {
        [
            "client_assertion",
            "client_assertion_type",
            "client_id",
            "client_secret",
            "grant_type",
            "resource",
            "scope",
            "token",
        ]
        .contains(&name)
    }
}

/// An HTTP answer, independent of the HTTP library.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header fields; names in lower case.
    pub headers: SmallVec<[(&'static str, Cow<'static, str>); 6]>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Returns a buffer with the beginning of an answer's body, up to the token. Its capacity is
    /// enough for an ordinary answer with an RSA-2048 signature; for a longer answer, the buffer
    /// grows once.
    fn begin_token() -> Vec<u8> {
        let mut buffer = Vec::with_capacity(1280);
        buffer.extend_from_slice(b"{\"access_token\":\"");
        buffer
    }

    /// Returns the answer with `issued.buffer` as its body, and the [`Served`] for the log. The
    /// buffer must already contain the whole body: the token and the dialect's text around the
    /// token.
    fn with_token<'s>(exchange: &Exchange<'_>, issued: Issued<'_, 's>) -> (Self, Served<'s>) {
        let Issued { buffer, confirmation, reuse, phases, served, .. } = issued;
        let mut answer = Self::private_json(200, buffer);
        match reuse {
            Reuse::Off => {}
            Reuse::Fresh => answer.push_header("x-token-reuse", "fresh"),
            Reuse::Reused => answer.push_header("x-token-reuse", "reused"),
        }
        if let Some(phases) = phases {
            answer.push_header("server-timing", server_timing(&phases));
        }
        if confirmation.key.is_some() {
            answer.push_nonce(exchange);
        }
        (answer, served)
    }

    /// Adds the nonce that the client's next DPoP proof must contain, if the server requires nonces.
    pub fn push_nonce(&mut self, exchange: &Exchange<'_>) {
        if let Some(nonces) = exchange.context.nonces(exchange.snapshot) {
            self.push_header("dpop-nonce", nonces.current(exchange.now));
        }
    }

    /// Returns an answer with a JSON body that no cache may store (RFC 6749, section 5.1).
    pub fn private_json(status: u16, body: impl Into<Bytes>) -> Self {
        let mut answer = Self::json(status, body);
        answer.push_header("cache-control", "no-store");
        answer.push_header("pragma", "no-cache");
        answer
    }

    /// Returns an answer with a JSON body.
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        let mut answer = Self { body: body.into(), ..Self::empty(status) };
        answer.push_header("content-type", "application/json");
        answer
    }

    /// Returns an answer without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: SmallVec::new(), body: Bytes::new() }
    }

    /// Adds a header field.
    pub fn push_header(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        self.headers.push((name, value.into()));
    }
}

/// The answer to a request that was served, with what is logged about it; or why the request was
/// refused.
pub type Reply<'s> = Result<(Answer, Served<'s>), Refused<'s>>;

/// The answer to a request, and the verdict for the log and the metrics.
#[derive(Debug)]
pub struct Outcome<'s> {
    /// The answer to send.
    pub answer: Answer,
    /// The served client, or the cause of the refusal.
    pub verdict: Result<Served<'s>, Refused<'s>>,
}

impl<'s> Outcome<'s> {
    /// Builds the outcome of a request. `refuse` writes the answer if the request was refused.
    pub fn of(answered: Reply<'s>, refuse: impl FnOnce(Cause) -> Answer) -> Self {
        match answered {
            Ok((answer, served)) => Self { answer, verdict: Ok(served) },
            Err(refused) => Self { answer: refuse(refused.cause), verdict: Err(refused) },
        }
    }
}

/// Returns the value of the `Server-Timing` header (W3C Server Timing, section 3): the duration of
/// each phase in milliseconds.
fn server_timing(phases: &Phases) -> String {
    let Phases { parse, auth, queue, sign } = phases;
    let [parse, auth, queue, sign] = [parse, auth, queue, sign].map(|d| d.as_secs_f64() * 1e3);
    format!("parse;dur={parse:.3}, auth;dur={auth:.3}, queue;dur={queue:.3}, sign;dur={sign:.3}")
}

/// Returns the reason phrase of a status that the dialects use (RFC 9110, section 15; RFC 6585).
/// The phrase for 413 is the older one of RFC 7231.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Payload Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}
