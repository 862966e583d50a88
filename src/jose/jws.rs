//! Writes JWS compact serializations (RFC 7515, section 7.1) directly into the answer's buffer.
//!
//! ```text
//! BASE64URL(header) "." BASE64URL(payload) "." BASE64URL(signature)
//! ```

use std::io::{self, Write};
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Collects the payload in a buffer and encodes the whole payload at the end, which is faster than
/// encoding each piece.
pub struct PayloadWriter {
    buffer: Vec<u8>,
    start: usize,
    payload: usize,
}

impl PayloadWriter {
    /// Begins a token at the end of `buffer`: appends `encoded_header`, which is in base64url, and
    /// a dot.
    pub fn begin(mut buffer: Vec<u8>, encoded_header: &str) -> Self {
        let start = buffer.len();
        buffer.extend_from_slice(encoded_header.as_bytes());
        buffer.push(b'.');
        Self { payload: buffer.len(), buffer, start }
    }

    /// Replaces the written payload by its base64url encoding.
    pub fn finish(self) -> SigningInput {
        let Self { mut buffer, start, payload } = self;
        let end = buffer.len();
        buffer.resize(end + encoded_length(end - payload), 0);
        let (made, encoded) = buffer.split_at_mut(end);
        let written = URL_SAFE_NO_PAD.encode_slice(&made[payload..], encoded);
        debug_assert_eq!(written.ok(), Some(encoded.len()));
        buffer.drain(payload..end);
        SigningInput { token: start..buffer.len(), buffer }
    }
}

impl Write for PayloadWriter {
    fn write(&mut self, payload: &[u8]) -> io::Result<usize> {
        self.buffer.write(payload)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A token without its signature, at the end of a buffer that may begin with other text.
pub struct SigningInput {
    buffer: Vec<u8>,
    token: Range<usize>,
}

impl SigningInput {
    /// The JWS Signing Input (RFC 7515, section 5.1, step 8).
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer[self.token.clone()]
    }

    /// Removes the unsigned token and returns the rest of the buffer.
    pub fn discard(mut self) -> Vec<u8> {
        self.buffer.truncate(self.token.start);
        self.buffer
    }

    /// Appends a dot and the base64url encoding of `signature`. Returns the buffer.
    pub fn finish(self, signature: &[u8]) -> Vec<u8> {
        let mut buffer = self.buffer;
        buffer.push(b'.');
        let start = buffer.len();
        buffer.resize(start + encoded_length(signature.len()), 0);
        let encoded = URL_SAFE_NO_PAD.encode_slice(signature, &mut buffer[start..]);
        debug_assert_eq!(encoded.ok(), Some(buffer.len() - start));
        buffer
    }
}

/// Returns the length of `bytes` bytes in unpadded base64: four characters for each three bytes,
/// rounded up.
fn encoded_length(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_a_token_to_the_buffer() {
        let mut writer = PayloadWriter::begin(b"{\"t\":\"".to_vec(), "aGVhZGVy");
        for byte in b"payload" {
            writer.write_all(&[*byte]).unwrap();
        }
        let input = writer.finish();
        assert_eq!(input.as_bytes(), b"aGVhZGVy.cGF5bG9hZA");
        assert_eq!(input.finish(b"sig"), b"{\"t\":\"aGVhZGVy.cGF5bG9hZA.c2ln");
        let input = PayloadWriter::begin(b"{\"t\":\"".to_vec(), "aGVhZGVy").finish();
        assert_eq!(input.discard(), b"{\"t\":\"");
    }
}
