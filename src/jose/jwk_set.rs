//! Parses the JWK Sets of clients (RFC 7517, section 5).

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::jose::from_object;
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
    let set: Set<'_> = from_object(text.as_bytes())
        .ok_or_else(|| whole("must be a JWK Set: {\"keys\": [{…}, …]}"))?;
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
