//! Measures a signature alone and through the signing queue.
//!
//! For each key size there are three measurements: ring called directly, which is the reference;
//! ring called through the server's wrapper (`SingleSigner::Ring`); and the round trip through the
//! signing queue to a signing thread.

#![expect(clippy::unwrap_used, reason = "a failing bench may panic")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use grantd::clock::Clock;
use grantd::config::SignerChoice;
use grantd::internal::issuer::mint_at_jwt;
use grantd::internal::jose::jws::SigningInput;
use grantd::internal::keys::change;
use grantd::internal::keys::directory::KeyDirectory;
use grantd::internal::keys::life::Retention;
use grantd::internal::keys::signing_key::SigningKey;
use grantd::internal::oauth::client::Client;
use grantd::internal::oauth::grant::{CLIENT_CREDENTIALS, Grant, GrantRequest};
use grantd::internal::registry::client_file;
use grantd::internal::signing::backends::Backends;
use grantd::internal::signing::engine::Engine;
use grantd::internal::signing::single::{MAX_SIGNATURE_BYTES, SingleSigner};
use grantd::internal::time::UnixTime;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256};
use support::demo;
use tokio::runtime::Builder;

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

criterion_group!(signature, rs256);
criterion_main!(signature);

/// The fixed time that the bench uses as the current time, in Unix seconds.
const NOW: UnixTime = UnixTime(1_790_000_000);

fn rs256(c: &mut Criterion) {
    let (directory, config) = demo::demo();
    let clients = client_file::load(&config.live.clients).unwrap().registry;
    let client = clients.get("demo-client").unwrap();
    #[expect(clippy::disallowed_methods, reason = "blinding, as in service")]
    let random = SystemRandom::new();
    let runtime = Builder::new_current_thread().build().unwrap();
    let backends = Backends::new(SignerChoice::Ring, None);
    let engine = Engine::start(backends, 1, 1, Clock::system()).unwrap();

    let mut group = c.benchmark_group("signature");
    group.throughput(Throughput::Elements(1));
    for bits in change::KEY_SIZES {
        let keys = directory.path().join(bits.to_string());
        let retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };
        let key = change::generate(&mut KeyDirectory::new(&keys), bits, &retention, NOW).unwrap();
        let private_key = &key.private_key;
        let message = signing_input(client, &key);
        let message = message.as_bytes();
        let length = usize::from(bits / 8);
        let expected = {
            let mut signature = [0; MAX_SIGNATURE_BYTES];
            assert_eq!(
                SingleSigner::Ring.sign(private_key, message, &random, &mut signature),
                Some(length)
            );
            signature[..length].to_vec()
        };
        let public = PublicKeyComponents::<Vec<u8>>::from(private_key.ring.public());
        public.verify(&RSA_PKCS1_2048_8192_SHA256, message, &expected).unwrap();

        group.bench_function(BenchmarkId::new("ring", bits), |bencher| {
            let mut signature = vec![0; length];
            bencher.iter(|| {
                let message = black_box(message);
                private_key.ring.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                assert_eq!(signature, expected);
            });
        });
        group.bench_function(BenchmarkId::new("backend", bits), |bencher| {
            bencher.iter(|| {
                let mut signature = [0; MAX_SIGNATURE_BYTES];
                let length = SingleSigner::Ring
                    .sign(private_key, black_box(message), &random, &mut signature)
                    .unwrap();
                assert_eq!(signature[..length], expected);
            });
        });
        // One token at a time: this measures the latency on an idle server, not the throughput.
        group.bench_function(BenchmarkId::new("engine", bits), |bencher| {
            bencher.iter(|| {
                let input = signing_input(client, &key);
                let token = runtime.block_on(engine.sign(Arc::clone(private_key), input)).unwrap();
                assert!(token.buffer.starts_with(message));
            });
        });
    }
    group.finish();
}

fn signing_input(client: &Client, key: &SigningKey) -> SigningInput {
    let request = GrantRequest { grant_type: CLIENT_CREDENTIALS, ..GrantRequest::default() };
    let grant = Grant::decide(client, &request, "http://127.0.0.1:8080").unwrap();
    let buffer = Vec::with_capacity(1280);
    mint_at_jwt(&grant, "http://127.0.0.1:8080", key, NOW, &[7; 16], buffer).unwrap()
}
