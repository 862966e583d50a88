//! The record of an answered request.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::telemetry::trace_parent::TraceParent;

/// An answered request, with the values that its span records.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "opentelemetry"), allow(dead_code, reason = "only a span has them all"))]
pub struct Answered<'r> {
    /// The request's id in the answer and in the log.
    pub request_id: &'r str,
    /// The label of the route.
    pub route: &'static str,
    /// The method as sent, truncated if it is too long.
    pub method: &'r str,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The label of the outcome.
    pub outcome: &'static str,
    /// The label of the cause of a refusal; empty if the request was not refused.
    pub cause: &'static str,
    /// The id of the registered client that the request names, even if the client did not
    /// authenticate; empty if the request names no registered client.
    pub client: &'r str,
    /// The time from the request's first byte to its answer.
    pub took: Duration,
    /// The duration of each phase of minting a token: parsing, authenticating and deciding, waiting
    /// for a signing thread, signing. `None` if no token was minted.
    pub phases: Option<[Duration; 4]>,
    /// The address of the peer, which may be a proxy; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The client's address as forwarded by a trusted proxy; `None` if no trusted proxy has
    /// forwarded an address.
    pub address: Option<IpAddr>,
    /// The caller's span, from the request's `traceparent`; `None` without a valid `traceparent`.
    pub caller: Option<TraceParent<'r>>,
}
