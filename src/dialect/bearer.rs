//! `GET /connect/validate`: validates the bearer token in the request's head, for nginx's
//! `auth_request`. A refusal is written in the dialect that the query parameter `dialect` names,
//! with a `WWW-Authenticate` challenge (RFC 6750, section 3).

use crate::config::Dialect;
use crate::dialect::{Answer, Outcome, Reply, RequestHead};
use crate::endpoint::Exchange;
use crate::endpoint::outcome::{Refused, Served};
use crate::endpoint::validate::{Needs, bearer};
use crate::form::parameters::{FormError, Parameters};
use crate::form::urlencoded;
use crate::oauth::error::Cause;
use crate::oauth::header_field::HeaderField;
use crate::telemetry::excerpt::named;

/// Answers 204 with the token's client, scope and expiry time in headers, or answers with a
/// refusal.
pub fn validate<'s>(exchange: &Exchange<'s>, head: &RequestHead<'_>) -> Outcome<'s> {
    let query = urlencoded::parse(head.query.unwrap_or_default().as_bytes(), head.max_parameters);
    let named = query.as_ref().ok().and_then(|query| query.get("dialect"));
    let dialect = named.and_then(|name| name.parse().ok()).unwrap_or(Dialect::Connect);
    let answered = try_validate(exchange, head, query);
    Outcome::of(answered, |cause| refuse(dialect, cause, head))
}

/// Writes the answer to a refusal in this dialect, with the challenge.
pub fn refuse(dialect: Dialect, cause: Cause, head: &RequestHead<'_>) -> Answer {
    let mut answer = dialect.refuse(cause, head);
    if let Some(challenge) = challenge(cause) {
        answer.push_header("www-authenticate", challenge);
    }
    answer
}

/// Refuses unknown and empty query parameters. Otherwise, a mistyped `scope` or `audience` would be
/// ignored, and a token without the required scope or audience would be accepted.
fn check_parameters(head: &RequestHead<'_>, query: &Parameters<'_>) -> Result<(), Cause> {
    let is_valid = |name: &str| {
        PARAMETERS.contains(&name) && query.get(name).is_some_and(|value| !value.trim().is_empty())
    };
    let has_gap = head.query.is_some_and(|query| query.split('&').any(str::is_empty));
    let is_unknown = |dialect: &str| dialect.parse::<Dialect>().is_err();
    if has_gap || !query.names().all(is_valid) || query.get("dialect").is_some_and(is_unknown) {
        return Err(Cause::ValidationQuery);
    }
    Ok(())
}

const PARAMETERS: [&str; 3] = ["scope", "audience", "dialect"];

fn try_validate<'s>(
    exchange: &Exchange<'s>,
    head: &RequestHead<'_>,
    query: Result<Parameters<'_>, FormError>,
) -> Reply<'s> {
    let query = query?;
    check_parameters(head, &query)?;
    let needs = Needs { scope: query.get("scope"), audience: query.get("audience") };
    let token = bearer(exchange, head.authorization, needs).map_err(|refused| {
        let scope = needs.scope.filter(|_| refused.cause == Cause::TokenScope);
        Refused { named: scope.map(|scope| missing_scope(head, scope)), ..refused }
    })?;
    let mut answer = Answer::empty(204);
    answer.push_header("cache-control", "no-store");
    answer.push_header("x-client-id", token.client_id.to_owned());
    answer.push_header("x-scope", token.scope);
    answer.push_header("x-token-expires", token.expires_at.to_string());
    Ok((answer, Served::to(token.client_id)))
}

/// Returns an excerpt of `scope`, the required scope that the token lacks. The excerpt is logged.
fn missing_scope(head: &RequestHead<'_>, scope: &str) -> Box<str> {
    let presented = match head.authorization {
        HeaderField::Present(value) => value,
        HeaderField::Absent | HeaderField::Repeated => b"",
    };
    named(scope.as_bytes(), &[presented]).into()
}

/// Returns the `WWW-Authenticate` challenge (RFC 6750, section 3); `None` if the cause of the
/// refusal is not the token. If the request has no token, the challenge has no error code.
fn challenge(cause: Cause) -> Option<&'static str> {
    match cause {
        Cause::BearerMissing | Cause::TokenMissing => Some("Bearer realm=\"grantd\""),
        Cause::TokenExpired | Cause::TokenInvalid | Cause::TokenRevoked => {
            Some("Bearer realm=\"grantd\", error=\"invalid_token\"")
        }
        Cause::TokenScope => Some("Bearer realm=\"grantd\", error=\"insufficient_scope\""),
        _ => None,
    }
}
