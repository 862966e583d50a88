//! Receivers of spans: rotel, which is a real collector, and a recorder that keeps the bytes as
//! sent.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, sleep};
use std::time::Duration;

use grantd::clock::Clock;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::GUARD;
use crate::support::command::{python, succeed};
use crate::support::ports::free_port;
use crate::support::program::send_signal;

/// The environment variable with the collector's URL.
pub(crate) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// A running rotel that writes the spans it receives to a file. It is killed on drop.
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    directory: TempDir,
    child: Child,
}

/// A span as the collector has decoded it, with values such as `Str(token)`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Span {
    /// The attributes of the span's resource, which describe the sender.
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) attributes: BTreeMap<String, String>,
    fields: BTreeMap<String, String>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let find = "import rotel; print(rotel.__path__[0])";
        let package = succeed(Command::new(python()).args(["-c", find]));
        let directory = TempDir::new().unwrap();
        let [http, grpc] = [free_port(), free_port()];
        let mut rotel = Command::new(format!("{}/rotel-agent", package.trim()));
        rotel.args(["start", "--exporter", "blackhole", "--debug-log", "traces"]);
        rotel.args(["--debug-log-verbosity", "detailed", "--pid-file", "pid", "--log-file", "log"]);
        rotel.args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")]);
        rotel.args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")]);
        rotel.env_clear().current_dir(directory.path()).stdin(Stdio::null());
        rotel.stdout(File::create(directory.path().join("spans")).unwrap());
        let child = rotel.spawn().expect("rotel: tests/run installs it");
        // The endpoint has the name `localhost` and not an address, so that the server must resolve
        // a name.
        let mut collector = Self { endpoint: format!("http://localhost:{http}"), directory, child };
        let begin = Clock::system().instant();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, http)).is_err() {
            let ended = collector.child.try_wait().unwrap();
            assert!(ended.is_none() && begin.elapsed() < GUARD, "it does not serve: {ended:?}");
            sleep(Duration::from_millis(10));
        }
        collector
    }

    fn written(&self) -> String {
        fs::read_to_string(self.directory.path().join("spans")).unwrap()
    }

    /// Waits for this many spans, stops the collector, and returns all spans in order.
    pub(crate) fn into_spans(mut self, count: usize) -> Vec<Span> {
        let begin = Clock::system().instant();
        while self.written().matches("\nSpan #").count() < count {
            assert!(begin.elapsed() < GUARD, "no {count} spans in {}", self.written());
            sleep(Duration::from_millis(10));
        }
        send_signal(&self.child, Signal::TERM).expect("a running collector");
        self.child.wait().unwrap();
        spans_of(&self.written())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // The collector may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Span {
    /// Returns a field such as `Name` or `Trace ID`; empty if the span does not have this field.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Returns a time field in nanoseconds since 1970.
    pub(crate) fn time(&self, name: &str) -> u128 {
        self.field(name).parse().unwrap_or_else(|_| panic!("no {name} in {self:?}"))
    }

    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// Parses the collector's text: `ResourceSpans`, the resource's attributes, then the fields and
/// attributes of each `Span`.
fn spans_of(text: &str) -> Vec<Span> {
    let mut resource = BTreeMap::new();
    let mut spans: Vec<Span> = Vec::new();
    let mut is_in_span = false;
    for line in text.lines() {
        if line.starts_with("ResourceSpans #") {
            resource.clear();
            is_in_span = false;
        } else if line.starts_with("Span #") {
            spans.push(Span { resource: resource.clone(), ..Span::default() });
            is_in_span = true;
        } else if let Some((name, value)) = line.split_once(": ") {
            let attribute = name.trim_start().strip_prefix("-> ");
            let (name, value) = (attribute.unwrap_or(name).trim().to_owned(), value.to_owned());
            let place = match (spans.last_mut().filter(|_| is_in_span), attribute) {
                (Some(span), Some(_)) => &mut span.attributes,
                (Some(span), None) => &mut span.fields,
                (None, _) => &mut resource,
            };
            place.insert(name, value);
        }
    }
    spans
}

/// An endpoint that accepts requests as a collector does and keeps their bytes.
pub(crate) struct Recorder {
    pub(crate) endpoint: String,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&received);
        // The thread ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                take(&stream.unwrap(), &kept);
            }
        });
        Self { endpoint, received }
    }

    /// Returns the bytes received so far. While the caller holds the guard, no request is answered.
    pub(crate) fn received(&self) -> MutexGuard<'_, Vec<u8>> {
        self.received.lock().unwrap()
    }
}

/// Reads one request, keeps its bytes, then answers it.
fn take(stream: &TcpStream, kept: &Mutex<Vec<u8>>) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let begin = head.len();
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
        let line = head[begin..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    kept.lock().unwrap().extend([head.as_bytes(), &body].concat());
    // The client may have timed out.
    let _ = reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}
