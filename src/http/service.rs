//! One request: what is it, and who answers it.

mod record;

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Once};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{
    AUTHORIZATION, AsHeaderName, CONNECTION, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName,
    HeaderValue, IF_NONE_MATCH, RETRY_AFTER, TRANSFER_ENCODING,
};
use hyper::http::request;
use hyper::{Request, Response, StatusCode, Version};
use tracing::warn;

use crate::clock::Clock;
use crate::config::{ClientCertificates, Dialect, Live, StartupLimits};
use crate::dialect::{
    Answer, Outcome, RequestHead, bearer, connect, firstvision, introspection, revocation, secrets,
    vision,
};
use crate::endpoint::Context;
use crate::endpoint::metadata::{self, Document};
use crate::endpoint::token::Served;
use crate::http::body;
use crate::http::client_address::ClientAddress;
pub use crate::http::connection::Arrival;
use crate::http::connection::{
    Fragment, Handler, Received, VALIDATE_HEAD_BYTES, VALIDATE_HEAD_FIELDS,
};
use crate::http::listener::Peer;
use crate::http::request_id::{REQUEST_ID, RequestIds};
use crate::http::route::{Route, below_issuer};
use crate::oauth::client_authentication::Authorization;
use crate::oauth::client_certificate::{ShownCertificate, Verification};
use crate::oauth::dpop::DpopHeader;
use crate::oauth::error::Cause;
use crate::random::NoEntropy;
use crate::store::snapshot::Snapshot;
use crate::telemetry::excerpt::{WITHHELD, excerpt, named};
use crate::telemetry::hourly::Hourly;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::Refusals;
use crate::telemetry::traces::Traces;

/// Answers requests, from a socket or from anywhere else.
pub struct Service {
    context: Arc<Context>,
    metrics: Arc<Metrics>,
    refusals: Arc<Refusals>,
    request_ids: RequestIds,
    warned_of_proxy: Once,
    warned_of_no_question: Once,
    /// Self-signed certificates that were warned of.
    authorities: Hourly,
    pub(crate) traces: Traces,
}

/// The facts about a request that are told, however it ends.
#[derive(Clone, Copy)]
struct About<'r> {
    head: &'r request::Parts,
    route: Route<'r>,
    request_id: &'r HeaderValue,
    origin: &'r Origin,
}

/// A request that is being served. If it is dropped before its answer, it is told as abandoned.
struct Unanswered<'r> {
    service: &'r Service,
    about: About<'r>,
    is_answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.service.record_abandoned(self.about);
        }
    }
}

/// When and from where a request came, as its peer shows it and as a proxy states it.
struct Origin {
    arrival: Arrival,
    address: ClientAddress,
}

impl Service {
    /// A service that answers from `context`, counts into `metrics` and keeps in `refusals` why it
    /// refused.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`], since request ids must differ between processes.
    pub fn new(
        context: Arc<Context>,
        metrics: Arc<Metrics>,
        refusals: Arc<Refusals>,
    ) -> Result<Self, NoEntropy> {
        let request_ids = RequestIds::new(&context.random)?;
        Ok(Self {
            context,
            metrics,
            refusals,
            request_ids,
            warned_of_proxy: Once::new(),
            warned_of_no_question: Once::new(),
            authorities: Hourly::default(),
            traces: Traces::default(),
        })
    }

    /// Answers one request. Whatever happens inside, there is an answer, and one line about it in
    /// the log.
    pub fn respond<B>(
        &self,
        request: Request<B>,
        arrival: Arrival,
    ) -> impl Future<Output = Response<Full<Bytes>>>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        // Whatever an `async fn` takes apart is in its future twice.
        let (head, body) = request.into_parts();
        self.respond_to(head, body, arrival)
    }

    async fn respond_to<B>(
        &self,
        head: request::Parts,
        body: B,
        arrival: Arrival,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        let request_id = self.request_ids.of(&head.headers);
        let snapshot = self.context.snapshot();
        let route =
            Route::of(head.uri.path(), snapshot.issuer.path(), &snapshot.config.live.routes);
        let proxies = &snapshot.config.live.trusted_proxies;
        let address = ClientAddress::of(arrival.peer, &head.headers, proxies);
        if address.is_undeclared_proxy {
            self.note_undeclared_proxy(arrival.peer);
        }
        let origin = Origin { arrival, address };
        if route == Route::Validate && head.uri.query().is_none() {
            self.warned_of_no_question.call_once(|| {
                warn!(
                    "/connect/validate was asked without a question: every token of this issuer is \
                     good there; say ?scope= or ?audience="
                );
            });
        }
        let about = About { head: &head, route, request_id: &request_id, origin: &origin };
        let mut unanswered = Unanswered { service: self, about, is_answered: false };
        let answer = pin!(self.answer(&snapshot, route, &head, body, &origin));
        let outcome = AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_panic| {
            let head = head_of(&snapshot, route, &head, &origin, &ShownCertificate::Absent);
            refuse(Cause::Internal, &head, route)
        });
        unanswered.is_answered = true;
        drop(unanswered);

        self.record(about, &outcome);
        let mut response = into_response(outcome, request_id);
        if route.dialect() == Dialect::Vision {
            echo_client_headers(&head.headers, response.headers_mut());
        }
        response
    }

    fn note_undeclared_proxy(&self, peer: Peer) {
        self.metrics.untrusted_forwarding.inc();
        self.warned_of_proxy.call_once(|| {
            warn!(
                %peer,
                "forwarding fields from a peer that trusted_proxies does not name: failed attempts \
                 count for its address and not for its clients'; if it is a proxy, name it"
            );
        });
    }

    /// Counts a self-signed certificate that the proxy takes for an authority, and warns of each
    /// once an hour.
    fn warn_of_authority(&self, shown: &ShownCertificate) {
        let ShownCertificate::Present(certificate) = shown else { return };
        let Some(subject) = certificate.authority() else { return };
        self.metrics.self_signed_certificates.inc();
        let now = self.context.clock.unix_seconds();
        if self.authorities.is_due(certificate.thumbprint(), now) {
            let subject = &*excerpt(subject.as_bytes(), MOST_SUBJECT_BYTES);
            warn!(
                subject,
                "a client's self-signed certificate stands in the proxy's CA file, where it is an \
                 authority for every client's name: take it out, and register its key in jwks"
            );
        }
    }

    async fn answer<'s, B>(
        &self,
        snapshot: &'s Snapshot,
        route: Route<'_>,
        request: &request::Parts,
        body: B,
        origin: &Origin,
    ) -> Outcome<'s>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        let limits = &snapshot.config.live.limits;
        let deadline = (origin.arrival.first_byte + limits.request_time()).into();
        let certificate = if route.authenticates() {
            certificate(&snapshot.config.live, &request.headers, origin.arrival.peer)
        } else {
            ShownCertificate::Absent
        };
        self.warn_of_authority(&certificate);
        let mut head = head_of(snapshot, route, request, origin, &certificate);
        let checked = check(&snapshot.config.startup.limits, route, request);
        if route == Route::Validate {
            // The body is the business of the API that the token is for.
            body::linger(&request.headers, body);
            return match checked {
                Ok(()) => bearer::validate(&self.context, snapshot, &head),
                Err(cause) => refuse(cause, &head, route),
            };
        }
        if let Err(cause) = checked {
            let mut outcome = refuse(cause, &head, route);
            if let (Cause::NotFound, Err(refused)) = (cause, &mut outcome.verdict) {
                let path = path_of(request, &head, body, limits.body_bytes, deadline).await;
                refused.named = Some(path);
            } else {
                body::discard(&request.headers, body, deadline).await;
            }
            return outcome;
        }
        let body = match body::collect(&request.headers, body, limits.body_bytes, deadline).await {
            Ok(body) => body,
            Err(cause) => return refuse(cause, &head, route),
        };
        head.received = Clock::instant();
        let context = &*self.context;
        match route {
            Route::ConnectToken => pin!(connect::token(context, snapshot, &head, body)).await,
            Route::VisionToken(version) => {
                vision::token(context, snapshot, version, &head, body).await
            }
            Route::VisionValidate => vision::validate_token(context, snapshot, &head, &body).await,
            Route::FirstvisionToken(path_scope) => {
                firstvision::token(context, snapshot, path_scope, &head, body).await
            }
            Route::Introspection => introspection::introspect(context, snapshot, &head, body).await,
            Route::Revocation => revocation::revoke(context, snapshot, &head, body).await,
            Route::ServerMetadata => publish(metadata::server_metadata(snapshot), &request.headers),
            Route::KeySet => {
                let now = context.clock.unix_seconds();
                publish(metadata::key_set(snapshot, now), &request.headers)
            }
            // `check` has refused it, or it was answered without a body.
            Route::Unknown(_) | Route::Validate => refuse(Cause::NotFound, &head, route),
        }
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

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("context", &self.context).finish_non_exhaustive()
    }
}

fn head_of<'r>(
    snapshot: &Snapshot,
    route: Route<'_>,
    request: &'r request::Parts,
    origin: &Origin,
    certificate: &'r ShownCertificate,
) -> RequestHead<'r> {
    let authorization = match single(&request.headers, AUTHORIZATION) {
        Ok(None) => Authorization::Absent,
        Ok(Some(value)) => Authorization::Present(value),
        Err(Repeated) => Authorization::Repeated,
    };
    let dpop = match single(&request.headers, "dpop") {
        Ok(None) => DpopHeader::Absent,
        Ok(Some(value)) => DpopHeader::Present(value),
        Err(Repeated) => DpopHeader::Repeated,
    };
    // Two are one too many to choose from: no type at all is read as neither.
    let content_type = single(&request.headers, CONTENT_TYPE).unwrap_or(Some(&b","[..]));
    let is_vision = route.dialect() == Dialect::Vision;
    let client_header =
        |(name, _)| if is_vision { Some(request.headers.get(name)?.as_bytes()) } else { None };
    RequestHead {
        authorization,
        certificate,
        dpop,
        content_type,
        network: origin.address.network,
        path: request.uri.path(),
        endpoint: below_issuer(request.uri.path(), snapshot.issuer.path()),
        client_headers: vision::CLIENT_HEADERS.map(client_header),
        query: request.uri.query(),
        max_parameters: snapshot.config.live.limits.form_parts,
        received: origin.arrival.first_byte,
    }
}

/// The client's certificate, if the peer is a proxy that is believed about certificates, and states
/// one and how far it has verified it.
fn certificate(config: &Live, headers: &HeaderMap, peer: Peer) -> ShownCertificate {
    let address = peer.address().map(|address| address.ip());
    if !config.certificate_proxies().any(|proxy| proxy.is(address)) {
        return ShownCertificate::Absent;
    }
    let ClientCertificates { verify_header, certificate_header, .. } = &config.client_certificate;
    let stated = |name| single(headers, name).ok().flatten();
    let Some(certificate) = stated(certificate_header).filter(|stated| !stated.is_empty()) else {
        return ShownCertificate::Absent;
    };
    let verification = stated(verify_header).and_then(Verification::read);
    verification.map_or(ShownCertificate::Absent, |verification| {
        ShownCertificate::read(certificate, verification)
    })
}

/// The path that was not found, for the log. The body is read for this: the path may be one of the
/// secrets in it.
async fn path_of<B>(
    request: &request::Parts,
    head: &RequestHead<'_>,
    body: B,
    limit: usize,
    deadline: tokio::time::Instant,
) -> Box<str>
where
    B: Body<Data = Bytes>,
{
    let headers = &request.headers;
    // A client that waits for `100 Continue` is not asked for its body, which may hold anything.
    let collected = if headers.contains_key(EXPECT) && !body.is_end_stream() {
        None
    } else {
        body::collect(headers, body, limit, deadline).await.ok()
    };
    let secrets = collected.and_then(|body| secrets::of(head, &body));
    secrets.map_or_else(|| WITHHELD.into(), |secrets| named(head.path.as_bytes(), &secrets).into())
}

/// What can be said before the body is read.
fn check(limits: &StartupLimits, route: Route<'_>, request: &request::Parts) -> Result<(), Cause> {
    let headers = &request.headers;
    let line = request.method.as_str().len() + uri_length(request) + "  HTTP/1.1\r\n".len();
    let fields: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum();
    let (mut most_fields, mut most_bytes) = (limits.header_fields, limits.header_bytes);
    if route == Route::Validate {
        most_fields = most_fields.max(VALIDATE_HEAD_FIELDS);
        most_bytes = most_bytes.max(VALIDATE_HEAD_BYTES);
    }
    if headers.len() > most_fields || line + fields > most_bytes {
        return Err(Cause::HeadTooLarge);
    }
    if request.extensions.get::<Fragment>().is_some() {
        return Err(Cause::Fragment);
    }
    check_host(request)?;
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (!coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some())
    {
        return Err(Cause::TransferEncoding);
    }
    match route {
        Route::Unknown(_) => Err(Cause::NotFound),
        _ if route.allows(&request.method) => Ok(()),
        _ => Err(Cause::MethodNotAllowed),
    }
}

/// The value of a field that may stand there once.
pub(super) fn single(
    headers: &HeaderMap,
    name: impl AsHeaderName,
) -> Result<Option<&[u8]>, Repeated> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(HeaderValue::as_bytes)),
        (_, Some(_)) => Err(Repeated),
    }
}

/// A field is there twice or more.
pub(super) struct Repeated;

/// RFC 9112, section 3.2: one `Host`, no more and no less, and a host in it.
fn check_host(request: &request::Parts) -> Result<(), Cause> {
    let mut hosts = request.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (None, _) if request.version == Version::HTTP_10 => Ok(()),
        _ => Err(Cause::Host),
    }
}

/// RFC 3986, section 3.2: what may stand in a host and port.
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(b))
}

fn uri_length(request: &request::Parts) -> usize {
    request.uri.path().len() + request.uri.query().map_or(0, |query| query.len() + 1)
}

/// A public document, or 304 to whoever has it already. Browsers of any origin may read it.
fn publish(document: Document, headers: &HeaderMap) -> Outcome<'static> {
    let Document { body, etag, max_age } = document;
    let known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .any(|tags| tags.to_str().is_ok_and(|tags| metadata::etag_matches(tags, &etag)));
    let mut answer = if known { Answer::empty(304) } else { Answer::json(200, body) };
    answer.push_header("cache-control", format!("public, max-age={max_age}"));
    answer.push_header("etag", etag);
    answer.push_header("access-control-allow-origin", "*");
    Outcome { answer, verdict: Ok(Served::default()) }
}

fn refuse(cause: Cause, head: &RequestHead<'_>, route: Route<'_>) -> Outcome<'static> {
    let mut answer = route.dialect().refuse(cause, head);
    if cause == Cause::MethodNotAllowed {
        answer.push_header("allow", route.methods());
    }
    Outcome { answer, verdict: Err(cause.into()) }
}

fn into_response(outcome: Outcome<'_>, request_id: HeaderValue) -> Response<Full<Bytes>> {
    let Outcome { answer, verdict } = outcome;
    let mut headers = HeaderMap::with_capacity(answer.headers.len() + 2);
    for (name, value) in answer.headers {
        let value = match value {
            Cow::Borrowed(value) => HeaderValue::from_static(value),
            // Made of our own text: always valid.
            Cow::Owned(value) => {
                HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static(""))
            }
        };
        headers.append(HeaderName::from_static(name), value);
    }
    headers.insert(&REQUEST_ID, request_id);
    if let Err(refused) = verdict {
        if let Some(seconds) = refused.cause.retry_after() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if leaves_bytes_unread(refused.cause) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    let mut response = Response::new(Full::new(answer.body));
    *response.headers_mut() = headers;
    // Every status in the dialects' tables is a valid one.
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// Tracing headers of `vision` clients come back as they were sent, unless they are too long.
fn echo_client_headers(request: &HeaderMap, response: &mut HeaderMap) {
    for (name, max_length) in vision::CLIENT_HEADERS {
        if let Some(value) = request.get(name)
            && value.len() <= max_length
        {
            response.insert(HeaderName::from_static(name), value.clone());
        }
    }
}

/// After these, what follows on the connection may be the rest of a message and not a new one.
fn leaves_bytes_unread(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::BodyAborted
            | Cause::BodyTooLarge
            | Cause::HeadTooLarge
            | Cause::Host
            | Cause::RequestTimeout
            | Cause::TransferEncoding
    )
}

/// Of a certificate's subject, in the log.
const MOST_SUBJECT_BYTES: usize = 128;
