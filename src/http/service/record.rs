//! Records an answered request: metrics, the audit, one log line and a span.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderValue};
use tracing::field::display;
use tracing::{error, info, warn};

use crate::dialect::Outcome;
use crate::dialect::route::Route;
use crate::endpoint::outcome::{Made, Phases, Refused, Served};
use crate::http::header::single;
use crate::http::service::{RequestInfo, Service};
use crate::oauth::error::Cause;
use crate::telemetry::answered::Answered;
use crate::telemetry::audit;
use crate::telemetry::excerpt::{excerpt, named};
use crate::telemetry::refusals::Refusal;
use crate::telemetry::trace_parent::TraceParent;

impl Service {
    /// Records a request that was dropped before its answer, because the client or the server
    /// closed the connection.
    pub(super) fn record_abandoned(&self, info: &RequestInfo<'_>, request_id: &HeaderValue) {
        let RequestInfo { head, route, arrival, address } = info;
        let took = self.context.clock.instant() - arrival.first_byte;
        let outcome = "abandoned";
        self.context.metrics.count(route.label(), outcome, "", took.as_secs_f64());
        warn!(
            target: "grantd::request",
            request_id = request_id.to_str().unwrap_or_default(),
            route = route.label(),
            method = method_excerpt(&head.method),
            outcome,
            micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            peer = %arrival.peer,
            address = address.forwarded.map(display),
            "the connection ended before the answer"
        );
    }

    pub(super) fn record(
        &self,
        info: &RequestInfo<'_>,
        request_id: &HeaderValue,
        outcome: &Outcome<'_>,
    ) {
        let RequestInfo { head, route, arrival, address } = info;
        let (label, cause, client) = match &outcome.verdict {
            Ok(Served { client_id, is_reused: true, .. }) => ("reused", "", *client_id),
            Ok(Served { client_id, .. }) => (route.success(), "", *client_id),
            Err(Refused { cause, client_id, .. }) => {
                ("refused", cause.label(), client_id.unwrap_or_default())
            }
        };
        let made = outcome.verdict.as_ref().ok().and_then(|served| served.made);
        let phases = made.map(|Made { phases: Phases { parse, auth, queue, sign }, .. }| {
            [parse, auth, queue, sign]
        });
        // A repeated traceparent is ambiguous and ignored.
        let caller = single(&head.headers, "traceparent").value();
        let answered = Answered {
            request_id: request_id.to_str().unwrap_or_default(),
            route: route.label(),
            method: method_excerpt(&head.method),
            status: outcome.answer.status,
            outcome: label,
            cause,
            client,
            took: self.context.clock.instant() - arrival.first_byte,
            phases,
            peer: arrival.peer.address(),
            address: address.forwarded,
            caller: caller.and_then(TraceParent::parse),
        };
        if self.context.audit.is_some() && route.is_audited() {
            self.audit_request(info, &answered, &outcome.verdict);
        }
        self.count(&answered, &outcome.verdict);
        self.traces.record(&answered);
        write_line(info, &answered, &outcome.verdict);
    }

    /// Counts the request in the metrics, and keeps a refusal for `/explain`.
    fn count(&self, answered: &Answered<'_>, verdict: &Result<Served<'_>, Refused<'_>>) {
        let &Answered { request_id, route, status, outcome, cause, client, took, .. } = answered;
        self.context.metrics.count(route, outcome, cause, took.as_secs_f64());
        if let Some(phases) = answered.phases {
            self.context.metrics.count_phases(phases.map(|phase| phase.as_secs_f64()));
        }
        match verdict {
            Ok(Served { made: Some(made), .. }) => {
                self.context.metrics.wasteful.note(client, made.lifetime, self.context.clock.now());
            }
            Ok(_) => {}
            Err(refused) => self.context.refusals.keep(Refusal {
                request_id: request_id.into(),
                at: self.context.clock.now(),
                route,
                status,
                cause,
                explanation: refused.cause.explanation(),
                client: client.into(),
            }),
        }
    }

    /// Writes the outcome of a request to the audit, if it issued, revoked or refused something.
    fn audit_request(
        &self,
        info: &RequestInfo<'_>,
        answered: &Answered<'_>,
        verdict: &Result<Served<'_>, Refused<'_>>,
    ) {
        let &Answered { request_id, route, outcome, client, caller, .. } = answered;
        let address = match answered.address {
            Some(address) => address.to_string(),
            None => info.arrival.peer.to_string(),
        };
        let trace_id = caller.map(|caller| caller.trace_id);
        let request = audit::Request { request_id, route, client, address: &address, trace_id };
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

/// Writes the log line of a request.
fn write_line(
    info: &RequestInfo<'_>,
    answered: &Answered<'_>,
    verdict: &Result<Served<'_>, Refused<'_>>,
) {
    let &Answered { request_id, route, method, status, outcome, cause, client, .. } = answered;
    let (path, scope) = match verdict {
        Err(Refused { cause: Cause::NotFound, named, .. }) => (named.as_deref(), None),
        Err(Refused { named, .. }) => (None, named.as_deref()),
        Ok(_) => (None, None),
    };
    let is_forwarded = info.route == Route::Validate && answered.address.is_some();
    let original = if is_forwarded { original_request(&info.head.headers) } else { (None, None) };
    let (original_method, original_path) = (original.0.as_deref(), original.1.as_deref());
    let micros = u64::try_from(answered.took.as_micros()).unwrap_or(u64::MAX);
    let trace_id = answered.caller.map(|caller| caller.trace_id);
    let (peer, address) = (info.arrival.peer, answered.address.map(display));
    macro_rules! line {
        ($level:ident) => {
            $level!(
                target: "grantd::request",
                request_id, route, method, status, outcome, cause, client, path, scope, micros,
                %peer, address, trace_id, original_method, original_path
            )
        };
    }
    match status {
        500.. => line!(error),
        400.. => line!(warn),
        _ => line!(info),
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
