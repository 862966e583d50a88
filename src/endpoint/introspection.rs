//! What a token says, for those whom it is for (RFC 7662).

use serde::Serialize;
use serde_json::Value;

use crate::endpoint::Context;
use crate::endpoint::authentication::authenticate;
use crate::endpoint::token::Refused;
use crate::endpoint::validate::current;
use crate::jose::jwt::Audience;
use crate::oauth::client_authentication::Credentials;
use crate::store::snapshot::Snapshot;

/// What is told of a token that is good (RFC 7662, section 2.2).
#[derive(Debug, Serialize)]
pub struct Introspection {
    active: bool,
    scope: String,
    client_id: String,
    token_type: &'static str,
    exp: u64,
    iat: u64,
    sub: String,
    aud: Audience,
    iss: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Value>,
}

/// What `token` says, and which client has asked at `endpoint`. `None` is all that a client is told of a token
/// that is not good, or neither its own nor for an audience that it is registered to ask for: by
/// the difference, it could try out tokens that it found (RFC 7662, section 4).
///
/// # Errors
///
/// [`Refused`], if the client is not who it claims to be.
pub async fn introspect<'s>(
    context: &Context,
    snapshot: &'s Snapshot,
    credentials: &Credentials<'_>,
    endpoint: &str,
    token: &str,
) -> Result<(Option<Introspection>, &'s str), Refused<'s>> {
    let caller = authenticate(context, snapshot, credentials, endpoint).await?;
    let issuer = snapshot.issuer.as_str();
    let told = current(context, snapshot, token).ok().filter(|known| {
        let is_own = known.client.id == caller.id;
        is_own || caller.introspects.iter().any(|audience| known.is_for(audience, issuer))
    });
    let told = told.map(|known| {
        let claims = &known.token.claims;
        let own = || match &*known.client.audience {
            [] => Audience::One(issuer.to_owned()),
            [one] => Audience::One(one.to_string()),
            several => Audience::Several(several.iter().map(ToString::to_string).collect()),
        };
        let is_proven = claims.cnf.as_ref().is_some_and(|cnf| cnf.get("jkt").is_some());
        Introspection {
            active: true,
            scope: claims.scope.clone(),
            client_id: claims.client_id.clone(),
            // RFC 9449, section 6.2. A token bound to a certificate is a bearer token by its type.
            token_type: if is_proven { "DPoP" } else { "Bearer" },
            exp: claims.exp,
            iat: known.issued_at(),
            // RFC 9068, section 2.2: with this grant, the client itself.
            sub: claims.sub.as_ref().unwrap_or(&claims.client_id).clone(),
            aud: claims.aud.clone().unwrap_or_else(own),
            iss: claims.iss.as_deref().unwrap_or(issuer).to_owned(),
            jti: claims.jti.clone(),
            cnf: claims.cnf.clone(),
        }
    });
    Ok((told, &caller.id))
}
