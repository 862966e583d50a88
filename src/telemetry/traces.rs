//! Records one span for each answered request, with the attributes of OpenTelemetry's semantic
//! conventions for HTTP servers where they apply.
//!
//! A span contains most fields of the request's log line, and the duration of each phase of minting
//! a token. It does not contain the path or the query, in which a secret may have been sent by
//! mistake. So `http.route` is the label of the route and not a path.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};

use crate::clock::Clock;
use crate::telemetry::answered::Answered;
use crate::telemetry::trace_parent::TraceParent;

/// Records spans after [`Traces::send_to`] has set a provider.
#[derive(Debug, Default)]
pub struct Traces {
    tracer: OnceLock<SdkTracer>,
    ended: Arc<AtomicU64>,
}

impl Traces {
    /// Sets the provider that samples and exports the spans. Only the first call has an effect. The
    /// caller shuts the provider down.
    pub fn send_to(&self, provider: &SdkTracerProvider) {
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        self.tracer.get_or_init(|| provider.tracer_with_scope(scope));
    }

    /// Returns the counter of the sampled spans that were passed to the provider.
    pub fn ended(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.ended)
    }

    /// Records a request that was answered just now.
    pub(crate) fn record(&self, answered: &Answered<'_>) {
        let Some(tracer) = self.tracer.get() else { return };
        let end = UNIX_EPOCH + Duration::from_micros(Clock::unix_micros());
        // The method as an attribute, and as a part of the span's name.
        let known = METHODS.into_iter().find(|method| *method == answered.method);
        let (method, name) = known.map_or(("_OTHER", "HTTP"), |method| (method, method));
        let mut span = tracer
            .span_builder(format!("{name} {}", answered.route))
            .with_kind(SpanKind::Server)
            .with_start_time(end.checked_sub(answered.took).unwrap_or(end))
            .start_with_context(tracer, &context_of(answered.caller));
        if !span.is_recording() {
            return;
        }
        set_attributes(&mut span, answered, method);
        if answered.status >= 500 {
            // The description stays empty, because the cause is an attribute of the span.
            span.set_status(Status::error(""));
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
        span.end_with_timestamp(end);
    }
}

/// Returns the context in which a request's span is created. The parent of the span is the caller's
/// span; without a caller, the span begins a new trace.
fn context_of(caller: Option<TraceParent<'_>>) -> Context {
    let parent = caller.and_then(|caller| {
        let trace_id = TraceId::from_hex(caller.trace_id).ok()?;
        let parent_id = SpanId::from_hex(caller.parent_id).ok()?;
        let flags = TraceFlags::default().with_sampled(caller.is_sampled);
        Some(SpanContext::new(trace_id, parent_id, flags, true, TraceState::NONE))
    });
    // Starts from an empty context and not from the current context of the thread, because that
    // context belongs to the program that embeds the server.
    parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent))
}

fn set_attributes(span: &mut Span, answered: &Answered<'_>, method: &'static str) {
    let &Answered { status, outcome, cause, client, route, peer, phases, .. } = answered;
    let mut set = |name, value: Value| span.set_attribute(KeyValue::new(name, value));
    set("http.request.method", method.into());
    set("http.route", route.into());
    set("http.response.status_code", i64::from(status).into());
    set("grantd.request_id", answered.request_id.to_owned().into());
    set("grantd.outcome", outcome.into());
    if !cause.is_empty() {
        set("grantd.cause", cause.into());
    }
    if status >= 500 {
        set("error.type", cause.into());
    }
    if !client.is_empty() {
        set("grantd.client_id", client.to_owned().into());
    }
    if let Some(address) = answered.address.or_else(|| peer.map(|peer| peer.ip())) {
        set("client.address", address.to_string().into());
    }
    if let Some(peer) = peer {
        set("network.peer.address", peer.ip().to_string().into());
        set("network.peer.port", i64::from(peer.port()).into());
    }
    for (name, phase) in PHASES.into_iter().zip(phases.into_iter().flatten()) {
        set(name, phase.as_secs_f64().into());
    }
}

/// The methods that OpenTelemetry's semantic conventions for HTTP list.
const METHODS: [&str; 10] =
    ["POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "QUERY"];

/// The names of the attributes for [`Answered::phases`], in the order of the phases.
const PHASES: [&str; 4] =
    ["grantd.parse_seconds", "grantd.auth_seconds", "grantd.queue_seconds", "grantd.sign_seconds"];
