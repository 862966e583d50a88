//! The errors of the `connect` dialect, in the format of RFC 6749, section 5.2.

use crate::dialect::RequestHead;
use crate::dialect::public_error::{PublicError, Row, advice};
use crate::form::parameters::{FormError, PartFault};
use crate::oauth::dpop::DpopError;
use crate::oauth::error::Cause;
use crate::oauth::scope::ScopeError;

/// Maps each cause to what its caller learns.
pub fn public_error(cause: Cause, head: &RequestHead<'_>) -> PublicError {
    let row = match cause {
        Cause::Form(error) => classify_form(error),
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
        | Cause::WrongSecret => (
            if head.authorization.is_present() { 401 } else { 400 },
            INVALID_CLIENT,
            "Client authentication failed.",
            "Check the client id and its secret, key or certificate, and that they belong to this \
             server. If they are right, ask the operator of this server, and quote the \
             X-Request-Id of the answer.",
        ),
        Cause::UnsupportedAuthentication => (
            if head.authorization.is_present() { 401 } else { 400 },
            INVALID_CLIENT,
            "The client authentication method is not supported.",
            "Use HTTP Basic, or send client_id and client_secret in the body, or a client_assertion \
             of the type urn:ietf:params:oauth:client-assertion-type:jwt-bearer.",
        ),
        Cause::BodyAborted => invalid_request(
            "The body ended early, or its chunks or trailers are not valid.",
            advice::SEND_ALL_BYTES,
        ),
        Cause::BodyTooLarge => (413, INVALID_REQUEST, "The body is too large.", advice::SEND_LESS),
        Cause::Charset => unsupported(
            "The body's charset must be UTF-8; other labels are taken over ASCII text alone.",
            "Encode the body as UTF-8, and leave charset out of Content-Type.",
        ),
        // These causes occur only in the JSON dialects.
        Cause::ContentTypeMissing
        | Cause::ContentTypeNotAllowed(_)
        | Cause::FieldTooLong(_)
        | Cause::FieldValue => {
            invalid_request("The request is malformed.", advice::READ_THE_REFERENCE)
        }
        Cause::ContentEncoding => unsupported(
            "A compressed body is not accepted.",
            "Send the body as it is, without Content-Encoding.",
        ),
        Cause::FieldMissing(_) => invalid_request(
            "A required parameter is missing.",
            "Add the parameters that the documentation of this path requires.",
        ),
        Cause::Fragment => invalid_request(
            "A # in the URL must be written as %23.",
            "Remove the # and the text after it from the URL, or write the # as %23.",
        ),
        Cause::HeadTooLarge => {
            (431, INVALID_REQUEST, "The header fields are too large.", advice::FEWER_HEADERS)
        }
        Cause::Host => invalid_request(
            "Exactly one valid Host header is required.",
            "Send the host name of this server in one Host header; a proxy may have removed it or \
             added another.",
        ),
        Cause::ContentTypeMalformed => unsupported(
            CONTENT_TYPE,
            "Let the HTTP library write the Content-Type, and send it once; a proxy may have added \
             another.",
        ),
        Cause::MediaType => unsupported(
            "The body must be multipart/form-data or application/x-www-form-urlencoded.",
            "Encode the body in one of these two ways, and name it in Content-Type.",
        ),
        Cause::MethodNotAllowed => (
            405,
            INVALID_REQUEST,
            "The method is not allowed here; see the Allow header.",
            advice::ALLOWED_METHOD,
        ),
        Cause::NotFound => (404, INVALID_REQUEST, NOT_FOUND, advice::COMPARE_PATH),
        Cause::RequestTimeout => {
            (408, INVALID_REQUEST, "The request did not arrive in time.", advice::SEND_AT_ONCE)
        }
        Cause::TransferEncoding => invalid_request(
            "The only transfer coding accepted is a single chunked.",
            "Send the body with Content-Length, or with Transfer-Encoding: chunked alone.",
        ),
        Cause::ParameterInQuery => invalid_request(
            "Parameters belong in the body, not in the query.",
            "Move the parameters from the URL to the body. If a secret was in the URL, ask for a \
             new one, because logs may now contain it.",
        ),
        Cause::ValidationQuery => invalid_request(
            "The query may hold scope, audience and dialect, each with a value.",
            "Correct the query. A wrong one is refused, so that a mistyped requirement never \
             accepts a token.",
        ),
        Cause::AuthenticationMissing => (
            400,
            INVALID_CLIENT,
            "Send client_id and client_secret, in the body or by HTTP Basic.",
            "Send the credentials that you were given in one of these two ways; a client that is \
             registered with a key or a certificate sends those instead.",
        ),
        Cause::CertificateMissing => invalid_request(
            "The client's tokens need its TLS client certificate.",
            "Connect with the TLS certificate that is registered for the client.",
        ),
        Cause::CredentialCharacters => invalid_request(
            "client_id and client_secret must be printable ASCII characters.",
            "Copy the id and the secret again: a line break or a typographic character may have \
             come with them.",
        ),
        Cause::ClientIdMismatch => invalid_request(
            "client_id differs between Authorization and body.",
            "Leave client_id out of the body, or send the same id in both places.",
        ),
        Cause::SeveralAuthentications => invalid_request(
            "Use exactly one client authentication method.",
            "Send the credentials once: by HTTP Basic, in the body, or as an assertion.",
        ),
        Cause::MalformedAuthorization => (
            401,
            INVALID_CLIENT,
            "Authorization must be Basic with base64 of client_id:client_secret.",
            "Let the HTTP library write the header from the id and the secret, or send both in the \
             body instead.",
        ),
        Cause::BearerMissing | Cause::TokenMissing => {
            (401, INVALID_REQUEST, "Send the token as Authorization: Bearer.", advice::SEND_BEARER)
        }
        Cause::TokenExpired => (401, INVALID_TOKEN, "The token has expired.", advice::NEW_TOKEN),
        Cause::TokenInvalid | Cause::TokenRevoked => (
            401,
            INVALID_TOKEN,
            "The token is not valid here.",
            "Get a new token from this server, for this resource. A token that is bound to a key or \
             a certificate is not accepted as a bearer token.",
        ),
        Cause::TokenNotOwn => (
            400,
            "unauthorized_client",
            "The token was issued to another client.",
            "Authenticate as the client that the token was issued to.",
        ),
        Cause::TokenScope => (
            403,
            "insufficient_scope",
            "The token lacks a scope that this needs.",
            "Get a token with the scope that the resource needs. Which scopes a client may have is \
             up to the operator.",
        ),
        Cause::Dpop(DpopError::Nonce) => (
            400,
            "use_dpop_nonce",
            "The DPoP proof must have the nonce of DPoP-Nonce.",
            "Repeat the request with a new proof whose claim nonce is the value of the header \
             DPoP-Nonce.",
        ),
        Cause::Dpop(_) => (
            400,
            "invalid_dpop_proof",
            "One valid and unused DPoP proof is required.",
            "Sign a new proof for each request, with the method POST, the URL of this endpoint, the \
             current time and a new jti.",
        ),
        Cause::RateLimited(_) | Cause::ReplayGuardShare => (
            429,
            INVALID_REQUEST,
            "The client asks too often; wait for Retry-After seconds.",
            "Wait. Keep a token until shortly before it expires, instead of asking for one for each \
             call.",
        ),
        Cause::PasswordQueueShare | Cause::Throttled(_) => (
            429,
            INVALID_REQUEST,
            "Too many failed attempts; wait for Retry-After seconds.",
            "Wait, and check the credentials before you try again.",
        ),
        Cause::GrantNotAllowed => (
            400,
            "unauthorized_client",
            "The client may not use this grant type.",
            "Ask the operator of this server to register a scope for the client.",
        ),
        // Exactly the documented error, which has no description.
        Cause::GrantTypeMissing => invalid_request(
            "",
            "Send grant_type=client_credentials in the body; an empty value counts as missing.",
        ),
        Cause::GrantTypeUnsupported => (
            400,
            "unsupported_grant_type",
            "grant_type must be client_credentials.",
            "Send grant_type=client_credentials. There is no other grant here, and no refresh \
             token: get a new token instead.",
        ),
        Cause::Scope(ScopeError::Malformed) => invalid_scope(
            "scope must be tokens separated by spaces.",
            "Separate scopes by spaces, not by commas or lines; leave out quotes.",
        ),
        Cause::Scope(ScopeError::NotAllowed) => invalid_scope(
            "The client may not have this scope.",
            "Ask only for scopes that the client is registered for; upper and lower case differ. \
             Without scope, the client gets its default scopes, if it has any.",
        ),
        Cause::ScopeMissing => invalid_scope(
            "scope is required for this client.",
            "Send the scopes that you need. The operator knows which ones the client may have.",
        ),
        Cause::Target => (
            400,
            "invalid_target",
            "resource must be one of the client's audiences.",
            "Send an audience that the client is registered for as an absolute URI, or leave \
             resource out.",
        ),
        Cause::Internal | Cause::NoEntropy | Cause::SigningFailed => {
            (500, "server_error", "The server failed; its log says why.", advice::TELL_THE_OPERATOR)
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
        | Cause::UseNotRecorded => (
            503,
            "temporarily_unavailable",
            "The server is busy; try again shortly.",
            advice::RETRY,
        ),
    };
    PublicError::of(row)
}

/// Maps each error in a form to status, code, text and advice.
fn classify_form(error: FormError) -> Row {
    let (text, advice) = match error {
        // These errors occur only in the JSON dialects.
        FormError::Empty | FormError::JsonShape | FormError::JsonSyntax | FormError::JsonType => {
            ("The request is malformed.", advice::READ_THE_REFERENCE)
        }
        FormError::Boundary => (
            BOUNDARY,
            "Let the HTTP library write the Content-Type of a multipart body, because it chooses \
             the boundary.",
        ),
        FormError::ByteOrderMark => (
            "The body must not begin with a byte order mark.",
            "Encode the body as UTF-8 without a byte order mark.",
        ),
        FormError::FileName => (FILE_NAME, "Send each parameter as a plain field, not as a file."),
        FormError::NotUtf8 => (
            "Names and values must be valid UTF-8.",
            "Encode the text as UTF-8 before it is encoded as a form.",
        ),
        FormError::Object => (
            "The body is JSON, but its Content-Type says a form: send multipart/form-data or \
             application/x-www-form-urlencoded.",
            "Give the parameters to the HTTP library as form fields, not as JSON.",
        ),
        FormError::PartCharset => (
            "The charset of every part must be UTF-8.",
            "Encode the parts as UTF-8, and leave out their charset.",
        ),
        FormError::PartHeaders(fault) => (
            match fault {
                PartFault::ContentType => "The Content-Type of a part must be a media type.",
                PartFault::Disposition => {
                    "Every part must have one Content-Disposition: form-data with one name."
                }
                PartFault::Encoding => {
                    "The Content-Transfer-Encoding of a part must be 7bit, 8bit or binary."
                }
                PartFault::Repeated => "A part must not repeat a header field.",
                PartFault::Syntax => {
                    "A part must begin with header fields, each on a line, and an empty line."
                }
                PartFault::TooMany => "A part must not have more than 32 header fields.",
            },
            "Let the HTTP library write the parts of the multipart body.",
        ),
        FormError::PercentEncoding => (
            "Every % must be followed by two hexadecimal digits.",
            "Let the HTTP library encode the parameters; a literal % is written as %25.",
        ),
        FormError::Repeated => (
            "A parameter must not be repeated.",
            "Send each parameter once, in the body alone. Only resource may be repeated.",
        ),
        FormError::TooMany => ("There are too many parameters.", advice::SEND_LESS),
        FormError::Unclosed => (
            "The multipart body ends before its closing boundary.",
            "Let the HTTP library write the multipart body, and check that no proxy cuts it off.",
        ),
    };
    invalid_request(text, advice)
}

fn invalid_request(text: &'static str, advice: &'static str) -> Row {
    (400, INVALID_REQUEST, text, advice)
}

fn unsupported(text: &'static str, advice: &'static str) -> Row {
    (415, INVALID_REQUEST, text, advice)
}

fn invalid_scope(text: &'static str, advice: &'static str) -> Row {
    (400, "invalid_scope", text, advice)
}

const BOUNDARY: &str = "The multipart boundary must be 1 to 70 valid characters, in quotes if \
    one of ( ) , / : = ? or a space is among them.";
const CONTENT_TYPE: &str = "Content-Type must be sent once, as multipart/form-data or \
    application/x-www-form-urlencoded, without empty or repeated parameters.";
const FILE_NAME: &str = "The form's parts must be plain fields without a file name: with Python's \
    requests, files={'client_id': (None, 'value')}; with curl, -F client_id=value.";
const NOT_FOUND: &str = "There is nothing at this path. Tokens come from POST /connect/token, \
    POST /v1/api/oauth/token and GET /v1/getAccessToken, below the path of the issuer.";
const INVALID_REQUEST: &str = "invalid_request";
const INVALID_CLIENT: &str = "invalid_client";
const INVALID_TOKEN: &str = "invalid_token";
