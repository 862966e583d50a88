//! The shipped site files in a real nginx, in front of a server with the shipped configuration.

mod certificates;
mod protected_api;
mod rate;
mod refusals;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread::{self, JoinHandle};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::deploy::configure;
use crate::support::command::succeed;
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

    /// Starts a site whose nginx trusts these client certificates as authorities, in addition to
    /// the authority `client-ca`.
    fn trusting(clients: &[&str]) -> Self {
        let home = Home::new();
        configure(&home);
        let socket = home.path("grantd.sock");
        let nginx = Nginx::trusting(&socket, clients);
        home.write("clients.json", &registry(&nginx));
        // In addition to this socket, the program listens on a TCP port, so that a test can send
        // requests that do not go through nginx.
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

/// Returns a registry with two clients of the protected API and three clients with a certificate:
/// `certified`, known by the certificate's DNS name; `self-signed`, known by its key; and `bound`,
/// which authenticates with a secret and has its tokens bound to the certificate.
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

/// Returns the public half of a P-256 key as a JWK. `openssl`'s output ends with the coordinates.
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

/// A token request without TLS is refused. With a redirect, a client that is configured with
/// `http://` would keep sending its secret without TLS.
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

/// If the TLS handshake was for another host name, nginx has not asked for a client certificate.
/// nginx therefore refuses a request for grantd on such a connection with 421. A client that reused
/// a connection for several hosts then opens a new connection (RFC 9110, section 15.5.20).
#[test]
fn a_connection_for_another_name_is_misdirected() {
    let site = Site::start();
    let text = "GET /connect/token HTTP/1.1\r\nHost: auth.example.com\r\nConnection: close\r\n\r\n";
    let answers = site.nginx.exchange("api.example.com", text, &[]);
    assert_eq!((answers.len(), answers[0].status), (1, 421));
}

/// The answer, grantd's log and nginx's log contain the same request id, and nginx's log has no
/// query.
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

/// Header fields that state facts about the connection come from nginx and not from the client.
#[test]
fn a_client_cannot_forge_the_headers_of_the_proxy() {
    let directory = tempfile::TempDir::new().unwrap();
    let (nginx, upstream) = nginx_before_one_answer(&directory.path().join("socket"));
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

/// A request succeeds if nginx sends it on a kept-alive connection that grantd has just closed.
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

/// Starts nginx in front of an upstream server at `socket`, which answers one request and returns
/// the head of this request.
fn nginx_before_one_answer(socket: &Path) -> (Nginx, JoinHandle<String>) {
    let listener = UnixListener::bind(socket).unwrap();
    let nginx = Nginx::before(socket);
    let upstream = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let head = read_head(&mut connection);
        connection.write_all(ANSWER).unwrap();
        head
    });
    (nginx, upstream)
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Reads one request and returns its head. A short body arrives together with the head and is
/// discarded.
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
