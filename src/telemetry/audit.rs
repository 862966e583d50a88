//! Who was issued what, refused, revoked, and which rules were in force: one JSON object a line, in
//! a file of its own, for whoever has to answer for it later.
//!
//! No line has a secret, an assertion or a token in it; a token is named by its `jti`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tracing::warn;

use crate::clock::{Clock, date_time};
use crate::telemetry::log_queue::{LogQueue, LogWriter};

/// Writes the lines, a few milliseconds after they are told.
pub struct Audit {
    queue: LogQueue,
    _writer: LogWriter,
}

/// What happened.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// A server has begun to serve.
    Started {
        /// In whose name.
        issuer: &'a str,
    },
    /// A client was given a token.
    Issued {
        /// To whom, and on which way.
        #[serde(flatten)]
        request: Request<'a>,
        /// The token's `jti`, where it was made for this request and has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        jti: Option<&'a str>,
        /// Whether it was handed out before.
        reused: bool,
        /// Its scope tokens, separated by spaces.
        scope: &'a str,
        /// For whom it is.
        audience: &'a [Box<str>],
        /// Seconds from now to its end.
        lifetime: u32,
    },
    /// A request was refused.
    Refused {
        /// Whose, and on which way.
        #[serde(flatten)]
        request: Request<'a>,
        /// Why, by its name in logs and metrics.
        cause: &'a str,
    },
    /// A token was revoked, or was one that need not be.
    Revoked {
        /// By whom, and on which way.
        #[serde(flatten)]
        request: Request<'a>,
    },
    /// Other clients, keys or settings are in force.
    Reloaded {
        /// Which set of them, counted from 1.
        generation: u64,
        /// What is different.
        changes: &'a str,
    },
    /// Files were read that are wrong; what was in force is.
    ReloadRefused {
        /// What is wrong with them.
        fault: &'a str,
    },
    /// Another key signs.
    Rotated {
        /// Its id.
        kid: &'a str,
    },
    /// The server takes no more connections.
    Stopping,
}

/// One request among all.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Request<'a> {
    /// As the answer and the log line have it.
    pub request_id: &'a str,
    /// Which route.
    pub route: &'a str,
    /// The client; for a refusal, the registered one that was named. Empty: none.
    pub client: &'a str,
    /// Where it came from.
    pub address: &'a str,
    /// The trace that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
}

impl Audit {
    /// Continues the file at `path`, which its owner alone can read if it is a new one. A file that
    /// is renamed or removed is followed by a new one, so that others may rotate it. Lines for a
    /// FIFO that no process reads are lost.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn to(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        if file.is_none() {
            let file = path.display();
            warn!(%file, "no process reads this FIFO: audit lines are lost until one does");
        }
        let (queue, writer) = LogQueue::to(Followed { path: path.to_owned(), file })?;
        Ok(Self { queue, _writer: writer })
    }

    /// Writes one line.
    pub fn tell(&self, event: &Event<'_>) {
        #[derive(Serialize)]
        struct Line<'e> {
            time: String,
            #[serde(flatten)]
            event: &'e Event<'e>,
        }
        let time = date_time(Clock::unix_micros());
        // Strings and numbers only: it cannot fail.
        let Ok(mut line) = serde_json::to_vec(&Line { time, event }) else { return };
        line.push(b'\n');
        // What does not fit is counted there.
        let _ = self.queue.clone().write_all(&line);
    }

    /// How many lines were lost since the start.
    pub fn lost_lines(&self) -> u64 {
        self.queue.lost_lines()
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("lost_lines", &self.lost_lines()).finish_non_exhaustive()
    }
}

/// A file by its name: whatever has that name when lines are to be written.
struct Followed {
    path: PathBuf,
    /// `None`: a FIFO without a reader.
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

/// `None`: a FIFO that no process reads, and whose opening would wait for one.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<Option<File>> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use rustix::io::Errno;
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    match options.open(path) {
        Ok(file) => {
            // Writing may wait: the writing thread has nothing else to do, and no line is torn.
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

/// Whether `file` is the one that has this name.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let (open, named) = (file.metadata().map(id), std::fs::metadata(path).map(id));
        matches!((open, named), (Ok(open), Ok(named)) if open == named)
    }
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        true
    }
}
