//! Refusals by grantd and by nginx itself.

use serde_json::json;

use super::{FIRSTVISION, HSTS, Site, VISION, firstvision, vision};
use crate::support::{DEMO, Encoding, Request, Response, TOKEN};

/// nginx passes on grantd's refusals with their status, body and header fields.
#[test]
fn grantds_refusals_pass_unchanged() {
    let Site { server, nginx } = Site::start();
    let big = "a".repeat(17 * 1024);
    let wrong = |path: &str| Request::new("POST", path).typed_body("text/plain", "a");
    let large = |path: &str| {
        let method = if path == FIRSTVISION { "GET" } else { "POST" };
        Request::new(method, path).typed_body("application/json", &*big)
    };
    let long =
        |path: &str| Request::get(path).header("A", "a".repeat(9000)).header("B", "b".repeat(9000));
    let mut requests = vec![
        (400, Request::token(Encoding::Multipart, &[("client_id", "demo-client")])),
        (401, Request::token(Encoding::Urlencoded, &DEMO[2..]).basic("demo-client:wrong")),
        (401, firstvision("/v1/getAccessToken/none")),
        (401, Request::get("/connect/validate").header("Authorization", "Bearer a.b.c")),
        (404, Request::get("/connect/nothing")),
        (404, Request::get("/v1/api/nothing")),
        (404, Request::get("/v1/getAccessToken/a/b")),
        (405, Request::get(TOKEN)),
        (405, Request::new("DELETE", VISION)),
        (415, firstvision(FIRSTVISION).without_header("Content-Type")),
        (415, wrong(TOKEN)),
        (415, wrong(VISION)),
    ];
    for path in [TOKEN, VISION, FIRSTVISION] {
        requests.push((431, long(path)));
        requests.push((413, large(path)));
    }
    for (status, request) in requests {
        let request = request.header("X-Request-Id", "one");
        let [direct, through] = [server.ask(&request), nginx.ask(&request)].map(bare);
        assert_eq!(direct.0, status, "{direct:?}");
        assert_eq!(through, direct);
    }
}

/// Returns an answer without the fields that depend on the connection, the time or nginx.
fn bare(answer: Response) -> (u16, Vec<(String, String)>, String) {
    let text = answer.text().to_owned();
    let mut headers = answer.headers;
    headers.retain(|(name, _)| !["date", "server", "connection", HSTS].contains(&name.as_str()));
    headers.sort();
    (answer.status, headers, text)
}

/// nginx's own refusals have the format of grantd's refusals. For a status for which grantd always
/// sends the same body, nginx sends exactly that body.
#[test]
fn nginxs_refusals_are_in_the_dialect_of_the_route() {
    let Site { server, nginx } = Site::start();
    let larger = |path: &str, size: usize| {
        let method = if path == FIRSTVISION { "GET" } else { "POST" };
        Request::new(method, path).typed_body("application/json", "a".repeat(size))
    };
    let longer = |path: &str, size: usize| Request::get(path).header("A", "a".repeat(size));
    for path in [VISION, FIRSTVISION] {
        for (status, over_grantds, over_nginxs) in [
            (413, larger(path, 17 * 1024), larger(path, 33 * 1024)),
            (431, longer(path, 16_380), longer(path, 17_000)),
        ] {
            let [ours, theirs] = [server.ask(&over_grantds), nginx.ask(&over_nginxs)];
            assert_eq!((theirs.status, theirs.text()), (status, ours.text()), "{path}");
            assert_eq!(ours.status, status);
        }
    }
    for (status, request) in [
        (413, larger(TOKEN, 33 * 1024)),
        (431, longer(TOKEN, 17_000)),
        (431, Request::get(&format!("{TOKEN}?{}", "a".repeat(17_000)))),
        (404, Request::get("/-/error")),
        (405, Request::new("TRACE", TOKEN)),
        (400, Request::new("POST", TOKEN).header("Content-Length", "-1")),
        (400, Request::new("POST", TOKEN).header("Transfer-Encoding", "gzip")),
    ] {
        let answer = nginx.ask(&request);
        answer.assert_refused(status, "invalid_request");
        assert_eq!(answer.text(), r#"{"error":"invalid_request"}"#);
    }
    assert!(server.metrics().contains("grantd_connections"), "it has outlived all this");
}

/// The body of a refusal by nginx is valid JSON for every path.
#[test]
fn a_refusal_does_not_echo_the_path() {
    let site = Site::start();
    for path in ["/v1/api/\"", "/v1/api/\\", "/v1/api/{}", "/v1/api/%22", "/v1/api/a?b=\""] {
        let request = Request::new("POST", path).typed_body("a/b", "a".repeat(33 * 1024));
        let answer = site.nginx.ask(&request);
        assert_eq!(answer.status, 413);
        let told = answer.json();
        let instance = told.get(0).map(|error| error["instance"].clone());
        assert!([None, Some(json!("/v1/api/%22")), Some(json!("/v1/api/a"))].contains(&instance));
    }
}

#[test]
fn without_grantd_nginx_answers_503_in_the_dialect_of_the_route() {
    let Site { server, nginx } = Site::start();
    drop(server);
    for (request, body) in [
        (
            Request::token(Encoding::Urlencoded, &DEMO),
            json!({ "error": "temporarily_unavailable" }),
        ),
        (
            firstvision(FIRSTVISION),
            json!({ "errorCode": "AGT503SU", "errorMessage": "Service is unavailable" }),
        ),
        (
            vision(),
            json!([{
                "detail": "Please refer to invalid-params for error details",
                "errorCode": "250301", "instance": VISION,
                "invalid-params": ["Service is unavailable"], "source": "AGT",
                "status": 503, "title": "Service Unavailable",
            }]),
        ),
    ] {
        let answer = nginx.ask(&request);
        assert_eq!((answer.status, answer.text()), (503, &*body.to_string()));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.header("x-request-id").is_some_and(|id| id.len() == 32), "{answer:?}");
    }
    let request = Request::get("/reports/a").header("Authorization", "Bearer a.b.c");
    let answer = nginx.ask_host("api.example.com", &request, &[]);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
}
