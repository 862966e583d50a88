//! Measures client authentication.
//!
//! The input of the measured code is parsed parameters, and the result is a verified client. The
//! code looks up the client in the registry, computes one SHA-256 and makes one comparison. The
//! refusals of a wrong secret and of an unknown client are measured because they must take as long
//! as a success.

#![expect(clippy::unwrap_used, reason = "a failing bench may panic")]

use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use grantd::clock::Clock;
use grantd::internal::form::parameters::Parameters;
use grantd::internal::oauth::client::Client;
use grantd::internal::oauth::client_authentication::{Credentials, Proof};
use grantd::internal::oauth::client_certificate::ShownCertificate;
use grantd::internal::oauth::client_secret::{FastHash, find_secret};
use grantd::internal::oauth::error::Cause;
use grantd::internal::oauth::header_field::HeaderField;
use grantd::internal::oauth::password_hash::{PasswordHash, Work};
use grantd::internal::registry::client_file;
use grantd::internal::registry::clients::Registry;
use grantd::internal::time::UnixTime;
use hyper::StatusCode;
use support::demo;
use support::in_process::{InProcess, post};
use support::request::URLENCODED;

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

criterion_group!(client_authentication, methods, second_request);
criterion_main!(client_authentication);

const ID: &str = "demo-client";
const SECRET: &str = "demo-secret-for-local-use-only-0001";
const WRONG: &str = "demo-secret-for-local-use-only-0002";
/// The fixed time that the bench uses as the current time, in Unix seconds. The demo clients'
/// secrets do not expire, so any time works.
const NOW: UnixTime = UnixTime(1_790_000_000);

fn methods(c: &mut Criterion) {
    let (_directory, config) = demo::demo();
    let clients = client_file::load(&config.live.clients).unwrap().registry;
    let none = Parameters::default();
    let basic = format!("Basic {}", STANDARD.encode(format!("{ID}:{SECRET}")));
    // RFC 6749, section 2.3.1: the client identifier and the secret are form-encoded.
    let escaped = SECRET.replace('-', "%2D");
    let escaped = format!("Basic {}", STANDARD.encode(format!("{ID}:{escaped}")));

    let attempts = [
        ("client_secret_post", HeaderField::Absent, &parameters(ID, SECRET), Ok(ID)),
        ("client_secret_basic", HeaderField::Present(basic.as_bytes()), &none, Ok(ID)),
        ("client_secret_basic, escaped", HeaderField::Present(escaped.as_bytes()), &none, Ok(ID)),
        ("wrong secret", HeaderField::Absent, &parameters(ID, WRONG), Err(Cause::WrongSecret)),
        (
            "unknown client",
            HeaderField::Absent,
            &parameters("x", SECRET),
            Err(Cause::UnknownClient),
        ),
    ];
    let mut group = c.benchmark_group("client_authentication");
    group.throughput(Throughput::Elements(1));
    for (name, authorization, parameters, expected) in attempts {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let client = authenticate(&clients, black_box(authorization), parameters);
                assert_eq!(client.map(|client| &*client.id), expected);
            });
        });
    }
    group.finish();
}

/// Measures whole token requests of two clients, without a socket. The secret of one client is
/// stored as a SHA-256 hash, and the secret of the other client as an Argon2id hash. The server
/// computes Argon2id only for the first request, which is sent before the measurement. The measured
/// requests of both clients must therefore take the same time.
fn second_request(c: &mut Criterion) {
    let (_directory, config) = demo::demo();
    let work = Work::ARGON2ID;
    let slow = PasswordHash::of(SECRET, work, [7; 16]).unwrap();
    let registry = serde_json::json!({ "clients": [
        { "client_id": "fast", "scopes": ["external-api"],
          "secrets": [{ "label": "a", "hash": FastHash::of(SECRET).to_stored() }] },
        { "client_id": "slow", "scopes": ["external-api"],
          "secrets": [{ "label": "a", "hash": slow.as_stored() }] },
    ] });
    std::fs::write(&config.live.clients, registry.to_string()).unwrap();
    let server = InProcess::new(&config);

    let mut group = c.benchmark_group("second request");
    for (name, id) in [("sha256", "fast"), ("argon2id", "slow")] {
        let body = Bytes::from(format!(
            "client_id={id}&client_secret={SECRET}&grant_type=client_credentials&scope=external-api"
        ));
        let ask = || {
            let request = post("/connect/token", URLENCODED.content_type, &body);
            assert_eq!(server.respond(request).status(), StatusCode::OK);
        };
        let begin = Clock::system().instant();
        ask();
        println!("{name}: the first request took {:?}", Clock::system().instant() - begin);
        group.bench_function(name, |bencher| bencher.iter(ask));
    }
    group.finish();
}

fn authenticate<'c>(
    clients: &'c Registry,
    authorization: HeaderField<'_>,
    parameters: &Parameters<'_>,
) -> Result<&'c Client, Cause> {
    let credentials = Credentials::read(authorization, &ShownCertificate::Absent, parameters)?;
    let Proof::Secret { secret, .. } = &credentials.proof else { panic!("not by a secret") };
    let registered = clients.get(&credentials.client_id);
    let given = FastHash::of(secret.as_str());
    let secret = find_secret(&given, registered.map(|client| &*client.secrets), NOW);
    let client = registered.ok_or(Cause::UnknownClient)?;
    secret.map(|_| client).ok_or(Cause::WrongSecret)
}

fn parameters<'a>(id: &'a str, secret: &'a str) -> Parameters<'a> {
    let mut parameters = Parameters::default();
    for (name, value) in [
        ("client_id", id),
        ("client_secret", secret),
        ("grant_type", "client_credentials"),
        ("scope", "external-api"),
    ] {
        parameters.push(name.into(), value.into()).unwrap();
    }
    parameters
}
