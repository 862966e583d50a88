//! The client credentials grant (RFC 6749, section 4.4): decides the scope and the audience of a
//! token for an authenticated client.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::form::parameters::Parameters;
use crate::oauth::client::Client;
use crate::oauth::confirmation::Confirmation;
use crate::oauth::error::Cause;
use crate::oauth::scope;

/// The parameters of a token request, without the credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantRequest<'a> {
    /// `grant_type`.
    pub grant_type: &'a str,
    /// `scope`, if present.
    pub scope: Option<&'a str>,
    /// All `resource` parameters (RFC 8707).
    pub resources: SmallVec<[&'a str; 2]>,
}

impl<'a> GrantRequest<'a> {
    /// Reads the request from a form.
    ///
    /// # Errors
    ///
    /// [`Cause::GrantTypeMissing`].
    pub fn read(parameters: &'a Parameters<'_>) -> Result<Self, Cause> {
        Ok(Self {
            grant_type: parameters.get("grant_type").ok_or(Cause::GrantTypeMissing)?,
            scope: parameters.get("scope"),
            resources: parameters.all("resource").collect(),
        })
    }
}

/// A granted token request.
#[derive(Clone, Debug)]
pub struct Grant<'a> {
    /// The client.
    pub client: &'a Client,
    /// The granted scope: one or more scope tokens, separated by single spaces.
    pub scope: Cow<'a, str>,
    /// The requested audiences (RFC 8707). If there are none, the token gets the audience
    /// registered for the client.
    pub resources: SmallVec<[&'a str; 2]>,
    /// The certificate and the key that the token is bound to, if any.
    pub confirmation: Confirmation,
}

impl<'a> Grant<'a> {
    /// Grants or refuses `request` of the authenticated `client`. The returned grant does not bind
    /// the token to a certificate or key yet.
    ///
    /// # Errors
    ///
    /// The first [`Cause`] found. The order of the checks is: the grant type, whether the client
    /// may use this grant type, the scope, the resources.
    pub fn decide(
        client: &'a Client,
        request: &GrantRequest<'a>,
        issuer: &str,
    ) -> Result<Self, Cause> {
        if request.grant_type != CLIENT_CREDENTIALS {
            return Err(Cause::GrantTypeUnsupported);
        }
        if client.scopes.is_empty() {
            return Err(Cause::GrantNotAllowed);
        }
        // A scope that is empty or has only spaces counts as absent.
        let requested = request.scope.filter(|scope| !scope.trim_matches(' ').is_empty());
        let scope = match (requested, &client.default_scopes) {
            (Some(requested), _) => {
                scope::grant(requested, &client.scopes).map_err(Cause::Scope)?
            }
            (None, Some(default)) if !default.is_empty() => Cow::Borrowed(default.as_str()),
            (None, _) => return Err(Cause::ScopeMissing),
        };
        let known = |resource: &str| client.audiences(issuer).any(|audience| audience == resource);
        if !request.resources.iter().all(|resource| is_resource(resource) && known(resource)) {
            return Err(Cause::Target);
        }
        let mut resources = SmallVec::new();
        for &resource in &request.resources {
            if !resources.contains(&resource) {
                resources.push(resource);
            }
        }
        Ok(Self { client, scope, resources, confirmation: Confirmation::default() })
    }
}

/// Whether `uri` is valid as a `resource` parameter: an absolute URI (RFC 3986, section 4.3)
/// without a fragment (RFC 8707, section 2).
pub fn is_resource(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && !rest.is_empty()
        && rest.bytes().all(|b| b.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&b))
}

/// The only supported grant type.
pub const CLIENT_CREDENTIALS: &str = "client_credentials";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_an_absolute_uri_without_fragment() {
        for uri in ["https://api.example.com/", "urn:example:api", "https://a/b?c"] {
            assert!(is_resource(uri), "{uri}");
        }
        for other in ["", "/api", "api", "https:", "https://a#b", "https://a b", "1a:b", ":b"] {
            assert!(!is_resource(other), "{other}");
        }
    }
}
