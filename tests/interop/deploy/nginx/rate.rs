//! Rate limits.

use super::{FIRSTVISION, Site, VISION};
use crate::support::nginx::Nginx;
use crate::support::{DEMO, Encoding, Request, TOKEN};

#[test]
fn requests_beyond_the_rate_are_refused_in_the_dialect_of_the_route() {
    let site = Site::start();
    let paths = [TOKEN, VISION, FIRSTVISION];
    let requests: String = (0..99)
        .map(|at| format!("TRY {} HTTP/1.1\r\nHost: auth.example.com\r\n\r\n", paths[at % 3]))
        .chain([format!("GET {TOKEN} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")])
        .collect();
    // nginx allows a burst of a hundred requests, and then fifty requests per second. Every machine
    // can send requests faster than that.
    let refused = (0..100).find_map(|_| {
        let answers = site.nginx.exchange("auth.example.com", &requests, &[]);
        let of = |path: usize| {
            let mut own = answers.iter().take(99).skip(path).step_by(3);
            own.find(|answer| answer.status == 429).cloned()
        };
        Some([of(0)?, of(1)?, of(2)?])
    });
    let [connect, vision, firstvision] = refused.expect("a limit");
    connect.assert_refused(429, "invalid_request");
    assert_eq!(vision.json()[0]["errorCode"], "240008");
    assert_eq!(vision.json()[0]["status"], 429);
    assert_eq!(firstvision.json()["errorCode"], "AGT429TMR");
    for answer in [connect, vision, firstvision] {
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    // Requests for the key set have no rate limit.
    assert_eq!(site.nginx.ask(&Request::get("/.well-known/jwks.json")).status, 200);
}

/// nginx matches decoded, normalised paths, but grantd reads raw paths, so the rate limit must
/// apply to the raw path.
#[test]
fn no_spelling_of_a_path_bypasses_the_rate_limit() {
    let directory = tempfile::TempDir::new().unwrap();
    // No grantd runs here, so nginx answers 503 to each request that passes the rate limit.
    let nginx = Nginx::before(&directory.path().join("socket"));
    let answers = |path: &str, connection: &str| -> Vec<u16> {
        let ask = |path: &str, connection: &str| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: auth.example.com\r\nConnection: {connection}\r\n\r\n"
            )
        };
        let text = ask(TOKEN, "keep-alive").repeat(150) + &ask(path, "keep-alive").repeat(30);
        let answers = nginx.exchange("auth.example.com", &(text + &ask(path, connection)), &[]);
        answers[150..].iter().map(|answer| answer.status).collect()
    };
    for path in [
        TOKEN,
        "/connect/token?a",
        "/connect/token#a",
        "//connect/token",
        "/connect/./token",
        "/connect/%74oken",
        "http://auth.example.com/connect/token",
        "http://auth.example.com/v1/getAccessToken/a",
        "/v2/api/oauth/token",
        FIRSTVISION,
        "/v1/getAccessToken",
        "/v1/getAccessToken/",
        "/v1/getAccessToken/x%2Fy",
        "/v1/getAccessToken/%2e%2e",
        "/v1/getAccessToken/..",
        "/v1/getAccessToken/..%2F..%2F.well-known%2Fjwks.json",
        "/v1/getAccessToken/%2e%2e%2f%2e%2e%2fconnect%2fvalidate",
        "/v1/getAccessToken/../../.well-known/jwks.json",
        "/v1/getAccessToken/x/../../../connect/introspect",
        // Routes that the operator may configure, and routes below the path of an issuer.
        "/api/connect/token",
        "/o/token/",
        "/tenant/connect/token",
        "/tenant/.well-known/jwks.json",
        "/connect/validate/..%2Ftoken",
        "/connect/validate/",
        "/connect/validat%65",
        "/.well-known/jwks.json/",
        "/.well-known/jwksXjson",
        "/CONNECT/validate",
    ] {
        let is_limited = (0..100).any(|_| answers(path, "close").contains(&429));
        assert!(is_limited, "{path} is not held to the rate");
    }
    for path in [
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration/jwks",
        "/.well-known/jwks.json?a",
        "http://auth.example.com/.well-known/jwks.json",
        "/connect/validate?scope=a",
        // These three paths have another rate limit, which is much higher.
        "/connect/introspect",
        "/connect/revocation",
        "/v1/api/oauth/validateToken",
    ] {
        let statuses = answers(path, "close");
        assert!(statuses.iter().all(|status| *status == 503), "{path}: {statuses:?}");
    }
}

/// IPv6 addresses share a rate limit if their first 64 bits are equal, because a provider gives
/// each customer a network of at least this size.
#[test]
fn an_ipv6_network_has_one_rate_limit() {
    let directory = tempfile::TempDir::new().unwrap();
    let edits = [
        ("map $remote_addr $grantd_network", "map $http_x_address $grantd_network"),
        ("default                         $remote_addr;", "default $http_x_address;"),
    ];
    let nginx = Nginx::edited(&directory.path().join("socket"), &edits);
    let refused = |address_of: &dyn Fn(usize) -> String| {
        let text: String = (0..400)
            .map(|at| {
                let (address, ends) =
                    (address_of(at), if at == 399 { "close" } else { "keep-alive" });
                format!(
                    "GET {TOKEN} HTTP/1.1\r\nHost: auth.example.com\r\nX-Address: {address}\r\n\
                     Connection: {ends}\r\n\r\n"
                )
            })
            .collect();
        let answers = nginx.exchange("auth.example.com", &text, &[]);
        answers.iter().any(|answer| answer.status == 429)
    };
    for one in [
        &(|at: usize| format!("2001:db8:1:2:{at:x}::1")) as &dyn Fn(usize) -> String,
        &|at| format!("2001:db8:1::{at:x}"),
        &|at| format!("2001:db8::{at:x}:1"),
        &|at| format!("2001:db9::1:2:{at:x}"),
        &|_| "192.0.2.1".to_owned(),
    ] {
        assert!((0..20).any(|_| refused(one)), "{}", one(1));
    }
    for many in [
        &(|at: usize| format!("2001:db8:3:{:x}::1", at + 1)) as &dyn Fn(usize) -> String,
        &|at: usize| format!("2001:db8:{:x}::1", at + 16),
        &|at| format!("192.0.{}.{}", at / 200, at % 200),
        &|at| format!("::ffff:198.51.{}.{}", at / 200, at % 200),
    ] {
        assert!(!refused(many), "{}", many(1));
    }
}

#[test]
fn introspection_and_revocation_have_a_higher_rate_limit() {
    let directory = tempfile::TempDir::new().unwrap();
    let nginx = Nginx::before(&directory.path().join("socket"));
    let refused = |path: &str| {
        let ask = |connection: &str| {
            format!(
                "POST {path} HTTP/1.1\r\nHost: auth.example.com\r\nConnection: {connection}\r\nContent-Length: 0\r\n\r\n"
            )
        };
        let text = ask("keep-alive").repeat(900) + &ask("close");
        let answers = nginx.exchange("auth.example.com", &text, &[]);
        answers.into_iter().find(|answer| answer.status == 429)
    };
    let first = |path: &str| (0..50).find_map(|_| refused(path)).expect("a limit");
    first("/connect/introspect").assert_refused(429, "invalid_request");
    first("/connect/revocation").assert_refused(429, "invalid_request");
    assert_eq!(first("/v1/api/oauth/validateToken").json()[0]["status"], 429);
    // Token requests have another rate limit, which the requests above have not used up.
    assert_eq!(nginx.ask(&Request::token(Encoding::Urlencoded, &DEMO)).status, 503);
}
