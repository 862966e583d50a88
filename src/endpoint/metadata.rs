//! The issuer's public documents: its metadata and its key set.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::jose::public_key::Algorithm;
use crate::jose::thumbprint::sha256;
use crate::keys::life::KeyTime;
use crate::oauth::client::AuthMethod;
use crate::oauth::grant::CLIENT_CREDENTIALS;
use crate::snapshot::Snapshot;

/// The path of the token endpoint, relative to the issuer.
pub const TOKEN_PATH: &str = "/connect/token";
/// The path of the introspection endpoint, relative to the issuer.
pub const INTROSPECTION_PATH: &str = "/connect/introspect";
/// The path of the revocation endpoint, relative to the issuer.
pub const REVOCATION_PATH: &str = "/connect/revocation";
/// The path of the key set, relative to the issuer.
pub const JWKS_PATH: &str = "/.well-known/openid-configuration/jwks";

/// A public document, with its entity tag and lifetime for caches.
#[derive(Debug)]
pub struct Document {
    /// The document as JSON.
    pub body: String,
    /// A strong entity tag, including its quotes.
    pub etag: String,
    /// How long a cached copy may be used, in seconds.
    pub max_age: u64,
}

impl Document {
    fn new(body: String, max_age: u64) -> Self {
        let etag = etag_of(body.as_bytes());
        Self { body, etag, max_age }
    }
}

/// Returns a strong entity tag of `body`, including its quotes.
pub fn etag_of(body: &[u8]) -> String {
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(&sha256(body)[..16]))
}

/// Whether one of the tags in `If-None-Match` matches `etag`, by weak comparison (RFC 9110, section
/// 13.1.2).
pub fn etag_matches(if_none_match: &str, etag: &str) -> bool {
    if_none_match
        .split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Returns the metadata of RFC 8414, section 2, and of OpenID Connect Discovery 1.0, section 3. It
/// lists only what is supported.
pub fn server_metadata(snapshot: &Snapshot) -> Document {
    let issuer = &snapshot.issuer;
    let by_certificate = snapshot.has_certificates();
    let methods = AuthMethod::ALL.into_iter();
    let methods = methods.filter(|method| by_certificate || !method.is_by_certificate());
    // The token, introspection and revocation endpoints accept the same methods of client
    // authentication.
    let auth_methods: Vec<_> = methods.map(AuthMethod::as_str).collect();
    let algorithms = Algorithm::ALL.map(Algorithm::as_str);
    let mut document = json!({
        "issuer": issuer.as_str(),
        "token_endpoint": issuer.join(TOKEN_PATH),
        "jwks_uri": issuer.join(JWKS_PATH),
        "grant_types_supported": [CLIENT_CREDENTIALS],
        "token_endpoint_auth_methods_supported": auth_methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "introspection_endpoint": issuer.join(INTROSPECTION_PATH),
        "introspection_endpoint_auth_methods_supported": auth_methods,
        "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
        "revocation_endpoint": issuer.join(REVOCATION_PATH),
        "revocation_endpoint_auth_methods_supported": auth_methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
        "dpop_signing_alg_values_supported": algorithms,
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    });
    if by_certificate {
        document["tls_client_certificate_bound_access_tokens"] = true.into();
    }
    Document::new(document.to_string(), snapshot.config.live.jwks_max_age)
}

/// Returns the key set at `at`, and counts one fetch of each key in it. A fetch that is answered
/// with 304 is counted in the same way, because it shows that the verifier has the keys.
pub fn key_set(snapshot: &Snapshot, at: KeyTime) -> Document {
    for key in snapshot.keys.published(at) {
        key.fetches.record(at.now);
    }
    Document::new(snapshot.keys.to_jwks(at), snapshot.config.live.jwks_max_age)
}
