//! Where each cause of a refusal can occur.

use crate::dialect::route::Route;
use crate::form::media_type::ContentType;
use crate::form::parameters::FormError;
use crate::oauth::client_assertion::AssertionError;
use crate::oauth::dpop::DpopError;
use crate::oauth::error::Cause;
use crate::oauth::scope::ScopeError;

/// Returns the causes for which a request to `route` may be refused. `fields` are the fields that
/// such a request may lack, and `limited` those that may be too long.
pub fn causes_of<'f>(
    route: Route<'f>,
    fields: &'f [&'static str],
    limited: &'f [&'static str],
) -> impl Iterator<Item = Cause> + 'f {
    ALL.into_iter().filter(move |cause| occurs(*cause, route)).flat_map(move |cause| {
        let each: Vec<Cause> = match cause {
            Cause::FieldMissing(_) => fields.iter().copied().map(Cause::FieldMissing).collect(),
            Cause::FieldTooLong(_) => limited.iter().copied().map(Cause::FieldTooLong).collect(),
            cause => vec![cause],
        };
        each
    })
}

/// Whether a request may be refused for the cause with this label, if it is logged with this label
/// of a route. The tests compare their logs with it.
#[cfg(feature = "internal")]
pub fn is_known(route_label: &str, cause_label: &str) -> bool {
    use crate::config::{Dialect, PageDocument};
    let more = [Route::FirstvisionToken(Some(""))].into_iter();
    let more = more.chain(Dialect::ALL.map(Route::Unknown));
    let more = more.chain(PageDocument::ALL.map(Route::Page));
    let documented = crate::dialect::route::DOCUMENTED.into_iter().map(|(_, route)| route);
    let mut routes = documented.chain(more).filter(|route| route.label() == route_label);
    routes.any(|route| {
        ALL.into_iter().any(|cause| cause.label() == cause_label && occurs(cause, route))
    })
}

/// Whether a request to `route` may be refused for `cause`.
fn occurs(cause: Cause, route: Route<'_>) -> bool {
    use Route::{ConnectToken, Introspection, Revocation, Validate};
    let is_form = matches!(route, ConnectToken | Introspection | Revocation);
    let is_vision_token = matches!(route, Route::VisionToken(_));
    let is_vision = is_vision_token || route == Route::VisionValidate;
    let is_firstvision = matches!(route, Route::FirstvisionToken(_));
    let authenticates = is_form || is_vision || is_firstvision;
    let issues = route == ConnectToken || is_vision_token || is_firstvision;
    match cause {
        Cause::Fragment
        | Cause::HeadTooLarge
        | Cause::Host
        | Cause::Internal
        | Cause::MethodNotAllowed
        | Cause::TransferEncoding => true,
        Cause::BodyAborted
        | Cause::BodyTooLarge
        | Cause::ContentEncoding
        | Cause::RequestTimeout => route != Validate,
        // A path whose last segment is empty, or that has one segment more.
        Cause::NotFound => matches!(route, Route::FirstvisionToken(Some(_)) | Route::Unknown(_)),
        Cause::AuthMethodNotAllowed
        | Cause::Charset
        | Cause::ClientDisabled
        | Cause::DemoSecret
        | Cause::ParameterInQuery
        | Cause::PasswordQueueFull
        | Cause::PasswordQueueShare
        | Cause::SecretNotCurrent
        | Cause::SeveralAuthentications
        | Cause::Throttled(_)
        | Cause::UnknownClient
        | Cause::WrongSecret => authenticates,
        Cause::Form(
            FormError::ByteOrderMark
            | FormError::NotUtf8
            | FormError::PercentEncoding
            | FormError::Repeated
            | FormError::TooMany,
        ) => authenticates || route == Validate,
        Cause::Form(
            FormError::Boundary
            | FormError::FileName
            | FormError::Object
            | FormError::PartCharset
            | FormError::PartHeaders
            | FormError::Unclosed,
        )
        | Cause::Assertion(_)
        | Cause::CertificateMismatch
        | Cause::ClientIdMismatch
        | Cause::ClockSetBack
        | Cause::ReplayGuardFull
        | Cause::ReplayGuardShare
        | Cause::UseNotRecorded => is_form,
        Cause::Form(
            FormError::Empty | FormError::JsonShape | FormError::JsonSyntax | FormError::JsonType,
        )
        | Cause::ContentTypeMissing
        | Cause::FieldTooLong(_) => is_vision || is_firstvision,
        Cause::CertificateUnreadable => is_form || issues,
        Cause::ContentTypeNotAllowed(_) => is_vision_token || is_firstvision,
        Cause::CredentialCharacters | Cause::MediaType => is_form || is_vision,
        Cause::FieldMissing(_) => is_vision || matches!(route, Introspection | Revocation),
        Cause::FieldValue => is_vision,
        Cause::AuthenticationMissing
        | Cause::MalformedAuthorization
        | Cause::UnsupportedAuthentication => is_form || is_firstvision,
        Cause::BearerMissing
        | Cause::TokenExpired
        | Cause::TokenInvalid
        | Cause::TokenMissing
        | Cause::TokenRevoked
        | Cause::TokenScope
        | Cause::ValidationQuery => route == Validate,
        Cause::StoreStale => {
            matches!(route, Introspection | Validate | Route::VisionValidate)
        }
        Cause::TokenNotOwn | Cause::RevocationNotWritten | Cause::RevocationsFull => {
            route == Revocation
        }
        Cause::CertificateMissing
        | Cause::CutOff(_)
        | Cause::Dpop(DpopError::Missing)
        | Cause::GrantNotAllowed
        | Cause::NoEntropy
        | Cause::NoSigningKey
        | Cause::Overloaded
        | Cause::RateLimited(_)
        | Cause::Scope(_)
        | Cause::ScopeMissing
        | Cause::SigningFailed => issues,
        Cause::GrantTypeUnsupported | Cause::Target => route == ConnectToken || is_vision_token,
        Cause::Dpop(_) | Cause::GrantTypeMissing => route == ConnectToken,
    }
}

/// All causes. Where a variant has data that does not show in its label, one value stands for all.
const ALL: [Cause; 98] = [
    Cause::BodyAborted,
    Cause::BodyTooLarge,
    Cause::ContentEncoding,
    Cause::Fragment,
    Cause::HeadTooLarge,
    Cause::Host,
    Cause::MethodNotAllowed,
    Cause::NotFound,
    Cause::RequestTimeout,
    Cause::TransferEncoding,
    Cause::Charset,
    Cause::Form(FormError::Boundary),
    Cause::Form(FormError::ByteOrderMark),
    Cause::Form(FormError::Empty),
    Cause::Form(FormError::FileName),
    Cause::Form(FormError::JsonShape),
    Cause::Form(FormError::JsonSyntax),
    Cause::Form(FormError::JsonType),
    Cause::Form(FormError::NotUtf8),
    Cause::Form(FormError::Object),
    Cause::Form(FormError::PartCharset),
    Cause::Form(FormError::PartHeaders),
    Cause::Form(FormError::PercentEncoding),
    Cause::Form(FormError::Repeated),
    Cause::Form(FormError::TooMany),
    Cause::Form(FormError::Unclosed),
    Cause::ContentTypeNotAllowed(ContentType::Json),
    Cause::ContentTypeNotAllowed(ContentType::OctetStream),
    Cause::ContentTypeMissing,
    Cause::FieldMissing(""),
    Cause::FieldValue,
    Cause::FieldTooLong(""),
    Cause::MediaType,
    Cause::ParameterInQuery,
    Cause::ValidationQuery,
    Cause::Assertion(AssertionError::Algorithm),
    Cause::Assertion(AssertionError::Audience),
    Cause::Assertion(AssertionError::BeforeRecord),
    Cause::Assertion(AssertionError::ClientId),
    Cause::Assertion(AssertionError::Malformed),
    Cause::Assertion(AssertionError::Replayed),
    Cause::Assertion(AssertionError::Signature),
    Cause::Assertion(AssertionError::Time),
    Cause::AuthenticationMissing,
    Cause::AuthMethodNotAllowed,
    Cause::CredentialCharacters,
    Cause::CertificateMissing,
    Cause::CertificateMismatch,
    Cause::CertificateUnreadable,
    Cause::ClientDisabled,
    Cause::ClientIdMismatch,
    Cause::DemoSecret,
    Cause::MalformedAuthorization,
    Cause::SecretNotCurrent,
    Cause::SeveralAuthentications,
    Cause::UnknownClient,
    Cause::UnsupportedAuthentication,
    Cause::WrongSecret,
    Cause::BearerMissing,
    Cause::TokenNotOwn,
    Cause::TokenRevoked,
    Cause::TokenScope,
    Cause::TokenExpired,
    Cause::TokenInvalid,
    Cause::TokenMissing,
    Cause::Dpop(DpopError::Algorithm),
    Cause::Dpop(DpopError::Key),
    Cause::Dpop(DpopError::Malformed),
    Cause::Dpop(DpopError::Missing),
    Cause::Dpop(DpopError::Nonce),
    Cause::Dpop(DpopError::Replayed),
    Cause::Dpop(DpopError::Signature),
    Cause::Dpop(DpopError::Target),
    Cause::Dpop(DpopError::Time),
    Cause::RateLimited(1),
    Cause::Throttled(1),
    Cause::GrantNotAllowed,
    Cause::GrantTypeMissing,
    Cause::GrantTypeUnsupported,
    Cause::Scope(ScopeError::Malformed),
    Cause::Scope(ScopeError::NotAllowed),
    Cause::ScopeMissing,
    Cause::Target,
    Cause::ClockSetBack,
    Cause::CutOff(1),
    Cause::Internal,
    Cause::NoEntropy,
    Cause::NoSigningKey,
    Cause::Overloaded,
    Cause::PasswordQueueFull,
    Cause::PasswordQueueShare,
    Cause::ReplayGuardFull,
    Cause::ReplayGuardShare,
    Cause::RevocationNotWritten,
    Cause::RevocationsFull,
    Cause::SigningFailed,
    Cause::StoreStale,
    Cause::UseNotRecorded,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The labels in the list are those of the table in `oauth/error.rs`, whose match the compiler
    /// keeps complete.
    #[test]
    fn the_list_has_every_cause_and_each_occurs_somewhere() {
        let table = include_str!("../../oauth/error.rs");
        let rows = table.split("=> row(\"").skip(1).filter_map(|row| row.split('"').next());
        let listed = ALL.iter().map(|cause| cause.label());
        assert_eq!(listed.collect::<BTreeSet<_>>(), rows.collect());
        let routes = crate::dialect::route::DOCUMENTED.map(|(_, route)| route);
        for cause in ALL {
            let route = routes.into_iter().chain([Route::FirstvisionToken(Some(""))]);
            assert!(route.into_iter().any(|route| occurs(cause, route)), "{cause:?}");
        }
    }
}
