//! How long does it take to say that a token is good?
//!
//! First the signature alone, of a token that was seen before and of one that was not; then the whole
//! requests, without their socket, about one that was. What such a request costs about a new token is
//! the difference of the first two more.

#![expect(clippy::unwrap_used, reason = "a bench that fails has nobody to answer")]

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use grantd::clock::Clock;
use grantd::internal::jose::key_life::Retention;
use grantd::internal::jose::key_set::KeySet;
use grantd::internal::store::key_directory;
use grantd::internal::store::verified_tokens::VerifiedTokens;
use grantd::random::Random;
use grantd::server::{Arrival, Peer, Server};
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

/// A server, what it runs on, and a token that it has issued.
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
        let keys = KeySet::new(key_directory::load(&config.live.keys).unwrap(), retention);
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
    let mut group = c.benchmark_group("token that is known");
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
