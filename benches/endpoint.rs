//! The time of a whole request without its socket.
//!
//! From the request to the response, on one event loop with one signing thread. No subscriber is
//! installed, so no log line is written. The refusal takes the same path without the signature: the
//! difference is grantd's own part.

#![expect(clippy::unwrap_used, reason = "a failing bench may panic")]

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use grantd::clock::Clock;
use grantd::random::Random;
use grantd::server::{Arrival, Peer, Server};
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use request::{MULTIPART, Payload, URLENCODED};
use tokio::runtime::{Builder, Runtime};

#[path = "support/demo.rs"]
mod demo;
#[path = "support/request.rs"]
mod request;
#[path = "support/token.rs"]
mod token;

criterion_group!(endpoint, token_endpoint, key_set);
criterion_main!(endpoint);

fn token_endpoint(c: &mut Criterion) {
    let (_directory, config) = demo::demo();
    let server = Server::new(&config, Clock::system(), Random::system()).unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let keys = body_of(&runtime, respond(&runtime, &server, get_key_set()));

    let mut group = c.benchmark_group("token endpoint");
    for payload in [URLENCODED, MULTIPART] {
        let body = Bytes::from(payload.body.to_owned());
        let answer = respond(&runtime, &server, post(&payload, &body));
        token::verify(&body_of(&runtime, answer), &keys, "demo-client");

        group.throughput(Throughput::Elements(1));
        group.bench_function(payload.name, |bencher| {
            bencher.iter(|| {
                let answer = respond(&runtime, &server, post(&payload, &body));
                assert_eq!(answer.status(), StatusCode::OK);
                answer
            });
        });

        let body = Bytes::from(payload.body.replace("use-only-0001", "use-only-0002"));
        group.bench_function(format!("{}, wrong secret", payload.name), |bencher| {
            bencher.iter(|| {
                let answer = respond(&runtime, &server, post(&payload, &body));
                assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
                answer
            });
        });
    }
    group.finish();
}

fn key_set(c: &mut Criterion) {
    let (_directory, config) = demo::demo();
    let server = Server::new(&config, Clock::system(), Random::system()).unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    c.bench_function("key set", |bencher| {
        bencher.iter(|| {
            let answer = respond(&runtime, &server, get_key_set());
            assert_eq!(answer.status(), StatusCode::OK);
            answer
        });
    });
}

fn respond(
    runtime: &Runtime,
    server: &Server,
    request: Request<Full<Bytes>>,
) -> Response<Full<Bytes>> {
    let peer = Peer::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000)));
    let arrival = Arrival { peer, first_byte: Clock::instant() };
    runtime.block_on(server.service().respond(request, arrival))
}

fn post(payload: &Payload, body: &Bytes) -> Request<Full<Bytes>> {
    Request::post("/connect/token")
        .header(HOST, "127.0.0.1")
        .header(CONTENT_TYPE, payload.content_type)
        .header(CONTENT_LENGTH, body.len())
        .body(Full::new(body.clone()))
        .unwrap()
}

fn get_key_set() -> Request<Full<Bytes>> {
    Request::get("/.well-known/openid-configuration/jwks")
        .header(HOST, "127.0.0.1")
        .body(Full::default())
        .unwrap()
}

fn body_of(runtime: &Runtime, answer: Response<Full<Bytes>>) -> Bytes {
    runtime.block_on(answer.into_body().collect()).unwrap().to_bytes()
}
