//! The confirmation of an access token (`cnf`, RFC 7800). It binds the token to a certificate, to a
//! key or to both. Only a client that holds the corresponding private keys can use the token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::jose::thumbprint::Thumbprint;

/// The members of `cnf`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confirmation {
    /// `x5t#S256`: the thumbprint of the holder's certificate (RFC 8705, section 3.1).
    pub certificate: Option<Thumbprint>,
    /// `jkt`: the thumbprint of the holder's key (RFC 9449, section 6.1).
    pub key: Option<Thumbprint>,
}

impl Confirmation {
    /// Whether the token is bound to nothing.
    pub fn is_empty(&self) -> bool {
        self.certificate.is_none() && self.key.is_none()
    }

    /// Returns the token type (RFC 6749, section 7.1): `DPoP` if the token is bound to a key,
    /// otherwise `Bearer`. A certificate to which the token is bound does not change the type (RFC
    /// 8705, section 3).
    pub fn token_type(&self) -> &'static str {
        if self.key.is_some() { "DPoP" } else { "Bearer" }
    }

    /// Returns the value of `cnf` as JSON.
    pub fn to_json(self) -> String {
        let member = |(name, thumbprint): (&str, Option<Thumbprint>)| {
            Some(format!("\"{name}\":\"{}\"", URL_SAFE_NO_PAD.encode(thumbprint?)))
        };
        let members = [("x5t#S256", self.certificate), ("jkt", self.key)];
        let members: Vec<_> = members.into_iter().filter_map(member).collect();
        format!("{{{}}}", members.join(","))
    }
}
