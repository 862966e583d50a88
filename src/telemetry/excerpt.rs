//! Shortens texts from requests for the log. The result is in visible ASCII and contains no
//! credentials.

use std::borrow::Cow;
use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::percent_decode;

/// Returns the beginning of `text` in at most `limit` bytes. Each byte outside visible ASCII
/// becomes an escape `\xNN`, which is never cut at the limit.
pub fn excerpt(text: &[u8], limit: usize) -> Cow<'_, str> {
    if text.len() <= limit
        && text.iter().all(u8::is_ascii_graphic)
        && let Ok(whole) = std::str::from_utf8(text)
    {
        return Cow::Borrowed(whole);
    }
    let mut shown = String::with_capacity(limit);
    for &byte in text {
        let before = shown.len();
        if byte.is_ascii_graphic() {
            shown.push(char::from(byte));
        } else {
            // Writing to memory cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
        if shown.len() > limit {
            shown.truncate(before);
            break;
        }
    }
    Cow::Owned(shown)
}

/// Returns an excerpt of `text` for the log. `text` is, for example, the unknown path or the
/// refused scope of a request. Returns [`WITHHELD`] and no excerpt if `text` contains one of the
/// request's `secrets` or a part that looks like a token.
pub fn named<'t>(text: &'t [u8], secrets: &[impl AsRef<[u8]>]) -> Cow<'t, str> {
    let is_harmless = |text: &[u8]| {
        !secrets.iter().any(|secret| contains(text, secret.as_ref())) && !holds_token(text)
    };
    // Percent-decodes repeatedly, because a client may have encoded the text more than once.
    let mut decoded = Cow::Borrowed(text);
    for _ in 0..=MAX_DECODINGS {
        let spaced: Vec<_> =
            decoded.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        if !is_harmless(&decoded) || !is_harmless(&spaced) {
            return Cow::Borrowed(WITHHELD);
        }
        let Cow::Owned(again) = Cow::from(percent_decode(&decoded)) else {
            return excerpt(text, MAX_NAMED_BYTES);
        };
        decoded = Cow::Owned(again);
    }
    // The text is percent-encoded more than [`MAX_DECODINGS`] times, which no client does by
    // mistake.
    Cow::Borrowed(WITHHELD)
}

/// The replacement for text that may contain a credential.
pub const WITHHELD: &str = "(withheld: may be a credential)";

const MAX_NAMED_BYTES: usize = 128;
const MAX_DECODINGS: usize = 3;

fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && memchr::memmem::find(text, part).is_some()
}

/// Whether `text` contains a JWS or a JWE in compact serialization (RFC 7515, section 7.1; RFC
/// 7516, section 7.1). Names of scopes, hosts and files can also have three parts separated by
/// dots. So at least one part must decode to the beginning of a JSON object, as a header does, or
/// be as long as a signature.
fn holds_token(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    text.split(|byte| !is_part(byte)).any(|run| {
        let parts: Vec<_> = run.split(|byte| *byte == b'.').collect();
        let is_header = |part: &&[u8]| {
            // The first 16 characters decode to 12 bytes, which are enough to find the brace. Of a
            // shorter part, only whole groups of four characters are decoded.
            let beginning = &part[..part.len().min(16) / 4 * 4];
            let decoded = URL_SAFE_NO_PAD.decode(beginning).unwrap_or_default();
            decoded.trim_ascii_start().starts_with(b"{")
        };
        parts.len() >= 3
            && parts.iter().any(|part| part.len() >= SHORTEST_SIGNATURE || is_header(part))
    })
}

/// The length of the shortest signature, in characters: the 32 bytes of HS256 in base64url.
const SHORTEST_SIGNATURE: usize = 43;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_short_and_visible() {
        for (text, limit, shown) in [
            (&b"POST"[..], 4, "POST"),
            (b"POST", 3, "POS"),
            (b"", 3, ""),
            (b"/a b", 128, "/a\\x20b"),
            ("/\u{e9}\n\u{1b}[31m".as_bytes(), 128, "/\\xc3\\xa9\\x0a\\x1b[31m"),
            (b"/\xff", 4, "/"),
            (b"/\xff", 5, "/\\xff"),
            (b"/\xff", 128, "/\\xff"),
        ] {
            assert_eq!(excerpt(text, limit), shown, "{text:?} {limit}");
        }
        assert!(matches!(excerpt(b"POST", 32), Cow::Borrowed("POST")));
    }

    #[test]
    fn names_no_credential() {
        let secrets = ["hunter2", "a+b/c"];
        for hidden in [
            "hunter2",
            "/oauth/hunter2/token",
            "firstvision.hunter2",
            "/%68unter2",
            "/%2568unter2",
            "/%252525252568unter2",
            "/%25252525252525252541",
            "/a%2Bb%2fc",
            "/eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
            "all.eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
            "/eyJhbGciOiJSUzI1NiJ9%2EeyJzdWIiOiJhIn0%2Ec2ln",
            // A JWS whose header begins with spaces, and a JWE.
            "ICB7ImFsZyI6IkhTMjU2In0.e30.c2ln",
            "eyJlbmMiOiJBMjU2R0NNIn0....dGFn",
            "x.y.0123456789012345678901234567890123456789012",
        ] {
            assert_eq!(named(hidden.as_bytes(), &secrets), WITHHELD, "{hidden}");
        }
        for (text, shown) in [
            ("/api/connect/tokens", "/api/connect/tokens"),
            ("firstvision.accountmanagement.read", "firstvision.accountmanagement.read"),
            ("/static/app.min.js", "/static/app.min.js"),
            ("/1.2.3", "/1.2.3"),
            ("", ""),
            ("a  b", "a\\x20\\x20b"),
            ("%", "%"),
            ("/%zz%", "/%zz%"),
            ("/a%252541", "/a%252541"),
        ] {
            assert_eq!(named(text.as_bytes(), &secrets), shown);
        }
        assert_eq!(named(&[b'x'; 200], &secrets).len(), MAX_NAMED_BYTES);
        assert_eq!(named(b"abc", &[""]), "abc");
    }
}
