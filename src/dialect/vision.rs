//! `POST /v1/api/oauth/token`, `POST /v2/api/oauth/token` and `POST /v1/api/oauth/validateToken`.
//! Requests and answers are JSON. An error is an array of one object with a six-digit code.

use std::borrow::Cow;
use std::io::Write;

use serde_json::json;

use crate::dialect::public_error::{DPOP_NONCE, DPOP_PROOF, PublicError, Row, advice};
use crate::dialect::{Answer, Reply, RequestHead, reason_phrase};
use crate::endpoint::Exchange;
use crate::endpoint::outcome::Served;
use crate::endpoint::token::{TokenRequest, issue};
use crate::endpoint::validate;
use crate::form::json;
use crate::form::media_type::{Charset, ContentType, MediaType};
use crate::form::parameters::{FormError, Parameters};
use crate::form::urlencoded;
use crate::oauth::client::TokenProfile;
use crate::oauth::dpop::DpopError;
use crate::oauth::error::Cause;
use crate::oauth::grant::GrantRequest;

/// The request headers that every answer echoes, each with its maximum length in bytes.
pub const CLIENT_HEADERS: [(&str, usize); 4] = [
    ("x-client-correlation-id", 40),
    ("x-client-trace-id", 256),
    ("x-client-source-channel", 40),
    ("x-client-user-id", 40),
];

/// The versions of the token service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The scope is used as sent, and the answer does not contain it.
    V1,
    /// Each scope token is prefixed with the value of the query parameter `appContext`, and the
    /// answer contains the scope.
    V2,
}

/// Answers one token request.
pub async fn token<'s>(
    exchange: &Exchange<'s>,
    version: Version,
    head: &RequestHead<'_>,
    body: &[u8],
) -> Reply<'s> {
    let (parameters, content_type) = read(head, body, &TOKEN_FIELDS)?;
    let scope = match version {
        Version::V1 => parameters.get("scope").map(Cow::Borrowed),
        Version::V2 => {
            let app_context = app_context(head)?;
            parameters.get("scope").map(|scope| Cow::Owned(qualify(scope, app_context)))
        }
    };
    let request = TokenRequest {
        grant: GrantRequest { scope: scope.as_deref(), ..GrantRequest::read(&parameters)? },
        credentials: head.credentials(&parameters)?,
        certificate: head.certificate,
        dpop: head.dpop,
        method: "POST",
        content_type: Some(content_type),
        profile: TokenProfile::Vision,
    };
    let mut issued = issue(exchange, &request, Answer::begin_token()).await?;
    // As documented, `expires_in` is one second less than the lifetime.
    let expires_in = issued.lifetime.saturating_sub(1);
    let token_type = issued.confirmation.token_type();
    write!(issued.buffer, "\",\"token_type\":\"{token_type}\",\"expires_in\":{expires_in}")
        .and_then(|()| match version {
            Version::V1 => issued.buffer.write_all(b"}"),
            // Scope tokens contain no character that JSON would escape (RFC 6749, section 3.3).
            Version::V2 => write!(issued.buffer, ",\"scope\":\"{}\"}}", issued.scope),
        })
        .map_err(|_| Cause::Internal)?;
    Ok(Answer::with_token(exchange, issued))
}

/// Answers whether a token is valid and was issued to the client that sends the request.
pub async fn validate_token<'s>(
    exchange: &Exchange<'s>,
    head: &RequestHead<'_>,
    body: &[u8],
) -> Reply<'s> {
    let (parameters, _) = read(head, body, &VALIDATE_FIELDS)?;
    let credentials = head.credentials(&parameters)?;
    let token = parameters.get("token").ok_or(Cause::FieldMissing("token"))?;
    let (valid, client_id) = validate::own_token(exchange, &credentials, token).await?;
    let body = json!({ "valid": valid }).to_string();
    Ok((Answer::private_json(200, body), Served::to(client_id)))
}

/// Parses a JSON object that contains all of `fields`. Each field is given as the name of a member
/// and the maximum length of its value in characters.
fn read<'b>(
    head: &RequestHead<'_>,
    body: &'b [u8],
    fields: &[(&'static str, usize)],
) -> Result<(Parameters<'b>, ContentType), Cause> {
    let mut client_headers = CLIENT_HEADERS.into_iter().zip(head.client_headers);
    if client_headers.any(|((_, max), value)| value.is_some_and(|value| value.len() > max)) {
        return Err(Cause::FieldValue);
    }
    let content_type = head.content_type.filter(|value| !value.is_empty());
    let content_type = content_type.ok_or(Cause::ContentTypeMissing)?;
    let content_type =
        std::str::from_utf8(content_type).map_err(|_| Cause::ContentTypeMalformed)?;
    let media_type = MediaType::parse(content_type).ok_or(Cause::ContentTypeMalformed)?;
    let content_type = ContentType::of(media_type.essence);
    if content_type == ContentType::Other {
        return Err(Cause::MediaType);
    }
    let charset = media_type.charset();
    if charset == Charset::Other {
        return Err(Cause::Charset);
    }

    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).chain(["resource"]).collect();
    let parameters = match json::parse(body, &names, head.max_parameters) {
        Err(FormError::NotUtf8) if charset == Charset::Ascii => return Err(Cause::Charset),
        read => read?,
    };
    if !charset.fits(parameters.are_ascii()) {
        return Err(Cause::Charset);
    }
    head.check_query(&parameters)?;
    for (name, max_length) in fields {
        let value = parameters.get(name).ok_or(Cause::FieldMissing(name))?;
        if value.chars().count() > *max_length {
            return Err(Cause::FieldTooLong(name));
        }
    }
    Ok((parameters, content_type))
}

fn app_context(head: &RequestHead<'_>) -> Result<&'static str, Cause> {
    let query = urlencoded::parse(head.query.unwrap_or_default().as_bytes(), head.max_parameters)?;
    let given = query.get(APP_CONTEXT).ok_or(Cause::FieldMissing(APP_CONTEXT))?;
    let known = APP_CONTEXTS.into_iter().find(|known| *known == given);
    known.ok_or(Cause::FieldValue)
}

/// Prefixes each scope token with `<appContext>.`, unless the token already has that prefix.
fn qualify(scope: &str, app_context: &str) -> String {
    let tokens = scope.split(' ').map(|token| match token.strip_prefix(app_context) {
        _ if token.is_empty() => Cow::Borrowed(""),
        Some(rest) if rest.starts_with('.') => Cow::Borrowed(token),
        _ => Cow::Owned(format!("{app_context}.{token}")),
    });
    tokens.collect::<Vec<_>>().join(" ")
}

/// Maps each cause to what its caller learns.
pub fn public_error(cause: Cause) -> PublicError {
    let error = PublicError::of(classify(cause));
    match cause.field() {
        Some(field) => {
            PublicError { text: Cow::Owned(format!("{}: {field}", error.text)), ..error }
        }
        None => error,
    }
}

/// Maps each cause to what a caller of `validateToken` learns. This service has its own code for
/// failed client authentication.
pub fn validation_error(cause: Cause) -> PublicError {
    match public_error(cause) {
        PublicError { status: 401, .. } => PublicError::of((
            401,
            "140106",
            "Invalid client credentials",
            advice::CHECK_ID_AND_SECRET,
        )),
        other => other,
    }
}

/// Maps each cause to its row. All of it are constants, which contain nothing from the request.
fn classify(cause: Cause) -> Row {
    match cause {
        Cause::TokenMissing => {
            (400, "240002", "Authorization header is missing", advice::SEND_BEARER)
        }
        Cause::BearerMissing => (400, "240003", "Bearer token is missing", advice::SEND_BEARER),
        Cause::TokenInvalid | Cause::TokenRevoked => {
            (400, "240004", "Bearer token is not valid", advice::NEW_TOKEN)
        }
        Cause::BodyAborted
        | Cause::Fragment
        | Cause::Host
        | Cause::TransferEncoding
        | Cause::Form(
            FormError::Boundary
            | FormError::FileName
            | FormError::JsonShape
            | FormError::Object
            | FormError::PartCharset
            | FormError::PartHeaders(_)
            | FormError::Repeated
            | FormError::TooMany
            | FormError::Unclosed,
        ) => (
            400,
            "240005",
            "Payload is not valid",
            "Send one JSON object that has each documented field once, with its whole length, one \
             Host header, and no # in the URL.",
        ),
        Cause::Form(FormError::Empty) => {
            (400, "240006", "Payload is empty", "Send the documented JSON object as the body.")
        }
        Cause::Form(
            FormError::ByteOrderMark
            | FormError::JsonSyntax
            | FormError::NotUtf8
            | FormError::PercentEncoding,
        ) => (
            400,
            "240007",
            "Message is not readable",
            "Let a JSON library write the body, in UTF-8 without a byte order mark; in the URL, \
             write a literal % as %25.",
        ),
        Cause::ClientIdMismatch
        | Cause::CredentialCharacters
        | Cause::FieldValue
        | Cause::Form(FormError::JsonType)
        | Cause::ParameterInQuery
        | Cause::ValidationQuery
        | Cause::SeveralAuthentications
        | Cause::Target => not_valid(
            "Compare each field, header and query parameter with the documentation of this path. \
             The fields are strings of printable ASCII in the body, never in the URL; send no \
             Authorization header beside the client_secret.",
        ),
        Cause::Dpop(DpopError::Nonce) => (400, "240008", DPOP_NONCE, advice::SEND_DPOP_NONCE),
        Cause::Dpop(
            DpopError::Algorithm
            | DpopError::Key
            | DpopError::Malformed
            | DpopError::Replayed
            | DpopError::Signature
            | DpopError::Target
            | DpopError::Time,
        ) => (400, "240008", DPOP_PROOF, advice::SIGN_DPOP_PROOF),
        Cause::GrantTypeUnsupported => not_valid(
            "Send client_credentials: there is no other grant here, and no refresh token.",
        ),
        Cause::BodyTooLarge => (413, "240008", "Payload is too large", advice::SEND_LESS),
        Cause::HeadTooLarge => {
            (431, "240008", "Header fields are too large", advice::FEWER_HEADERS)
        }
        Cause::NotFound => (404, "240008", NOT_FOUND, advice::COMPARE_PATH),
        Cause::PasswordQueueShare
        | Cause::RateLimited(_)
        | Cause::ReplayGuardShare
        | Cause::Throttled(_) => (429, "240008", "Too many requests", advice::WAIT),
        Cause::RequestTimeout => {
            (408, "240008", "The request did not arrive in time", advice::SEND_AT_ONCE)
        }
        Cause::FieldMissing(APP_CONTEXT) => {
            missing("Add ?appContext=firstvision or ?appContext=aplus to the URL, not to the body.")
        }
        Cause::AuthenticationMissing | Cause::FieldMissing(_) | Cause::GrantTypeMissing => {
            missing("Add the field; an empty value or null counts as missing.")
        }
        Cause::FieldTooLong(_) => (
            400,
            "240010",
            "A field is too long",
            "Shorten the value: the documentation of this path states the longest length.",
        ),
        Cause::Assertion(_)
        | Cause::AuthMethodNotAllowed
        | Cause::CertificateMismatch
        | Cause::CertificateMissing
        | Cause::CertificateUnreadable
        | Cause::ClientDisabled
        | Cause::DemoSecret
        | Cause::Dpop(DpopError::Missing)
        | Cause::GrantNotAllowed
        | Cause::MalformedAuthorization
        | Cause::Scope(_)
        | Cause::ScopeMissing
        | Cause::SecretNotCurrent
        | Cause::TokenNotOwn
        | Cause::TokenScope
        | Cause::UnknownClient
        | Cause::UnsupportedAuthentication
        | Cause::WrongSecret => {
            (401, "240101", "Invalid client credentials or scope", advice::CHECK_CREDENTIALS)
        }
        Cause::TokenExpired => (401, "240101", "Access token has expired", advice::NEW_TOKEN),
        Cause::MethodNotAllowed => (405, "240501", "Method is not allowed", advice::ALLOWED_METHOD),
        Cause::Charset
        | Cause::ContentEncoding
        | Cause::ContentTypeMalformed
        | Cause::MediaType => (
            415,
            "241501",
            "Media type is not supported",
            "Send JSON in UTF-8, uncompressed, with the header Content-Type: application/json.",
        ),
        Cause::ContentTypeMissing => (
            415,
            "241502",
            "Content type is not provided",
            "Send the header Content-Type: application/json.",
        ),
        Cause::ContentTypeNotAllowed(ContentType::Json | ContentType::Other) => (
            415,
            "241503",
            "Allowed content type for this client is application/json",
            "Send the header Content-Type: application/json.",
        ),
        Cause::ContentTypeNotAllowed(ContentType::OctetStream) => (
            415,
            "241504",
            "Allowed content type for this client is octet-stream",
            "Send the header Content-Type: application/octet-stream.",
        ),
        Cause::Internal | Cause::NoEntropy | Cause::SigningFailed => {
            (500, "250001", "Internal error", advice::TELL_THE_OPERATOR)
        }
        Cause::ClockSetBack
        | Cause::CutOff(_)
        | Cause::NoSigningKey
        | Cause::Overloaded
        | Cause::PasswordQueueFull
        | Cause::ReplayGuardFull
        | Cause::RevocationNotWritten
        | Cause::RevocationsFull
        | Cause::StoreStale
        | Cause::UseNotRecorded => (503, "250301", "Service is unavailable", advice::RETRY),
    }
}

fn not_valid(advice: &'static str) -> Row {
    (400, "240008", "Argument is not valid", advice)
}

fn missing(advice: &'static str) -> Row {
    (400, "240009", "A required field is missing", advice)
}

/// Writes the answer to a refusal.
pub fn refuse(error: &PublicError, head: &RequestHead<'_>) -> Answer {
    let PublicError { status, code, text, .. } = error;
    let body = json!([{
        "detail": "Please refer to invalid-params for error details",
        "errorCode": code,
        "instance": head.path,
        "invalid-params": [text],
        "source": "AGT",
        "status": status,
        "title": reason_phrase(*status),
    }]);
    Answer::private_json(*status, body.to_string())
}

/// The required fields of a token request, each with its maximum length in characters. Where the
/// versions of the documentation differ, the larger length applies.
pub const TOKEN_FIELDS: [(&str, usize); 4] =
    [("grant_type", 50), ("scope", 100), ("client_id", 60), ("client_secret", 100)];

/// The required fields of `validateToken`, each with its maximum length in characters.
pub const VALIDATE_FIELDS: [(&str, usize); 3] =
    [("token", usize::MAX), ("client_id", 60), ("client_secret", 100)];

const NOT_FOUND: &str = "There is nothing at this path; tokens come from POST /v1/api/oauth/token, \
    POST /connect/token and GET /v1/getAccessToken";

/// The query parameter that every scope of the second version begins with.
pub const APP_CONTEXT: &str = "appContext";

/// The values of `appContext`.
pub const APP_CONTEXTS: [&str; 2] = ["firstvision", "aplus"];
