//! A client that proves itself by assertions.

use std::sync::atomic::{AtomicU64, Ordering};

use grantd::clock::Clock;
use serde_json::{Value, json};

use crate::support::registry::client_without_secret;
use crate::support::status::ISSUER;
use crate::support::{Encoding, Request, Signer};

/// Signs assertions, each with an id of its own.
pub(crate) struct Presenter {
    client: String,
    signer: Signer,
    made: AtomicU64,
}

impl Presenter {
    pub(crate) fn new(client: &str) -> Self {
        Self { client: client.to_owned(), signer: Signer::es256(), made: AtomicU64::new(0) }
    }

    /// Returns the client's entry in the registry.
    pub(crate) fn client(&self) -> Value {
        let more = json!({ "auth_methods": ["private_key_jwt"], "jwks": self.signer.jwks() });
        client_without_secret(&self.client, &more)
    }

    /// Returns a request for a token with a new assertion, which lives for this many seconds.
    pub(crate) fn request(&self, lifetime: u64) -> Request {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let now = Clock::unix_micros() / 1_000_000;
        let claims = json!({
            "iss": self.client, "sub": self.client, "aud": ISSUER, "jti": format!("id-{number}"),
            "iat": now, "exp": now + lifetime,
        });
        let header = json!({ "alg": self.signer.algorithm, "typ": "JWT" });
        let assertion = self.signer.sign(&header, &claims);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &assertion),
        ];
        Request::token(Encoding::Urlencoded, &form)
    }
}
