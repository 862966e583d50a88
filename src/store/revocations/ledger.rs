//! The file of revocations: a text file with one line per revocation. It is appended to, and
//! rewritten when most of its lines have expired.
//!
//! ```text
//! 1790003600 jti:kGGv6zFBu5FLUEcBWPGsQw
//! 1790003600 sha256:mxOTOIm6pc7brYcgi3w5YYlRKOJ8fFGZgwrRQFsU4Vc
//! ```
//!
//! A line holds a token's `exp` in Unix seconds and its key. A last line without a line break was
//! never acknowledged: the process ended while writing it.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tracing::warn;

use crate::fault::Fault;
use crate::store::revocations::revoked::Revoked;
use crate::store::revocations::{RevocationKey, decode};
use crate::store::whole_file::{self, Lock};

/// A revoked token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: RevocationKey,
    /// The token's `exp`, in Unix seconds.
    pub(super) expires_at: u64,
}

impl Row {
    /// Whether the row may be dropped at `now`. Rows are kept for an hour after the token's expiry,
    /// so that setting the clock back by up to an hour makes no revoked token valid.
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.expires_at.saturating_add(CLOCK_STEP) <= now
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let (expires_at, key) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let key = match key.split_once(':')? {
            ("jti", id) => RevocationKey::TokenId(decode(id)?),
            ("sha256", hash) => RevocationKey::SigningInput(decode(hash)?),
            _ => return None,
        };
        Some(Self { key, expires_at: expires_at.parse().ok()? })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, bytes) = match &self.key {
            RevocationKey::TokenId(id) => ("jti", &id[..]),
            RevocationKey::SigningInput(hash) => ("sha256", &hash[..]),
        };
        writeln!(f, "{} {kind}:{}", self.expires_at, URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// The file, locked against other processes while `lock` is `Some`.
pub(super) struct Ledger {
    path: PathBuf,
    lock: Option<Lock>,
    /// Open for appending. `None` if the file is missing or may end in a torn line: it must be
    /// rewritten.
    file: Option<File>,
    /// The number of lines in the file.
    lines: usize,
}

impl Ledger {
    /// Locks the file in `directory` and reads its rows.
    pub(super) fn open(directory: &Path) -> Result<(Self, Vec<Row>), Fault> {
        let path = directory.join(FILE_NAME);
        let lock = match lock(&path) {
            Ok(lock) => Some(lock),
            // During a handover, the new process may start before the old one ends.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let directory = directory.display();
                warn!(%directory, %error, "no token can be revoked while another process uses it");
                None
            }
            Err(error) => {
                let directory = directory.display();
                warn!(%directory, %error, "no token can be revoked: the directory is not writable");
                None
            }
        };
        let Loaded { rows, is_torn } = load(&path)?;
        // Do not append to a torn line.
        let file = if is_torn { None } else { append_to(&path).ok() };
        Ok((Self { path, lock, file, lines: rows.len() }, rows))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of lines in the file, including expired ones.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Writes `fresh` to disk. The rows of `kept` are on disk already.
    ///
    /// After an error the end of the file is unknown, so the next call rewrites it.
    pub(super) fn write(&mut self, fresh: &[Row], kept: &Revoked) -> io::Result<()> {
        // If the directory was cleared, the lock file is gone too.
        if self.file.as_ref().is_some_and(|file| !is_linked(file)) {
            self.lock = None;
        }
        if self.lock.is_none() {
            self.lock = Some(lock(&self.path)?);
            self.file = None;
            // Another process may have written to the file while it was unlocked.
            let Loaded { rows, .. } = load(&self.path).map_err(io::Error::other)?;
            kept.insert(rows);
        }
        let mut text = String::with_capacity(fresh.len() * LINE_BYTES);
        let add = |text: &mut String, row: &Row| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{row}");
        };
        let appended = self.file.take().filter(|_| self.lines <= lines_for(kept.len()));
        if let Some(mut file) = appended {
            fresh.iter().for_each(|row| add(&mut text, row));
            file.write_all(text.as_bytes())?;
            file.sync_data()?;
            self.lines += fresh.len();
            self.file = Some(file);
        } else {
            kept.for_each(|row| add(&mut text, &row));
            fresh.iter().for_each(|row| add(&mut text, row));
            whole_file::replace(&self.path, text.as_bytes())?;
            self.lines = kept.len() + fresh.len();
            self.file = Some(append_to(&self.path)?);
        }
        Ok(())
    }
}

/// Checks that the file in `directory`, if there is one, can be read.
pub(super) fn check(directory: &Path) -> Result<(), Fault> {
    load(&directory.join(FILE_NAME)).map(|_| ())
}

/// The most lines of a file with `live` rows before it is rewritten.
pub(super) fn lines_for(live: usize) -> usize {
    live.saturating_mul(2).saturating_add(MIN_LINES)
}

/// Whether the file still has a name. Data written to an unlinked file is lost.
fn is_linked(file: &File) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        true
    }
}

/// Creates the directory of `path` if necessary, and locks the file.
fn lock(path: &Path) -> io::Result<Lock> {
    if let Some(directory) = path.parent() {
        whole_file::create_directory(directory)?;
    }
    whole_file::try_lock(path)
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).open(path)
}

struct Loaded {
    rows: Vec<Row>,
    is_torn: bool,
}

fn load(path: &Path) -> Result<Loaded, Fault> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Fault::new(path, format!("cannot be read: {error}"))),
    };
    let end = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let is_torn = end < text.len();
    let mut rows = Vec::with_capacity(end / LINE_BYTES);
    for (index, line) in text[..end].split_inclusive(|&byte| byte == b'\n').enumerate() {
        let row = Row::parse(&line[..line.len() - 1]).ok_or_else(|| {
            let problem = "is not a valid revocation record; restore the file, or delete the \
                           line (its token becomes valid again)";
            Fault::new(path, problem).at_line(index + 1)
        })?;
        rows.push(row);
    }
    if is_torn {
        let (file, line) = (path.display(), rows.len() + 1);
        warn!(%file, line, "the last line is incomplete and is ignored: it was never acknowledged");
    }
    Ok(Loaded { rows, is_torn })
}

const FILE_NAME: &str = "revocations";
/// The time in seconds for which a row is kept after its token has expired.
const CLOCK_STEP: u64 = 3600;
/// A smaller file is not worth rewriting.
const MIN_LINES: usize = 1000;
/// The length of a line with a `jti`.
const LINE_BYTES: usize = 38;
