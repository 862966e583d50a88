//! The causes for which a request is refused.
//!
//! A [`Cause`] is for the operator: it is logged, and counted in the metrics under its label. Each
//! dialect maps every cause to a response in one exhaustive match, so that no internal detail
//! reaches a client by accident.

use crate::form::parameters::FormError;
use crate::oauth::client::ContentType;
use crate::oauth::client_assertion::AssertionError;
use crate::oauth::dpop::DpopError;
use crate::oauth::scope::ScopeError;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    // Causes in the HTTP message.
    /// The client stopped sending before the end of the body.
    BodyAborted,
    /// The body is larger than `limits.body_bytes`.
    BodyTooLarge,
    /// The body has a content coding, such as gzip.
    ContentEncoding,
    /// The request target has a fragment, which is not allowed (RFC 9112, section 3.2).
    Fragment,
    /// The head has more fields or bytes than the limits allow.
    HeadTooLarge,
    /// `Host` is missing, repeated or malformed.
    Host,
    /// The route does not support the method.
    MethodNotAllowed,
    /// No route has the path of the request.
    NotFound,
    /// The request was not complete within `limits.request_seconds`.
    RequestTimeout,
    /// The request has a transfer coding other than a single `chunked`.
    TransferEncoding,

    // Causes in the form or the JSON body.
    /// The charset of the body is not UTF-8.
    Charset,
    /// The body is not a valid form.
    Form(FormError),
    /// The body's content type is not the content type registered for the client.
    ContentTypeNotAllowed(ContentType),
    /// The route requires a `Content-Type`, and the request has none.
    ContentTypeMissing,
    /// The field of this name is required, and is missing or empty.
    FieldMissing(&'static str),
    /// A field or header has a value that the dialect's documents do not allow.
    FieldValue,
    /// The field of this name is longer than the dialect's documents allow.
    FieldTooLong(&'static str),
    /// The body's content type is missing or not supported.
    MediaType,
    /// A parameter that belongs in the body is in the query.
    ParameterInQuery,
    /// The query of `/connect/validate` has an unknown or empty parameter, or names an unknown
    /// dialect.
    Question,

    // Causes in client authentication.
    /// The client's assertion is refused.
    Assertion(AssertionError),
    /// The request names no client or has no credentials.
    AuthenticationMissing,
    /// The client may not use this authentication method.
    AuthMethodNotAllowed,
    /// `client_id` or `client_secret` in the body has characters outside %x20-7E.
    CredentialCharacters,
    /// The client's tokens are bound to a certificate, and the request has no certificate that is
    /// valid for the client.
    CertificateMissing,
    /// The certificate has neither the registered subject nor a registered key of the client.
    CertificateMismatch,
    /// A trusted proxy has forwarded a malformed certificate.
    CertificateUnreadable,
    /// The client is disabled.
    ClientDisabled,
    /// `client_id` in the body differs from the id in `Authorization`.
    ClientIdMismatch,
    /// The secret is one of the demo secrets, which are public.
    DemoSecret,
    /// `Authorization` is not a valid Basic header.
    MalformedAuthorization,
    /// The secret is one of the client's secrets, but is not valid yet or has expired.
    SecretNotCurrent,
    /// The request uses several authentication methods.
    SeveralAuthentications,
    /// No client is registered with the given id.
    UnknownClient,
    /// The authentication method is not supported.
    UnsupportedAuthentication,
    /// The secret is not one of the client's secrets.
    WrongSecret,

    // Causes in a presented token.
    /// `Authorization` holds no bearer token.
    BearerMissing,
    /// The token to be revoked does not belong to the client that sent the revocation request.
    TokenNotOwn,
    /// The token was revoked, or was issued before its client's `not_before`.
    TokenRevoked,
    /// The token lacks a required scope.
    TokenScope,
    /// The token has expired.
    TokenExpired,
    /// The token was not issued by this server, has a wrong audience, is not valid yet, or is bound
    /// to a key or certificate. The cause is also used for a token whose client is disabled or no
    /// longer registered.
    TokenInvalid,
    /// The request has no `Authorization` header.
    TokenMissing,

    // Causes in DPoP, in the limits for clients and in the grant.
    /// The DPoP proof is refused.
    Dpop(DpopError),
    /// The client's rate limit is used up. The value is the number of seconds to wait.
    RateLimited(u32),
    /// A failure budget of the client or of the client's network is used up. The value is the
    /// number of seconds to wait.
    Throttled(u32),
    /// The client has no scopes, so it may not use the client credentials grant.
    GrantNotAllowed,
    /// `grant_type` is missing.
    GrantTypeMissing,
    /// `grant_type` is not supported.
    GrantTypeUnsupported,
    /// The scope is malformed or not allowed.
    Scope(ScopeError),
    /// The request names no scope, and the client has no default scopes.
    ScopeMissing,
    /// `resource` is malformed or not one of the client's audiences.
    Target,

    // Causes in the server.
    /// The server has a bug.
    Internal,
    /// The operating system provided no random bytes.
    NoEntropy,
    /// The key set has no signing key at this time.
    NoSigningKey,
    /// The signing queue is full.
    Overloaded,
    /// The queue for computing slow hashes is full.
    PasswordQueueFull,
    /// The queue for computing slow hashes already holds the maximum number of entries from the
    /// source of the request. The source of a known client is the client. The source of an unknown
    /// client is its client network or, on a shared network, the pair of the client and the
    /// network.
    PasswordQueueShare,
    /// The replay guard is full, so no assertion or proof can be accepted.
    ReplayGuardFull,
    /// A revocation could not be written to disk.
    RevocationNotWritten,
    /// The number of revoked tokens has reached `limits.revocations`.
    RevocationsFull,
    /// The computation of the signature failed.
    SigningFailed,
}

impl Cause {
    /// Whether the cause concerns a presented token rather than the authentication of a client.
    pub fn is_about_a_token(self) -> bool {
        matches!(
            self,
            Self::BearerMissing
                | Self::TokenExpired
                | Self::TokenInvalid
                | Self::TokenMissing
                | Self::TokenRevoked
                | Self::TokenScope
        )
    }

    /// Whether the charge for an attempt is returned to the failure budgets if the attempt is
    /// refused for this cause. The charge is returned if the refusal reveals nothing about a secret
    /// or key: either the refusal does not depend on the client, or the assertion was valid, but
    /// was used before or could not be recorded as used.
    pub fn costs_no_attempt(self) -> bool {
        use AssertionError::{Audience, BeforeStart, Malformed, Replayed, Time};
        matches!(
            self,
            Self::Assertion(Audience | BeforeStart | Malformed | Replayed | Time)
                | Self::Overloaded
                | Self::ReplayGuardFull
                | Self::RevocationNotWritten
                | Self::RevocationsFull
        )
    }

    /// The name of the missing or invalid field; `None` if the cause does not concern one field.
    pub fn field(self) -> Option<&'static str> {
        match self {
            Self::FieldMissing(field) | Self::FieldTooLong(field) => Some(field),
            Self::GrantTypeMissing | Self::GrantTypeUnsupported => Some("grant_type"),
            _ => None,
        }
    }

    /// The seconds after which a retry may succeed; `None` if waiting does not help.
    pub fn retry_after(self) -> Option<u32> {
        match self {
            Self::RateLimited(seconds) | Self::Throttled(seconds) => Some(seconds),
            Self::NoSigningKey
            | Self::Overloaded
            | Self::PasswordQueueFull
            | Self::PasswordQueueShare
            | Self::ReplayGuardFull => Some(1),
            Self::RevocationNotWritten => Some(5),
            Self::RevocationsFull => Some(60),
            _ => None,
        }
    }

    /// The stable name of the cause in logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::BodyAborted => "body_aborted",
            Self::BodyTooLarge => "body_too_large",
            Self::ContentEncoding => "content_encoding",
            Self::Fragment => "fragment",
            Self::HeadTooLarge => "head_too_large",
            Self::Host => "host",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotFound => "not_found",
            Self::RequestTimeout => "request_timeout",
            Self::TransferEncoding => "transfer_encoding",
            Self::Charset => "charset",
            Self::Form(FormError::Boundary) => "multipart_boundary",
            Self::Form(FormError::ByteOrderMark) => "byte_order_mark",
            Self::Form(FormError::Empty) => "body_empty",
            Self::Form(FormError::FileName) => "multipart_file",
            Self::Form(FormError::JsonShape) => "json_shape",
            Self::Form(FormError::JsonSyntax) => "json_syntax",
            Self::Form(FormError::JsonType) => "json_type",
            Self::Form(FormError::NotUtf8) => "not_utf8",
            Self::Form(FormError::Object) => "json_in_form",
            Self::Form(FormError::PartCharset) => "multipart_charset",
            Self::Form(FormError::PartHeaders) => "multipart_headers",
            Self::Form(FormError::PercentEncoding) => "percent_encoding",
            Self::Form(FormError::Repeated) => "parameter_repeated",
            Self::Form(FormError::TooMany) => "too_many_parameters",
            Self::Form(FormError::Unclosed) => "multipart_unclosed",
            Self::ContentTypeNotAllowed(_) => "content_type_not_allowed",
            Self::ContentTypeMissing => "content_type_missing",
            Self::FieldMissing(_) => "field_missing",
            Self::FieldValue => "field_value",
            Self::FieldTooLong(_) => "field_too_long",
            Self::MediaType => "media_type",
            Self::ParameterInQuery => "parameter_in_query",
            Self::Question => "question",
            Self::Assertion(AssertionError::Algorithm) => "assertion_algorithm",
            Self::Assertion(AssertionError::Audience) => "assertion_audience",
            Self::Assertion(AssertionError::BeforeStart) => "assertion_before_start",
            Self::Assertion(AssertionError::ClientId) => "assertion_client_id",
            Self::Assertion(AssertionError::Malformed) => "assertion_malformed",
            Self::Assertion(AssertionError::Replayed) => "assertion_replayed",
            Self::Assertion(AssertionError::Signature) => "assertion_signature",
            Self::Assertion(AssertionError::Time) => "assertion_time",
            Self::AuthenticationMissing => "authentication_missing",
            Self::AuthMethodNotAllowed => "auth_method_not_allowed",
            Self::CertificateMissing => "certificate_missing",
            Self::CertificateMismatch => "certificate_mismatch",
            Self::CertificateUnreadable => "certificate_unreadable",
            Self::CredentialCharacters => "credential_characters",
            Self::ClientDisabled => "client_disabled",
            Self::ClientIdMismatch => "client_id_mismatch",
            Self::DemoSecret => "demo_secret",
            Self::MalformedAuthorization => "malformed_authorization",
            Self::SecretNotCurrent => "secret_not_current",
            Self::SeveralAuthentications => "several_authentications",
            Self::UnknownClient => "unknown_client",
            Self::UnsupportedAuthentication => "unsupported_authentication",
            Self::WrongSecret => "wrong_secret",
            Self::BearerMissing => "bearer_missing",
            Self::TokenNotOwn => "token_not_own",
            Self::TokenRevoked => "token_revoked",
            Self::TokenScope => "token_scope",
            Self::TokenExpired => "token_expired",
            Self::TokenInvalid => "token_invalid",
            Self::TokenMissing => "token_missing",
            Self::Dpop(DpopError::Algorithm) => "dpop_algorithm",
            Self::Dpop(DpopError::Key) => "dpop_key",
            Self::Dpop(DpopError::Malformed) => "dpop_malformed",
            Self::Dpop(DpopError::Missing) => "dpop_missing",
            Self::Dpop(DpopError::Nonce) => "dpop_nonce",
            Self::Dpop(DpopError::Replayed) => "dpop_replayed",
            Self::Dpop(DpopError::Signature) => "dpop_signature",
            Self::Dpop(DpopError::Target) => "dpop_target",
            Self::Dpop(DpopError::Time) => "dpop_time",
            Self::RateLimited(_) => "rate_limited",
            Self::Throttled(_) => "throttled",
            Self::GrantNotAllowed => "grant_not_allowed",
            Self::GrantTypeMissing => "grant_type_missing",
            Self::GrantTypeUnsupported => "grant_type_unsupported",
            Self::Scope(ScopeError::Malformed) => "scope_malformed",
            Self::Scope(ScopeError::NotAllowed) => "scope_not_allowed",
            Self::ScopeMissing => "scope_missing",
            Self::Target => "target",
            Self::Internal => "internal",
            Self::NoEntropy => "no_entropy",
            Self::NoSigningKey => "no_signing_key",
            Self::Overloaded => "overloaded",
            Self::PasswordQueueFull => "password_queue_full",
            Self::PasswordQueueShare => "password_queue_share",
            Self::ReplayGuardFull => "replay_guard_full",
            Self::RevocationNotWritten => "revocation_not_written",
            Self::RevocationsFull => "revocations_full",
            Self::SigningFailed => "signing_failed",
        }
    }
}

impl From<FormError> for Cause {
    fn from(error: FormError) -> Self {
        Self::Form(error)
    }
}

impl From<AssertionError> for Cause {
    fn from(error: AssertionError) -> Self {
        Self::Assertion(error)
    }
}

impl From<DpopError> for Cause {
    fn from(error: DpopError) -> Self {
        Self::Dpop(error)
    }
}

impl From<ScopeError> for Cause {
    fn from(error: ScopeError) -> Self {
        Self::Scope(error)
    }
}
