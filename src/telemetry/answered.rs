//! The record of an answered request.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::telemetry::trace_parent::TraceParent;

/// What the span of a request contains.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "opentelemetry"), allow(dead_code, reason = "only a span has them all"))]
pub struct Answered<'r> {
    /// The request's id in the answer and in the log.
    pub request_id: &'r str,
    /// The label of the route.
    pub route: &'static str,
    /// The method, as the client wrote it, cut to a maximum.
    pub method: &'r str,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The label of the outcome.
    pub outcome: &'static str,
    /// The label of the cause of a refusal; empty if the request was not refused.
    pub cause: &'static str,
    /// The registered client that the request claims to be; empty if there is none.
    pub client: &'r str,
    /// The time from the request's first byte to its answer.
    pub took: Duration,
    /// If a token was minted: the time for parsing, for authenticating and deciding, in the signing
    /// queue, and for signing.
    pub phases: Option<[Duration; 4]>,
    /// The other end of the connection; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The client's address, if a trusted proxy forwards it.
    pub address: Option<IpAddr>,
    /// The caller's span, from the request's `traceparent`.
    pub caller: Option<TraceParent<'r>>,
}
