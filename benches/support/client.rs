//! A keep-alive connection that allocates no memory after it is opened, so that only the server's
//! allocations are counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(server: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 16 * 1024] })
    }

    /// Sends one request and returns the body of its answer. Panics unless the answer has status
    /// 200 and a `content-length`.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> &[u8] {
        self.stream.write_all(request).unwrap();
        let mut length = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[length..]).unwrap();
            assert_ne!(read, 0, "the server closed the connection");
            length += read;
            if let Some((start, end)) = body_range(&self.buffer[..length])
                && end <= length
            {
                assert_eq!(end, length, "bytes behind the answer");
                return &self.buffer[start..end];
            }
        }
    }
}

/// Returns a token request with this body.
pub(crate) fn post(content_type: &str, body: &str) -> Vec<u8> {
    post_to("/connect/token", content_type, body)
}

/// Returns a POST request with this body.
pub(crate) fn post_to(path: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

pub(crate) const GET_KEY_SET: &[u8] =
    b"GET /.well-known/openid-configuration/jwks HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

/// Returns the range of the answer's body; `None` until the answer's head is complete.
fn body_range(answer: &[u8]) -> Option<(usize, usize)> {
    const END: &[u8] = b"\r\n\r\n";
    const LENGTH: &[u8] = b"\r\ncontent-length: ";
    let head = answer.windows(END.len()).position(|bytes| bytes == END)?;
    let head = &answer[..head];
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", head.escape_ascii());
    let mut names = head.windows(LENGTH.len());
    let value = names.position(|bytes| bytes.eq_ignore_ascii_case(LENGTH)).unwrap();
    let digits = head[value + LENGTH.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    let start = head.len() + END.len();
    Some((start, start + length))
}
