//! The audit: a file with one line of JSON for each issued, refused or revoked token, and for each
//! change of the clients, keys and settings in force.
//!
//! No line contains a secret, an assertion or a token. A token is named by its `jti`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tracing::warn;

use crate::clock::Clock;
use crate::fs::identity::identity;
use crate::telemetry::log_queue::{LogQueue, LogWriter};
use crate::time::{UnixTime, date_time};

/// Queues audit lines. A separate thread writes them to the file a few milliseconds later.
pub struct Audit {
    queue: LogQueue,
    _writer: LogWriter,
}

/// An audit event.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The server has started to serve.
    Started {
        /// The issuer's URL.
        issuer: &'a str,
    },
    /// A token was issued.
    Issued {
        /// The token request.
        #[serde(flatten)]
        request: Request<'a>,
        /// The token's `jti`, if the token is new and has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        jti: Option<&'a str>,
        /// Whether the token was already issued in answer to an earlier request.
        reused: bool,
        /// The granted scope tokens, separated by spaces.
        scope: &'a str,
        /// The token's audience.
        audience: &'a [Box<str>],
        /// Seconds until the token expires.
        lifetime: u32,
    },
    /// A request was refused.
    Refused {
        /// The refused request.
        #[serde(flatten)]
        request: Request<'a>,
        /// The label of the cause in logs and metrics.
        cause: &'a str,
    },
    /// A revocation request succeeded. The token may have been invalid already (RFC 7009, section
    /// 2.2).
    Revoked {
        /// The revocation request.
        #[serde(flatten)]
        request: Request<'a>,
    },
    /// The client holds its share of the revocations: all its tokens that expire no later than a
    /// time are revoked, in place of the rows that end first.
    CutOff {
        /// The id of the client.
        client: &'a str,
        /// The time, in Unix seconds.
        until: UnixTime,
        /// The number of rows that the cut-off replaces.
        rows: usize,
    },
    /// A reload has replaced clients, keys or settings.
    Reloaded {
        /// The number of the snapshot that is now in force, counted from 1.
        generation: u64,
        /// The differences from the previous snapshot.
        changes: &'a str,
    },
    /// A reload found a fault; the previous version of some file, or the previous snapshot, stays in
    /// force.
    ReloadRefused {
        /// The faults, one on each line.
        fault: &'a str,
    },
    /// Another key has begun to sign.
    Rotated {
        /// The id of the key that signs now.
        kid: &'a str,
    },
    /// The server is stopping and accepts no more connections.
    Stopping,
}

/// The request that an event belongs to.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Request<'a> {
    /// The request's id in the answer and in the log.
    pub request_id: &'a str,
    /// The label of the route.
    pub route: &'a str,
    /// The id of the client. In a refusal, the id of the registered client that the request names,
    /// even if the client did not authenticate; empty if the request names no registered client.
    pub client: &'a str,
    /// The client's address if a trusted proxy forwards it, otherwise the address of the peer.
    pub address: &'a str,
    /// The id of the trace that the request belongs to, from its `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
}

impl Audit {
    /// Opens an audit that appends to the file at `path`. A new file is readable only by its owner.
    /// If the file is renamed or removed, for example by logrotate, a new file is created at
    /// `path`. If the file is a FIFO that no process reads, lines are lost.
    ///
    /// # Errors
    ///
    /// An error of the operating system, if the file cannot be opened or the thread cannot be
    /// started.
    pub fn to(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        if file.is_none() {
            let file = path.display();
            warn!(%file, "no process reads this FIFO: audit lines are lost until one does");
        }
        let (queue, writer) = LogQueue::to(Followed { path: path.to_owned(), file })?;
        Ok(Self { queue, _writer: writer })
    }

    /// Writes one line about `event`.
    pub fn write(&self, event: &Event<'_>) {
        #[derive(Serialize)]
        struct Line<'e> {
            time: String,
            #[serde(flatten)]
            event: &'e Event<'e>,
        }
        let time = date_time(Clock::unix_micros());
        // Serialization cannot fail: JSON can represent every field of an event.
        let Ok(mut line) = serde_json::to_vec(&Line { time, event }) else { return };
        line.push(b'\n');
        // A write to the queue never fails: the queue counts the lines that it loses.
        let _ = self.queue.clone().write_all(&line);
    }

    /// The number of lines that were lost since the start.
    pub fn lost_lines(&self) -> u64 {
        self.queue.lost_lines()
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("lost_lines", &self.lost_lines()).finish_non_exhaustive()
    }
}

/// Appends to the file at `path`. If the open file was renamed or removed, opens `path` again
/// before the next write.
struct Followed {
    path: PathBuf,
    /// `None` if the path is a FIFO that no process reads.
    file: Option<File>,
}

impl Write for Followed {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.write_all(lines).map(|()| lines.len())
    }

    fn write_all(&mut self, lines: &[u8]) -> io::Result<()> {
        if !self.file.as_ref().is_some_and(|file| is_at(file, &self.path)) {
            self.file = open(&self.path)?;
        }
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        file.write_all(lines)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}

/// Opens the file at `path`, or creates it. `None` if the path is a FIFO that no process reads.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<Option<File>> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use rustix::io::Errno;
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    // Without this flag, opening a FIFO would block until a process reads it.
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    match options.open(path) {
        Ok(file) => {
            // Makes writes blocking again, so that no write is cut short. The writing thread has no
            // other work that a blocked write would delay.
            fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
            Ok(Some(file))
        }
        Err(error)
            if Errno::from_io_error(&error) == Some(Errno::NXIO)
                && std::fs::metadata(path)?.file_type().is_fifo() =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<Option<File>> {
    OpenOptions::new().append(true).create(true).open(path).map(Some)
}

/// Whether `file` is still the file at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let named = std::fs::metadata(path);
    file.metadata().is_ok_and(|open| named.is_ok_and(|named| identity(&open) == identity(&named)))
}
