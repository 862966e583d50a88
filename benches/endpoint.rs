//! Measures a whole request without a socket.
//!
//! A measurement starts with the request and ends with the response. The server has one event loop
//! and one signing thread. No tracing subscriber is installed, so no log line is written. A refusal
//! needs no signature, so the time of a refusal shows the cost of grantd's own code.

#![expect(clippy::unwrap_used, reason = "a failing bench may panic")]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http_body_util::Full;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use support::in_process::{InProcess, post};
use support::request::{MULTIPART, URLENCODED};
use support::{demo, token};

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

criterion_group!(endpoint, token_endpoint, key_set);
criterion_main!(endpoint);

fn token_endpoint(c: &mut Criterion) {
    let (_directory, config) = demo::demo();
    let server = InProcess::new(&config);
    let keys = server.body_of(server.respond(get_key_set()));

    let mut group = c.benchmark_group("token endpoint");
    for payload in [URLENCODED, MULTIPART] {
        let body = Bytes::from(payload.body.to_owned());
        let answer = server.respond(post("/connect/token", payload.content_type, &body));
        token::verify(&server.body_of(answer), &keys, "demo-client");

        group.throughput(Throughput::Elements(1));
        group.bench_function(payload.name, |bencher| {
            bencher.iter(|| {
                let answer = server.respond(post("/connect/token", payload.content_type, &body));
                assert_eq!(answer.status(), StatusCode::OK);
                answer
            });
        });

        let body = Bytes::from(payload.body.replace("use-only-0001", "use-only-0002"));
        group.bench_function(format!("{}, wrong secret", payload.name), |bencher| {
            bencher.iter(|| {
                let answer = server.respond(post("/connect/token", payload.content_type, &body));
                assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
                answer
            });
        });
    }
    group.finish();
}

fn key_set(c: &mut Criterion) {
    let (_directory, config) = demo::demo();
    let server = InProcess::new(&config);
    c.bench_function("key set", |bencher| {
        bencher.iter(|| {
            let answer = server.respond(get_key_set());
            assert_eq!(answer.status(), StatusCode::OK);
            answer
        });
    });
}

fn get_key_set() -> Request<Full<Bytes>> {
    Request::get("/.well-known/openid-configuration/jwks")
        .header(HOST, "127.0.0.1")
        .body(Full::default())
        .unwrap()
}
