//! Access tokens, verified with the published key set as a resource server does.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::Value;

use crate::support::{Request, Response, home};

/// A token with a valid signature.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) header_text: String,
    pub(crate) claims_text: String,
    pub(crate) header: Value,
    pub(crate) claims: Value,
}

impl Token {
    /// Takes the token from an answer and verifies it with the key set of the server at `address`.
    #[track_caller]
    pub(crate) fn verified(response: &Response, address: SocketAddr) -> Self {
        let key_set = Request::get("/.well-known/openid-configuration/jwks").send(address).json();
        Self::verified_with(response, &key_set)
    }

    /// Takes the token from an answer and verifies it with `key_set`.
    #[track_caller]
    pub(crate) fn verified_with(response: &Response, key_set: &Value) -> Self {
        assert_eq!(response.status, 200, "{}", response.text());
        let body = response.json();
        let token = body["access_token"].as_str().expect("a token");
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let (header, claims) = signed.split_once('.').expect("three parts");
        let [header_text, claims_text] = [header, claims].map(|part| {
            String::from_utf8(URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("UTF-8")
        });
        let [header, claims]: [Value; 2] =
            [&header_text, &claims_text].map(|text| serde_json::from_str(text).expect("JSON"));
        assert_eq!(header["alg"], "RS256");

        let keys = key_set["keys"].as_array().expect("keys");
        let key = keys
            .iter()
            .find(|key| header["kid"].is_null() || key["kid"] == header["kid"])
            .expect("the token's key");
        let [n, e] = ["n", "e"]
            .map(|name| URL_SAFE_NO_PAD.decode(key[name].as_str().expect("text")).expect("bytes"));
        RsaPublicKeyComponents { n, e }
            .verify(
                &RSA_PKCS1_2048_8192_SHA256,
                signed.as_bytes(),
                &URL_SAFE_NO_PAD.decode(signature).expect("base64url"),
            )
            .expect("a signature by the published key");
        Self { header_text, claims_text, header, claims }
    }
}

/// Returns a token with any claims, signed with the servers' key.
pub(crate) fn sign(claims: &Value) -> String {
    let (name, pem) = home::signing_key();
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    let document = STANDARD.decode(lines.collect::<String>()).expect("base64");
    let key = RsaKeyPair::from_pkcs8(&document).expect("a key");
    let kid = name.trim_end_matches(".pem");
    let header = format!(r#"{{"alg":"RS256","kid":"{kid}","typ":"at+jwt"}}"#);
    let [header, claims] = [header, claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
    let signed = format!("{header}.{claims}");
    let mut signature = vec![0; key.public().modulus_len()];
    #[expect(clippy::disallowed_methods, reason = "blinding only: the signature has one value")]
    let random = SystemRandom::new();
    key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).expect("a signature");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
