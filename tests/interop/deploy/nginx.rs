//! The site files in a real nginx, in front of a server with the shipped configuration.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::deploy::configure;
use crate::support::command::succeed;
use crate::support::form::percent_encode;
use crate::support::home::secret_of;
use crate::support::http::find;
use crate::support::nginx::Nginx;
use crate::support::registry::{client_json, client_without_secret, registry_with};
use crate::support::sibling::USER;
use crate::support::{
    Connection, DEMO, ENCODINGS, Encoding, Home, Program, Request, Response, TOKEN, Token,
    demo_with, request_of,
};

const ISSUER: &str = "https://auth.example.com";
const VISION: &str = "/v1/api/oauth/token";
const FIRSTVISION: &str = "/v1/getAccessToken/all";

struct Site {
    server: Program,
    nginx: Nginx,
}

impl Site {
    fn start() -> Self {
        Self::trusting(&[])
    }

    /// With these client certificates among the trusted authorities.
    fn trusting(clients: &[&str]) -> Self {
        let home = Home::new();
        configure(&home);
        let socket = home.path("grantd.sock");
        let nginx = Nginx::trusting(&socket, clients);
        home.write("clients.json", &registry(&nginx));
        // A TCP port beside the socket, for answers without nginx.
        let listen = format!("unix:{}", socket.display());
        let arguments = ["--config", "grantd.toml", "--listen", &listen, "--allow-demo-clients"];
        let server = Program::start(home, &arguments);
        Self { server, nginx }
    }

    fn bearer_of(&self, client: &str) -> String {
        let secret = secret_of(client);
        let request = Request::token(Encoding::Urlencoded, &request_of(client, &secret, &[]));
        format!("Bearer {}", token_of(&self.nginx.ask(&request)))
    }
}

/// Two clients of the protected API, and three with a certificate: known by its name, known by its
/// key, and only for bound tokens.
fn registry(nginx: &Nginx) -> String {
    let of_api = |id: &str, scope: &str| {
        let audience = ["https://api.example.com"];
        let members = json!({ "scopes": [scope], "default_scopes": [scope], "audience": audience });
        client_json(id, &members)
    };
    registry_with(&[
        of_api("reporting", "reports.read"),
        of_api("other", "other.read"),
        client_without_secret(
            "certified",
            &json!({
                "auth_methods": ["tls_client_auth"],
                "tls_client_auth_san_dns": "client.example",
                "tls_client_certificate_bound_access_tokens": true,
            }),
        ),
        client_without_secret(
            "self-signed",
            &json!({
                "auth_methods": ["self_signed_tls_client_auth"],
                "jwks": { "keys": [public_key(&nginx.file("grantd/self-signed.key"))] },
                "tls_client_certificate_bound_access_tokens": true,
            }),
        ),
        client_json("bound", &json!({ "tls_client_certificate_bound_access_tokens": true })),
    ])
}

/// A P-256 key as a JWK: openssl's output ends with the coordinates.
fn public_key(private: &Path) -> Value {
    let mut openssl = Command::new("openssl");
    openssl.args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(private);
    let written = openssl.output().unwrap().stdout;
    let (x, y) = written[written.len() - 64..].split_at(32);
    let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
    json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })
}

fn token_of(answer: &Response) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

fn vision() -> Request {
    let (id, secret) = USER;
    let body = json!({ "grant_type": "client_credentials", "scope": "all",
                       "client_id": id, "client_secret": secret });
    Request::new("POST", VISION).typed_body("application/json", body.to_string())
}

fn firstvision(target: &str) -> Request {
    let (id, secret) = USER;
    let request = Request::get(target).header("Content-Type", "application/json");
    request.basic(&format!("{id}:{secret}"))
}

#[test]
fn every_service_issues_a_token_through_tls() {
    let site = Site::start();
    for encoding in ENCODINGS {
        let answer = site.nginx.ask(&Request::token(encoding, &DEMO));
        let line = site.server.log.of_request(answer.header("x-request-id").unwrap());
        assert_eq!((&line["peer"], &line["address"]), (&json!("unix"), &json!("127.0.0.1")));
        let token = Token::verified(&answer, site.server.address);
        assert_eq!(token.claims["iss"], ISSUER);
        assert_eq!(token.claims["aud"], ISSUER);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let with_body = firstvision("/v1/getAccessToken").body("{scope: [\"all\"]}");
    for request in [vision(), firstvision(FIRSTVISION), with_body] {
        let token = Token::verified(&site.nginx.ask(&request), site.server.address);
        assert_eq!(token.claims["client_id"], USER.0);
    }
}

#[test]
fn metadata_and_keys_have_the_public_issuer() {
    let Site { server, nginx } = Site::start();
    for path in [
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration/jwks",
        "/.well-known/jwks.json",
    ] {
        let request = Request::get(path);
        let answer = nginx.ask(&request);
        assert_eq!((answer.status, &answer.body), (200, &server.ask(&request).body), "{path}");
        let tag = answer.header("etag").expect("a tag").to_owned();
        assert_eq!(nginx.ask(&request.header("If-None-Match", tag)).status, 304, "{path}");
    }
    let metadata = nginx.ask(&Request::get("/.well-known/openid-configuration")).json();
    assert_eq!(metadata["issuer"], ISSUER);
    assert_eq!(metadata["token_endpoint"], format!("{ISSUER}{TOKEN}"));
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
}

/// A secret sent without TLS must not work.
#[test]
fn without_tls_only_acme_challenges_are_answered() {
    let Site { server, nginx } = Site::start();
    std::fs::create_dir_all(nginx.file("html/.well-known/acme-challenge")).unwrap();
    std::fs::write(nginx.file("html/.well-known/acme-challenge/a"), "proof").unwrap();
    std::fs::write(nginx.file("html/index.html"), "a site").unwrap();
    let ask = |request: &Request| Connection::open(nginx.plain).ask(request);
    let token = Request::token(Encoding::Urlencoded, &DEMO);
    let mut refused = vec![ask(&token), ask(&Request::get("/.well-known/jwks.json"))];
    for target in [
        "/connect/token?a=b",
        "http://auth.example.com/connect/token",
        "/.well-known/acme-challenge/../../connect/token",
        "/.well-known/acme-challenge/%2e%2e/%2e%2e/connect/token",
    ] {
        refused.push(ask(&token.clone().with_target(target)));
    }
    refused.push(ask(&Request::get("/index.html")));
    for answer in refused {
        answer.assert_refused(404, "invalid_request");
        assert_eq!((answer.header("location"), answer.header(HSTS)), (None, None));
    }
    assert_eq!(ask(&vision()).json()[0]["errorCode"], "240008");
    assert_eq!(ask(&firstvision(FIRSTVISION)).json()["errorCode"], "AGT404NF");
    let challenge = ask(&Request::get("/.well-known/acme-challenge/a"));
    assert_eq!((challenge.status, challenge.text()), (200, "proof"));
    assert_eq!(ask(&Request::get("/.well-known/acme-challenge/b")).status, 404);
    assert_eq!(server.metric("grantd_requests_total"), 0);
}

const HSTS: &str = "strict-transport-security";

#[test]
fn every_answer_through_tls_has_hsts() {
    let Site { server, nginx } = Site::start();
    let api = |path: &str| nginx.ask_host("api.example.com", &Request::get(path), &[]);
    let mut answers = vec![
        (200, nginx.ask(&Request::token(Encoding::Urlencoded, &DEMO))),
        (400, nginx.ask(&Request::token(Encoding::Urlencoded, &[("a", "b")]))),
        (404, nginx.ask(&Request::get("/connect/nothing"))),
        (404, nginx.ask(&Request::get("/-/error"))),
        (405, nginx.ask(&Request::new("TRACE", TOKEN))),
        (413, nginx.ask(&Request::new("POST", TOKEN).body("a".repeat(33 * 1024)))),
        (401, api("/reports/a")),
        (404, api("/")),
    ];
    drop(server);
    answers.push((503, nginx.ask(&Request::get("/.well-known/jwks.json"))));
    answers.push((503, api("/reports/a")));
    for (status, answer) in answers {
        assert_eq!((answer.status, answer.header(HSTS)), (status, Some("max-age=31536000")));
    }
}

#[test]
fn a_token_is_issued_through_http_2() {
    let Site { server, nginx } = Site::start();
    let port = nginx.port;
    for version in ["--http2", "--http1.1"] {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body", version, "--cacert"]);
        curl.arg(nginx.certificate());
        curl.args(["--resolve", &format!("auth.example.com:{port}:127.0.0.1")]);
        for (name, value) in DEMO {
            curl.args(["--data-urlencode", &format!("{name}={value}")]);
        }
        curl.args(["--write-out", "\n%{http_version}"]);
        curl.arg(format!("https://auth.example.com:{port}{TOKEN}"));
        let printed = succeed(&mut curl);
        let (body, spoken) = printed.rsplit_once('\n').unwrap();
        assert_eq!(spoken, if version == "--http2" { "2" } else { "1.1" });
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["token_type"], "Bearer");
    }
    assert_eq!(server.issued(), 2);
}

/// On a connection to another name nginx has not asked for a client certificate. A client that
/// shares connections opens a new one on 421 (RFC 9110, section 15.5.20).
#[test]
fn a_connection_for_another_name_is_misdirected() {
    let site = Site::start();
    let text = "GET /connect/token HTTP/1.1\r\nHost: auth.example.com\r\nConnection: close\r\n\r\n";
    let answers = site.nginx.exchange("api.example.com", text, &[]);
    assert_eq!((answers.len(), answers[0].status), (1, 421));
}

/// Status, body and every header of grantd's refusals reach the client as without nginx.
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

/// An answer without the fields that depend on the connection and the time.
fn bare(answer: Response) -> (u16, Vec<(String, String)>, String) {
    let text = answer.text().to_owned();
    let mut headers = answer.headers;
    headers.retain(|(name, _)| !["date", "server", "connection", HSTS].contains(&name.as_str()));
    headers.sort();
    (answer.status, headers, text)
}

/// nginx's own refusals have the form of grantd's; where the text follows from the code, byte for
/// byte.
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

/// The body is valid JSON for every path.
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

/// The answer, grantd's log and nginx's log have the same id, and nginx's log has no query.
#[test]
fn a_request_has_one_id_everywhere() {
    let Site { server, nginx } = Site::start();
    let query = "/connect/token?client_secret=hunter2";
    let bad = Request::new("POST", query).header("X-Request-Id", "a b");
    let [given, made, replaced] = [
        nginx.ask(&Request::token(Encoding::Multipart, &DEMO).header("X-Request-Id", "mine.1")),
        nginx.ask(&Request::token(Encoding::Multipart, &DEMO)),
        nginx.ask(&bad),
    ]
    .map(|answer| answer.header("x-request-id").unwrap().to_owned());
    assert_eq!(given, "mine.1");
    let is_hexadecimal = |id: &str| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(is_hexadecimal(&made) && is_hexadecimal(&replaced), "{made} {replaced}");
    let ids = [given, made, replaced];
    for id in &ids {
        assert_eq!(server.log.of_request(id)["route"], "token");
    }
    let log = nginx.into_log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let logged: Vec<_> = lines.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
    assert_eq!(logged, ids.each_ref());
    assert!(lines.iter().all(|line| line["path"] == TOKEN), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn only_a_certificate_from_the_handshake_counts() {
    let Site { server, nginx } = Site::start();
    let pem = std::fs::read(nginx.file("grantd/client.pem")).unwrap();
    let escaped = percent_encode(&pem).replace('+', "%20");
    for encoding in ENCODINGS {
        let request = of_certified("certified", encoding);
        let forged = request.clone().header("X-Client-Cert-Verify", "SUCCESS");
        let forged = forged.header("X-Client-Cert", escaped.clone());
        for request in [&request, &forged] {
            nginx.ask(request).assert_refused(400, "invalid_client");
            nginx.ask_as("stranger", request).assert_refused(400, "invalid_client");
        }
        assert_bound(&nginx.ask_as("client", &request), &server);
    }
}

/// A request by a client that authenticates with its certificate only.
fn of_certified(client: &str, encoding: Encoding) -> Request {
    Request::token(encoding, &[("grant_type", "client_credentials"), ("client_id", client)])
}

#[track_caller]
fn assert_bound(answer: &Response, server: &Program) {
    let token = Token::verified(answer, server.address);
    assert!(token.claims["cnf"]["x5t#S256"].is_string(), "{:?}", token.claims);
}

/// A certificate with openssl's default extensions is an authority. Names in certificates that its
/// owner signs must not count, and it need not be among the authorities.
#[test]
fn a_self_signed_certificate_authenticates_its_own_client_only() {
    let Site { server, nginx } = Site::start();
    let chain = nginx.file("grantd/self-signed.pem");
    let [alone, with_chain] = [&[][..], &["-cert_chain", chain.to_str().unwrap()]];
    let secret = secret_of("bound");
    for version in ["-tls1_2", "-tls1_3"] {
        for encoding in ENCODINGS {
            let ask = |certificate: &str, client: &str, more: &[&str]| {
                let request = of_certified(client, encoding);
                nginx.ask_with(certificate, &request, &[&[version], more].concat())
            };
            assert_bound(&ask("client", "certified", alone), &server);
            assert_bound(&ask("self-signed", "self-signed", alone), &server);
            assert_bound(&ask("self-signed", "self-signed", with_chain), &server);
            let bound = Request::token(encoding, &request_of("bound", &secret, &[]));
            assert_bound(&nginx.ask_with("client", &bound, &[version]), &server);
            for (certificate, more) in [
                ("forged", alone),
                ("forged", with_chain),
                ("self-signed", alone),
                ("stranger", alone),
            ] {
                ask(certificate, "certified", more).assert_refused(400, "invalid_client");
                if certificate != "self-signed" {
                    ask(certificate, "self-signed", more).assert_refused(400, "invalid_client");
                }
                let more = [&[version], more].concat();
                let answer = nginx.ask_with(certificate, &bound, &more);
                answer.assert_refused(400, "invalid_request");
            }
        }
    }
    assert_eq!(server.metric("grantd_self_signed_certificates_total"), 0);
}

/// A session keeps what its first handshake has verified.
#[test]
fn a_resumed_session_keeps_the_verdict_of_its_first_handshake() {
    let Site { server, nginx } = Site::start();
    let session = nginx.file("session");
    let session = session.to_str().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        for (certificate, client, is_in) in [
            ("client", "certified", true),
            ("self-signed", "self-signed", true),
            ("forged", "certified", false),
            ("self-signed", "certified", false),
        ] {
            let request = of_certified(client, Encoding::Urlencoded);
            for resume in ["-sess_out", "-sess_in"] {
                let answer = nginx.ask_with(certificate, &request, &[version, resume, session]);
                if is_in {
                    assert_bound(&answer, &server);
                } else {
                    answer.assert_refused(400, "invalid_client");
                }
            }
        }
    }
}

/// A client certificate among the authorities still works, with a warning.
#[test]
fn a_client_certificate_among_the_authorities_works_with_a_warning() {
    let Site { server, nginx } = Site::trusting(&["self-signed"]);
    for encoding in ENCODINGS {
        for version in ["-tls1_2", "-tls1_3"] {
            let request = of_certified("self-signed", encoding);
            assert_bound(&nginx.ask_with("self-signed", &request, &[version]), &server);
            let request = of_certified("certified", encoding);
            assert_bound(&nginx.ask_with("client", &request, &[version]), &server);
        }
    }
    assert_eq!(server.metric("grantd_self_signed_certificates_total"), 4);
    let line = server.log.wait_for(|line| line["subject"] == "CN=self-signed");
    assert_eq!(line["level"], "WARN");
}

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
    // Only nginx can reach the internal location.
    let request = Request::get("/-/validate").header("Authorization", reporting);
    assert_eq!(site.nginx.ask_host("api.example.com", &request, &[]).status, 404);
}

/// Faults in the body or framing of the API's request are not refused by grantd.
#[test]
fn the_subrequest_to_grantd_ignores_the_body_of_the_request() {
    let site = Site::start();
    let bearer = site.bearer_of("reporting");
    let ask = |request: Request| {
        let request = request.header("Authorization", &*bearer).without_header("Host");
        let request = request.header("Host", "api.example.com").header("Connection", "close");
        let text = String::from_utf8(request.to_bytes()).unwrap();
        let answers = site.nginx.exchange("api.example.com", &text, &[]);
        // The last answer: an earlier one may be 100 Continue.
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
    // Two Authorization fields are refused: nginx does not choose.
    let two = upload().header("Authorization", &*bearer);
    assert_eq!(ask(two).status, 400);
}

#[test]
fn the_subrequest_has_the_method_path_and_address_of_the_request() {
    let directory = tempfile::TempDir::new().unwrap();
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let nginx = Nginx::before(&socket);
    let upstream = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let head = read_head(&mut connection);
        connection.write_all(ANSWER).unwrap();
        head
    });
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

/// A malformed query of the site is not reported as temporarily unavailable.
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

#[test]
fn requests_beyond_the_rate_are_refused_in_the_dialect_of_the_route() {
    let site = Site::start();
    let paths = [TOKEN, VISION, FIRSTVISION];
    let requests: String = (0..99)
        .map(|at| format!("TRY {} HTTP/1.1\r\nHost: auth.example.com\r\n\r\n", paths[at % 3]))
        .chain([format!("GET {TOKEN} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")])
        .collect();
    // A burst of a hundred, then fifty a second: every machine is faster.
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
    // Key sets have no limit.
    assert_eq!(site.nginx.ask(&Request::get("/.well-known/jwks.json")).status, 200);
}

/// nginx sees decoded, normalised paths and grantd raw ones: the rate limit must use the raw path.
#[test]
fn no_spelling_of_a_path_bypasses_the_rate_limit() {
    let directory = tempfile::TempDir::new().unwrap();
    // There is no grantd: requests that pass the limit are refused at once.
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
        // Routes that the operator configures, and routes below an issuer's path.
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
        // These have another, much higher limit.
        "/connect/introspect",
        "/connect/revocation",
        "/v1/api/oauth/validateToken",
    ] {
        let statuses = answers(path, "close");
        assert!(statuses.iter().all(|status| *status == 503), "{path}: {statuses:?}");
    }
}

/// All addresses of one provider's customer share their first 64 bits.
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
    // It is not the budget of token requests.
    assert_eq!(nginx.ask(&Request::token(Encoding::Urlencoded, &DEMO)).status, 503);
}

/// Headers that state facts about the connection come from nginx and not from the client.
#[test]
fn a_client_cannot_forge_the_headers_of_the_proxy() {
    let directory = tempfile::TempDir::new().unwrap();
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let nginx = Nginx::before(&socket);
    let upstream = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let head = read_head(&mut connection);
        connection.write_all(ANSWER).unwrap();
        head
    });
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = Request::get("/connect/validate?scope=a%20b")
        .header("X-Forwarded-For", "192.0.2.1")
        .header("X-Forwarded-Proto", "gopher")
        .header("X-Client-Cert-Verify", "SUCCESS")
        .header("X-Client-Cert", "forged")
        .header("Upgrade", "h2c")
        .header("traceparent", trace);
    assert_eq!(nginx.ask(&request).status, 200);
    let head = upstream.join().unwrap();
    let mut lines: Vec<_> =
        head.lines().filter(|line| !line.starts_with("X-Request-Id: ")).collect();
    assert_eq!(lines.remove(0), "GET /connect/validate?scope=a%20b HTTP/1.1");
    lines.sort_unstable();
    let expected = [
        "Host: auth.example.com",
        "X-Client-Cert-Verify: NONE",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: https",
        &format!("traceparent: {trace}"),
    ];
    assert_eq!(lines, expected);
}

/// A request on a kept-alive connection that grantd has just closed does not fail.
#[test]
fn a_request_on_a_closed_upstream_connection_is_retried() {
    let directory = tempfile::TempDir::new().unwrap();
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let nginx = Nginx::before(&socket);
    let upstream = thread::spawn(move || {
        let (mut kept, _) = listener.accept().unwrap();
        read_head(&mut kept);
        kept.write_all(ANSWER).unwrap();
        let unanswered = read_head(&mut kept);
        drop(kept);
        let (mut next, _) = listener.accept().unwrap();
        let again = read_head(&mut next);
        next.write_all(ANSWER).unwrap();
        (unanswered, again)
    });
    let request = Request::token(Encoding::Urlencoded, &demo_with(&[("scope", "external-api")]));
    assert_eq!(nginx.ask(&Request::get("/")).status, 200);
    assert_eq!(nginx.ask(&request).status, 200);
    let (unanswered, again) = upstream.join().unwrap();
    assert!(unanswered.starts_with("POST /connect/token "), "{unanswered}");
    assert_eq!(again, unanswered);
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// The head of one request; a short body comes with it.
fn read_head(connection: &mut UnixStream) -> String {
    connection.set_read_timeout(Some(crate::support::GUARD)).unwrap();
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            bytes.truncate(end);
            return String::from_utf8(bytes).unwrap();
        }
        let mut chunk = [0; 4096];
        let length = connection.read(&mut chunk).unwrap();
        assert_ne!(length, 0, "nginx has closed");
        bytes.extend(&chunk[..length]);
    }
}
