//! The causes for which a request is refused.
//!
//! A [`Cause`] is for the operator: it is logged, and counted in the metrics under its label. Each
//! dialect maps every cause to a response in one exhaustive match, so that no internal detail
//! reaches a client by accident.

use crate::form::media_type::ContentType;
use crate::form::parameters::FormError;
use crate::oauth::client_assertion::AssertionError;
use crate::oauth::dpop::DpopError;
use crate::oauth::scope::ScopeError;

/// Why a request is refused. [`Cause::row`] explains each cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table of rows explains each cause")]
pub enum Cause {
    // Causes in the HTTP message.
    BodyAborted,
    BodyTooLarge,
    ContentEncoding,
    Fragment,
    HeadTooLarge,
    Host,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    TransferEncoding,

    // Causes in the form or the JSON body.
    Charset,
    Form(FormError),
    ContentTypeNotAllowed(ContentType),
    ContentTypeMalformed,
    ContentTypeMissing,
    FieldMissing(&'static str),
    FieldValue,
    FieldTooLong(&'static str),
    MediaType,
    ParameterInQuery,
    ValidationQuery,

    // Causes in client authentication.
    Assertion(AssertionError),
    AuthenticationMissing,
    AuthMethodNotAllowed,
    CredentialCharacters,
    CertificateMissing,
    CertificateMismatch,
    CertificateUnreadable,
    ClientDisabled,
    ClientIdMismatch,
    DemoSecret,
    MalformedAuthorization,
    SecretNotCurrent,
    SeveralAuthentications,
    UnknownClient,
    UnsupportedAuthentication,
    WrongSecret,

    // Causes in a presented token.
    BearerMissing,
    TokenNotOwn,
    TokenRevoked,
    TokenScope,
    TokenExpired,
    TokenInvalid,
    TokenMissing,

    // Causes in DPoP, in the limits for clients and in the grant.
    Dpop(DpopError),
    RateLimited(u32),
    Throttled(u32),
    GrantNotAllowed,
    GrantTypeMissing,
    GrantTypeUnsupported,
    Scope(ScopeError),
    ScopeMissing,
    Target,

    // Causes in the server.
    ClockSetBack,
    CutOff(u32),
    Internal,
    NoEntropy,
    NoSigningKey,
    Overloaded,
    PasswordQueueFull,
    PasswordQueueShare,
    ReplayGuardFull,
    ReplayGuardShare,
    RevocationNotWritten,
    RevocationsFull,
    SigningFailed,
    StoreStale,
    UseNotRecorded,
}

/// A cause's row in the table of all causes.
struct Row {
    label: &'static str,
    explanation: &'static str,
    is_charged: bool,
    retry_after: Option<u32>,
}

const fn row(label: &'static str, explanation: &'static str) -> Row {
    Row { label, explanation, is_charged: true, retry_after: None }
}

impl Row {
    const fn uncharged(self) -> Self {
        Self { is_charged: false, ..self }
    }

    const fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

impl Cause {
    /// The table of all causes: the label and the explanation of each.
    #[rustfmt::skip] // Each row has its label beside the cause, and below them its explanation.
    const fn row(self) -> Row {
        match self {
            Self::BodyAborted => row("body_aborted",
                "The client stopped sending before the end of the body, or its chunks or trailers are \
                 not valid."),
            Self::BodyTooLarge => row("body_too_large",
                "The body is larger than limits.body_bytes."),
            Self::ContentEncoding => row("content_encoding",
                "The body has a Content-Encoding; it must be sent uncompressed."),
            Self::Fragment => row("fragment",
                "The request target has a #; a fragment is not allowed there."),
            Self::HeadTooLarge => row("head_too_large",
                "The head exceeds limits.header_bytes or limits.header_fields."),
            Self::Host => row("host", "Host is missing, repeated or malformed."),
            Self::MethodNotAllowed => row("method_not_allowed",
                "The route does not support the method; the Allow header lists those it does."),
            Self::NotFound => row("not_found",
                "No route has this path; a [[route]] can put a token endpoint there."),
            Self::RequestTimeout => row("request_timeout",
                "The request was not complete within limits.request_seconds."),
            Self::TransferEncoding => row("transfer_encoding",
                "The only transfer coding accepted is a single chunked."),
            Self::Charset => row("charset",
                "The body's charset is not UTF-8, and the body is not plain ASCII."),
            Self::Form(FormError::Boundary) => row("multipart_boundary",
                "The multipart boundary is missing, empty, too long, or must be quoted."),
            Self::Form(FormError::ByteOrderMark) => row("byte_order_mark",
                "The body begins with a byte order mark."),
            Self::Form(FormError::Empty) => row("body_empty", "The body is empty."),
            Self::Form(FormError::FileName) => row("multipart_file",
                "A part has a file name; only plain fields are accepted."),
            Self::Form(FormError::JsonShape) => row("json_shape",
                "The JSON is not the documented object, or repeats a key."),
            Self::Form(FormError::JsonSyntax) => row("json_syntax", "The body is not JSON."),
            Self::Form(FormError::JsonType) => row("json_type",
                "A JSON field does not have its documented type."),
            Self::Form(FormError::NotUtf8) => row("not_utf8", "A value is not UTF-8."),
            Self::Form(FormError::Object) => row("json_in_form",
                "The body is JSON, but its Content-Type is that of a form."),
            Self::Form(FormError::PartCharset) => row("multipart_charset",
                "A part's charset is not UTF-8, and the part is not plain ASCII."),
            Self::Form(FormError::PartHeaders(_)) => row("multipart_headers",
                "A part's headers are malformed, repeated, too many or not supported."),
            Self::Form(FormError::PercentEncoding) => row("percent_encoding",
                "A percent sign is not followed by two hex digits."),
            Self::Form(FormError::Repeated) => row("parameter_repeated",
                "A parameter is repeated."),
            Self::Form(FormError::TooMany) => row("too_many_parameters",
                "There are more parameters than limits.form_parts."),
            Self::Form(FormError::Unclosed) => row("multipart_unclosed",
                "The closing multipart boundary is missing."),
            Self::ContentTypeNotAllowed(_) => row("content_type_not_allowed",
                "The Content-Type is not the content_type registered for the client."),
            Self::ContentTypeMalformed => row("content_type_malformed",
                "The request has several Content-Type headers, or one that is not a media type or \
                 has a repeated or empty parameter."),
            Self::ContentTypeMissing => row("content_type_missing",
                "This route requires a Content-Type, and the request has none."),
            Self::FieldMissing(_) => row("field_missing", "A required field is missing or empty."),
            Self::FieldValue => row("field_value", "A field or header has an undocumented value."),
            Self::FieldTooLong(_) => row("field_too_long", "A field is longer than documented."),
            Self::MediaType => row("media_type",
                "This route does not accept the body's Content-Type."),
            Self::ParameterInQuery => row("parameter_in_query",
                "A token parameter was in the URI, which every server on the way may log. If it \
                 was a secret, rotate it."),
            Self::ValidationQuery => row("question",
                "The query of /connect/validate may hold only scope, audience and dialect, each \
                 once and with a value. The token was not checked."),
            Self::Assertion(AssertionError::Algorithm) => row("assertion_algorithm",
                "The assertion's algorithm is not supported, or not the one registered for the \
                 client."),
            Self::Assertion(AssertionError::Audience) => row("assertion_audience",
                "The assertion's aud must be only the issuer or the endpoint's URL; check that the \
                 setting issuer is the URL that clients use. With assertion_audience = \"issuer\" \
                 or the type client-authentication+jwt, aud must be the issuer, as a string.")
                .uncharged(),
            Self::Assertion(AssertionError::BeforeRecord) => row("assertion_before_record",
                "The assertion was signed before the record of uses began, and may have been used \
                 then; the log says when that was. The client must sign a new one.")
                .uncharged(),
            Self::Assertion(AssertionError::ClientId) => row("assertion_client_id",
                "The parameter client_id names another client than the assertion."),
            Self::Assertion(AssertionError::Malformed) => row("assertion_malformed",
                "The assertion cannot be parsed, lacks a claim, or carries or references a key.")
                .uncharged(),
            Self::Assertion(AssertionError::Replayed) => row("assertion_replayed",
                "The assertion's jti was used before.")
                .uncharged(),
            Self::Assertion(AssertionError::Signature) => row("assertion_signature",
                "No registered key of the client verifies the assertion's signature."),
            Self::Assertion(AssertionError::Time) => row("assertion_time",
                "The assertion has expired or is not valid yet: compare the clocks.")
                .uncharged(),
            Self::AuthenticationMissing => row("authentication_missing",
                "The request names no client or has no credentials."),
            Self::AuthMethodNotAllowed => row("auth_method_not_allowed",
                "The credentials are valid, but the method is not in the client's auth_methods."),
            Self::CertificateMissing => row("certificate_missing",
                "The client's tokens are bound to a certificate, and no trusted proxy has \
                 forwarded one that is valid for this client. Check that the client connects with \
                 its certificate, that client_certificate.proxies (or trusted_proxies, with a \
                 single address) lists the proxy, and, for a self-signed certificate, that the \
                 client has self_signed_tls_client_auth and the key in its jwks."),
            Self::CertificateMismatch => row("certificate_mismatch",
                "The certificate has neither the client's registered subject nor one of its keys. \
                 The subject of a self-signed certificate is ignored."),
            Self::CertificateUnreadable => row("certificate_unreadable",
                "The proxy's certificate header is not a URL-encoded PEM certificate."),
            Self::CredentialCharacters => row("credential_characters",
                "client_id or client_secret has characters outside printable ASCII."),
            Self::ClientDisabled => row("client_disabled",
                "The client is disabled; `grantd client enable` enables it."),
            Self::ClientIdMismatch => row("client_id_mismatch",
                "client_id in the body differs from that in Authorization."),
            Self::DemoSecret => row("demo_secret",
                "The secret is a public demo secret, and other machines can reach this server: \
                 give the client a new secret."),
            Self::MalformedAuthorization => row("malformed_authorization",
                "Authorization is not a valid Basic header."),
            Self::SecretNotCurrent => row("secret_not_current",
                "The secret is the client's, but is not valid yet (not_before) or has expired \
                 (expires_at)."),
            Self::SeveralAuthentications => row("several_authentications",
                "The request uses several authentication methods."),
            Self::UnknownClient => row("unknown_client", "No client with this id is registered."),
            Self::UnsupportedAuthentication => row("unsupported_authentication",
                "The authentication method is not supported."),
            Self::WrongSecret => row("wrong_secret", "The secret is not one of the client's."),
            Self::BearerMissing => row("bearer_missing", "Authorization holds no bearer token."),
            Self::TokenNotOwn => row("token_not_own",
                "The token belongs to another client than the one that revokes it."),
            Self::TokenRevoked => row("token_revoked",
                "The token was revoked, or was issued before its client's not_before."),
            Self::TokenScope => row("token_scope", "The token lacks a required scope."),
            Self::TokenExpired => row("token_expired", "The token has expired."),
            Self::TokenInvalid => row("token_invalid",
                "The token was not issued here, has another audience, or is bound to a key or \
                 certificate and was sent without proof."),
            Self::TokenMissing => row("token_missing", "The request has no Authorization header."),
            Self::Dpop(DpopError::Algorithm) => row("dpop_algorithm",
                "The proof's algorithm is not supported."),
            Self::Dpop(DpopError::Key) => row("dpop_key",
                "The proof's jwk is not a public key of a supported type."),
            Self::Dpop(DpopError::Malformed) => row("dpop_malformed",
                "The proof cannot be parsed, or the DPoP header is repeated."),
            Self::Dpop(DpopError::Missing) => row("dpop_missing",
                "The client's tokens must be bound to a key, and the request has no DPoP header."),
            Self::Dpop(DpopError::Nonce) => row("dpop_nonce",
                "The proof lacks a current nonce; clients retry with the one in DPoP-Nonce."),
            Self::Dpop(DpopError::Replayed) => row("dpop_replayed",
                "The proof's jti was used before."),
            Self::Dpop(DpopError::Signature) => row("dpop_signature",
                "The proof's jwk does not verify its signature."),
            Self::Dpop(DpopError::Target) => row("dpop_target",
                "The proof's htm or htu is not that of the request; check the setting issuer."),
            Self::Dpop(DpopError::Time) => row("dpop_time",
                "The proof is too old, from the future, or from before the record of uses began."),
            Self::RateLimited(seconds) => row("rate_limited",
                "The client has exceeded its rate_limit.")
                .retry_after(seconds).uncharged(),
            Self::Throttled(seconds) => row("throttled",
                "Too many attempts to authenticate as this client or from this client network have \
                 failed; see [failures].")
                .retry_after(seconds),
            Self::GrantNotAllowed => row("grant_not_allowed", "The client has no scopes."),
            Self::GrantTypeMissing => row("grant_type_missing", "grant_type is missing."),
            Self::GrantTypeUnsupported => row("grant_type_unsupported",
                "grant_type is not client_credentials."),
            Self::Scope(ScopeError::Malformed) => row("scope_malformed",
                "scope is not a list of scope tokens separated by spaces."),
            Self::Scope(ScopeError::NotAllowed) => row("scope_not_allowed",
                "The client is not registered for a requested scope."),
            Self::ScopeMissing => row("scope_missing",
                "No scope was requested, and the client has no default_scopes."),
            Self::Target => row("target",
                "resource is not an absolute URI, or not in the client's audience."),
            Self::ClockSetBack => row("clock_set_back",
                "The clock was set back, so the assertion or proof expires no later than one whose \
                 use was dropped since; or, by the clock of the database, it has expired or was \
                 signed in the future: check the clocks of the server and of the database.")
                .retry_after(1).uncharged(),
            Self::CutOff(seconds) => row("cut_off",
                "The client has revoked so many tokens that all of its tokens up to a certain end \
                 are revoked, and a new one would end before: its token_lifetime was shortened.")
                .retry_after(seconds).uncharged(),
            Self::Internal => row("internal",
                "A bug: the log has a panic or an error for this request."),
            Self::NoEntropy => row("no_entropy", "The operating system gave no random bytes."),
            Self::NoSigningKey => row("no_signing_key",
                "No key is signing; check `grantd key list` and the clock.")
                .retry_after(1),
            Self::Overloaded => row("overloaded",
                "The signing queue is full: more tokens are requested than can be signed.")
                .retry_after(1).uncharged(),
            Self::PasswordQueueFull => row("password_queue_full",
                "limits.password_queue secrets with slow hashes were waiting already.")
                .retry_after(1),
            Self::PasswordQueueShare => row("password_queue_share",
                "The request's source has its share of limits.password_queue waiting: an eighth \
                 for a client network (or one client on a shared network), a quarter for a whole \
                 shared network.")
                .retry_after(1),
            Self::ReplayGuardFull => row("replay_guard_full",
                "limits.replay_entries assertions and proofs are recorded already.")
                .retry_after(1).uncharged(),
            Self::ReplayGuardShare => row("replay_guard_share",
                "The client holds as many of the limits.replay_entries assertions and proofs as \
                 are free for all clients.")
                .retry_after(1).uncharged(),
            Self::RevocationNotWritten => row("revocation_not_written",
                "A revocation could not be written to the state directory or to the store: check \
                 the free space and permissions of the directory, or the database.")
                .retry_after(5).uncharged(),
            Self::RevocationsFull => row("revocations_full",
                "limits.revocations tokens are revoked already.")
                .retry_after(60).uncharged(),
            Self::SigningFailed => row("signing_failed",
                "The signer failed; the log names the key."),
            Self::StoreStale => row("store_stale",
                "The store has not answered for store.max_staleness, so a token may have been \
                 revoked without this server's knowledge: see the database, and the network \
                 between.")
                .retry_after(5).uncharged(),
            Self::UseNotRecorded => row("use_not_recorded",
                "The use of an assertion or proof could not be written to the state directory or to \
                 the store: check the free space and permissions of the directory, and whether a \
                 process holds uses.lock, or the database.")
                .retry_after(1).uncharged(),
        }
    }

    /// The stable name of the cause in logs and metrics.
    pub fn label(self) -> &'static str {
        self.row().label
    }

    /// The explanation of the cause and, if the remedy is not obvious, the remedy. It is for the
    /// operator and is never sent to a client.
    pub fn explanation(self) -> &'static str {
        self.row().explanation
    }

    /// The seconds after which a retry may succeed; `None` if waiting does not help.
    pub fn retry_after(self) -> Option<u32> {
        self.row().retry_after
    }

    /// Whether the charge for an attempt is returned to the failure budgets if the attempt is
    /// refused for this cause. The charge is returned if the refusal reveals nothing about a secret
    /// or key: either the refusal does not depend on the client, or the credentials were right, but
    /// the client has exceeded its rate limit, or its assertion was used before or could not be
    /// recorded as used.
    pub fn costs_no_attempt(self) -> bool {
        !self.row().is_charged
    }

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

    /// The name of the missing or invalid field; `None` if the cause does not concern one field.
    pub fn field(self) -> Option<&'static str> {
        match self {
            Self::FieldMissing(field) | Self::FieldTooLong(field) => Some(field),
            Self::GrantTypeMissing | Self::GrantTypeUnsupported => Some("grant_type"),
            _ => None,
        }
    }
}

impl From<FormError> for Cause {
    fn from(error: FormError) -> Self {
        Self::Form(error)
    }
}
