//! Measures the time to read a form.
//!
//! In each encoding, the bench reads two forms: the usual token request, and the largest form
//! within the default limits. In the URL encoding, it reads a third form: the usual token request
//! with every byte of the values percent-encoded.

#![expect(clippy::unwrap_used, reason = "a failing bench may panic")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use grantd::config::LiveLimits;
use grantd::internal::form::media_type::MediaType;
use grantd::internal::form::multipart::Parts;
use grantd::internal::form::urlencoded;
use support::request::{MULTIPART, URLENCODED};

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
mod support;

criterion_group!(form, urlencoded, multipart);
criterion_main!(form);

fn urlencoded(c: &mut Criterion) {
    let limits = LiveLimits::default();
    let payloads = [
        ("token request", URLENCODED.body.to_owned()),
        ("token request, escaped", escaped(URLENCODED.body)),
        ("largest", largest(&limits, |name, value| format!("{name}={value}&"), "")),
    ];
    let mut group = c.benchmark_group(URLENCODED.name);
    for (name, body) in &payloads {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                let parameters =
                    urlencoded::parse(black_box(body.as_bytes()), limits.form_parts).unwrap();
                assert_eq!(parameters.get("client_id"), Some("demo-client"));
                parameters.count()
            });
        });
    }
    group.finish();
}

/// The measured time includes the parsing of the `Content-Type`, because the boundary is a
/// parameter of this header field.
fn multipart(c: &mut Criterion) {
    let limits = LiveLimits::default();
    let boundary = MULTIPART.content_type.split_once("boundary=").unwrap().1;
    let part = |name: &str, value: &str| {
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        )
    };
    let end = format!("--{boundary}--\r\n");
    let payloads =
        [("token request", MULTIPART.body.to_owned()), ("largest", largest(&limits, part, &end))];
    let mut group = c.benchmark_group(MULTIPART.name);
    for (name, body) in payloads {
        let body = Bytes::from(body);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let media_type = MediaType::parse(black_box(MULTIPART.content_type)).unwrap();
                let boundary = media_type.boundary.as_deref().unwrap();
                let parts = Parts::read(body.clone(), boundary, limits.form_parts).unwrap();
                let parameters = parts.parameters().unwrap();
                assert_eq!(parameters.get("client_id"), Some("demo-client"));
                parameters.count()
            });
        });
    }
    group.finish();
}

/// Replaces every byte of every value by a percent triplet.
fn escaped(form: &str) -> String {
    let pairs = form.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        let value: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!("{name}={value}")
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// Returns the largest form within the limits: it has the maximum number of parameters, and its
/// last value fills the body up to the maximum size.
fn largest(limits: &LiveLimits, part: impl Fn(&str, &str) -> String, end: &str) -> String {
    let mut form = part("client_id", "demo-client");
    for index in 2..limits.form_parts {
        form += &part(&format!("parameter_{index}"), "a value of ordinary length");
    }
    let left = limits.body_bytes - form.len() - part("last", "").len() - end.len();
    form += &part("last", &"x".repeat(left));
    form + end
}
