//! The messages of the server, checked before they are read.
//!
//! The server may be an impostor, or something else that listens on the port. So a message has a
//! greatest length, and the answer to one statement, too. A result with a column of an unknown type
//! is refused: the client library would ask the server about the type, and about the types that the
//! answer names, without end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio_postgres::types::Type;

/// A stream from the server on which only messages of a permitted length and form arrive.
pub(super) struct Guarded<S> {
    stream: S,
    /// The bytes that the answer to the current statement may still have.
    allowance: Arc<AtomicU64>,
    may_ask_for_password: bool,
    /// Bytes that were read and not yet checked.
    unchecked: Vec<u8>,
    /// Bytes that were checked and not yet passed on, from `passed` on.
    checked: Vec<u8>,
    passed: usize,
    /// The bytes of the current message that need no check.
    rest: usize,
}

impl<S> Guarded<S> {
    /// `may_ask_for_password` says whether the server may ask for the password itself, and not only
    /// for a proof that the client knows it.
    pub(super) fn new(stream: S, allowance: Arc<AtomicU64>, may_ask_for_password: bool) -> Self {
        Self {
            stream,
            allowance,
            may_ask_for_password,
            unchecked: Vec::new(),
            checked: Vec::new(),
            passed: 0,
            rest: 0,
        }
    }

    /// Moves all complete parts from `unchecked` to `checked`.
    fn check(&mut self) -> io::Result<()> {
        let mut at = 0;
        loop {
            let left = &self.unchecked[at..];
            if self.rest > 0 {
                let passed = self.rest.min(left.len());
                (self.rest, at) = (self.rest - passed, at + passed);
                if self.rest > 0 {
                    break;
                }
                continue;
            }
            let [tag, a, b, c, d, ..] = *left else { break };
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            if !(4..=MAX_MESSAGE).contains(&length) {
                return Err(refused(&format!("a message of {length} bytes")));
            }
            if !CHECKED.contains(&tag) {
                self.rest = 1 + length;
                continue;
            }
            if length > MAX_CHECKED {
                return Err(refused(&format!("a description of {length} bytes")));
            }
            let Some(body) = left.get(5..=length) else { break };
            match tag {
                AUTHENTICATION if !self.may_ask_for_password && body.starts_with(&CLEARTEXT) => {
                    return Err(refused("it asks for the password on a connection without TLS"));
                }
                ROW_DESCRIPTION if !has_known_types(body) => {
                    return Err(refused("a column of an unknown type"));
                }
                _ => at += 1 + length,
            }
        }
        self.checked.clear();
        self.passed = 0;
        self.checked.extend(self.unchecked.drain(..at));
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let checked = &this.checked[this.passed..];
            if !checked.is_empty() {
                let passed = checked.len().min(into.remaining());
                into.put_slice(&checked[..passed]);
                this.passed += passed;
                return Poll::Ready(Ok(()));
            }
            let mut space = [0; READ_BYTES];
            let mut space = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut space))?;
            let read = space.filled();
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let bytes = u64::try_from(read.len()).unwrap_or(u64::MAX);
            let taken = |left: u64| left.checked_sub(bytes);
            if this.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_err() {
                return Poll::Ready(Err(refused("an answer that is too long")));
            }
            this.unchecked.extend_from_slice(read);
            this.check()?;
        }
    }
}

/// Whether every column that the body of a RowDescription describes has a type that is built in.
fn has_known_types(body: &[u8]) -> bool {
    let Some((count, mut rest)) = body.split_first_chunk() else { return false };
    for _ in 0..u16::from_be_bytes(*count) {
        // The name ends with a zero byte. Then come the table (4 bytes), the column (2), the type
        // (4), its length (2), its modifier (4) and the format (2).
        let Some(end) = rest.iter().position(|byte| *byte == 0) else { return false };
        let Some((field, left)) = rest[end + 1..].split_first_chunk::<18>() else { return false };
        let [_, _, _, _, _, _, a, b, c, d, ..] = *field;
        if Type::from_oid(u32::from_be_bytes([a, b, c, d])).is_none() {
            return false;
        }
        rest = left;
    }
    true
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

const AUTHENTICATION: u8 = b'R';
const ROW_DESCRIPTION: u8 = b'T';
/// The kinds of messages that are checked as a whole.
const CHECKED: [u8; 2] = [AUTHENTICATION, ROW_DESCRIPTION];
/// The request for the password in plain text.
const CLEARTEXT: [u8; 4] = [0, 0, 0, 3];
/// The greatest length of a message. The longest is a row with an entry of the registry.
const MAX_MESSAGE: usize = 64 << 20;
const MAX_CHECKED: usize = 64 << 10;
const READ_BYTES: usize = 8 << 10;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::store::postgres) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag], &length[..], body].concat()
    }

    fn description(types: &[u32]) -> Vec<u8> {
        let count = u16::try_from(types.len()).unwrap().to_be_bytes();
        let mut body = count.to_vec();
        for oid in types {
            body.extend(b"name\0");
            body.extend([0; 6]);
            body.extend(oid.to_be_bytes());
            body.extend([0; 8]);
        }
        message(ROW_DESCRIPTION, &body)
    }

    /// Passes `bytes` through a guard, `step` bytes at a time.
    fn pass(bytes: &[u8], step: usize, may_ask: bool) -> Result<Vec<u8>, String> {
        let mut guard = Guarded::new((), Arc::default(), may_ask);
        let mut passed = Vec::new();
        for part in bytes.chunks(step) {
            guard.unchecked.extend(part);
            guard.check().map_err(|error| error.to_string())?;
            passed.extend(&guard.checked);
        }
        Ok(passed)
    }

    #[test]
    fn what_postgresql_sends_passes_unchanged_in_any_pieces() {
        let text = [
            message(AUTHENTICATION, &[0, 0, 0, 10, b'S', 0, 0]),
            description(&[25, 17, 20, 5069, 1184]),
            message(b'D', &[7; 3000]),
            message(b'Z', b"I"),
        ]
        .concat();
        for step in [1, 2, 7, 1000, 100_000] {
            assert_eq!(pass(&text, step, false).as_deref(), Ok(&text[..]), "{step}");
        }
    }

    #[test]
    fn what_postgresql_does_not_send_is_refused() {
        let cleartext = message(AUTHENTICATION, &CLEARTEXT);
        for (bytes, says) in [
            (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), "a message of"),
            (vec![b'D', 0, 0, 0, 3], "a message of 3 bytes"),
            (vec![b'D', 255, 255, 255, 255], "a message of 4294967295 bytes"),
            (vec![ROW_DESCRIPTION, 0, 2, 0, 0], "a description of"),
            (description(&[25, 16_400]), "unknown type"),
            (message(ROW_DESCRIPTION, &[0, 2, 0]), "unknown type"),
            (message(ROW_DESCRIPTION, &[]), "unknown type"),
            (cleartext.clone(), "the password"),
        ] {
            for step in [1, 1000] {
                let said = pass(&bytes, step, false).unwrap_err();
                assert!(said.contains(says), "{said}");
            }
        }
        assert_eq!(pass(&cleartext, 3, true), Ok(cleartext));
    }
}
