//! Where each cause of a refusal can occur.

use crate::dialect::route::Route;
use crate::dialect::vision::{APP_CONTEXT, TOKEN_FIELDS, VALIDATE_FIELDS, Version};
use crate::form::media_type::ContentType;
use crate::form::parameters::{FormError, PartFault};
use crate::oauth::client_assertion::AssertionError;
use crate::oauth::dpop::DpopError;
use crate::oauth::error::Cause;
use crate::oauth::scope::ScopeError;

/// Returns the causes for which a request to `route` may be refused.
pub fn causes_of(route: Route<'_>) -> Vec<Cause> {
    let [required, limited] = fields_of(route);
    let occurring = CAUSES.iter().filter(|(_, routes)| routes & bit_of(route) != 0);
    let causes = occurring.flat_map(|(cause, _)| match cause {
        Cause::FieldMissing(_) => required.iter().copied().map(Cause::FieldMissing).collect(),
        Cause::FieldTooLong(_) => limited.iter().copied().map(Cause::FieldTooLong).collect(),
        cause => vec![*cause],
    });
    causes.collect()
}

/// Returns the fields that a request to `route` must have, and those whose length is limited.
fn fields_of(route: Route<'_>) -> [Vec<&'static str>; 2] {
    let fields: &[(&str, usize)] = match route {
        Route::VisionToken(_) => &TOKEN_FIELDS,
        Route::VisionValidate => &VALIDATE_FIELDS,
        Route::Introspection | Route::Revocation => &[("token", usize::MAX)],
        Route::FirstvisionToken(_) => return [vec![], vec!["scope"]],
        _ => &[],
    };
    let mut required: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    if route == Route::VisionToken(Version::V2) {
        required.push(APP_CONTEXT);
    }
    let limited = fields.iter().filter(|(_, max_length)| *max_length < usize::MAX);
    [required, limited.map(|(name, _)| *name).collect()]
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
    let routes = documented.chain(more).filter(|route| route.label() == route_label);
    let bits = routes.fold(0, |bits, route| bits | bit_of(route));
    CAUSES.iter().any(|(cause, routes)| cause.label() == cause_label && routes & bits != 0)
}

/// A set of kinds of routes, with one bit for each kind.
type Routes = u16;

const TOKEN: Routes = 1;
const INTROSPECTION: Routes = 1 << 1;
const REVOCATION: Routes = 1 << 2;
const VALIDATE: Routes = 1 << 3;
const VISION_TOKEN: Routes = 1 << 4;
const VISION_VALIDATE: Routes = 1 << 5;
const FIRSTVISION_PLAIN: Routes = 1 << 6;
/// The scope is the last segment of the path. That segment may be missing, or one too many follow.
const FIRSTVISION_IN_PATH: Routes = 1 << 7;
const DOCUMENT: Routes = 1 << 8;
const UNKNOWN: Routes = 1 << 9;

const FORMS: Routes = TOKEN | INTROSPECTION | REVOCATION;
const VISION: Routes = VISION_TOKEN | VISION_VALIDATE;
const FIRSTVISION: Routes = FIRSTVISION_PLAIN | FIRSTVISION_IN_PATH;
const JSON: Routes = VISION | FIRSTVISION;
const ISSUING: Routes = TOKEN | VISION_TOKEN | FIRSTVISION;
const EVERY: Routes = Routes::MAX;

fn bit_of(route: Route<'_>) -> Routes {
    match route {
        Route::ConnectToken => TOKEN,
        Route::Introspection => INTROSPECTION,
        Route::Revocation => REVOCATION,
        Route::Validate => VALIDATE,
        Route::VisionToken(_) => VISION_TOKEN,
        Route::VisionValidate => VISION_VALIDATE,
        Route::FirstvisionToken(None) => FIRSTVISION_PLAIN,
        Route::FirstvisionToken(Some(_)) => FIRSTVISION_IN_PATH,
        Route::ServerMetadata | Route::KeySet | Route::Page(_) => DOCUMENT,
        Route::Unknown(_) => UNKNOWN,
    }
}

/// All causes, each with the routes at which it occurs. Where a variant has data that does not show in
/// its label, one value stands for all.
const CAUSES: [(Cause, Routes); 104] = [
    (Cause::BodyAborted, !VALIDATE),
    (Cause::BodyTooLarge, !VALIDATE),
    (Cause::ContentEncoding, !VALIDATE),
    (Cause::Fragment, EVERY),
    (Cause::HeadTooLarge, EVERY),
    (Cause::Host, EVERY),
    (Cause::MethodNotAllowed, EVERY),
    (Cause::NotFound, FIRSTVISION_IN_PATH | UNKNOWN),
    (Cause::RequestTimeout, !VALIDATE),
    (Cause::TransferEncoding, EVERY),
    (Cause::Charset, FORMS | JSON),
    (Cause::Form(FormError::Boundary), FORMS),
    (Cause::Form(FormError::ByteOrderMark), FORMS | JSON | VALIDATE),
    (Cause::Form(FormError::Empty), JSON),
    (Cause::Form(FormError::FileName), FORMS),
    (Cause::Form(FormError::JsonShape), JSON),
    (Cause::Form(FormError::JsonSyntax), JSON),
    (Cause::Form(FormError::JsonType), JSON),
    (Cause::Form(FormError::NotUtf8), FORMS | JSON | VALIDATE),
    (Cause::Form(FormError::Object), FORMS),
    (Cause::Form(FormError::PartCharset), FORMS),
    (Cause::Form(FormError::PartHeaders(PartFault::ContentType)), FORMS),
    (Cause::Form(FormError::PartHeaders(PartFault::Disposition)), FORMS),
    (Cause::Form(FormError::PartHeaders(PartFault::Encoding)), FORMS),
    (Cause::Form(FormError::PartHeaders(PartFault::Repeated)), FORMS),
    (Cause::Form(FormError::PartHeaders(PartFault::Syntax)), FORMS),
    (Cause::Form(FormError::PartHeaders(PartFault::TooMany)), FORMS),
    (Cause::Form(FormError::PercentEncoding), FORMS | JSON | VALIDATE),
    (Cause::Form(FormError::Repeated), FORMS | JSON | VALIDATE),
    (Cause::Form(FormError::TooMany), FORMS | JSON | VALIDATE),
    (Cause::Form(FormError::Unclosed), FORMS),
    (Cause::ContentTypeNotAllowed(ContentType::Json), VISION_TOKEN | FIRSTVISION),
    (Cause::ContentTypeNotAllowed(ContentType::OctetStream), VISION_TOKEN | FIRSTVISION),
    (Cause::ContentTypeMalformed, FORMS | VISION),
    (Cause::ContentTypeMissing, JSON),
    (Cause::FieldMissing(""), VISION | INTROSPECTION | REVOCATION),
    (Cause::FieldValue, VISION),
    (Cause::FieldTooLong(""), JSON),
    (Cause::MediaType, FORMS | VISION),
    (Cause::ParameterInQuery, FORMS | JSON),
    (Cause::ValidationQuery, VALIDATE),
    (Cause::Assertion(AssertionError::Algorithm), FORMS),
    (Cause::Assertion(AssertionError::Audience), FORMS),
    (Cause::Assertion(AssertionError::BeforeRecord), FORMS),
    (Cause::Assertion(AssertionError::ClientId), FORMS),
    (Cause::Assertion(AssertionError::Malformed), FORMS),
    (Cause::Assertion(AssertionError::Replayed), FORMS),
    (Cause::Assertion(AssertionError::Signature), FORMS),
    (Cause::Assertion(AssertionError::Time), FORMS),
    (Cause::AuthenticationMissing, FORMS | FIRSTVISION),
    (Cause::AuthMethodNotAllowed, FORMS | JSON),
    (Cause::CredentialCharacters, FORMS | VISION),
    (Cause::CertificateMissing, ISSUING),
    (Cause::CertificateMismatch, FORMS),
    (Cause::CertificateUnreadable, FORMS | ISSUING),
    (Cause::ClientDisabled, FORMS | JSON),
    (Cause::ClientIdMismatch, FORMS | FIRSTVISION),
    (Cause::DemoSecret, FORMS | JSON),
    (Cause::MalformedAuthorization, FORMS | FIRSTVISION),
    (Cause::SecretNotCurrent, FORMS | JSON),
    (Cause::SeveralAuthentications, FORMS | JSON),
    (Cause::UnknownClient, FORMS | JSON),
    (Cause::UnsupportedAuthentication, FORMS | FIRSTVISION),
    (Cause::WrongSecret, FORMS | JSON),
    (Cause::BearerMissing, VALIDATE),
    (Cause::TokenNotOwn, REVOCATION),
    (Cause::TokenRevoked, VALIDATE),
    (Cause::TokenScope, VALIDATE),
    (Cause::TokenExpired, VALIDATE),
    (Cause::TokenInvalid, VALIDATE),
    (Cause::TokenMissing, VALIDATE),
    (Cause::Dpop(DpopError::Algorithm), ISSUING),
    (Cause::Dpop(DpopError::Key), ISSUING),
    (Cause::Dpop(DpopError::Malformed), ISSUING),
    (Cause::Dpop(DpopError::Missing), ISSUING),
    (Cause::Dpop(DpopError::Nonce), ISSUING),
    (Cause::Dpop(DpopError::Replayed), ISSUING),
    (Cause::Dpop(DpopError::Signature), ISSUING),
    (Cause::Dpop(DpopError::Target), ISSUING),
    (Cause::Dpop(DpopError::Time), ISSUING),
    (Cause::RateLimited(1), ISSUING),
    (Cause::Throttled(1), FORMS | JSON),
    (Cause::GrantNotAllowed, ISSUING),
    (Cause::GrantTypeMissing, TOKEN),
    (Cause::GrantTypeUnsupported, TOKEN | VISION_TOKEN),
    (Cause::Scope(ScopeError::Malformed), ISSUING),
    (Cause::Scope(ScopeError::NotAllowed), ISSUING),
    (Cause::ScopeMissing, ISSUING),
    (Cause::Target, TOKEN | VISION_TOKEN),
    (Cause::ClockSetBack, FORMS | ISSUING),
    (Cause::CutOff(1), ISSUING),
    (Cause::Internal, EVERY),
    (Cause::NoEntropy, ISSUING),
    (Cause::NoSigningKey, ISSUING),
    (Cause::Overloaded, ISSUING),
    (Cause::PasswordQueueFull, FORMS | JSON),
    (Cause::PasswordQueueShare, FORMS | JSON),
    (Cause::ReplayGuardFull, FORMS | ISSUING),
    (Cause::ReplayGuardShare, FORMS | ISSUING),
    (Cause::RevocationNotWritten, REVOCATION),
    (Cause::RevocationsFull, REVOCATION),
    (Cause::SigningFailed, ISSUING),
    (Cause::StoreStale, INTROSPECTION | VALIDATE | VISION_VALIDATE),
    (Cause::UseNotRecorded, FORMS | ISSUING),
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
        let listed = CAUSES.iter().map(|(cause, _)| cause.label());
        assert_eq!(listed.collect::<BTreeSet<_>>(), rows.collect());
        let routes = crate::dialect::route::DOCUMENTED.map(|(_, route)| route);
        let routes = routes.into_iter().chain([Route::FirstvisionToken(Some(""))]);
        let documented = routes.fold(0, |bits, route| bits | bit_of(route));
        for (cause, routes) in CAUSES {
            assert!(routes & documented != 0, "{cause:?}");
        }
    }
}
