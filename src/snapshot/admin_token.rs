//! Reads the file of the admin token. A request from another machine needs this token to use the
//! admin listener.

use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::fault::text::{self, without_bom};
use crate::fs::whole_file;

/// Reads the token from `file`, which must not be world-readable. Removes a leading byte order mark
/// and trailing line breaks.
///
/// # Errors
///
/// A [`Fault`] if the file cannot be read, is world-readable or does not hold a token. The fault
/// does not quote the contents of the file.
pub fn read(file: &Path) -> Result<Zeroizing<String>, Fault> {
    let bytes = read_private(file)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let token = without_bom(text).trim_end_matches(['\r', '\n']);
    let is_printable = token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_printable && (MIN_CHARS..=MAX_CHARS).contains(&token.len()) {
        return Ok(Zeroizing::new(token.to_owned()));
    }
    let problem = format!(
        "must hold one line of {MIN_CHARS} to {MAX_CHARS} printable ASCII characters without \
         spaces, as `openssl rand -hex 32` makes it"
    );
    Err(Fault::new(file, problem))
}

/// Reads the beginning of `file`, which contains the whole token if the token is not too long.
fn read_private(file: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let unreadable = |error: io::Error| Fault::cannot("read", file, &error);
    let opened = text::open(file)?;
    let metadata = opened.metadata().map_err(unreadable)?;
    // Like key files, this file may be readable by its group, because Kubernetes makes mounted
    // secrets readable by a group.
    if whole_file::is_world_readable(&metadata.permissions()) {
        let problem = format!(
            "can be read by everyone on this machine; replace the token if another user may have \
             read it, and {}",
            whole_file::HIDE_IT
        );
        return Err(Fault::new(file, problem));
    }
    // The capacity is larger than the limit below, so the vector never reallocates. A reallocation
    // would leave a copy of the token in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MAX_CHARS));
    let limit = u64::try_from(MAX_CHARS + MARGIN).unwrap_or(u64::MAX);
    opened.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

const MIN_CHARS: usize = 32;
/// The maximum length of a token, which must fit into the head of a request.
const MAX_CHARS: usize = 1024;
/// The number of bytes that are read in addition to [`MAX_CHARS`]. The additional bytes hold a byte
/// order mark and line breaks. If the token is too long, they hold at least one character of the
/// token, so that its length is noticed.
const MARGIN: usize = 16;
