//! Why a request is refused.
//!
//! A [`Cause`] is for the operator: it is logged and counted under its label. What the caller is
//! told is decided by each dialect in one match over all of these, so that nothing internal reaches
//! the public by accident.

use crate::form::parameters::FormError;
use crate::oauth::client::ContentType;
use crate::oauth::client_assertion::AssertionError;
use crate::oauth::dpop::DpopError;
use crate::oauth::scope::ScopeError;

/// Why nothing was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    // The request as a message.
    /// The client stopped sending in the middle of the body.
    BodyAborted,
    /// The body is over the limit.
    BodyTooLarge,
    /// A compressed body, or one in another content coding.
    ContentEncoding,
    /// The request target has a fragment, where it has none (RFC 9112, section 3.2).
    Fragment,
    /// More header fields or bytes than the limits.
    HeadTooLarge,
    /// `Host` is missing, there twice, or not a host.
    Host,
    /// No such method here.
    MethodNotAllowed,
    /// Nothing at this path.
    NotFound,
    /// The request did not arrive whole in time.
    RequestTimeout,
    /// A transfer coding other than a single `chunked`.
    TransferEncoding,

    // The request as a form.
    /// The body's text is in a charset other than UTF-8.
    Charset,
    /// The body is not a form that can be read.
    Form(FormError),
    /// The body's type is not the one that this client is registered for.
    ContentTypeNotAllowed(ContentType),
    /// There is no `Content-Type`, where one is required.
    ContentTypeMissing,
    /// A field that is required is missing or empty.
    FieldMissing(&'static str),
    /// A field or header has a value that is none of those documented.
    FieldValue,
    /// A field is longer than documented.
    FieldTooLong(&'static str),
    /// The body is of no type that is read here, or of none.
    MediaType,
    /// A parameter that belongs in the body stands in the query, or in both.
    ParameterInQuery,
    /// What is asked about a token is none of the documented questions.
    Question,

    // The client.
    /// The client's assertion is refused.
    Assertion(AssertionError),
    /// Nothing that identifies the client, or no proof with it.
    AuthenticationMissing,
    /// The client may not authenticate this way.
    AuthMethodNotAllowed,
    /// `client_id` or `client_secret` in the body has characters outside %x20-7E.
    CredentialCharacters,
    /// The client's tokens are bound to a certificate, and it has shown none.
    CertificateMissing,
    /// The certificate is none of the client's.
    CertificateMismatch,
    /// A trusted proxy has stated a certificate that cannot be read.
    CertificateUnreadable,
    /// The client is disabled.
    ClientDisabled,
    /// `client_id` in the body is not the one in `Authorization`.
    ClientIdMismatch,
    /// The secret is one of the demo secrets, which are public.
    DemoSecret,
    /// `Authorization` cannot be read as Basic credentials.
    MalformedAuthorization,
    /// The client has secrets, but none of them is valid at this time.
    SecretNotCurrent,
    /// More than one way to authenticate in one request.
    SeveralAuthentications,
    /// No such client.
    UnknownClient,
    /// A way to authenticate that is not known here.
    UnsupportedAuthentication,
    /// The secret is none of the client's.
    WrongSecret,

    // A token that is presented.
    /// There is an `Authorization` header, but no bearer token in it.
    BearerMissing,
    /// The token was issued to another client than the one that wants it revoked.
    TokenNotOwn,
    /// The token was revoked, or issued before its client's `not_before`.
    TokenRevoked,
    /// The token lacks a scope that was asked for.
    TokenScope,
    /// The token's time is over.
    TokenExpired,
    /// The token is not one of ours, or not for whom it is shown to.
    TokenInvalid,
    /// There is no `Authorization` header.
    TokenMissing,

    // The grant.
    /// The proof of possession is refused.
    Dpop(DpopError),
    /// The client has used up its budget; this many seconds refill it.
    RateLimited(u32),
    /// Too many have failed to authenticate as this client, or from there; so many seconds help.
    Throttled(u32),
    /// The client may not use this grant.
    GrantNotAllowed,
    /// `grant_type` is missing.
    GrantTypeMissing,
    /// `grant_type` is none that is known here.
    GrantTypeUnsupported,
    /// The scope is malformed or not allowed.
    Scope(ScopeError),
    /// No scope was asked for, and the client has no default.
    ScopeMissing,
    /// `resource` is malformed or not one of the client's audiences.
    Target,

    // The server.
    /// Something that cannot happen, happened.
    Internal,
    /// The operating system has no random bytes.
    NoEntropy,
    /// No key signs at this time.
    NoSigningKey,
    /// More is asked for than can be signed.
    Overloaded,
    /// More secrets are to be hashed than there is time for.
    PasswordQueueFull,
    /// One client network has as many secrets to be hashed as it may.
    PasswordQueueShare,
    /// There is no room to remember what was used, so that nothing is used twice.
    ReplayGuardFull,
    /// The disk did not take a revocation.
    RevocationNotWritten,
    /// As many tokens are revoked as the limit allows.
    RevocationsFull,
    /// The signer gave no signature.
    SigningFailed,
}

impl Cause {
    /// Whether it is a presented token that was refused, and not a client.
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

    /// Whether a client that is refused for this gets its attempt back: where the answer would be
    /// the same for every client, or an assertion was right and could not be used up.
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

    /// The field that is at fault, where it is one that the route documents.
    pub fn field(self) -> Option<&'static str> {
        match self {
            Self::FieldMissing(field) | Self::FieldTooLong(field) => Some(field),
            Self::GrantTypeMissing | Self::GrantTypeUnsupported => Some("grant_type"),
            _ => None,
        }
    }

    /// In how many seconds it is worth asking again, where that is known to help.
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
