//! How long does it take to read a form?
//!
//! Both encodings, with the same request, the same request with everything escaped that may be, and
//! the largest form that the default limits let through.

#![expect(clippy::unwrap_used, reason = "a bench that fails has nobody to answer")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use grantd::config::LiveLimits;
use grantd::internal::form::media_type::MediaType;
use grantd::internal::form::multipart::Parts;
use grantd::internal::form::urlencoded;
use request::{MULTIPART, URLENCODED};

#[path = "support/request.rs"]
mod request;

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

/// From the `Content-Type` on, since the boundary has to be found too.
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

/// Every letter of every value as a triplet.
fn escaped(form: &str) -> String {
    let pairs = form.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        let value: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!("{name}={value}")
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// As many parameters as are allowed, the last of them so long that no byte more fits.
fn largest(limits: &LiveLimits, part: impl Fn(&str, &str) -> String, end: &str) -> String {
    let mut form = part("client_id", "demo-client");
    for index in 2..limits.form_parts {
        form += &part(&format!("parameter_{index}"), "a value of ordinary length");
    }
    let left = limits.body_bytes - form.len() - part("last", "").len() - end.len();
    form += &part("last", &"x".repeat(left));
    form + end
}
