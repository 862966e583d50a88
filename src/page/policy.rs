//! The header fields of the page's answers.

use crate::dialect::Answer;

/// The header fields by which a browser keeps other sites and foreign content out of the page.
pub const POLICY: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// Adds the header fields of [`POLICY`].
pub fn push_policy(answer: &mut Answer) {
    for (name, value) in POLICY {
        answer.push_header(name, value);
    }
}
