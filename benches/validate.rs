//! Measures the validation of a token.
//!
//! The first bench verifies a cached token, and the second bench verifies a new token. The other
//! benches measure whole requests about a cached token, without a socket. A request about a new
//! token takes longer than a request about a cached token, by the difference between the first two
//! benches.

#![expect(clippy::unwrap_used, reason = "a failing bench may panic")]

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use grantd::clock::Clock;
use grantd::internal::keys::directory::KeyDirectory;
use grantd::internal::keys::key_set::KeySet;
use grantd::internal::keys::key_store::StoredKeys;
use grantd::internal::keys::life::Retention;
use grantd::internal::state::verified_tokens::VerifiedTokens;
use grantd::internal::time::UnixTime;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use support::demo;
use support::in_process::{InProcess, post};
use support::request::URLENCODED;

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

criterion_group!(validate, signature, requests);
criterion_main!(validate);

/// A server and a token that it has issued.
struct Running {
    server: InProcess,
    token: String,
    keys: KeySet,
    _directory: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let (directory, config) = demo::demo();
        let server = InProcess::new(&config);
        let retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };
        let keys = StoredKeys::read(&mut KeyDirectory::new(&config.live.keys)).keys;
        let keys = KeySet::new(keys.into_iter().map(|(_, key)| key).collect(), retention);
        let answer = server.respond(form("/connect/token", URLENCODED.body));
        let answer: serde_json::Value = serde_json::from_slice(&server.body_of(answer)).unwrap();
        let token = answer["access_token"].as_str().unwrap().to_owned();
        Self { server, token, keys, _directory: directory }
    }
}

fn signature(c: &mut Criterion) {
    let Running { token, keys, .. } = Running::start();
    let now = Clock::system().unix_seconds();
    let mut group = c.benchmark_group("signature");
    group.throughput(Throughput::Elements(1));
    let known = VerifiedTokens::default();
    group.bench_function("known", |bencher| {
        bencher.iter(|| known.verify(&token, &keys, UnixTime(now).into()).unwrap());
    });
    group.bench_function("new", |bencher| {
        bencher.iter_batched_ref(
            VerifiedTokens::default,
            |unknown| unknown.verify(&token, &keys, UnixTime(now).into()).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn requests(c: &mut Criterion) {
    let running = Running::start();
    let Running { server, token, .. } = &running;
    let mut group = c.benchmark_group("cached token");
    group.throughput(Throughput::Elements(1));
    let bearer = format!("Bearer {}", token);
    group.bench_function("validate", |bencher| {
        bencher.iter(|| {
            let request = Request::get("/connect/validate")
                .header(HOST, "127.0.0.1")
                .header(AUTHORIZATION, &bearer)
                .body(Full::default())
                .unwrap();
            let answer = server.respond(request);
            assert_eq!(answer.status(), StatusCode::NO_CONTENT);
            answer
        });
    });

    let body = format!("{}&token={}", URLENCODED.body, token);
    let told = server.body_of(server.respond(form("/connect/introspect", &body)));
    assert!(told.starts_with(b"{\"active\":true,"), "{told:?}");
    group.bench_function("introspect", |bencher| {
        bencher.iter(|| {
            let answer = server.respond(form("/connect/introspect", &body));
            assert_eq!(answer.status(), StatusCode::OK);
            answer
        });
    });
    group.finish();
}

fn form(path: &str, body: &str) -> Request<Full<Bytes>> {
    post(path, URLENCODED.content_type, &Bytes::from(body.to_owned()))
}
