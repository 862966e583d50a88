//! Parses the JWK Sets of clients (RFC 7517, section 5).

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::jose::public_key::{KeyProblem, PublicKey, Unusable};

/// A problem with a JWK Set as a whole or with one of its keys.
#[derive(Debug)]
pub struct SetProblem<'t> {
    /// The text of the key or, if `index` is `None`, of the whole set.
    pub part: &'t str,
    /// The index of the key in the set, counted from 0. `None` if the whole set has the problem.
    pub index: Option<usize>,
    /// The description of the problem.
    pub problem: KeyProblem,
}

/// The keys of a JWK Set.
#[derive(Debug)]
pub struct JwkSet<'t> {
    /// The keys that can verify signatures.
    pub keys: Vec<PublicKey>,
    /// The valid keys that cannot verify signatures here, such as encryption keys, each with the
    /// reason why it was skipped.
    pub skipped: Vec<SetProblem<'t>>,
}

/// Parses a JWK Set (RFC 7517, section 5). Skips valid keys that cannot verify signatures here,
/// such as encryption keys.
///
/// # Errors
///
/// The first [`SetProblem`]. It is an error if the set has no keys, or if all its keys are skipped.
pub fn parse(text: &str) -> Result<JwkSet<'_>, SetProblem<'_>> {
    #[derive(Deserialize)]
    struct Set<'a> {
        #[serde(borrow)]
        keys: Vec<&'a RawValue>,
    }
    let whole = |problem| SetProblem { part: text, index: None, problem };
    let set: Set<'_> =
        serde_json::from_str(text).map_err(|_| whole("must be a JWK Set: {\"keys\": [{…}, …]}"))?;
    if set.keys.is_empty() {
        return Err(whole("is a JWK Set without a key"));
    }
    let mut read = JwkSet { keys: Vec::new(), skipped: Vec::new() };
    for (index, part) in set.keys.iter().map(|raw| raw.get()).enumerate() {
        let problem = |problem| SetProblem { part, index: Some(index), problem };
        match PublicKey::parse(part) {
            Ok(key) => read.keys.push(key),
            Err(Unusable::ForOtherUse(reason)) => read.skipped.push(problem(reason)),
            Err(Unusable::Faulty(reason)) => return Err(problem(reason)),
        }
    }
    if read.keys.is_empty() {
        return Err(whole("holds no key that verifies signatures: RSA, EC P-256 or OKP Ed25519"));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: &str = r#"{"kty":"EC","crv":"P-256",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    const ED25519: &str = r#"{"kty":"OKP","crv":"Ed25519",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"k","alg":"EdDSA"}"#;

    #[test]
    fn a_problem_names_the_faulty_part() {
        let text = format!(r#"{{"keys": [{P256}, {{"kty":"oct"}}]}}"#);
        let problem = parse(&text).unwrap_err();
        assert_eq!((problem.index, problem.part), (Some(1), r#"{"kty":"oct"}"#));
        for text in ["", "{}", "[]", r#"{"keys":[]}"#, r#"{"keys":{}}"#] {
            assert_eq!(parse(text).unwrap_err().index, None, "{text}");
        }
        assert_eq!(parse(&format!(r#"{{"keys":[{P256}], "more": 1}}"#)).unwrap().keys.len(), 1);
    }

    #[test]
    fn keys_for_other_uses_are_skipped_with_a_reason() {
        let others = [
            (r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#.to_owned(), "type"),
            (r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}"#.to_owned(), "type"),
            (r#"{"kty":"AKP","alg":"ML-DSA-65","pub":"AA"}"#.to_owned(), "`alg`"),
            (r#"{"kty":"RSA","alg":"RSA-OAEP-256","n":"AA","e":"AQAB"}"#.to_owned(), "`alg`"),
            (ED25519.replace("EdDSA", "HS256"), "`alg`"),
            (P256.replacen('{', r#"{"use":"enc","#, 1), "`use`"),
            (P256.replacen('{', r#"{"key_ops":["deriveKey"],"#, 1), "`key_ops`"),
        ];
        let all: Vec<_> = others.iter().map(|(jwk, _)| jwk.as_str()).collect();
        let text = format!(r#"{{"keys":[{},{P256}]}}"#, all.join(","));
        let set = parse(&text).unwrap();
        assert_eq!((set.keys.len(), set.skipped.len()), (1, others.len()));
        for (index, (skipped, (jwk, reason))) in set.skipped.iter().zip(&others).enumerate() {
            assert_eq!((skipped.index, skipped.part), (Some(index), jwk.as_str()));
            assert!(skipped.problem.contains(reason), "{}: {jwk}", skipped.problem);
        }
        let none = format!(r#"{{"keys":[{}]}}"#, all.join(","));
        let problem = parse(&none).unwrap_err();
        assert!(problem.index.is_none() && problem.problem.contains("no key that verifies"));
    }
}
