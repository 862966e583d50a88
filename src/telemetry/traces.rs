//! One span for each answered request, by OpenTelemetry's conventions for HTTP servers.
//!
//! It says what the log line says and nothing else. Of the target, only the name of its route: a
//! query may hold a secret, and so may a path that somebody has mistyped.

use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use crate::clock::Clock;
use crate::telemetry::answered::Answered;
use crate::telemetry::trace_parent::TraceParent;

/// Where spans go: nowhere, until somebody says where.
#[derive(Debug, Default)]
pub struct Traces(OnceLock<SdkTracer>);

impl Traces {
    /// From now on, spans go to `provider`, and to no other. It samples and exports them; whoever
    /// has made it shuts it down.
    pub fn send_to(&self, provider: &SdkTracerProvider) {
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        self.0.get_or_init(|| provider.tracer_with_scope(scope));
    }

    /// For a request that is answered at this moment.
    pub(crate) fn tell(&self, answered: &Answered<'_>) {
        let Some(tracer) = self.0.get() else { return };
        let end = UNIX_EPOCH + Duration::from_micros(Clock::unix_micros());
        let (method, name) = method_of(answered);
        let mut span = tracer
            .span_builder(format!("{name} {}", answered.route))
            .with_kind(SpanKind::Server)
            .with_start_time(end.checked_sub(answered.took).unwrap_or(end))
            .start_with_context(tracer, &context_of(answered.caller));
        if !span.is_recording() {
            return;
        }
        span.set_attributes(attributes_of(answered, method));
        if answered.status >= 500 {
            // The cause is among the attributes.
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(end);
    }
}

/// The caller's span, as the parent of the next; without one, a trace begins.
fn context_of(caller: Option<TraceParent<'_>>) -> Context {
    let parent = caller.and_then(|caller| {
        let trace_id = TraceId::from_hex(caller.trace_id).ok()?;
        let parent_id = SpanId::from_hex(caller.parent_id).ok()?;
        let flags = TraceFlags::default().with_sampled(caller.is_sampled);
        Some(SpanContext::new(trace_id, parent_id, flags, true, TraceState::NONE))
    });
    // Not the thread's present one: that is of whoever embeds the server.
    parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent))
}

/// The method, and what stands for it in a span's name. What a client has made up is in neither.
fn method_of(answered: &Answered<'_>) -> (&'static str, &'static str) {
    match METHODS.into_iter().find(|method| *method == answered.method) {
        Some(method) => (method, method),
        None => ("_OTHER", "HTTP"),
    }
}

fn attributes_of(answered: &Answered<'_>, method: &'static str) -> Vec<KeyValue> {
    let &Answered { status, outcome, cause, client, route, peer, phases, .. } = answered;
    let mut attributes = Vec::with_capacity(MAX_ATTRIBUTES);
    attributes.extend([
        KeyValue::new("http.request.method", method),
        KeyValue::new("http.route", route),
        KeyValue::new("http.response.status_code", i64::from(status)),
        KeyValue::new("grantd.request_id", answered.request_id.to_owned()),
        KeyValue::new("grantd.outcome", outcome),
    ]);
    if !cause.is_empty() {
        attributes.push(KeyValue::new("grantd.cause", cause));
    }
    if status >= 500 {
        attributes.push(KeyValue::new("error.type", cause));
    }
    if !client.is_empty() {
        attributes.push(KeyValue::new("grantd.client_id", client.to_owned()));
    }
    if let Some(address) = answered.address.or_else(|| peer.map(|peer| peer.ip())) {
        attributes.push(KeyValue::new("client.address", address.to_string()));
    }
    if let Some(peer) = peer {
        attributes.push(KeyValue::new("network.peer.address", peer.ip().to_string()));
        attributes.push(KeyValue::new("network.peer.port", i64::from(peer.port())));
    }
    let phases = PHASES.into_iter().zip(phases.into_iter().flatten());
    attributes.extend(phases.map(|(name, phase)| KeyValue::new(name, phase.as_secs_f64())));
    attributes
}

/// What the conventions know as methods.
const METHODS: [&str; 10] =
    ["POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "QUERY"];

/// In the order of [`Answered::phases`].
const PHASES: [&str; 4] =
    ["grantd.parse_seconds", "grantd.auth_seconds", "grantd.queue_seconds", "grantd.sign_seconds"];

const MAX_ATTRIBUTES: usize = 15;
