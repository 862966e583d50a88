//! The file of revocations: a text file with one line per revocation. New lines are appended. When
//! most lines have expired, the file is rewritten without them.
//!
//! ```text
//! 1790003600 jti:kGGv6zFBu5FLUEcBWPGsQw
//! 1790003600 sha256:mxOTOIm6pc7brYcgi3w5YYlRKOJ8fFGZgwrRQFsU4Vc
//! ```
//!
//! A line holds a token's `exp` in Unix seconds and its revocation key. If the last line has no
//! line break, it is ignored. In this case, the process ended while it wrote the line, so no client
//! was told that this token is revoked.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tracing::warn;

use crate::fault::Fault;
use crate::fs::whole_file::{self, Lock};
use crate::state::revocations::revoked::Revoked;
use crate::state::revocations::{RevocationKey, decode};

/// A revoked token: one line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: RevocationKey,
    /// The token's `exp`, in Unix seconds.
    pub(super) expires_at: u64,
}

impl Row {
    /// Whether the row may be dropped at `now` (Unix seconds). A row is kept for an hour after the
    /// token has expired, so that no revoked token becomes valid if the clock is set back by up to
    /// an hour.
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

/// The file of revocations. It is locked against other processes while `lock` is `Some`.
pub(super) struct Ledger {
    path: PathBuf,
    lock: Option<Lock>,
    /// The file, open for appending. `None` if the next write must rewrite the whole file, because
    /// the file is missing or may end in an incomplete line.
    file: Option<File>,
    /// The number of lines in the file.
    lines: usize,
}

impl Ledger {
    /// Locks the file of revocations in `directory` and reads its rows. If the file cannot be
    /// locked, logs a warning and reads the rows without a lock.
    pub(super) fn open(directory: &Path) -> Result<(Self, Vec<Row>), Fault> {
        let path = directory.join(FILE_NAME);
        let lock = match lock(&path) {
            Ok(lock) => Some(lock),
            // Not an error: during a handover, the new process may start while the old process
            // still holds the lock.
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
        // Do not append to an incomplete line.
        let file = if is_torn { None } else { append_to(&path).ok() };
        Ok((Self { path, lock, file, lines: rows.len() }, rows))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of lines in the file, including the lines of expired tokens.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Writes the rows of `fresh` to disk. The rows of `kept` are on disk already, but are written
    /// again if the file is rewritten.
    ///
    /// After an error, the last line may be incomplete, so the next call rewrites the file.
    pub(super) fn write(&mut self, fresh: &[Row], kept: &Revoked) -> io::Result<()> {
        // If the file was deleted, the lock file may have been deleted with it. Lock again.
        if self.file.as_ref().is_some_and(|file| !is_linked(file)) {
            self.lock = None;
        }
        if self.lock.is_none() {
            self.lock = Some(lock(&self.path)?);
            self.file = None;
            // While this process did not hold the lock, another process may have added rows to the
            // file. Read these rows, so that a rewrite keeps them.
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

/// Checks that the file of revocations in `directory`, if it exists, can be read and is valid.
pub(super) fn check(directory: &Path) -> Result<(), Fault> {
    load(&directory.join(FILE_NAME)).map(|_| ())
}

/// Returns the number of lines above which the file is rewritten if `live` rows are in memory.
pub(super) fn lines_for(live: usize) -> usize {
    live.saturating_mul(2).saturating_add(MIN_LINES)
}

/// Whether the open file still exists in a directory. Data written to a deleted file is lost.
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

/// Creates the directory of `path` if necessary, and locks the file `path`.
fn lock(path: &Path) -> io::Result<Lock> {
    if let Some(directory) = path.parent() {
        whole_file::create_directory(directory)?;
    }
    whole_file::lock_within(path, std::time::Duration::ZERO)
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
/// As long as the file has at most this many lines, expired rows are no reason to rewrite it.
const MIN_LINES: usize = 1000;
/// The length in bytes of a line with a `jti`, including the line break.
const LINE_BYTES: usize = 38;
