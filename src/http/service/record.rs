//! Records an answered request: metrics, the audit, one log line and a span.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderValue};
use tracing::field::display;
use tracing::{error, info, warn};

use crate::dialect::Outcome;
use crate::endpoint::outcome::{Phases, Refused, Served};
use crate::http::route::Route;
use crate::http::service::{Origin, RequestInfo, Service, single};
use crate::oauth::error::Cause;
use crate::telemetry::answered::Answered;
use crate::telemetry::audit;
use crate::telemetry::excerpt::{excerpt, named};
use crate::telemetry::refusals::Refusal;
use crate::telemetry::trace_parent::TraceParent;

impl Service {
    /// Records a request that was dropped before its answer, because the client or the server
    /// closed the connection.
    pub(super) fn record_abandoned(&self, info: RequestInfo<'_>) {
        let RequestInfo { head, route, request_id, origin } = info;
        let took = self.context.clock.instant() - origin.arrival.first_byte;
        let outcome = "abandoned";
        self.metrics.count(route.label(), outcome, "", took.as_secs_f64());
        warn!(
            target: "grantd::request",
            request_id = request_id.to_str().unwrap_or_default(),
            route = route.label(),
            method = method_excerpt(&head.method),
            outcome,
            micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            peer = %origin.arrival.peer,
            address = origin.address.forwarded.map(display),
            "the connection ended before the answer"
        );
    }

    pub(super) fn record(&self, info: RequestInfo<'_>, outcome: &Outcome<'_>) {
        let RequestInfo { head, route, request_id, origin } = info;
        let &Origin { arrival, address } = origin;
        let took = self.context.clock.instant() - arrival.first_byte;
        let request_id = request_id.to_str().unwrap_or_default();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let (outcome_label, cause, client) = match &outcome.verdict {
            Ok(Served { client_id, is_reused: true, .. }) => ("reused", "", *client_id),
            Ok(Served { client_id, .. }) => (route.success(), "", *client_id),
            Err(Refused { cause, client_id, .. }) => {
                ("refused", cause.label(), client_id.unwrap_or_default())
            }
        };
        let (path, scope) = match &outcome.verdict {
            Err(Refused { cause: Cause::NotFound, named, .. }) => (named.as_deref(), None),
            Err(Refused { named, .. }) => (None, named.as_deref()),
            Ok(_) => (None, None),
        };
        // A repeated traceparent is ambiguous and ignored.
        let caller = single(&head.headers, "traceparent").ok().flatten();
        let caller = caller.and_then(TraceParent::parse);
        let trace_id = caller.map(|caller| caller.trace_id);
        if self.context.audit.is_some() && route.is_audited() {
            let address =
                address.forwarded.map_or_else(|| arrival.peer.to_string(), |ip| ip.to_string());
            let route = route.label();
            let request = audit::Request { request_id, route, client, address: &address, trace_id };
            self.audit_request(request, outcome_label, &outcome.verdict);
        }
        let is_validation = route == Route::Validate;
        let (route, method) = (route.label(), method_excerpt(&head.method));
        let status = outcome.answer.status;
        self.metrics.count(route, outcome_label, cause, took.as_secs_f64());

        let mut phases = None;
        if let Ok(Served { made: Some(made), .. }) = &outcome.verdict {
            let Phases { parse, auth, queue, sign } = made.phases;
            self.metrics.count_phases([parse, auth, queue, sign].map(|it| it.as_secs_f64()));
            phases = Some([parse, auth, queue, sign]);
            let now = self.context.clock.now();
            self.metrics.wasteful.note(client, made.lifetime, now);
        }
        if let Err(Refused { cause: why, .. }) = &outcome.verdict {
            self.refusals.keep(Refusal {
                request_id: request_id.into(),
                at: self.context.clock.now(),
                route,
                status,
                cause,
                explanation: why.explanation(),
                client: client.into(),
            });
        }

        let (original_method, original_path) = if is_validation && address.forwarded.is_some() {
            original_request(&head.headers)
        } else {
            (None, None)
        };
        let (original_method, original_path) =
            (original_method.as_deref(), original_path.as_deref());
        let peer = arrival.peer;
        self.traces.record(&Answered {
            request_id,
            route,
            method,
            status,
            outcome: outcome_label,
            cause,
            client,
            took,
            phases,
            peer: peer.address(),
            address: address.forwarded,
            caller,
        });
        let address = address.forwarded.map(display);
        macro_rules! line {
            ($level:ident) => {
                $level!(
                    target: "grantd::request",
                    request_id, route, method, status, outcome = outcome_label, cause, client,
                    path, scope, micros, %peer, address, trace_id, original_method, original_path
                )
            };
        }
        match status {
            500.. => line!(error),
            400.. => line!(warn),
            _ => line!(info),
        }
    }

    /// Writes the outcome of a request to the audit, if it issued, revoked or refused something.
    fn audit_request(
        &self,
        request: audit::Request<'_>,
        outcome: &str,
        verdict: &Result<Served<'_>, Refused<'_>>,
    ) {
        let event = match verdict {
            Err(Refused { cause, .. }) => audit::Event::Refused { request, cause: cause.label() },
            Ok(_) if outcome == "revoked" => audit::Event::Revoked { request },
            Ok(Served { made, is_reused, granted: Some(granted), .. }) => {
                let token_id = made.and_then(|made| made.token_id);
                let jti = token_id.map(|id| URL_SAFE_NO_PAD.encode(id));
                return self.context.write_audit(&audit::Event::Issued {
                    request,
                    jti: jti.as_deref(),
                    reused: *is_reused,
                    scope: &granted.scope,
                    audience: &granted.audience,
                    lifetime: granted.lifetime,
                });
            }
            // Introspection and validation change nothing, so they are not audited.
            Ok(_) => return,
        };
        self.context.write_audit(&event);
    }
}

/// The first [`METHOD_BYTES`] bytes of the method. Without this limit, a client could send a method
/// as long as a whole head, and all of it would be recorded.
fn method_excerpt(method: &Method) -> &str {
    let method = method.as_str();
    // A method is ASCII (RFC 9110, section 5.6.2), so `get` returns `None` only if the method is
    // shorter.
    method.get(..METHOD_BYTES).unwrap_or(method)
}

/// The method and path of the API request whose token a proxy validates. The query is left out: it
/// may contain secrets that only the client and the API may know.
fn original_request(headers: &HeaderMap) -> (Option<Cow<'_, str>>, Option<Cow<'_, str>>) {
    let field = |name| headers.get(name).map(HeaderValue::as_bytes);
    let method = field("x-original-method");
    let path = field("x-original-uri").and_then(|uri| uri.split(|byte| *byte == b'?').next());
    let bearer = field("authorization").unwrap_or_default();
    let token =
        bearer.iter().position(u8::is_ascii_whitespace).map_or(bearer, |at| &bearer[at + 1..]);
    (method.map(|method| excerpt(method, METHOD_BYTES)), path.map(|path| named(path, &[token])))
}

/// The maximum length of a recorded method, in bytes. The longest registered method has 17 bytes.
const METHOD_BYTES: usize = 32;
