//! The admin listener.

mod gate;

use grantd::clock::Clock;

use crate::support::home::{SIGNER, signing_key};
use crate::support::{DEMO, ENCODINGS, Home, Program, Request, Token, demo_without};

fn series(outcome: &str, cause: &str, route: &str) -> String {
    format!(r#"grantd_requests_total{{cause="{cause}",outcome="{outcome}",route="{route}"}}"#)
}

#[test]
fn a_serving_process_is_alive_and_ready() {
    let server = Program::shared();
    for path in ["/livez", "/readyz"] {
        let answer = Request::get(path).send(server.admin);
        assert_eq!((answer.status, answer.text()), (200, "ok\n"));
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let head = Request::new("HEAD", path).send(server.admin);
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
}

const ROUTES: &str =
    "here are /livez, /readyz, /metrics, /keys, /clients/{id} and /explain/{request-id}\n";

#[test]
fn other_paths_are_not_found_and_other_methods_not_allowed() {
    let server = Program::shared();
    for path in [
        "/",
        "/connect/token",
        "/.well-known/openid-configuration",
        "/livez/",
        "/clients",
        "/keys/",
        "/clients/%zz",
    ] {
        let answer = Request::get(path).send(server.admin);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.text(), ROUTES);
    }
    for path in ["/livez", "/metrics", "/connect/token"] {
        let answer = Request::new("POST", path).body("x").send(server.admin);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
    }
}

#[test]
fn the_public_listener_serves_no_admin_path() {
    let server = Program::shared();
    for path in ["/livez", "/readyz", "/metrics", "/keys", "/explain/x"] {
        server.ask(&Request::get(path)).assert_refused(404, "invalid_request");
    }
}

#[test]
fn tokens_and_refusals_are_counted_by_cause() {
    let server = Program::start(Home::new(), &[]);
    let count =
        |outcome: &str, cause: &str, route: &str| server.metric(&series(outcome, cause, route));
    let wrong = [demo_without(&["client_secret"]), vec![("client_secret", "wrong")]].concat();
    let unknown = [demo_without(&["client_id"]), vec![("client_id", "unknown")]].concat();
    for (round, encoding) in (1..).zip(ENCODINGS) {
        assert_eq!(server.ask(&Request::token(encoding, &DEMO)).status, 200);
        assert_eq!(count("issued", "", "token"), round);
        for (parameters, cause) in [
            (&wrong, "wrong_secret"),
            (&unknown, "unknown_client"),
            (&demo_without(&["grant_type"]), "grant_type_missing"),
        ] {
            assert_eq!(server.ask(&Request::token(encoding, parameters)).status, 400);
            assert_eq!(count("refused", cause, "token"), round, "{cause}");
        }
        assert_eq!(server.ask(&Request::get("/nothing")).status, 404);
        assert_eq!(count("refused", "not_found", "unknown"), round);
        assert_eq!(server.ask(&Request::get("/.well-known/jwks.json")).status, 200);
        assert_eq!(count("served", "", "jwks"), round);
    }
    assert_eq!(server.metric(r#"grantd_request_seconds_count{route="token"}"#), 8);
}

#[test]
fn metrics_are_in_the_prometheus_text_format() {
    let server = Program::shared();
    let answer = Request::get("/metrics").send(server.admin);
    assert_eq!(answer.status, 200);
    let format = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(answer.header("content-type"), Some(format));
    for line in answer.text().lines() {
        let value = line.rsplit_once(' ').map(|(_, value)| value.parse::<f64>());
        assert!(line.starts_with("# ") || value.is_some_and(|value| value.is_ok()), "{line}");
    }
    for metric in [
        "grantd_clients",
        "grantd_connections",
        "grantd_signing_queue",
        "grantd_log_lines_lost_total",
    ] {
        assert!(answer.text().contains(&format!("# HELP {metric} ")), "{metric}");
    }
    let registered = crate::support::registry::registry().matches("\"client_id\"").count();
    assert_eq!(server.metric("grantd_clients "), registered as u64);
    let open = server.metric("grantd_signing_queue_open ");
    assert!((128..=512).contains(&open), "{open} of 512");
}

#[test]
fn on_a_clock_before_every_key_the_earliest_signs_and_the_server_is_ready() {
    let home = Home::without_key();
    let (name, pem) = signing_key();
    let far = 4_102_444_800_u64;
    home.write_key(name, &format!("Published-At: {far}\nSigns-From: {far}\n{pem}"));
    let server = Program::start(home, &[]);

    let answer = Request::get("/readyz").send(server.admin);
    assert_eq!((answer.status, answer.text()), (200, "ok\n"));
    for encoding in ENCODINGS {
        let answer = server.ask(&Request::token(encoding, &DEMO));
        let token = Token::verified(&answer, server.address);
        assert_eq!(token.header["kid"], name.trim_end_matches(".pem"));
    }
    assert_eq!(server.issued(), 2);
    let keys = Request::get("/keys").send(server.admin).json();
    assert_eq!(keys[0]["state"], "signing");
}

#[test]
fn the_signer_in_use_is_a_metric() {
    let signer_of = |arguments: &[&str]| {
        let server = Program::start(Home::new(), arguments);
        let metrics = server.metrics();
        let name = metrics.lines().find_map(|line| {
            line.strip_prefix("grantd_signer_info{signer=\"")?.strip_suffix("\"} 1")
        });
        assert_eq!(server.metric("grantd_signing_faults_total "), 0);
        name.expect("a signer").to_owned()
    };
    assert_eq!(signer_of(&["--signer", "ring"]), "ring");
    assert_eq!(signer_of(&["--signer", "aws-lc"]), "aws-lc");

    let chosen = signer_of(&[]);
    match std::env::var(SIGNER) {
        Ok(masked) => assert_eq!(chosen, masked),
        Err(_) => {
            #[cfg(target_arch = "x86_64")]
            let able =
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma");
            #[cfg(not(target_arch = "x86_64"))]
            let able = false;
            assert_eq!(chosen.starts_with("batch, "), able, "{chosen}");
            assert!(["ring", "aws-lc"].iter().any(|single| chosen.ends_with(single)), "{chosen}");
        }
    }
}

#[test]
fn the_version_is_in_the_log_and_in_the_metrics() {
    let server = Program::shared();
    let version = env!("CARGO_PKG_VERSION");
    let line = server.log.wait_for(|line| line["message"] == "serving");
    assert_eq!(line["version"], version);
    assert_eq!(server.metric(&format!("grantd_build_info{{version=\"{version}\"}}")), 1);
}

/// The metric has no label with the client's id: with a million clients, such a label would create
/// a million series.
#[test]
fn clients_whose_last_secret_ends_soon_are_counted() {
    use crate::support::home::{hash_of, secret_of};
    use serde_json::json;
    let now = Clock::unix_micros() / 1_000_000;
    let day = 86_400;
    let secret = |label: &str, end: u64| json!({ "label": label, "hash": hash_of(&secret_of(label)), "expires_at": end });
    let clients = json!({ "clients": [
        { "client_id": "ended", "secrets": [secret("a", now - day)] },
        { "client_id": "today", "secrets": [secret("a", now + day / 2)] },
        { "client_id": "week", "secrets": [secret("a", now + 6 * day)] },
        { "client_id": "rotated", "secrets": [secret("a", now + day / 2), secret("b", now + 20 * day)] },
        { "client_id": "disabled", "secrets": [secret("a", now + day)], "enabled": false },
        { "client_id": "for-ever", "secrets": [{ "label": "a", "hash": hash_of(&secret_of("c")) }] },
    ] });
    let home = Home::new();
    home.write("clients.json", &clients.to_string());
    let server = Program::start(home, &[]);
    let expiring =
        |within: &str| server.metric(&format!("grantd_clients_expiring{{within=\"{within}\"}}"));
    assert_eq!(["1d", "7d", "30d"].map(expiring), [2, 3, 4]);
    assert!(!server.metrics().contains("rotated"));
}
