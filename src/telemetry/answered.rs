//! The facts about an answered request.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::telemetry::trace_parent::TraceParent;

/// What the log line of a request and its span say of it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "opentelemetry"), allow(dead_code, reason = "only a span has them all"))]
pub struct Answered<'r> {
    /// Its name in the answer and in the log.
    pub request_id: &'r str,
    /// Who answered it, by the name in logs and metrics.
    pub route: &'static str,
    /// As the client wrote it.
    pub method: &'r str,
    /// Of the answer.
    pub status: u16,
    /// What became of it.
    pub outcome: &'static str,
    /// Why it was refused; empty if it was not.
    pub cause: &'static str,
    /// The registered client that it names; empty if none.
    pub client: &'r str,
    /// From the first byte to the answer.
    pub took: Duration,
    /// Parsing, authenticating, waiting for a signing thread, signing: where a token was made.
    pub phases: Option<[Duration; 4]>,
    /// Who is at the other end of the connection; `None`: a process on this machine.
    pub peer: Option<SocketAddr>,
    /// For whom a trusted proxy says that it speaks.
    pub address: Option<IpAddr>,
    /// The span that it belongs to.
    pub caller: Option<TraceParent<'r>>,
}
