//! Serves one HTTP request: finds its route, checks what can be checked before the body is read,
//! collects the body, calls the dialect or the endpoint, and records the outcome. It contains no
//! rules of OAuth.

mod check;
mod record;
mod response;

use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, EXPECT, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::http::request;
use hyper::{Request, Response};
use tracing::warn;

use crate::config::{ClientCertificates, Dialect, Live};
use crate::dialect::route::{Route, below_issuer};
use crate::dialect::{
    Answer, Outcome, Reply, RequestHead, bearer, connect, firstvision, introspection, revocation,
    secrets, vision,
};
use crate::endpoint::metadata::{self, Document};
use crate::endpoint::outcome::Served;
use crate::endpoint::{Context, Exchange};
use crate::http::body::{self, Deadline};
use crate::http::client_address::{ClientAddress, came_through_a_proxy};
pub use crate::http::connection::Arrival;
use crate::http::connection::{Handler, Received};
use crate::http::header::single;
use crate::http::host::is_absent_ip_or_localhost;
use crate::http::listener::Peer;
use crate::http::request_id::RequestIds;
use crate::http::service::check::check;
use crate::http::service::response::{echo_client_headers, into_response};
use crate::oauth::client_certificate::{ShownCertificate, Verification};
use crate::oauth::dpop::DpopError;
use crate::oauth::error::Cause;
use crate::oauth::header_field::HeaderField;
use crate::page::{self, Pages};
use crate::random::NoEntropy;
use crate::snapshot::Snapshot;
use crate::telemetry::excerpt::{WITHHELD, excerpt, named};
use crate::telemetry::hourly::Hourly;
use crate::telemetry::traces::Traces;

/// Answers the requests of the public listeners. It needs no socket: an embedder may call
/// [`Service::respond`] from its own HTTP server.
#[derive(Debug)]
pub struct Service {
    context: Arc<Context>,
    request_ids: RequestIds,
    warned_of_undeclared_proxy: Once,
    warned_of_unrestricted_validation: Once,
    /// Limits the warnings about self-signed certificates: at most one per hour for each
    /// certificate.
    self_signed_warnings: Hourly,
    pages: Pages,
    pub(crate) traces: Traces,
}

/// A request as it is known before its body is read.
struct RequestInfo<'r> {
    head: &'r request::Parts,
    route: Route<'r>,
    arrival: Arrival,
    address: ClientAddress,
}

/// Records the request as abandoned if this guard is dropped. It is forgotten when the request is
/// answered.
struct AbandonGuard<'r> {
    service: &'r Service,
    info: &'r RequestInfo<'r>,
    request_id: &'r HeaderValue,
}

impl Drop for AbandonGuard<'_> {
    fn drop(&mut self) {
        self.service.record_abandoned(self.info, self.request_id);
    }
}

impl Service {
    /// Creates a service that reads `context`, and counts and keeps refusals there.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`] if the system has no random bytes. Request ids begin with random bytes, so
    /// that the ids of two processes differ.
    pub fn new(context: Arc<Context>) -> Result<Self, NoEntropy> {
        let request_ids = RequestIds::new(&context.random)?;
        Ok(Self {
            context,
            request_ids,
            warned_of_undeclared_proxy: Once::new(),
            warned_of_unrestricted_validation: Once::new(),
            self_signed_warnings: Hourly::default(),
            pages: Pages::default(),
            traces: Traces::default(),
        })
    }

    /// Answers one request and logs one line about it. A panic is answered as an internal error.
    pub fn respond<B: Body<Data = Bytes> + Send + 'static>(
        &self,
        request: Request<B>,
        arrival: Arrival,
    ) -> impl Future<Output = Response<Full<Bytes>>> + use<'_, B> {
        // This is not an `async fn`: the future of an `async fn` that destructures a parameter
        // contains this parameter twice.
        let (head, body) = request.into_parts();
        self.respond_to(head, body, arrival)
    }

    async fn respond_to(
        &self,
        head: request::Parts,
        body: impl Body<Data = Bytes> + Send + 'static,
        arrival: Arrival,
    ) -> Response<Full<Bytes>> {
        let request_id = self.request_ids.of(&head.headers);
        let snapshot = self.context.snapshot();
        let route =
            Route::in_snapshot(head.uri.path(), &snapshot, || offers_page(&snapshot, &head));
        let proxies = &snapshot.config.live.trusted_proxies;
        let address = ClientAddress::of(arrival.peer, &head.headers, proxies);
        if address.has_untrusted_forwarding {
            self.warn_of_undeclared_proxy(arrival.peer, &snapshot);
        }
        if route == Route::Validate && head.uri.query().is_none() {
            self.warned_of_unrestricted_validation.call_once(|| {
                warn!(
                    "/connect/validate was called without a query, so it accepts every valid token \
                     of this issuer; add ?scope= or ?audience= to the URL that the proxy calls"
                );
            });
        }
        let info = &RequestInfo { head: &head, route, arrival, address };
        let unanswered = AbandonGuard { service: self, info, request_id: &request_id };
        let answer = pin!(self.answer(&snapshot, info, body));
        let outcome = AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_panic| {
            let certificate = ShownCertificate::Absent;
            let head = request_head(&snapshot, route, &head, &certificate);
            refuse(Cause::Internal, &head, route)
        });
        mem::forget(unanswered);

        self.record(info, &request_id, &outcome);
        let mut response = into_response(outcome, request_id);
        if route.dialect() == Dialect::Vision {
            echo_client_headers(&head.headers, response.headers_mut());
        }
        response
    }

    fn warn_of_undeclared_proxy(&self, peer: Peer, snapshot: &Snapshot) {
        self.context.metrics.untrusted_forwarding.inc();
        self.warned_of_undeclared_proxy.call_once(|| {
            warn!(
                %peer,
                "a peer that is not in trusted_proxies sends forwarding headers: failed attempts \
                 count for the peer's address, not for the clients behind it; if it is a proxy, \
                 add it to trusted_proxies"
            );
            let demo = snapshot.clients.demo_clients().join(", ");
            if snapshot.allows_demo_secrets && !demo.is_empty() {
                warn!(
                    %peer,
                    "if this peer is a proxy, every caller that it lets through can get a token with \
                     the secrets of the demo clients, which are public: remove {demo}"
                );
            }
        });
    }

    /// Counts a self-signed client certificate that the proxy trusts as a certificate authority.
    /// Warns about each such certificate once per hour.
    fn warn_of_trusted_self_signed(&self, shown: &ShownCertificate) {
        let ShownCertificate::Present(certificate) = shown else { return };
        let Some(subject) = certificate.authority() else { return };
        self.context.metrics.self_signed_certificates.inc();
        let now = self.context.clock.now();
        if self.self_signed_warnings.is_due(certificate.thumbprint, now) {
            let subject = &*excerpt(subject.as_bytes(), MAX_SUBJECT_BYTES);
            warn!(
                subject,
                "a client's self-signed certificate is in the proxy's CA file, so its key can issue \
                 a certificate in the name of any client: remove it from the CA file, and register \
                 its key in the client's jwks"
            );
        }
    }

    async fn answer<'s>(
        &'s self,
        snapshot: &'s Snapshot,
        info: &RequestInfo<'s>,
        body: impl Body<Data = Bytes> + Send + 'static,
    ) -> Outcome<'s> {
        let RequestInfo { head: request, route, arrival, address } = info;
        let route = *route;
        let limits = &snapshot.config.live.limits;
        let at = arrival.first_byte + Duration::from_secs(limits.request_seconds);
        let deadline = Deadline { clock: &self.context.clock, at };
        let certificate = if route.authenticates() {
            certificate(&snapshot.config.live, &request.headers, arrival.peer)
        } else {
            ShownCertificate::Absent
        };
        self.warn_of_trusted_self_signed(&certificate);
        let head = request_head(snapshot, route, request, &certificate);
        let checked = check(&snapshot.config.startup.limits, route, request);
        let exchange = || {
            let endpoint = below_issuer(request.uri.path(), snapshot.issuer.path());
            Exchange::new(&self.context, snapshot, endpoint, address.network)
        };
        if route == Route::Validate {
            // If there is a body, the proxy has copied it from the API request whose token is
            // validated. The body is not needed here, so it is discarded.
            body::discard_in_background(&request.headers, body);
            return match checked {
                Ok(()) => bearer::validate(&exchange(), &head),
                Err(cause) => refuse(cause, &head, route),
            };
        }
        if let Err(cause) = checked {
            let mut outcome = refuse(cause, &head, route);
            if let (Cause::NotFound, Err(refused)) = (cause, &mut outcome.verdict) {
                let path = unknown_path(request, &head, body, limits.body_bytes, deadline).await;
                refused.named = Some(path);
                let path = below_issuer(request.uri.path(), snapshot.issuer.path());
                if let Some(page) = page_for_people(snapshot, route, request) {
                    outcome.answer = page;
                } else if page::owns(path, snapshot) {
                    page::push_policy(&mut outcome.answer);
                }
            } else {
                body::discard(&request.headers, body, deadline).await;
            }
            return outcome;
        }
        let body = match body::collect(&request.headers, body, limits.body_bytes, deadline).await {
            Ok(body) => body,
            Err(cause) => return refuse(cause, &head, route),
        };
        let exchange = &exchange();
        let answered = match route {
            Route::ConnectToken => pin!(connect::token(exchange, &head, body)).await,
            Route::VisionToken(version) => vision::token(exchange, version, &head, &body).await,
            Route::VisionValidate => vision::validate_token(exchange, &head, &body).await,
            Route::FirstvisionToken(path_scope) => {
                firstvision::token(exchange, path_scope, &head, &body).await
            }
            Route::Introspection => introspection::introspect(exchange, &head, body).await,
            Route::Revocation => revocation::revoke(exchange, &head, body).await,
            Route::ServerMetadata => publish(metadata::server_metadata(snapshot), &request.headers),
            Route::KeySet => {
                publish(metadata::key_set(snapshot, exchange.key_time()), &request.headers)
            }
            Route::Page(document) => {
                let has_copy = |etag: &str| has_current_copy(&request.headers, etag);
                Ok((self.pages.answer(document, snapshot, has_copy), Served::default()))
            }
            // Not reached: `check` refuses unknown routes, and `Validate` is answered above.
            Route::Unknown(_) | Route::Validate => Err(Cause::NotFound.into()),
        };
        Outcome::of(answered, |cause| {
            let mut answer = write_refusal(cause, &head, route);
            if cause == Cause::Dpop(DpopError::Nonce) {
                answer.push_nonce(exchange);
            }
            answer
        })
    }
}

impl Handler for Service {
    fn handle(
        &self,
        request: Request<Received>,
        arrival: Arrival,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send {
        self.respond(request, arrival)
    }
}

fn request_head<'r>(
    snapshot: &Snapshot,
    route: Route<'_>,
    request: &'r request::Parts,
    certificate: &'r ShownCertificate,
) -> RequestHead<'r> {
    let content_type = match single(&request.headers, CONTENT_TYPE) {
        // A repeated Content-Type is ambiguous; treat it as an unsupported type.
        HeaderField::Repeated => Some(&b","[..]),
        once => once.value(),
    };
    let is_vision = route.dialect() == Dialect::Vision;
    let client_header =
        |(name, _)| if is_vision { Some(request.headers.get(name)?.as_bytes()) } else { None };
    RequestHead {
        authorization: single(&request.headers, AUTHORIZATION),
        certificate,
        dpop: single(&request.headers, "dpop"),
        content_type,
        path: request.uri.path(),
        client_headers: vision::CLIENT_HEADERS.map(client_header),
        query: request.uri.query(),
        max_parameters: snapshot.config.live.limits.form_parts,
    }
}

/// Reads the client's certificate from the header fields of a proxy. `Absent` if the peer is not a
/// proxy that may forward certificates, or if the certificate or the result of its verification is
/// missing.
fn certificate(config: &Live, headers: &HeaderMap, peer: Peer) -> ShownCertificate {
    let address = peer.address().map(|address| address.ip());
    if !config.certificate_proxies().any(|proxy| proxy.is(address)) {
        return ShownCertificate::Absent;
    }
    let ClientCertificates { verify_header, certificate_header, .. } = &config.client_certificate;
    let field = |name| single(headers, name).value();
    let Some(certificate) = field(certificate_header).filter(|value| !value.is_empty()) else {
        return ShownCertificate::Absent;
    };
    let verification = field(verify_header).and_then(Verification::read);
    verification.map_or(ShownCertificate::Absent, |verification| {
        ShownCertificate::read(certificate, verification)
    })
}

/// Returns the path that was not found, for the log, or [`WITHHELD`] if it may contain a secret of
/// the request. The body is read in order to find the secrets that it contains.
async fn unknown_path(
    request: &request::Parts,
    head: &RequestHead<'_>,
    body: impl Body<Data = Bytes>,
    limit: usize,
    deadline: Deadline<'_>,
) -> Box<str> {
    let headers = &request.headers;
    // Reading the body would make hyper send `100 Continue`, and the client would send a body that
    // is not needed.
    let collected = if headers.contains_key(EXPECT) && !body.is_end_stream() {
        None
    } else {
        body::collect(headers, body, limit, deadline).await.ok()
    };
    let secrets = collected.and_then(|body| secrets::collect(head, &body));
    secrets.map_or_else(|| WITHHELD.into(), |secrets| named(head.path.as_bytes(), &secrets).into())
}

/// Answers with a public document, or with 304 if the client's copy is current. The answer allows
/// scripts of any origin to read the document (CORS).
fn publish(document: Document, headers: &HeaderMap) -> Reply<'static> {
    let Document { body, etag, max_age } = document;
    let is_current = has_current_copy(headers, &etag);
    let mut answer = if is_current { Answer::empty(304) } else { Answer::json(200, body) };
    answer.push_header("cache-control", format!("public, max-age={max_age}"));
    answer.push_header("etag", etag);
    answer.push_header("access-control-allow-origin", "*");
    Ok((answer, Served::default()))
}

/// Whether the client has the version of the document with this entity tag.
fn has_current_copy(headers: &HeaderMap, etag: &str) -> bool {
    let mut values = headers.get_all(IF_NONE_MATCH).iter();
    values.any(|tags| tags.to_str().is_ok_and(|tags| metadata::etag_matches(tags, etag)))
}

/// Returns the answer to a request for an unknown path if a browser shows the answer as a page:
/// only browsers send `Sec-Fetch-Dest` (W3C Fetch Metadata, section 2.1).
fn page_for_people(
    snapshot: &Snapshot,
    route: Route<'_>,
    request: &request::Parts,
) -> Option<Answer> {
    let destination = single(&request.headers, "sec-fetch-dest").value();
    let is_page = destination == Some(b"document") && route.dialect() == Dialect::Connect;
    let path = below_issuer(request.uri.path(), snapshot.issuer.path());
    let offers_page = || offers_page(snapshot, request);
    is_page.then(|| page::not_found(path, snapshot, offers_page)).flatten()
}

/// Whether [`PageSwitch::Auto`](crate::config::PageSwitch::Auto) shows the page to this request: the
/// demo clients may be served, and either the operator has said so, or nothing about the request says
/// that it comes from another machine or from a web page of another site.
fn offers_page(snapshot: &Snapshot, request: &request::Parts) -> bool {
    snapshot.config.live.allow_demo_clients
        || snapshot.allows_demo_secrets
            && is_absent_ip_or_localhost(&request.uri, &request.headers)
            && !came_through_a_proxy(&request.headers)
}

fn refuse(cause: Cause, head: &RequestHead<'_>, route: Route<'_>) -> Outcome<'static> {
    Outcome { answer: write_refusal(cause, head, route), verdict: Err(cause.into()) }
}

fn write_refusal(cause: Cause, head: &RequestHead<'_>, route: Route<'_>) -> Answer {
    let mut answer = route.refuse(cause, head);
    if let Route::Page(_) = route {
        page::push_policy(&mut answer);
    }
    answer
}

/// The maximum number of bytes of a certificate's subject that are logged.
const MAX_SUBJECT_BYTES: usize = 128;
