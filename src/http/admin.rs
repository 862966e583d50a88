//! The admin listener, for operators: health, metrics, keys, the use of secrets, and explanations
//! of refusals. The public listeners serve none of these pages.

mod gate;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::endpoint::Context;
use crate::form::urlencoded;
use crate::http::admin::gate::Denied;
use crate::http::connection::{Arrival, Handler, Received};
use crate::http::listener::Peer;

/// Answers the requests of the admin listener.
#[derive(Clone)]
pub struct Admin {
    /// The context that the endpoints use.
    pub context: Arc<Context>,
    /// Whether the public listeners accept requests. They do so from the start of the server until
    /// the server drains.
    pub is_ready: Arc<AtomicBool>,
}

impl Handler for Admin {
    fn handle(
        &self,
        request: Request<Received>,
        arrival: Arrival,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send {
        let (admin, peer) = (self.clone(), arrival.peer);
        async move {
            let is_scrape = request.uri().path() == "/metrics" && {
                let snapshot = admin.context.snapshot();
                gate::admit(&request, peer, snapshot.admin_token.as_ref()).is_ok()
            };
            if !is_scrape {
                return admin.respond(&request, peer);
            }
            // There may be a million series. No event loop waits for their text.
            let scraped = spawn_blocking(move || admin.respond(&request, peer)).await;
            scraped.unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR, NO_METRICS))
        }
    }
}

impl Admin {
    /// Answers one request. `/livez` and `/readyz` are answered for every caller.
    pub fn respond<B>(&self, request: &Request<B>, peer: Peer) -> Response<Full<Bytes>> {
        let is_read = [Method::GET, Method::HEAD].contains(request.method());
        if request.uri().path() == "/livez" && is_read {
            return plain(StatusCode::OK, "ok\n");
        }
        let snapshot = self.context.snapshot();
        let admitted = gate::admit(request, peer, snapshot.admin_token.as_ref());
        if request.uri().path() == "/readyz" && is_read {
            return self.readiness(admitted.is_ok());
        }
        if let Err(denied) = admitted {
            return refuse(denied);
        }
        if !is_read {
            return with(plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n"), ALLOW, "GET, HEAD");
        }
        match request.uri().path() {
            "/metrics" => self.metrics(),
            "/keys" => self.keys(),
            path => {
                let below = |prefix| path.strip_prefix(prefix).and_then(urlencoded::decode_path);
                if let Some(id) = below("/clients/") {
                    self.client(&id)
                } else if let Some(request_id) = below("/explain/") {
                    self.explain(&request_id)
                } else {
                    plain(StatusCode::NOT_FOUND, ROUTES)
                }
            }
        }
    }

    /// Answers `/readyz`. What is wrong contains file names, so it is shown
    /// only to callers that [`gate::admit`] admits.
    fn readiness(&self, is_admitted: bool) -> Response<Full<Bytes>> {
        let now = self.context.clock.now();
        if !self.is_ready.load(Ordering::Relaxed) {
            plain(StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or stopping\n")
        } else if self.context.snapshot().keys.iter().next().is_none() {
            plain(StatusCode::SERVICE_UNAVAILABLE, "not ready: no key signs at this time\n")
        } else if self.context.is_stale() {
            plain(StatusCode::SERVICE_UNAVAILABLE, NOT_READY_STALE)
        } else {
            let loss = self.context.loss.as_ref().filter(|loss| now < loss.until);
            let problems: Vec<_> = [
                self.context.reload_fault.load().as_deref().cloned(),
                self.context.revocations.fault(),
                self.context.uses.fault(),
                self.context.store_fault(),
                self.context.rotation_fault(),
                loss.map(|loss| loss.text.clone()),
            ]
            .into_iter()
            .flatten()
            .collect();
            match (&problems[..], is_admitted) {
                ([], _) => plain(StatusCode::OK, "ok\n"),
                (_, true) => plain(StatusCode::OK, format!("degraded: {}\n", problems.join("; "))),
                (_, false) => plain(StatusCode::OK, "degraded: see the log\n"),
            }
        }
    }

    /// Answers `/clients/{id}`: for each secret, the number of its uses and the time of the last
    /// use. This shows the operator whether an old secret is still used or can be removed.
    fn client(&self, id: &str) -> Response<Full<Bytes>> {
        let snapshot = self.context.snapshot();
        let Some(client) = snapshot.clients.get(id) else {
            return json(StatusCode::NOT_FOUND, &json!({ "error": "no such client" }));
        };
        let secrets: Vec<_> = client
            .secrets
            .iter()
            .map(|secret| {
                let used = self.context.secret_uses.of(&client.id, &secret.label);
                json!({
                    "label": secret.label,
                    "not_before": secret.not_before,
                    "expires_at": secret.expires_at,
                    "uses": used.map_or(0, |(uses, _)| uses),
                    "last_used": used.map(|(_, last)| last),
                })
            })
            .collect();
        let shown =
            json!({ "client_id": &*client.id, "enabled": client.enabled, "secrets": secrets });
        json(StatusCode::OK, &shown)
    }

    /// Answers `/explain/{request-id}`: why the recent requests with this id were refused.
    fn explain(&self, request_id: &str) -> Response<Full<Bytes>> {
        let refusals = self.context.refusals.of(request_id);
        if refusals.is_empty() {
            let error = "no recent refusal has this request id";
            return json(StatusCode::NOT_FOUND, &json!({ "error": error }));
        }
        json(StatusCode::OK, &json!({ "request_id": request_id, "refusals": refusals }))
    }

    /// Answers `/keys`: the state of each key, and how often verifiers have fetched it.
    fn keys(&self) -> Response<Full<Bytes>> {
        let snapshot = self.context.snapshot();
        let at = self.context.key_time(&snapshot, self.context.clock.now());
        let keys = snapshot.keys.describe(at).map(|(key, mut described)| {
            let fetches = key.fetches.count();
            let last = (fetches > 0).then(|| key.fetches.last().0);
            described.insert("fetches".to_owned(), fetches.into());
            described.insert("last_fetch".to_owned(), last.into());
            Value::Object(described)
        });
        json(StatusCode::OK, &keys.collect())
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.context.metrics.to_text() {
            Ok(text) => {
                let format = "text/plain; version=0.0.4; charset=utf-8";
                with(plain(StatusCode::OK, text), CONTENT_TYPE, format)
            }
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, NO_METRICS),
        }
    }
}

const NOT_READY_STALE: &str = "not ready: the store has not answered for store.max_staleness\n";
const NO_METRICS: &str = "the metrics cannot be shown\n";
const ROUTES: &str =
    "here are /livez, /readyz, /metrics, /keys, /clients/{id} and /explain/{request-id}\n";

fn refuse(denied: Denied) -> Response<Full<Bytes>> {
    match denied {
        Denied::Token => {
            with(plain(StatusCode::UNAUTHORIZED, TOKEN_NEEDED), WWW_AUTHENTICATE, "Bearer")
        }
        Denied::Host => plain(StatusCode::MISDIRECTED_REQUEST, OTHER_HOST),
    }
}

const TOKEN_NEEDED: &str = "other machines need the token of admin_token_file, as Authorization: \
                            Bearer, for all but /livez and /readyz\n";
const OTHER_HOST: &str = "ask by an IP address or localhost, or with the token of \
                          admin_token_file as Authorization: Bearer\n";

fn json(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    with(plain(status, value.to_string()), CONTENT_TYPE, "application/json")
}

/// Sets a field of the response's head.
fn with(
    mut response: Response<Full<Bytes>>,
    name: HeaderName,
    value: &'static str,
) -> Response<Full<Bytes>> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let response = with(response, CONTENT_TYPE, "text/plain; charset=utf-8");
    with(response, CACHE_CONTROL, "no-store")
}
