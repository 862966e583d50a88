//! A line of the file of revocations.
//!
//! ```text
//! 1790003600 jti:kGGv6zFBu5FLUEcBWPGsQw
//! 1790003600 sha256:mxOTOIm6pc7brYcgi3w5YYlRKOJ8fFGZgwrRQFsU4Vc
//! ```
//!
//! A line holds a token's `exp` in Unix seconds and its revocation key. This is all that the last
//! release knows, and it keeps every such line. So what else there is to say stands in the same
//! form: the 32 bytes of the hash begin with one of three tags, which no SHA-256 does by chance.

use std::fmt::{self, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::fault::Fault;
use crate::fs::shared_log::News;
use crate::state::revocations::key::{RevocationKey, decode};
use crate::state::shares::ClientTag;
use crate::time::UnixTime;

/// The first bytes of a revocation key, which link it to its client.
pub(super) type Link = [u8; 16];

/// The meaning of a line.
#[derive(Clone, Copy)]
pub(super) enum Line {
    /// The token with this key, which expires at this time, is revoked.
    Token(RevocationKey, UnixTime),
    /// The token whose key begins with these bytes was revoked by this client. The time is the
    /// token's.
    Owner(Link, ClientTag, UnixTime),
    /// Every token of this client that expires no later than this time is revoked.
    CutOff(ClientTag, UnixTime),
    /// The version of the file. A file without this line is of the first version, which has only
    /// tokens.
    Version(u8),
}

impl Line {
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let (time, key) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let time = UnixTime(time.parse().ok()?);
        match key.split_once(':')? {
            ("jti", id) => Some(Self::Token(RevocationKey::TokenId(decode(id)?), time)),
            ("sha256", hash) => Some(Self::of_hash(decode(hash)?, time)),
            _ => None,
        }
    }

    fn of_hash(hash: [u8; 32], time: UnixTime) -> Self {
        let (kind, rest) = split::<8, 24>(&hash);
        let (client, link) = split(&rest);
        match &kind {
            OWNER => Self::Owner(link, client, time),
            CUT_OFF => Self::CutOff(client, time),
            VERSION => Self::Version(rest[0]),
            _ => Self::Token(RevocationKey::SigningInput(hash), time),
        }
    }

    /// Appends the line to `text`.
    pub(super) fn write(&self, text: &mut String) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{self}");
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (time, bytes) = match self {
            Self::Token(key, time) => (*time, key.as_bytes().to_vec()),
            Self::Owner(link, owner, time) => (*time, [&OWNER[..], owner, link].concat()),
            Self::CutOff(client, time) => (*time, [&CUT_OFF[..], client, &[0; 16]].concat()),
            // The last release keeps the line for as long as the token would live.
            Self::Version(version) => {
                (UnixTime(u64::MAX), [&VERSION[..], &[*version], &[0; 23]].concat())
            }
        };
        let kind = if bytes.len() == 16 { "jti" } else { "sha256" };
        writeln!(f, "{time} {kind}:{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// The first bytes of a revocation key.
pub(super) fn link_of(key: &RevocationKey) -> Link {
    std::array::from_fn(|at| key.as_bytes()[at])
}

/// Splits an array into its first `A` and last `B` bytes.
fn split<const A: usize, const B: usize>(bytes: &[u8]) -> ([u8; A], [u8; B]) {
    (std::array::from_fn(|at| bytes[at]), std::array::from_fn(|at| bytes[A + at]))
}

const OWNER: &[u8; 8] = b"grantd:o";
const CUT_OFF: &[u8; 8] = b"grantd:c";
const VERSION: &[u8; 8] = b"grantd:v";
/// The version of the file that this program writes.
pub(super) const CURRENT: u8 = 2;

/// Parses the lines of the file `path`.
pub(super) fn parse(path: &Path, news: &News) -> Result<Vec<Line>, Fault> {
    let numbered = (news.lines_before + 1..).zip(news.lines());
    let parsed = numbered.map(|(number, line)| {
        Line::parse(line).ok_or_else(|| {
            let problem = "is not a valid revocation record; restore the file, or delete the \
                           line (its token becomes valid again)";
            Fault::new(path, problem).at_line(number)
        })
    });
    parsed.collect()
}
