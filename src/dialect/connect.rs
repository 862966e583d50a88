//! `POST /connect/token`: the dialect of IdentityServer-style OAuth 2.0 clients.
//!
//! The body is `multipart/form-data`, as in the documentation of these clients, or
//! `application/x-www-form-urlencoded`, as in RFC 6749. Errors have the format of RFC 6749, section
//! 5.2.

use std::io::Write;
use std::pin::pin;

use bytes::Bytes;

use crate::dialect::{Answer, Outcome, RequestHead};
use crate::endpoint::Exchange;
use crate::endpoint::outcome::{Refused, Served};
use crate::endpoint::token::{TokenRequest, issue};
use crate::form::media_type::{Charset, MediaType};
use crate::form::multipart::Parts;
use crate::form::parameters::{FormError, Parameters};
use crate::form::urlencoded;
use crate::oauth::client::TokenProfile;
use crate::oauth::dpop::DpopError;
use crate::oauth::error::Cause;
use crate::oauth::grant::GrantRequest;
use crate::oauth::scope::ScopeError;

/// Answers one token request.
pub async fn token<'s>(
    exchange: &Exchange<'s>,
    head: &RequestHead<'_>,
    body: Bytes,
) -> Outcome<'s> {
    let answered = pin!(try_token(exchange, head, body)).await;
    Outcome::of(answered, |cause| {
        let mut answer = refuse(cause, head);
        if cause == DpopError::Nonce.into() {
            push_nonce(exchange, &mut answer);
        }
        answer
    })
}

async fn try_token<'s>(
    exchange: &Exchange<'s>,
    head: &RequestHead<'_>,
    body: Bytes,
) -> Result<(Answer, Served<'s>), Refused<'s>> {
    let form = Form::read(head, body)?;
    let parameters = form.parameters(head.max_parameters)?;
    head.check_query(&parameters)?;
    let request = TokenRequest {
        grant: GrantRequest::read(&parameters)?,
        credentials: head.credentials(&parameters)?,
        certificate: head.certificate,
        dpop: head.dpop,
        content_type: None,
        profile: TokenProfile::AtJwt,
    };
    let issued = pin!(issue(exchange, &request, Answer::begin_token()));
    let mut issued = issued.await?;
    // Scope tokens contain no character that JSON would escape (RFC 6749, section 3.3).
    let (lifetime, scope) = (issued.lifetime, &issued.scope);
    let token_type = issued.confirmation.token_type();
    write!(
        issued.buffer,
        "\",\"expires_in\":{lifetime},\"token_type\":\"{token_type}\",\"scope\":\"{scope}\"}}"
    )
    .map_err(|_| Cause::Internal)?;
    let has_proof = issued.confirmation.key.is_some();
    let (mut answer, served) = Answer::with_token(issued);
    if has_proof {
        push_nonce(exchange, &mut answer);
    }
    Ok((answer, served))
}

/// Adds the nonce that the client's next DPoP proof must contain, if the server requires nonces.
fn push_nonce(exchange: &Exchange<'_>, answer: &mut Answer) {
    if let Some(nonces) = exchange.context.nonces(exchange.snapshot) {
        answer.push_header("dpop-nonce", nonces.current(exchange.now));
    }
}

/// A form whose encoding and declared charset are known, but whose parameters are not parsed yet.
pub(super) struct Form {
    encoded: Encoded,
    charset: Charset,
}

#[expect(clippy::large_enum_variant, reason = "there is one for each request, and it is not moved")]
enum Encoded {
    Urlencoded(Bytes),
    Multipart(Parts),
}

impl Form {
    pub(super) fn read(head: &RequestHead<'_>, body: Bytes) -> Result<Self, Cause> {
        let content_type = head.content_type.unwrap_or_default();
        // Fast path: the Content-Type that most clients send, or no Content-Type and no body.
        if content_type == URLENCODED.as_bytes() || content_type.is_empty() && body.is_empty() {
            return Ok(Self { encoded: Encoded::Urlencoded(body), charset: Charset::Utf8 });
        }
        let content_type = std::str::from_utf8(content_type).map_err(|_| Cause::MediaType)?;
        let media_type = MediaType::parse(content_type).ok_or(Cause::MediaType)?;
        let charset = media_type.charset();
        if charset == Charset::Other {
            return Err(Cause::Charset);
        }
        let encoded = if media_type.is(URLENCODED) {
            Encoded::Urlencoded(body)
        } else if media_type.is("multipart/form-data") {
            if is_object(&body) {
                return Err(FormError::Object.into());
            }
            let boundary = media_type.boundary.as_deref().unwrap_or_default();
            Encoded::Multipart(Parts::read(body, boundary, head.max_parameters)?)
        } else {
            return Err(Cause::MediaType);
        };
        Ok(Self { encoded, charset })
    }

    pub(super) fn parameters(&self, max_parameters: usize) -> Result<Parameters<'_>, Cause> {
        let parameters = match &self.encoded {
            Encoded::Urlencoded(body) if is_object(body) => Err(FormError::Object),
            Encoded::Urlencoded(body) => urlencoded::parse(body, max_parameters),
            Encoded::Multipart(parts) => parts.parameters(),
        };
        let is_ascii = match &parameters {
            Ok(parameters) => self.charset == Charset::Utf8 || parameters.are_ascii(),
            Err(error) => *error != FormError::NotUtf8,
        };
        if !self.charset.fits(is_ascii) {
            return Err(Cause::Charset);
        }
        Ok(parameters?)
    }
}

/// Whether the body looks like a JSON object. No form looks like this.
fn is_object(body: &[u8]) -> bool {
    body.first().is_some_and(|&first| first == b'{' || first.is_ascii_whitespace())
        && body.trim_ascii().starts_with(b"{")
        && body.trim_ascii().ends_with(b"}")
}

/// Writes the answer to a refusal. Its text is a constant and contains nothing from the request.
pub fn refuse(cause: Cause, head: &RequestHead<'_>) -> Answer {
    use ScopeError::{Malformed, NotAllowed};
    // RFC 6749, section 5.2.
    let unauthorized = if head.authorization.is_present() { 401 } else { 400 };
    let invalid = |status, description| (status, INVALID_REQUEST, description);
    let (status, error, description) = match cause {
        Cause::BodyAborted => invalid(400, "The body ended before its announced length."),
        Cause::BodyTooLarge => invalid(413, "The body is too large."),
        Cause::Charset => invalid(
            415,
            "The body's charset must be UTF-8; other labels are taken over ASCII text alone.",
        ),
        // These causes occur only in the JSON dialects.
        Cause::ContentTypeMissing
        | Cause::ContentTypeNotAllowed(_)
        | Cause::FieldTooLong(_)
        | Cause::FieldValue
        | Cause::Form(
            FormError::Empty | FormError::JsonShape | FormError::JsonSyntax | FormError::JsonType,
        ) => invalid(400, "The request is malformed."),
        Cause::ContentEncoding => invalid(415, "A compressed body is not accepted."),
        Cause::FieldMissing(_) => invalid(400, "A required parameter is missing."),
        Cause::Fragment => invalid(400, "A # in the URL must be written as %23."),
        Cause::HeadTooLarge => invalid(431, "The header fields are too large."),
        Cause::Host => invalid(400, "Exactly one valid Host header is required."),
        Cause::MediaType => invalid(
            415,
            "The body must be multipart/form-data or application/x-www-form-urlencoded.",
        ),
        Cause::MethodNotAllowed => {
            invalid(405, "The method is not allowed here; see the Allow header.")
        }
        Cause::NotFound => invalid(404, NOT_FOUND),
        Cause::RequestTimeout => invalid(408, "The request did not arrive in time."),
        Cause::TransferEncoding => {
            invalid(400, "The only transfer coding accepted is a single chunked.")
        }
        Cause::Form(FormError::Boundary) => invalid(400, BOUNDARY),
        Cause::Form(FormError::ByteOrderMark) => {
            invalid(400, "The body must not begin with a byte order mark.")
        }
        Cause::Form(FormError::FileName) => invalid(400, FILE_NAME),
        Cause::Form(FormError::NotUtf8) => invalid(400, "Names and values must be valid UTF-8."),
        Cause::Form(FormError::Object) => invalid(
            400,
            "The body is JSON, but its Content-Type says a form: send multipart/form-data or \
             application/x-www-form-urlencoded.",
        ),
        Cause::Form(FormError::PartCharset) => {
            invalid(400, "The charset of every part must be UTF-8.")
        }
        Cause::Form(FormError::PartHeaders) => {
            invalid(400, "Every part must have one Content-Disposition: form-data with one name.")
        }
        Cause::Form(FormError::PercentEncoding) => {
            invalid(400, "Every % must be followed by two hexadecimal digits.")
        }
        Cause::Form(FormError::Repeated) => invalid(400, "A parameter must not be repeated."),
        Cause::Form(FormError::TooMany) => invalid(400, "There are too many parameters."),
        Cause::Form(FormError::Unclosed) => {
            invalid(400, "The multipart body ends before its closing boundary.")
        }
        Cause::ParameterInQuery => invalid(400, "Parameters belong in the body, not in the query."),
        Cause::ValidationQuery => {
            invalid(400, "The query may hold scope, audience and dialect, each with a value.")
        }
        Cause::AuthenticationMissing => {
            (400, INVALID_CLIENT, "Send client_id and client_secret, in the body or by HTTP Basic.")
        }
        Cause::CertificateMissing => {
            invalid(400, "The client's tokens need its TLS client certificate.")
        }
        Cause::CredentialCharacters => {
            invalid(400, "client_id and client_secret must be printable ASCII characters.")
        }
        Cause::ClientIdMismatch => {
            invalid(400, "client_id differs between Authorization and body.")
        }
        Cause::SeveralAuthentications => {
            invalid(400, "Use exactly one client authentication method.")
        }
        Cause::MalformedAuthorization => (
            401,
            INVALID_CLIENT,
            "Authorization must be Basic with base64 of client_id:client_secret.",
        ),
        Cause::UnsupportedAuthentication => {
            (unauthorized, INVALID_CLIENT, "The client authentication method is not supported.")
        }
        // All failures that depend on the registered clients have the same text, so that the answer
        // reveals nothing about the clients.
        Cause::Assertion(_)
        | Cause::AuthMethodNotAllowed
        | Cause::CertificateMismatch
        | Cause::CertificateUnreadable
        | Cause::ClientDisabled
        | Cause::DemoSecret
        | Cause::SecretNotCurrent
        | Cause::UnknownClient
        | Cause::WrongSecret => (unauthorized, INVALID_CLIENT, "Client authentication failed."),
        Cause::BearerMissing | Cause::TokenMissing => {
            invalid(401, "Send the token as Authorization: Bearer.")
        }
        Cause::TokenExpired => (401, INVALID_TOKEN, "The token has expired."),
        Cause::TokenInvalid | Cause::TokenRevoked => {
            (401, INVALID_TOKEN, "The token is not valid here.")
        }
        Cause::TokenNotOwn => {
            (400, "unauthorized_client", "The token was issued to another client.")
        }
        Cause::TokenScope => {
            (403, "insufficient_scope", "The token lacks a scope that this needs.")
        }
        Cause::Dpop(DpopError::Nonce) => {
            (400, "use_dpop_nonce", "The DPoP proof must have the nonce of DPoP-Nonce.")
        }
        Cause::Dpop(_) => {
            (400, "invalid_dpop_proof", "One valid and unused DPoP proof is required.")
        }
        Cause::RateLimited(_) | Cause::ReplayGuardShare => {
            invalid(429, "The client asks too often; wait for Retry-After seconds.")
        }
        Cause::PasswordQueueShare | Cause::Throttled(_) => {
            invalid(429, "Too many failed attempts; wait for Retry-After seconds.")
        }
        Cause::GrantNotAllowed => {
            (400, "unauthorized_client", "The client may not use this grant type.")
        }
        // Exactly the documented error, which has no description.
        Cause::GrantTypeMissing => invalid(400, ""),
        Cause::GrantTypeUnsupported => {
            (400, "unsupported_grant_type", "grant_type must be client_credentials.")
        }
        Cause::Scope(Malformed) => {
            (400, INVALID_SCOPE, "scope must be tokens separated by spaces.")
        }
        Cause::Scope(NotAllowed) => (400, INVALID_SCOPE, "The client may not have this scope."),
        Cause::ScopeMissing => (400, INVALID_SCOPE, "scope is required for this client."),
        Cause::Target => (400, "invalid_target", "resource must be one of the client's audiences."),
        Cause::Internal | Cause::NoEntropy | Cause::SigningFailed => {
            (500, "server_error", "The server failed; its log says why.")
        }
        Cause::ClockSetBack
        | Cause::CutOff(_)
        | Cause::NoSigningKey
        | Cause::Overloaded
        | Cause::PasswordQueueFull
        | Cause::ReplayGuardFull
        | Cause::RevocationNotWritten
        | Cause::RevocationsFull
        | Cause::UseNotRecorded => {
            (503, "temporarily_unavailable", "The server is busy; try again shortly.")
        }
    };

    let body = if description.is_empty() {
        format!(r#"{{"error":"{error}"}}"#)
    } else {
        format!(r#"{{"error":"{error}","error_description":"{description}"}}"#)
    };
    let mut answer = Answer::private_json(status, body);
    if status == 401 && !cause.is_about_a_token() {
        answer.push_header("www-authenticate", "Basic realm=\"connect/token\"");
    }
    answer
}

const BOUNDARY: &str = "The multipart boundary must be 1 to 70 valid characters, in quotes if \
    one of ( ) , / : = ? or a space is among them.";
const FILE_NAME: &str = "The form's parts must be plain fields without a file name: with Python's \
    requests, files={'client_id': (None, 'value')}; with curl, -F client_id=value.";
const NOT_FOUND: &str = "There is nothing at this path. Tokens come from POST /connect/token, \
    POST /v1/api/oauth/token and GET /v1/getAccessToken, below the path of the issuer.";
const URLENCODED: &str = "application/x-www-form-urlencoded";
const INVALID_REQUEST: &str = "invalid_request";
const INVALID_CLIENT: &str = "invalid_client";
const INVALID_SCOPE: &str = "invalid_scope";
const INVALID_TOKEN: &str = "invalid_token";
