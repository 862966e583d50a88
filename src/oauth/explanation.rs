//! The explanation of each cause of a refusal, for operators. Explanations are never sent to
//! clients.

use crate::form::parameters::FormError;
use crate::oauth::client_assertion::AssertionError;
use crate::oauth::dpop::DpopError;
use crate::oauth::error::Cause;
use crate::oauth::scope::ScopeError;

impl Cause {
    /// Returns the explanation of the cause and, if the remedy is not obvious, the remedy.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::BodyAborted => "The client stopped sending before the end of the body.",
            Self::BodyTooLarge => "The body is larger than limits.body_bytes.",
            Self::ContentEncoding => {
                "The body has a Content-Encoding; it must be sent uncompressed."
            }
            Self::Fragment => "The request target has a #; a fragment is not allowed there.",
            Self::HeadTooLarge => "The head exceeds limits.header_bytes or limits.header_fields.",
            Self::Host => "Host is missing, repeated or malformed.",
            Self::MethodNotAllowed => {
                "The route does not support the method; the Allow header lists those it does."
            }
            Self::NotFound => "No route has this path; a [[route]] can put a token endpoint there.",
            Self::RequestTimeout => "The request was not complete within limits.request_seconds.",
            Self::TransferEncoding => "The only transfer coding accepted is a single chunked.",
            Self::Charset => "The body's charset is not UTF-8, and the body is not plain ASCII.",
            Self::Form(error) => explain_form(error),
            Self::ContentTypeNotAllowed(_) => {
                "The Content-Type is not the content_type registered for the client."
            }
            Self::ContentTypeMissing => {
                "This route requires a Content-Type, and the request has none."
            }
            Self::FieldMissing(_) => "A required field is missing or empty.",
            Self::FieldValue => "A field or header has an undocumented value.",
            Self::FieldTooLong(_) => "A field is longer than documented.",
            Self::MediaType => "This route does not accept the body's Content-Type.",
            Self::ParameterInQuery => {
                "A token parameter was in the URI, which every server on the way may log. If it \
                 was a secret, rotate it."
            }
            Self::Question => {
                "The query of /connect/validate may hold only scope, audience and dialect, each \
                 once and with a value. The token was not checked."
            }
            Self::Assertion(error) => explain_assertion(error),
            Self::AuthenticationMissing => "The request names no client or has no credentials.",
            Self::AuthMethodNotAllowed => {
                "The credentials are valid, but the method is not in the client's auth_methods."
            }
            Self::CredentialCharacters => {
                "client_id or client_secret has characters outside printable ASCII."
            }
            Self::CertificateMissing => {
                "The client's tokens are bound to a certificate, and no trusted proxy has \
                 forwarded one that is valid for this client. Check that the client connects with \
                 its certificate, that client_certificate.proxies (or trusted_proxies, with a \
                 single address) lists the proxy, and, for a self-signed certificate, that the \
                 client has self_signed_tls_client_auth and the key in its jwks."
            }
            Self::CertificateMismatch => {
                "The certificate has neither the client's registered subject nor one of its keys. \
                 The subject of a self-signed certificate is ignored."
            }
            Self::CertificateUnreadable => {
                "The proxy's certificate header is not a URL-encoded PEM certificate."
            }
            Self::ClientDisabled => "The client is disabled; `grantd client enable` enables it.",
            Self::DemoSecret => {
                "The secret is a public demo secret, and other machines can reach this server: \
                 give the client a new secret."
            }
            Self::ClientIdMismatch => "client_id in the body differs from that in Authorization.",
            Self::MalformedAuthorization => "Authorization is not a valid Basic header.",
            Self::SecretNotCurrent => {
                "The secret is the client's, but is not valid yet (not_before) or has expired \
                 (expires_at)."
            }
            Self::SeveralAuthentications => "The request uses several authentication methods.",
            Self::UnknownClient => "No client with this id is registered.",
            Self::UnsupportedAuthentication => "The authentication method is not supported.",
            Self::WrongSecret => "The secret is not one of the client's.",
            Self::BearerMissing => "Authorization holds no bearer token.",
            Self::TokenNotOwn => {
                "The token belongs to another client than the one that revokes it."
            }
            Self::TokenRevoked => {
                "The token was revoked, or was issued before its client's not_before."
            }
            Self::TokenScope => "The token lacks a required scope.",
            Self::TokenExpired => "The token has expired.",
            Self::TokenInvalid => {
                "The token was not issued here, has another audience, or is bound to a key or \
                 certificate and was sent without proof."
            }
            Self::TokenMissing => "The request has no Authorization header.",
            Self::Dpop(error) => explain_proof(error),
            Self::RateLimited(_) => "The client has exceeded its rate_limit.",
            Self::Throttled(_) => {
                "Too many attempts to authenticate as this client or from this client network have \
                 failed; see [failures]."
            }
            Self::GrantNotAllowed => "The client has no scopes.",
            Self::GrantTypeMissing => "grant_type is missing.",
            Self::GrantTypeUnsupported => "grant_type is not client_credentials.",
            Self::Scope(ScopeError::Malformed) => {
                "scope is not a list of scope tokens separated by spaces."
            }
            Self::Scope(ScopeError::NotAllowed) => {
                "The client is not registered for a requested scope."
            }
            Self::ScopeMissing => "No scope was requested, and the client has no default_scopes.",
            Self::Target => "resource is not an absolute URI, or not in the client's audience.",
            Self::Internal => "A bug: the log has a panic or an error for this request.",
            Self::NoEntropy => "The operating system gave no random bytes.",
            Self::NoSigningKey => "No key is signing; check `grantd key list` and the clock.",
            Self::Overloaded => {
                "The signing queue is full: more tokens are requested than can be signed."
            }
            Self::PasswordQueueFull => {
                "limits.password_queue secrets with slow hashes were waiting already."
            }
            Self::PasswordQueueShare => {
                "The request's source has its share of limits.password_queue waiting: an eighth \
                 for a client network (or one client on a shared network), a quarter for a whole \
                 shared network."
            }
            Self::ReplayGuardFull => {
                "limits.replay_entries assertions and proofs are recorded already."
            }
            Self::RevocationNotWritten => {
                "A revocation could not be written to the state directory: check its free space \
                 and permissions."
            }
            Self::RevocationsFull => "limits.revocations tokens are revoked already.",
            Self::SigningFailed => "The signer failed; the log names the key.",
        }
    }
}

fn explain_form(error: FormError) -> &'static str {
    match error {
        FormError::Boundary => {
            "The multipart boundary is missing, empty, too long, or must be quoted."
        }
        FormError::ByteOrderMark => "The body begins with a byte order mark.",
        FormError::Empty => "The body is empty.",
        FormError::FileName => "A part has a file name; only plain fields are accepted.",
        FormError::JsonShape => "The JSON is not the documented object, or repeats a key.",
        FormError::JsonSyntax => "The body is not JSON.",
        FormError::JsonType => "A JSON field does not have its documented type.",
        FormError::NotUtf8 => "A value is not UTF-8.",
        FormError::Object => "The body is JSON, but its Content-Type is that of a form.",
        FormError::PartCharset => "A part's charset is not UTF-8, and the part is not plain ASCII.",
        FormError::PartHeaders => "A part's headers are malformed or ambiguous.",
        FormError::PercentEncoding => "A percent sign is not followed by two hex digits.",
        FormError::Repeated => "A parameter is repeated.",
        FormError::TooMany => "There are more parameters than limits.form_parts.",
        FormError::Unclosed => "The closing multipart boundary is missing.",
    }
}

fn explain_assertion(error: AssertionError) -> &'static str {
    match error {
        AssertionError::Algorithm => {
            "The assertion's algorithm is not supported, or not the one registered for the client."
        }
        AssertionError::Audience => {
            "The assertion's aud must be only the issuer or the endpoint's URL; check that the \
             setting issuer is the URL that clients use. With assertion_audience = \"issuer\" or \
             the type client-authentication+jwt, aud must be the issuer, as a string."
        }
        AssertionError::BeforeStart => {
            "The assertion was signed before this process started and may have been used then; the \
             client must sign a new one."
        }
        AssertionError::ClientId => {
            "The parameter client_id names another client than the assertion."
        }
        AssertionError::Malformed => {
            "The assertion cannot be parsed, lacks a claim, or carries or references a key."
        }
        AssertionError::Replayed => "The assertion's jti was used before.",
        AssertionError::Signature => {
            "No registered key of the client verifies the assertion's signature."
        }
        AssertionError::Time => {
            "The assertion has expired or is not valid yet: compare the clocks."
        }
    }
}

fn explain_proof(error: DpopError) -> &'static str {
    match error {
        DpopError::Algorithm => "The proof's algorithm is not supported.",
        DpopError::Key => "The proof's jwk is not a public key of a supported type.",
        DpopError::Malformed => "The proof cannot be parsed, or the DPoP header is repeated.",
        DpopError::Missing => {
            "The client's tokens must be bound to a key, and the request has no DPoP header."
        }
        DpopError::Nonce => {
            "The proof lacks a current nonce; clients retry with the one in DPoP-Nonce."
        }
        DpopError::Replayed => "The proof's jti was used before.",
        DpopError::Signature => "The proof's jwk does not verify its signature.",
        DpopError::Target => {
            "The proof's htm or htu is not that of the request; check the setting issuer."
        }
        DpopError::Time => {
            "The proof is too old, from the future, or from before this process started."
        }
    }
}
