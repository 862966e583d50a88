//! The protected API behind `auth_request`.

use serde_json::json;

use super::{Site, nginx_before_one_answer};
use crate::support::Request;
use crate::support::nginx::Nginx;

#[test]
fn the_protected_api_receives_the_client_and_scope() {
    let site = Site::start();
    let bearer = site.bearer_of("reporting");
    let request = Request::new("POST", "/reports/a?q=1").typed_body("text/plain", "a body");
    let request = request.header("X-Client-Id", "forged").header("X-Scope", "forged");
    let request = request.header("X-Request-Id", "asked.1");
    let answer =
        site.nginx.ask_host("api.example.com", &request.header("Authorization", bearer), &[]);
    let told = json!({ "method": "POST", "client": "reporting", "scope": "reports.read" });
    assert_eq!((answer.status, answer.json()), (200, told));
    let line = site.server.log.of_request("asked.1");
    assert_eq!((&line["route"], &line["client"]), (&json!("validate"), &json!("reporting")));
    let original = (&line["original_method"], &line["original_path"]);
    assert_eq!(original, (&json!("POST"), &json!("/reports/a")));
}

#[test]
fn the_protected_api_accepts_valid_tokens_only() {
    let site = Site::start();
    let ask = |bearer: Option<&str>| {
        let request = Request::get("/reports/a");
        let request = match bearer {
            Some(bearer) => request.header("Authorization", bearer),
            None => request,
        };
        site.nginx.ask_host("api.example.com", &request, &[])
    };
    let realm = "Bearer realm=\"grantd\"";
    let invalid = format!("{realm}, error=\"invalid_token\"");
    let scope = format!("{realm}, error=\"insufficient_scope\"");
    let [reporting, other, elsewhere] =
        ["reporting", "other", "one-audience"].map(|client| site.bearer_of(client));
    for (bearer, status, challenge) in [
        (None, 401, realm),
        (Some("Bearer a.b.c"), 401, &*invalid),
        (Some(&*elsewhere), 401, &invalid),
        (Some(&*other), 403, &scope),
    ] {
        let answer = ask(bearer);
        assert_eq!((answer.status, answer.header("www-authenticate")), (status, Some(challenge)));
        assert!(answer.json()["error"].is_string());
    }
    assert_eq!(ask(Some(&reporting)).status, 200);
    // Only nginx can use the internal location; a client gets a 404.
    let request = Request::get("/-/validate").header("Authorization", reporting);
    assert_eq!(site.nginx.ask_host("api.example.com", &request, &[]).status, 404);
}

/// grantd does not refuse a subrequest because of faults in the body or framing of the request to
/// the API.
#[test]
fn the_subrequest_to_grantd_ignores_the_body_of_the_request() {
    let site = Site::start();
    let bearer = site.bearer_of("reporting");
    let ask = |request: Request| {
        let request = request.header("Authorization", &*bearer).without_header("Host");
        let request = request.header("Host", "api.example.com").header("Connection", "close");
        let text = String::from_utf8(request.to_bytes()).unwrap();
        let answers = site.nginx.exchange("api.example.com", &text, &[]);
        // Takes the last answer: an earlier one may be 100 Continue.
        answers.last().unwrap().clone()
    };
    let upload = || Request::new("POST", "/reports/a").typed_body("text/plain", "a body");
    let many = (0..150).fold(upload(), |request, at| request.header(&format!("X-{at}"), "a"));
    for request in [
        upload().header("Content-Encoding", "gzip"),
        upload().header("Expect", "100-continue"),
        upload().header("DPoP", "a").header("DPoP", "b"),
        upload().header("X-Client-Cert", "a").header("X-Original-URI", "b"),
        Request::get(&format!("/reports/{}", "a".repeat(7000))),
        Request::get(&format!("/reports/a?{}", "a".repeat(7000))),
        many,
    ] {
        let answer = ask(request);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["client"], "reporting");
    }
    let text = format!(
        "POST /reports/a HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\
         Authorization: {bearer}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    );
    assert_eq!(site.nginx.exchange("api.example.com", &text, &[])[0].status, 200);
    // nginx refuses a request with two `Authorization` fields.
    let two = upload().header("Authorization", &*bearer);
    assert_eq!(ask(two).status, 400);
}

#[test]
fn the_subrequest_has_the_method_path_and_address_of_the_request() {
    let directory = tempfile::TempDir::new().unwrap();
    let (nginx, upstream) = nginx_before_one_answer(&directory.path().join("socket"));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = Request::new("PUT", "/reports/a%20b?secret=c")
        .typed_body("text/plain", "a body")
        .header("Authorization", "Bearer a.b.c")
        .header("Content-Encoding", "gzip")
        .header("X-Forwarded-For", "192.0.2.1")
        .header("X-Original-Method", "forged")
        .header("X-Request-Id", "one")
        .header("traceparent", trace);
    assert_eq!(nginx.ask_host("api.example.com", &request, &[]).status, 200);
    let head = upstream.join().unwrap();
    let mut lines: Vec<_> = head.lines().collect();
    let question =
        "GET /connect/validate?scope=reports.read&audience=https://api.example.com HTTP/1.1";
    assert_eq!(lines.remove(0), question);
    lines.sort_unstable();
    let expected = [
        "Authorization: Bearer a.b.c",
        "Host: api.example.com",
        "X-Client-Cert-Verify: NONE",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Original-Method: PUT",
        "X-Original-URI: /reports/a%20b",
        "X-Request-Id: one",
        &format!("traceparent: {trace}"),
    ];
    assert_eq!(lines, expected);
}

/// If the query that nginx's site file passes to grantd is malformed, the answer is a 500 and not a
/// 503, because a retry cannot succeed.
#[test]
fn a_malformed_query_of_the_site_is_a_500_and_not_a_503() {
    let site = Site::start();
    let bearer = site.bearer_of("reporting");
    let Site { server, nginx } = site;
    let needs = "scope=reports.read&audience=https://api.example.com";
    let asked = "grantd/connect/validate?$grantd_needs";
    let socket = server.home.path("grantd.sock");
    let request = Request::get("/reports/a").header("Authorization", bearer);
    for (from, to, status) in [
        (needs, "scope=reports.read&scope=other.read", 500),
        (needs, "scope=%zz", 500),
        (asked, "grantd/connect/validat?$grantd_needs", 500),
        (asked, "grantd/connect/token", 500),
        (needs, "scope=reports.read", 200),
    ] {
        let nginx = Nginx::edited(&socket, &[(from, to)]);
        let answer = nginx.ask_host("api.example.com", &request, &[]);
        assert_eq!(answer.status, status, "{to}: {}", answer.text());
        if status == 500 {
            assert_eq!(answer.json(), json!({ "error": "server_error" }));
            assert_eq!(answer.header("retry-after"), None);
        }
    }
    drop(server);
    let answer = nginx.ask_host("api.example.com", &request, &[]);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.json(), json!({ "error": "temporarily_unavailable" }));
}
