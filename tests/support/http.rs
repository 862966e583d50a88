//! An HTTP/1.1 client that sends exactly the given bytes and shows the whole answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::{Encoding, GUARD, form};

/// A request that is about to be sent.
#[derive(Clone)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let (method, target) = (method.to_owned(), target.to_owned());
        Self { method, target, headers: Vec::new(), body: None }.header("Host", "127.0.0.1")
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A token request in the given encoding.
    pub(crate) fn token<N, V>(encoding: Encoding, parameters: &[(N, V)]) -> Self
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        Self::new("POST", crate::support::TOKEN).form(encoding, parameters)
    }

    pub(crate) fn form<N, V>(self, encoding: Encoding, parameters: &[(N, V)]) -> Self
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        self.typed_body(encoding.content_type(), form::encode(encoding, parameters))
    }

    pub(crate) fn typed_body(self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.header("Content-Type", content_type).body(body)
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    pub(crate) fn with_method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    pub(crate) fn with_target(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    /// `Authorization: Basic` with exactly this pair; nothing is form-encoded.
    pub(crate) fn basic(self, pair: &str) -> Self {
        self.header("Authorization", format!("Basic {}", STANDARD.encode(pair)))
    }

    pub(crate) fn body_bytes(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    /// Returns the request line and the headers, with the `Content-Length` of the body.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut bytes = self.open_head();
        if let Some(body) = &self.body {
            bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
        }
        bytes.extend(b"\r\n");
        bytes
    }

    /// Returns the request line and the headers, without `Content-Length` and without the empty
    /// line that ends them.
    pub(crate) fn open_head(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        bytes
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        [self.head().as_slice(), self.body_bytes()].concat()
    }

    /// Returns the request with `Transfer-Encoding: chunked` and its body in chunks of `size`
    /// bytes.
    pub(crate) fn to_chunked_bytes(&self, size: usize) -> Vec<u8> {
        let mut bytes = self.open_head();
        bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
        for chunk in self.body_bytes().chunks(size) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
            bytes.extend([chunk, b"\r\n"].concat());
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }

    /// Sends the request on a new connection.
    pub(crate) fn send(&self, address: SocketAddr) -> Response {
        let mut connection = Connection::open(address);
        connection.send(&self.to_bytes());
        connection.read_answer_to(&self.method)
    }
}

/// An answer as received.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Parses the status line and the header fields, without the empty line that ends them.
    fn of_head(head: &[u8]) -> Self {
        let head = std::str::from_utf8(head).expect("a head in ASCII");
        let mut lines = head.split("\r\n");
        let status_line = lines.next().expect("a status line");
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| status_line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {status_line}"));
        let headers = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("not a header: {line}")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self { status, headers, body: Vec::new() }
    }

    /// Removes the first answer from `bytes` and returns it. `bytes` must not contain an answer to
    /// `HEAD`.
    pub(crate) fn take_from(bytes: &mut &[u8]) -> Self {
        let head_end = find(bytes, b"\r\n\r\n").expect("a whole head");
        let mut response = Self::of_head(&bytes[..head_end]);
        let length = if response.has_body() { response.body_length() } else { 0 };
        let (body, rest) = bytes[head_end + 4..].split_at_checked(length).expect("a whole body");
        response.body = body.to_vec();
        *bytes = rest;
        response
    }

    fn has_body(&self) -> bool {
        self.status >= 200 && ![204, 304].contains(&self.status)
    }

    fn body_length(&self) -> usize {
        assert_eq!(self.header("transfer-encoding"), None, "answers are never chunked");
        self.header("content-length").expect("a length").parse().expect("a number")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// Asserts that no token was issued and that the refusal has the usual form.
    #[track_caller]
    pub(crate) fn assert_refused(&self, status: u16, error: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        let body = self.json();
        let members = body.as_object().expect("an object");
        assert_eq!(members["error"], error, "{}", self.text());
        assert!(
            members.keys().all(|key| ["error", "error_description"].contains(&key.as_str())),
            "{}",
            self.text()
        );
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert!(self.header("x-request-id").is_some(), "{self:?}");
        assert_eq!(self.header("access-control-allow-origin"), None);
        assert_eq!(self.header("www-authenticate").is_some(), status == 401, "{self:?}");
    }

    /// Returns the answer without its request id and date.
    pub(crate) fn without_id_and_date(&self) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let mut headers = self.headers.clone();
        headers.retain(|(name, _)| name != "x-request-id" && name != "date");
        (self.status, headers, self.body.clone())
    }
}

/// A connection, with the bytes that were received but not yet returned.
pub(crate) struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("a connection"))
    }

    /// Opens a connection; `None` if the server does not listen.
    pub(crate) fn open_if_listening(address: SocketAddr) -> Option<Self> {
        TcpStream::connect(address).ok().map(Self::over)
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(GUARD)).unwrap();
        stream.set_write_timeout(Some(GUARD)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends `bytes` and ignores errors: a server that has already answered may close the
    /// connection before it has read everything.
    pub(crate) fn send_if_open(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, request: &Request) -> Response {
        self.send(&request.to_bytes());
        self.read_answer_to(&request.method)
    }

    #[track_caller]
    pub(crate) fn read_answer(&mut self) -> Response {
        self.read_answer_to("POST")
    }

    /// Reads one answer; `None` if the server closes the connection before the answer's head is
    /// complete.
    pub(crate) fn read_if_answered(&mut self) -> Option<Response> {
        while find(&self.unread, b"\r\n\r\n").is_none() {
            if !self.fill() {
                return None;
            }
        }
        Some(self.read_answer())
    }

    /// Reads one answer. An interim answer counts as an answer: `100 Continue` is returned with
    /// status 100.
    #[track_caller]
    pub(crate) fn read_answer_to(&mut self, method: &str) -> Response {
        let head_end = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                break end;
            }
            assert!(self.fill(), "the server closed: {:?}", self.unread.escape_ascii().to_string());
        };
        let head: Vec<u8> = self.unread.drain(..head_end + 4).collect();
        let mut response = Response::of_head(&head[..head_end]);
        if method != "HEAD" && response.has_body() {
            response.body = self.read_body(&response);
        }
        response
    }

    fn read_body(&mut self, response: &Response) -> Vec<u8> {
        let length = response.body_length();
        while self.unread.len() < length {
            assert!(self.fill(), "the server closed in the middle of a body");
        }
        self.unread.drain(..length).collect()
    }

    /// Closes the sending side. An error is ignored, since the server may have closed the
    /// connection already.
    pub(crate) fn finish_sending(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Waits for bytes from the server and leaves them unread, so that dropping this connection
    /// resets it.
    pub(crate) fn wait_for_bytes(&self) {
        let peeked = self.stream.peek(&mut [0]).expect("bytes of the server");
        assert_eq!(peeked, 1, "the server closed");
    }

    /// Returns all bytes that the server sends until it closes the connection.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.unread)
    }

    /// Waits for the server to close, and asserts that it sends nothing more.
    #[track_caller]
    pub(crate) fn assert_closes(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "more than one answer: {}", rest.escape_ascii());
    }

    /// Reads more bytes. Returns `false` if the connection is closed or reset. A reset occurs if
    /// the server closes the connection while bytes of the request are unread.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(length) => {
                self.unread.extend(&chunk[..length]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            // A signal has interrupted the read: the kernel does not restart a read with a timeout.
            Err(error) if error.kind() == ErrorKind::Interrupted => self.fill(),
            Err(error) => panic!("the server neither answers nor closes: {error}"),
        }
    }
}

/// Sends these bytes, waits for the head of an answer, closes the sending side, and returns
/// everything that the server sends until it closes the connection.
pub(crate) fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut connection = Connection::open(address);
    connection.send_if_open(bytes);
    while find(&connection.unread, b"\r\n\r\n").is_none() && connection.fill() {}
    connection.finish_sending();
    connection.read_to_end()
}

/// Sends these bytes, which are not a whole message, closes the sending side, and returns
/// everything that the server sends until it closes the connection.
pub(crate) fn exchange_cut_off(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut connection = Connection::open(address);
    connection.send_if_open(bytes);
    connection.finish_sending();
    connection.read_to_end()
}

pub(crate) fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// The number of answers in `bytes`, of any status.
pub(crate) fn count_answers(bytes: &[u8]) -> usize {
    bytes.windows(9).filter(|window| window.starts_with(b"HTTP/1.") && window[8] == b' ').count()
}
