//! Revocations on the disk: a text file that grows by a line for each, and is written anew when
//! most of its lines are about tokens whose time is over.
//!
//! ```text
//! 1790003600 jti:kGGv6zFBu5FLUEcBWPGsQw
//! 1790003600 sha256:mxOTOIm6pc7brYcgi3w5YYlRKOJ8fFGZgwrRQFsU4Vc
//! ```
//!
//! Each line is a token's `exp` in Unix seconds and its key. A last line without an end was never
//! acknowledged: the process died while it wrote it.

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

/// A token that was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: RevocationKey,
    /// The token's `exp`, in Unix seconds.
    pub(super) expires_at: u64,
}

impl Row {
    /// Whether the row may be forgotten at `now`. An hour later than the token itself, so that a
    /// clock that is set back by up to that makes no revoked token good.
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

/// The file, which is this process's alone while there is a lock.
pub(super) struct Ledger {
    path: PathBuf,
    lock: Option<Lock>,
    /// `None`: its end is not known to be whole, or it is not there; it is written anew then.
    file: Option<File>,
    /// Lines in it.
    lines: usize,
}

impl Ledger {
    /// Takes the file in `directory` and gives its rows.
    pub(super) fn open(directory: &Path) -> Result<(Self, Vec<Row>), Fault> {
        let path = directory.join(FILE_NAME);
        let lock = match take(&path) {
            Ok(lock) => Some(lock),
            // Of two processes that take turns, the new one may start before the old one ends.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let directory = directory.display();
                warn!(%directory, %error, "no token can be revoked while another process uses this");
                None
            }
            Err(error) => {
                let directory = directory.display();
                warn!(%directory, %error, "no token can be revoked: the directory is not writable");
                None
            }
        };
        let Loaded { rows, is_torn } = load(&path)?;
        // A torn line must not be continued, and a file that is not there has to be made whole.
        let file = if is_torn { None } else { append_to(&path).ok() };
        Ok((Self { path, lock, file, lines: rows.len() }, rows))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many lines there are, superfluous ones included.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Puts `fresh` on the disk, where those of `kept` are already.
    ///
    /// After an error the file's end is unknown; the next call writes all of it anew.
    pub(super) fn write(&mut self, fresh: &[Row], kept: &Revoked) -> io::Result<()> {
        // Whoever clears the directory takes the lock's file too.
        if self.file.as_ref().is_some_and(|file| !is_linked(file)) {
            self.lock = None;
        }
        if self.lock.is_none() {
            self.lock = Some(take(&self.path)?);
            self.file = None;
            // Somebody else may have written there while it was not ours.
            let Loaded { rows, .. } = load(&self.path).map_err(io::Error::other)?;
            kept.insert(rows);
        }
        let mut text = String::with_capacity(fresh.len() * LINE_BYTES);
        let add = |text: &mut String, row: &Row| {
            // Writing to a string cannot fail.
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

/// Whether the file in `directory` can be read, if there is one.
pub(super) fn check(directory: &Path) -> Result<(), Fault> {
    load(&directory.join(FILE_NAME)).map(|_| ())
}

/// How many lines a file may have of which `live` are needed.
pub(super) fn lines_for(live: usize) -> usize {
    live.saturating_mul(2).saturating_add(MIN_LINES)
}

/// Whether the file still has a name: what is written to one without is lost.
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

/// Makes the directory of `path` if need be, and keeps others from the file.
fn take(path: &Path) -> io::Result<Lock> {
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
            let problem = "is no revocation; restore the file, or take the line out if its token \
                           may be good again";
            Fault::new(path, problem).at_line(index + 1)
        })?;
        rows.push(row);
    }
    if is_torn {
        let (file, line) = (path.display(), rows.len() + 1);
        warn!(%file, line, "the last line is torn, and was never acknowledged: left out");
    }
    Ok(Loaded { rows, is_torn })
}

const FILE_NAME: &str = "revocations";
/// In seconds.
const CLOCK_STEP: u64 = 3600;
/// A file of fewer lines is not worth writing anew.
const MIN_LINES: usize = 1000;
/// Of a line with a `jti` and today's times.
const LINE_BYTES: usize = 38;
