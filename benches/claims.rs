//! Measures the steps between client authentication and the signature of a token.
//!
//! These steps decide the grant, and write and encode the claims. The result is the signing input.
//! It is written to the buffer that becomes the answer.

#![expect(clippy::unwrap_used, reason = "a failing bench may panic")]

use std::hint::black_box;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use grantd::internal::issuer::mint_at_jwt;
use grantd::internal::keys::change;
use grantd::internal::keys::directory::KeyDirectory;
use grantd::internal::keys::life::Retention;
use grantd::internal::keys::signing_key::SigningKey;
use grantd::internal::oauth::client::Client;
use grantd::internal::oauth::grant::{CLIENT_CREDENTIALS, Grant, GrantRequest};
use grantd::internal::registry::client_file;
use grantd::internal::time::UnixTime;
use serde_json::{Value, json};

criterion_group!(claims, signing_input);
criterion_main!(claims);

/// The fixed time that the bench uses as the current time, in Unix seconds.
const NOW: UnixTime = UnixTime(1_790_000_000);
const ISSUER: &str = "https://auth.example.com";
/// The initial capacity of the answer's buffer in bytes. An ordinary answer fits into it.
const CAPACITY: usize = 1280;

fn signing_input(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };
    let key =
        change::generate(&mut KeyDirectory::new(directory.path()), 2048, &retention, NOW).unwrap();
    let clients = client_file::parse(Path::new("clients.json"), CLIENTS).unwrap();

    let requests = [
        ("plain", Some("external-api"), json!(ISSUER)),
        ("default scope", None, json!(ISSUER)),
        ("static claims, three audiences", Some("read write"), json!(AUDIENCES)),
    ];
    let mut group = c.benchmark_group("claims");
    for (name, scope, audience) in requests {
        let client = clients.get(if name.contains("static") { "rich" } else { "plain" }).unwrap();
        let request =
            GrantRequest { grant_type: CLIENT_CREDENTIALS, scope, ..GrantRequest::default() };
        let claims = claims_in(&mint(client, &request, &key));
        assert_eq!(claims["aud"], audience);
        assert_eq!(claims["scope"], scope.unwrap_or("external-api"));
        assert_eq!(claims["exp"], (NOW + u64::from(client.token_lifetime)).0);
        assert_eq!(claims["jti"], "BwcHBwcHBwcHBwcHBwcHBw");

        let length = mint(client, &request, &key).len();
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let input = mint(black_box(client), black_box(&request), &key);
                assert_eq!(input.len(), length);
                input
            });
        });
    }
    group.finish();
}

/// Returns the signing input of a token for `request`.
fn mint<'a>(client: &'a Client, request: &GrantRequest<'a>, key: &SigningKey) -> Vec<u8> {
    let grant = Grant::decide(client, request, ISSUER).unwrap();
    let buffer = Vec::with_capacity(CAPACITY);
    let input = mint_at_jwt(&grant, ISSUER, key, NOW, &[7; 16], buffer).unwrap();
    // `finish` appends a dot and the signature, and returns the buffer without copying it. The
    // signature is empty here, so only the dot must be removed.
    let mut buffer = input.finish(&[]);
    buffer.pop();
    buffer
}

fn claims_in(input: &[u8]) -> Value {
    let dot = input.iter().position(|&byte| byte == b'.').unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&input[dot + 1..]).unwrap()).unwrap()
}

const AUDIENCES: [&str; 3] =
    ["https://api.example.com", "https://files.example.com", "urn:example:ledger"];

const CLIENTS: &str = r#"{"clients": [
  {
    "client_id": "plain",
    "enabled": true,
    "secrets": [],
    "auth_methods": ["client_secret_post"],
    "scopes": ["external-api"],
    "default_scopes": ["external-api"],
    "audience": [],
    "token_lifetime": 3600,
    "claims": {}
  },
  {
    "client_id": "rich",
    "enabled": true,
    "secrets": [],
    "auth_methods": ["client_secret_post"],
    "scopes": ["read", "write", "delete", "administer"],
    "audience": ["https://api.example.com", "https://files.example.com", "urn:example:ledger"],
    "token_lifetime": 600,
    "claims": { "firstVisionId": "00000AUNAB", "tenant": "example", "tier": 3, "regions": ["eu", "us"] }
  }
]}"#;
