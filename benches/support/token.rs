//! Checks the token in an answer as a verifier does.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rsa::PublicKeyComponents;
use ring::signature::RSA_PKCS1_2048_8192_SHA256;
use serde_json::Value;

/// Panics unless `answer` is a token endpoint's answer with an RS256 token that is issued to
/// `client_id`, has the requested scope and is signed by a key of `key_set`. Returns the claims.
pub(crate) fn verify(answer: &[u8], key_set: &[u8], client_id: &str) -> Value {
    let answer: Value = serde_json::from_slice(answer).unwrap();
    let token = answer["access_token"].as_str().unwrap();
    let (signing_input, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = signing_input.split_once('.').unwrap();
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let header: Value = serde_json::from_slice(&decode(header)).unwrap();
    let claims: Value = serde_json::from_slice(&decode(claims)).unwrap();
    assert_eq!(header["alg"], "RS256");

    let key_set: Value = serde_json::from_slice(key_set).unwrap();
    let mut keys = key_set["keys"].as_array().unwrap().iter();
    let key = keys.find(|key| key["kid"] == header["kid"]).unwrap();
    let number = |name: &str| decode(key[name].as_str().unwrap());
    let key = PublicKeyComponents { n: number("n"), e: number("e") };
    let (signing_input, signature) = (signing_input.as_bytes(), decode(signature));
    key.verify(&RSA_PKCS1_2048_8192_SHA256, signing_input, &signature).unwrap();

    assert_eq!(claims["client_id"], client_id);
    assert_eq!(claims["scope"], "external-api");
    claims
}
