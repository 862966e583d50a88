//! The causes for which a request is refused.
//!
//! A [`Cause`] is for the operator: it is logged and counted under its label. Each dialect maps
//! every cause to its public answer in one exhaustive match, so that no internal detail reaches a
//! client by accident.

use crate::form::parameters::FormError;
use crate::oauth::client::ContentType;
use crate::oauth::client_assertion::AssertionError;
use crate::oauth::dpop::DpopError;
use crate::oauth::scope::ScopeError;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    // The HTTP message.
    /// The client stopped sending before the end of the body.
    BodyAborted,
    /// The body is over the limit.
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
    /// No route has this path.
    NotFound,
    /// The request was not complete in time.
    RequestTimeout,
    /// A transfer coding other than a single `chunked`.
    TransferEncoding,

    // The form.
    /// The charset of the body is not UTF-8.
    Charset,
    /// The body is not a valid form.
    Form(FormError),
    /// The body's type is not the one registered for this client.
    ContentTypeNotAllowed(ContentType),
    /// `Content-Type` is required and missing.
    ContentTypeMissing,
    /// A required field is missing or empty.
    FieldMissing(&'static str),
    /// A field or header has an undocumented value.
    FieldValue,
    /// A field is longer than documented.
    FieldTooLong(&'static str),
    /// The body's type is not supported or missing.
    MediaType,
    /// A parameter that belongs in the body is in the query.
    ParameterInQuery,
    /// The query of a token validation is not a documented one.
    Question,

    // The client.
    /// The client's assertion is refused.
    Assertion(AssertionError),
    /// The request names no client or has no credentials.
    AuthenticationMissing,
    /// The client may not use this authentication method.
    AuthMethodNotAllowed,
    /// `client_id` or `client_secret` in the body has characters outside %x20-7E.
    CredentialCharacters,
    /// The client's tokens are bound to a certificate, and the request has none.
    CertificateMissing,
    /// The certificate is not one of the client's.
    CertificateMismatch,
    /// A trusted proxy has forwarded a malformed certificate.
    CertificateUnreadable,
    /// The client is disabled.
    ClientDisabled,
    /// `client_id` in the body differs from that in `Authorization`.
    ClientIdMismatch,
    /// The secret is one of the demo secrets, which are public.
    DemoSecret,
    /// `Authorization` is not a valid Basic header.
    MalformedAuthorization,
    /// The secret is the client's, but not valid at this time.
    SecretNotCurrent,
    /// The request uses several authentication methods.
    SeveralAuthentications,
    /// No client with this id is registered.
    UnknownClient,
    /// The authentication method is not supported.
    UnsupportedAuthentication,
    /// The secret is not one of the client's.
    WrongSecret,

    // A presented token.
    /// `Authorization` holds no bearer token.
    BearerMissing,
    /// The token belongs to another client than the one that revokes it.
    TokenNotOwn,
    /// The token was revoked, or issued before its client's `not_before`.
    TokenRevoked,
    /// The token lacks a required scope.
    TokenScope,
    /// The token has expired.
    TokenExpired,
    /// The token was not issued here, or its audience is another.
    TokenInvalid,
    /// The request has no `Authorization` header.
    TokenMissing,

    // The grant.
    /// The DPoP proof is refused.
    Dpop(DpopError),
    /// The client's rate limit is used up for this many seconds.
    RateLimited(u32),
    /// A failure budget of the client or of its network is used up for this many seconds.
    Throttled(u32),
    /// The client may not use this grant.
    GrantNotAllowed,
    /// `grant_type` is missing.
    GrantTypeMissing,
    /// `grant_type` is not supported.
    GrantTypeUnsupported,
    /// The scope is malformed or not allowed.
    Scope(ScopeError),
    /// No scope is requested, and the client has no default.
    ScopeMissing,
    /// `resource` is malformed or not one of the client's audiences.
    Target,

    // The server.
    /// A bug.
    Internal,
    /// The operating system has no random bytes.
    NoEntropy,
    /// No key signs at this time.
    NoSigningKey,
    /// The signing queue is full.
    Overloaded,
    /// The queue of slow hashes is full.
    PasswordQueueFull,
    /// A client network has its share of the queue of slow hashes waiting.
    PasswordQueueShare,
    /// The replay guard is full, so no assertion or proof can be accepted.
    ReplayGuardFull,
    /// A revocation could not be written to disk.
    RevocationNotWritten,
    /// The limit of revoked tokens is reached.
    RevocationsFull,
    /// The signer failed.
    SigningFailed,
}

impl Cause {
    /// Whether it refuses a presented token rather than a client.
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

    /// Whether the attempt is refunded to the failure budgets: the answer is the same for every
    /// client, or the assertion was valid and its use could not be recorded.
    pub fn costs_no_attempt(self) -> bool {
        use AssertionError::{Audience, BeforeStart, Malformed, Replayed, Time};
        matches!(
            self,
            Self::Assertion(Audience | BeforeStart | Malformed | Replayed | Time)
                | Self::ReplayGuardFull
                | Self::RevocationNotWritten
                | Self::RevocationsFull
        )
    }

    /// The name of the faulty field, if the route documents it.
    pub fn field(self) -> Option<&'static str> {
        match self {
            Self::FieldMissing(field) | Self::FieldTooLong(field) => Some(field),
            Self::GrantTypeMissing | Self::GrantTypeUnsupported => Some("grant_type"),
            _ => None,
        }
    }

    /// The seconds after which a retry may succeed, if waiting helps.
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

    /// A stable name for logs and metrics.
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
