//! Scope values (RFC 6749, section 3.3).
//!
//! ```text
//! scope       = scope-token *( SP scope-token )
//! scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
//! ```

use std::borrow::Cow;
use std::sync::Arc;

/// A set of scope tokens, possibly empty, in the order of registration.
///
/// The set is one string, which its clones share. This saves memory in a large registry, where each
/// client has a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet(Arc<str>);

impl ScopeSet {
    /// Creates a set of `tokens`. `None` if a token does not follow the grammar or is repeated.
    pub fn from_tokens(tokens: &[impl AsRef<str>]) -> Option<Self> {
        let tokens: Vec<&str> = tokens.iter().map(AsRef::as_ref).collect();
        let is_faulty = |(index, token): (usize, &&str)| {
            !is_scope_token(token) || tokens[..index].contains(token)
        };
        let has_fault = tokens.iter().enumerate().any(is_faulty);
        (!has_fault).then(|| Self(tokens.join(" ").into()))
    }

    /// Whether `token` is in the set. The comparison is case-sensitive.
    pub fn contains(&self, token: &str) -> bool {
        self.tokens().any(|known| known == token)
    }

    /// Whether every token of `other` is in this set.
    pub fn contains_all(&self, other: &Self) -> bool {
        other.tokens().all(|token| self.contains(token))
    }

    /// Returns the tokens separated by single spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ').filter(|token| !token.is_empty())
    }
}

/// Why a requested scope is refused. Both errors are answered with `invalid_scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeError {
    /// The scope does not follow the grammar.
    Malformed,
    /// The scope has a token that the client is not registered for.
    NotAllowed,
}

/// Grants the scope `requested` to a client that is registered for `allowed`. Grants all tokens of
/// the scope or none. The granted scope has each token once, in the order requested. Leading,
/// trailing and repeated spaces are ignored.
///
/// # Errors
///
/// The [`ScopeError`] of the first token that cannot be granted; [`ScopeError::Malformed`] if
/// `requested` has no token.
pub fn grant<'r>(requested: &'r str, allowed: &ScopeSet) -> Result<Cow<'r, str>, ScopeError> {
    let requested = requested.trim_matches(' ');
    let tokens = || requested.split(' ').filter(|token| !token.is_empty());
    let mut is_exact = !requested.contains("  ");
    for (index, token) in tokens().enumerate() {
        if !is_scope_token(token) {
            return Err(ScopeError::Malformed);
        }
        if !allowed.contains(token) {
            return Err(ScopeError::NotAllowed);
        }
        is_exact &= !tokens().take(index).any(|seen| seen == token);
    }
    if requested.is_empty() {
        return Err(ScopeError::Malformed);
    }
    if is_exact {
        return Ok(Cow::Borrowed(requested));
    }
    let mut once: Vec<&str> = Vec::new();
    for token in tokens() {
        if !once.contains(&token) {
            once.push(token);
        }
    }
    Ok(Cow::Owned(once.join(" ")))
}

fn is_scope_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5B | 0x5D..=0x7E))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_takes_each_token_once() {
        assert!(ScopeSet::from_tokens(&["a", "a"]).is_none());
        assert!(ScopeSet::from_tokens(&["a b"]).is_none());
        let none = ScopeSet::from_tokens(&[] as &[&str]).unwrap();
        assert!(none.is_empty() && !none.contains(""));
    }
}
