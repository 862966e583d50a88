//! The time to validate a token.
//!
//! First the signature alone, of a cached token and of a new one; then whole requests without their
//! socket about a cached token. A request about a new token takes longer by the difference of the
//! first two.

#![expect(clippy::unwrap_used, reason = "a failing bench may panic")]

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use grantd::clock::Clock;
use grantd::jose::key_life::Retention;
use grantd::jose::key_set::KeySet;
use grantd::random::Random;
use grantd::server::{Arrival, Peer, Server};
use grantd::store::key_directory;
use grantd::store::verified_tokens::VerifiedTokens;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use request::URLENCODED;
use tokio::runtime::{Builder, Runtime};

#[path = "support/demo.rs"]
mod demo;
#[expect(dead_code, reason = "one encoding is enough here")]
#[path = "support/request.rs"]
mod request;

criterion_group!(validate, signature, requests);
criterion_main!(validate);

/// A server, its runtime, and a token that it has issued.
struct Running {
    runtime: Runtime,
    server: Server,
    token: String,
    keys: KeySet,
    _directory: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let (directory, config) = demo::demo();
        let server = Server::new(&config, Clock::system(), Random::system()).unwrap();
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };
        let keys = KeySet::new(key_directory::load(&config.keys).unwrap(), retention);
        let mut running =
            Self { runtime, server, token: String::new(), keys, _directory: directory };
        let answer = running.respond(post("/connect/token", URLENCODED.body));
        let answer: serde_json::Value = serde_json::from_slice(&running.body_of(answer)).unwrap();
        running.token = answer["access_token"].as_str().unwrap().to_owned();
        running
    }

    fn respond(&self, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
        let peer = Peer::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000)));
        let arrival = Arrival { peer, first_byte: Clock::instant() };
        self.runtime.block_on(self.server.service().respond(request, arrival))
    }

    fn body_of(&self, response: Response<Full<Bytes>>) -> Bytes {
        self.runtime.block_on(response.into_body().collect()).unwrap().to_bytes()
    }
}

fn signature(c: &mut Criterion) {
    let Running { token, keys, .. } = Running::start();
    let now = Clock::system().unix_seconds();
    let mut group = c.benchmark_group("signature");
    group.throughput(Throughput::Elements(1));
    let known = VerifiedTokens::default();
    group.bench_function("known", |bencher| {
        bencher.iter(|| known.verify(&token, &keys, now).unwrap());
    });
    group.bench_function("new", |bencher| {
        bencher.iter_batched_ref(
            VerifiedTokens::default,
            |unknown| unknown.verify(&token, &keys, now).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn requests(c: &mut Criterion) {
    let running = Running::start();
    let mut group = c.benchmark_group("cached token");
    group.throughput(Throughput::Elements(1));
    let bearer = format!("Bearer {}", running.token);
    group.bench_function("validate", |bencher| {
        bencher.iter(|| {
            let request = Request::get("/connect/validate")
                .header(HOST, "127.0.0.1")
                .header(AUTHORIZATION, &bearer)
                .body(Full::default())
                .unwrap();
            let answer = running.respond(request);
            assert_eq!(answer.status(), StatusCode::NO_CONTENT);
            answer
        });
    });

    let form = format!("{}&token={}", URLENCODED.body, running.token);
    let told = running.body_of(running.respond(post("/connect/introspect", &form)));
    assert!(told.starts_with(b"{\"active\":true,"), "{told:?}");
    group.bench_function("introspect", |bencher| {
        bencher.iter(|| {
            let answer = running.respond(post("/connect/introspect", &form));
            assert_eq!(answer.status(), StatusCode::OK);
            answer
        });
    });
    group.finish();
}

fn post(path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::post(path)
        .header(HOST, "127.0.0.1")
        .header(CONTENT_TYPE, URLENCODED.content_type)
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}
