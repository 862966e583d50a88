//! `GET /v1/getAccessToken`. The client authenticates by HTTP Basic. The scope is in the query, the
//! path or the body. An error is a JSON object with a code and a message.

use std::borrow::Cow;
use std::io::Write;

use serde_json::json;
use smallvec::SmallVec;

use crate::dialect::public_error::{DPOP_NONCE, DPOP_PROOF, PublicError, Row, advice};
use crate::dialect::{Answer, Reply, RequestHead};
use crate::endpoint::Exchange;
use crate::endpoint::token::{TokenRequest, issue};
use crate::form::json;
use crate::form::media_type::{ContentType, MediaType};
use crate::form::parameters::{FormError, Parameters};
use crate::form::urlencoded;
use crate::oauth::client::TokenProfile;
use crate::oauth::dpop::DpopError;
use crate::oauth::error::Cause;
use crate::oauth::grant::{CLIENT_CREDENTIALS, GrantRequest};

/// Answers one token request. `path_scope` is the path segment after the service's own path, if
/// there is one.
pub async fn token<'s>(
    exchange: &Exchange<'s>,
    path_scope: Option<&str>,
    head: &RequestHead<'_>,
    body: &[u8],
) -> Reply<'s> {
    let content_type = content_type(head, body)?;
    let body = json::quote_keys(body);
    let parameters = if body.is_empty() {
        Parameters::default()
    } else {
        json::parse_with_scope_list(&body, &CREDENTIALS, head.max_parameters)?
    };
    let scope = scope(path_scope, head, &parameters)?;
    if !head.authorization.is_present() {
        return Err(Cause::AuthenticationMissing.into());
    }
    let request = TokenRequest {
        grant: GrantRequest {
            grant_type: CLIENT_CREDENTIALS,
            scope: scope.as_deref(),
            resources: SmallVec::new(),
        },
        credentials: head.credentials(&parameters)?,
        certificate: head.certificate,
        dpop: head.dpop,
        method: "GET",
        content_type: Some(content_type),
        profile: TokenProfile::Vision,
    };
    let mut issued = issue(exchange, &request, Answer::begin_token()).await?;
    // As documented, `expires_in` is the expiry time, not a duration.
    let expires_at = issued.expires_at;
    let token_type = issued.confirmation.token_type();
    write!(issued.buffer, "\",\"expires_in\":{expires_at},\"token_type\":\"{token_type}\"}}")
        .map_err(|_| Cause::Internal)?;
    Ok(Answer::with_token(exchange, issued))
}

/// Reads the Content-Type. A later check, after client authentication, decides whether the client
/// may use it.
fn content_type(head: &RequestHead<'_>, body: &[u8]) -> Result<ContentType, Cause> {
    let value = head.content_type.filter(|value| !value.is_empty());
    let value = std::str::from_utf8(value.ok_or(Cause::ContentTypeMissing)?).unwrap_or_default();
    let Some(media_type) = MediaType::parse(value) else { return Ok(ContentType::Other) };
    if !media_type.charset().fits(body.is_ascii()) {
        return Err(Cause::Charset);
    }
    Ok(ContentType::of(media_type.essence))
}

/// Reads the scope from the path, the query or the body. A scope in more than one of these three
/// places is an error.
fn scope<'r>(
    path_scope: Option<&'r str>,
    head: &RequestHead<'r>,
    body: &'r Parameters<'_>,
) -> Result<Option<Cow<'r, str>>, Cause> {
    let query = urlencoded::parse(head.query.unwrap_or_default().as_bytes(), head.max_parameters)?;
    if query.names().any(|name| name != "scope" && RequestHead::is_token_parameter(name)) {
        return Err(Cause::ParameterInQuery);
    }
    let in_path = path_scope
        .map(|segment| urlencoded::decode_path(segment).ok_or(FormError::PercentEncoding))
        .transpose()?;
    let in_query = query.get("scope").map(|scope| Cow::Owned(scope.to_owned()));
    let in_body = body.get("scope").map(Cow::Borrowed);

    let mut places = [in_path, in_query, in_body].into_iter().flatten();
    let scope = places.next();
    if places.next().is_some() {
        return Err(Cause::Form(FormError::Repeated));
    }
    let too_long = |token: &str| token.chars().count() > MAX_SCOPE_CHARS;
    if scope.as_deref().is_some_and(|scope| scope.split(' ').any(too_long)) {
        return Err(Cause::FieldTooLong("scope"));
    }
    Ok(scope)
}

/// Writes the answer to a refusal.
pub fn refuse(cause: Cause, head: &RequestHead<'_>) -> Answer {
    let PublicError { status, code, text, .. } = public_error(cause, head);
    let body = json!({ "errorCode": code, "errorMessage": text });
    let mut answer = Answer::private_json(status, body.to_string());
    if status == 401 && !cause.is_about_a_token() {
        answer.push_header("www-authenticate", "Basic realm=\"getAccessToken\"");
    }
    answer
}

/// Whether the request has the type `application/octet-stream`.
fn sends_octets(head: &RequestHead<'_>) -> bool {
    let value = head.content_type.and_then(|value| std::str::from_utf8(value).ok());
    let media_type = value.and_then(MediaType::parse);
    media_type.is_some_and(|sent| ContentType::of(sent.essence) == ContentType::OctetStream)
}

/// Maps each cause to what its caller learns.
pub fn public_error(cause: Cause, head: &RequestHead<'_>) -> PublicError {
    PublicError::of(match cause {
        Cause::BodyAborted
        | Cause::ClientIdMismatch
        | Cause::CredentialCharacters
        | Cause::FieldMissing(_)
        | Cause::FieldValue
        | Cause::FieldTooLong(_)
        | Cause::Form(_)
        | Cause::Fragment
        | Cause::GrantTypeMissing
        | Cause::GrantTypeUnsupported
        | Cause::Host
        | Cause::ParameterInQuery
        | Cause::ValidationQuery
        | Cause::SeveralAuthentications
        | Cause::Target
        | Cause::TransferEncoding => (
            400,
            "AGT400BR",
            "Payload is not valid",
            "Send the scope in one place only: the query, the path, or a JSON object in the body. \
             Each scope has at most 50 characters. The credentials are in the header Authorization \
             alone, never in the URL or the body.",
        ),
        Cause::Dpop(DpopError::Nonce) => (400, "AGT400BR", DPOP_NONCE, advice::SEND_DPOP_NONCE),
        Cause::Dpop(
            DpopError::Algorithm
            | DpopError::Key
            | DpopError::Malformed
            | DpopError::Replayed
            | DpopError::Signature
            | DpopError::Target
            | DpopError::Time,
        ) => (400, "AGT400BR", DPOP_PROOF, advice::SIGN_DPOP_PROOF),
        Cause::AuthenticationMissing => (
            400,
            "AGT400BR",
            "Authorization header is missing",
            "Send the client id and secret by HTTP Basic, in the header Authorization.",
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
        | Cause::TokenInvalid
        | Cause::TokenNotOwn
        | Cause::TokenRevoked
        | Cause::TokenScope
        | Cause::UnknownClient
        | Cause::UnsupportedAuthentication
        | Cause::WrongSecret => {
            (401, "AGT401UA", "Invalid client credentials or scope", CHECK_CREDENTIALS)
        }
        Cause::BearerMissing | Cause::TokenMissing => {
            (401, "AGT401UA", "Access token is missing in request", advice::SEND_BEARER)
        }
        Cause::TokenExpired => (401, "AGT401UA", "Access token has expired", advice::NEW_TOKEN),
        Cause::NotFound => (404, "AGT404NF", NOT_FOUND, advice::COMPARE_PATH),
        Cause::MethodNotAllowed => {
            (405, "AGT405MNA", "Method is not allowed", advice::ALLOWED_METHOD)
        }
        Cause::RequestTimeout => {
            (408, "AGT408RT", "The request did not arrive in time", advice::SEND_AT_ONCE)
        }
        Cause::BodyTooLarge => (413, "AGT413PTL", "Payload is too large", advice::SEND_LESS),
        Cause::ContentTypeMissing => (
            415,
            "AGT415UMT",
            "Content type is not provided",
            "Send the header Content-Type: application/json, even without a body.",
        ),
        // The client is not known yet, so the type that was sent counts as its own.
        Cause::Charset | Cause::ContentEncoding | Cause::MediaType if sends_octets(head) => {
            ONLY_OCTETS
        }
        Cause::Charset
        | Cause::ContentEncoding
        | Cause::ContentTypeMalformed
        | Cause::ContentTypeNotAllowed(ContentType::Json | ContentType::Other)
        | Cause::MediaType => ONLY_JSON,
        Cause::ContentTypeNotAllowed(ContentType::OctetStream) => ONLY_OCTETS,
        Cause::PasswordQueueShare
        | Cause::RateLimited(_)
        | Cause::ReplayGuardShare
        | Cause::Throttled(_) => (429, "AGT429TMR", "Too many requests", advice::WAIT),
        Cause::HeadTooLarge => {
            (431, "AGT431HTL", "Header fields are too large", advice::FEWER_HEADERS)
        }
        Cause::Internal | Cause::NoEntropy | Cause::SigningFailed => {
            (500, "AGT500ISE", "Internal server error", advice::TELL_THE_OPERATOR)
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
        | Cause::UseNotRecorded => (503, "AGT503SU", "Service is unavailable", advice::RETRY),
    })
}

/// The members of the body that belong to client authentication. They must agree with the header
/// `Authorization`.
const CREDENTIALS: [&str; 4] =
    ["client_assertion", "client_assertion_type", "client_id", "client_secret"];

/// The maximum length of a scope token, in characters.
pub const MAX_SCOPE_CHARS: usize = 50;

const ONLY_JSON: Row = (
    415,
    "AGT415UMT",
    "Allowed content type for this client is application/json",
    "Send the header Content-Type: application/json, and a body, if there is one, in UTF-8 and \
     uncompressed.",
);

const ONLY_OCTETS: Row = (
    415,
    "AGT415UMT",
    "Allowed content type for this client is octet-stream",
    "Send the header Content-Type: application/octet-stream, and a body, if there is one, in UTF-8 \
     and uncompressed.",
);

const CHECK_CREDENTIALS: &str = "Check the client id, the secret and the scope, and that they belong to this server. Send a scope, \
    unless the client has default scopes. If they are right, ask the operator of this server, and \
    quote the X-Request-Id of the answer. If an API answers this to a token, the token is not valid or \
    lacks a scope: get a new one, for the scope that the API requires.";

const NOT_FOUND: &str = "There is nothing at this path; tokens come from GET /v1/getAccessToken, \
    POST /connect/token and POST /v1/api/oauth/token";
