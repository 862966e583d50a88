//! Each cause in a sentence for the operator: what happened, and what helps. Never shown to callers.

use crate::form::parameters::FormError;
use crate::oauth::client_assertion::AssertionError;
use crate::oauth::dpop::DpopError;
use crate::oauth::error::Cause;
use crate::oauth::scope::ScopeError;

impl Cause {
    /// What happened, and what helps.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::BodyAborted => "The client stopped sending before its body was whole.",
            Self::BodyTooLarge => "The body is over limits.body_bytes.",
            Self::ContentEncoding => "The body is compressed; it must be sent as it is.",
            Self::Fragment => "The request target has a #, which would cut off what follows it.",
            Self::HeadTooLarge => "The head is over limits.header_bytes or limits.header_fields.",
            Self::Host => "There must be exactly one Host field, with a host in it.",
            Self::MethodNotAllowed => "The route takes other methods; the Allow field names them.",
            Self::NotFound => "Nothing is at this path; a [[route]] can put a token service there.",
            Self::RequestTimeout => "The request was not whole within limits.request_seconds.",
            Self::TransferEncoding => "The only transfer coding that is taken is one chunked.",
            Self::Charset => "The body's charset is not UTF-8, and there is more than ASCII in it.",
            Self::Form(error) => of_form(error),
            Self::ContentTypeNotAllowed(_) => {
                "The client is registered for another content_type than it has sent."
            }
            Self::ContentTypeMissing => "This route wants a Content-Type, and there was none.",
            Self::FieldMissing(_) => "A required field is missing or empty.",
            Self::FieldValue => "A field or header has none of its documented values.",
            Self::FieldTooLong(_) => "A field is longer than documented.",
            Self::MediaType => "The body's type is none that this route reads.",
            Self::ParameterInQuery => {
                "A token parameter stood in the URI, where every log on the way keeps it. If it \
                 was a secret, rotate it."
            }
            Self::Question => {
                "The query of /connect/validate may hold scope, audience and dialect, each once and \
                 with a value, and nothing else; nothing was checked."
            }
            Self::Assertion(error) => of_assertion(error),
            Self::AuthenticationMissing => "The request names no client, or proves nothing.",
            Self::AuthMethodNotAllowed => {
                "The proof is right, but auth_methods of this client does not hold this way."
            }
            Self::CredentialCharacters => {
                "client_id or client_secret has characters outside printable ASCII."
            }
            Self::CertificateMissing => {
                "The client's tokens are bound to a certificate, and no trusted proxy has stated \
                 one that counts for it: did the client connect with it, does \
                 client_certificate.proxies (or trusted_proxies, by its single address) name the \
                 proxy, and is the key of a self-signed one registered in jwks, for \
                 self_signed_tls_client_auth?"
            }
            Self::CertificateMismatch => {
                "The certificate has neither the client's registered name nor one of its keys; the \
                 name of one that is self-signed does not count."
            }
            Self::CertificateUnreadable => {
                "The proxy's certificate field holds no URL-encoded PEM certificate."
            }
            Self::ClientDisabled => "The client is disabled; `grantd client enable` undoes that.",
            Self::DemoSecret => {
                "The secret is one of the demo secrets, which are public, and others can reach \
                 this server: give the client another one."
            }
            Self::ClientIdMismatch => "client_id in the body is not the one in Authorization.",
            Self::MalformedAuthorization => "Authorization holds no Basic pair that can be read.",
            Self::SecretNotCurrent => {
                "The secret is one of the client's, but before its not_before or after its \
                 expires_at."
            }
            Self::SeveralAuthentications => "The request authenticates in more than one way.",
            Self::UnknownClient => "No client of this id is registered.",
            Self::UnsupportedAuthentication => {
                "The way to authenticate is none that is known here."
            }
            Self::WrongSecret => "The secret is none of the client's.",
            Self::BearerMissing => "Authorization holds no Bearer token.",
            Self::TokenNotOwn => "The token belongs to another client than the one that asks.",
            Self::TokenRevoked => {
                "The token was revoked, or is older than its client's not_before."
            }
            Self::TokenScope => "The token lacks a scope that was asked for.",
            Self::TokenExpired => "The token's time is over.",
            Self::TokenInvalid => {
                "The token is none of ours, for another audience, or bound and sent without proof."
            }
            Self::TokenMissing => "There is no Authorization field.",
            Self::Dpop(error) => of_proof(error),
            Self::RateLimited(_) => "The client has used up its rate_limit.",
            Self::Throttled(_) => {
                "Too many attempts to authenticate have failed, as this client or from this \
                 client network; see [failures]."
            }
            Self::GrantNotAllowed => "The client is registered for no scope at all.",
            Self::GrantTypeMissing => "grant_type is missing.",
            Self::GrantTypeUnsupported => "grant_type is not client_credentials.",
            Self::Scope(ScopeError::Malformed) => {
                "scope is not a list of tokens with one space between them."
            }
            Self::Scope(ScopeError::NotAllowed) => {
                "A scope was asked for that the client is not registered for."
            }
            Self::ScopeMissing => "No scope was asked for, and the client has no default_scopes.",
            Self::Target => "resource is no absolute URI, or not in the client's audience.",
            Self::Internal => "A bug: the log has a panic, or an error beside this request.",
            Self::NoEntropy => "The operating system gave no random bytes.",
            Self::NoSigningKey => "No key signs at this time; see `grantd key list` and the clock.",
            Self::Overloaded => "More tokens were asked for than can be signed.",
            Self::PasswordQueueFull => {
                "More secrets with slow hashes were to be checked than limits.password_queue."
            }
            Self::PasswordQueueShare => {
                "This client network, or this client where many share a network, has an eighth of \
                 limits.password_queue waiting; or a shared network has a quarter."
            }
            Self::ReplayGuardFull => {
                "As many assertions and proofs are remembered as limits.replay_entries."
            }
            Self::RevocationNotWritten => {
                "The state directory did not take a line: is there room, and may it be written?"
            }
            Self::RevocationsFull => "As many tokens are revoked as limits.revocations.",
            Self::SigningFailed => "The signer gave no signature; the log says which key it was.",
        }
    }
}

fn of_form(error: FormError) -> &'static str {
    match error {
        FormError::Boundary => {
            "The multipart boundary is missing, empty, too long, or lacks its quotes."
        }
        FormError::ByteOrderMark => "The body begins with a byte order mark.",
        FormError::Empty => "The body is empty.",
        FormError::FileName => "A part has a file name; only plain fields are taken.",
        FormError::JsonShape => "The JSON is not the documented object, or repeats a key.",
        FormError::JsonSyntax => "The body is not JSON.",
        FormError::JsonType => "A JSON field has another type than documented.",
        FormError::NotUtf8 => "A value is not UTF-8.",
        FormError::Object => "The body is JSON, but its Content-Type says a form.",
        FormError::PartCharset => {
            "A part's charset is not UTF-8, and there is more than ASCII in it."
        }
        FormError::PartHeaders => "A part's head cannot be read, or is ambiguous.",
        FormError::PercentEncoding => "A percent sign is not followed by two hex digits.",
        FormError::Repeated => "A parameter is there twice.",
        FormError::TooMany => "There are more parameters than limits.form_parts.",
        FormError::Unclosed => "The closing multipart boundary is missing.",
    }
}

fn of_assertion(error: AssertionError) -> &'static str {
    match error {
        AssertionError::Algorithm => {
            "The assertion's algorithm is none that is taken, or not the client's registered one."
        }
        AssertionError::Audience => {
            "The assertion's aud is not the issuer or the endpoint's URL alone: is issuer the URL \
             that clients use? With assertion_audience = \"issuer\", or of the type \
             client-authentication+jwt, only the issuer as one string is taken."
        }
        AssertionError::BeforeStart => {
            "The assertion was signed before this process started, which cannot know whether it \
             was used; a new one will do."
        }
        AssertionError::ClientId => "client_id beside the assertion names another client.",
        AssertionError::Malformed => {
            "The assertion cannot be read, lacks a claim, or points to a key of its own."
        }
        AssertionError::Replayed => "The assertion's jti was used before.",
        AssertionError::Signature => "No registered key of the client has signed the assertion.",
        AssertionError::Time => {
            "The assertion's time is over, has not come, or is too long: compare the clocks."
        }
    }
}

fn of_proof(error: DpopError) -> &'static str {
    match error {
        DpopError::Algorithm => "The proof's algorithm is none that is taken.",
        DpopError::Key => "The proof's jwk is no public key that is taken.",
        DpopError::Malformed => "The proof cannot be read, or there are two.",
        DpopError::Missing => "The client must prove its key, and sent no DPoP field.",
        DpopError::Nonce => "The proof lacks the nonce of DPoP-Nonce; clients ask again with it.",
        DpopError::Replayed => "The proof's jti was used before.",
        DpopError::Signature => "The proof's own key has not signed it.",
        DpopError::Target => "The proof's htm or htu is for another request: is issuer right?",
        DpopError::Time => "The proof is too old, from the future, or from before the start.",
    }
}
