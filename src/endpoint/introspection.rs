//! Introspection (RFC 7662): the claims of a token, for the clients that may see them.

use serde::Serialize;
use serde_json::Value;

use crate::endpoint::Exchange;
use crate::endpoint::authentication::{Purpose, authenticate};
use crate::endpoint::outcome::Refused;
use crate::endpoint::validate::{current, require_fresh};
use crate::keys::jwt::Audience;
use crate::oauth::client_authentication::Credentials;
use crate::time::UnixTime;

/// The claims of an active token (RFC 7662, section 2.2).
#[derive(Debug, Serialize)]
pub struct Introspection {
    active: bool,
    scope: String,
    client_id: String,
    token_type: &'static str,
    exp: UnixTime,
    iat: UnixTime,
    sub: String,
    aud: Audience,
    iss: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Value>,
}

/// Returns the claims of `token`, and the client that sent the request.
///
/// The claims are `None` if the token is not active. They are also `None` if the token was issued
/// to another client and is not for an audience that the calling client is registered to
/// introspect. If the answers in these two cases differed, a client could test whether tokens that
/// it has found are valid (RFC 7662, section 4).
///
/// # Errors
///
/// [`Refused`] if client authentication fails, or if the server must not vouch for a token at
/// present.
pub async fn introspect<'s>(
    exchange: &Exchange<'s>,
    credentials: &Credentials<'_>,
    token: &str,
) -> Result<(Option<Introspection>, &'s str), Refused<'s>> {
    let caller = &authenticate(exchange, credentials, Purpose::Other).await?.client;
    let exchange = &exchange.at_present();
    require_fresh(exchange).map_err(|cause| Refused::to(caller, cause))?;
    let issuer = exchange.snapshot.issuer.as_str();
    let visible = current(exchange, token).ok().filter(|signed| {
        let is_own = signed.client.id == caller.id;
        is_own || caller.introspects.iter().any(|audience| signed.is_for(audience, issuer))
    });
    let introspection = visible.map(|signed| {
        let claims = &signed.token.claims;
        let client_audience = || match &*signed.client.audience {
            [] => Audience::One(issuer.to_owned()),
            [one] => Audience::One(one.to_string()),
            several => Audience::Several(several.iter().map(ToString::to_string).collect()),
        };
        let is_dpop_bound = claims.cnf.as_ref().is_some_and(|cnf| cnf.get("jkt").is_some());
        Introspection {
            active: true,
            scope: claims.scope.clone(),
            client_id: claims.client_id.clone(),
            // RFC 9449, section 6.2. A certificate-bound token has the type `Bearer`.
            token_type: if is_dpop_bound { "DPoP" } else { "Bearer" },
            exp: claims.exp,
            iat: signed.issued_at,
            // In the client credentials grant, the subject is the client (RFC 9068, section 2.2).
            sub: claims.sub.as_ref().unwrap_or(&claims.client_id).clone(),
            aud: claims.aud.clone().unwrap_or_else(client_audience),
            iss: claims.iss.as_deref().unwrap_or(issuer).to_owned(),
            jti: claims.jti.clone(),
            cnf: claims.cnf.clone(),
        }
    });
    Ok((introspection, &caller.id))
}
