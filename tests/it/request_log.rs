//! Text from clients in the log: bounded in length and escaped, from every source.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::home::hash_of;
use crate::support::registry::client_with_hash;
use crate::support::sibling::USER;
use crate::support::status::token_of;
use crate::support::{
    Connection, DEMO, ENCODINGS, Encoding, Home, Program, Request, demo_with, demo_without, form,
};

/// Returns the log line about the request with this id, as JSON and as text.
fn line_of(server: &Program, id: &str) -> (Value, String) {
    let line = server.log.of_request(id);
    let text = line.to_string();
    (line, text)
}

#[test]
fn a_method_has_at_most_32_bytes() {
    let server = Program::shared();
    let long = "M".repeat(15_000);
    for (number, path) in [
        "/connect/token",
        "/connect/validate",
        "/connect/introspect",
        "/connect/revocation",
        "/v1/api/oauth/token",
        "/v1/api/oauth/validateToken",
        "/v1/getAccessToken",
        "/.well-known/jwks.json",
        "/nowhere",
    ]
    .into_iter()
    .enumerate()
    {
        for (method, logged) in [(&*long, 32), (&long[..33], 32), (&long[..32], 32), ("MM", 2)] {
            let id = format!("method.{number}.{}", method.len());
            let answer =
                server.ask(&Request::new(method, path).header("X-Request-Id", id.as_str()));
            assert!([404, 405].contains(&answer.status), "{path}: {}", answer.text());
            let (line, text) = line_of(&server, &id);
            assert_eq!(line["method"], "M".repeat(logged), "{path}");
            assert!(text.len() < 1000, "{text}");
            // The explanation for operators does not contain the method.
            let told = Request::get(&format!("/explain/{id}")).send(server.admin);
            assert_eq!(told.status, 200);
            assert!(!told.text().contains("MMM"), "{}", told.text());
        }
    }
    assert!(!server.metrics().contains("MMM"));
    // The method is cut to 32 bytes even if the head is refused because of its size.
    let id = "method.over";
    let over = Request::new(&"M".repeat(17_000), "/connect/token").header("X-Request-Id", id);
    assert_eq!(server.ask(&over).status, 431);
    assert_eq!(line_of(&server, id).0["method"], "M".repeat(32));
}

#[test]
fn the_method_and_path_stated_by_a_proxy_are_bounded_and_escaped() {
    let home = Home::new();
    home.write("grantd.toml", "trusted_proxies = [\"127.0.0.1\"]\naudit = \"audit.jsonl\"\n");
    let server = Program::start(home, &["--config", "grantd.toml", "--allow-demo-clients"]);
    let long = "x".repeat(4_000);
    for (number, (method, uri, logged_method, logged_path)) in [
        (b"POST".to_vec(), b"/a?secret".to_vec(), "POST".to_owned(), "/a".to_owned()),
        (
            long.clone().into_bytes(),
            format!("/{long}?{long}").into_bytes(),
            "x".repeat(32),
            format!("/{}", "x".repeat(127)),
        ),
        // An escape sequence at the limit is logged as a whole or not at all.
        (
            "\u{e9}".repeat(9).into_bytes(),
            format!("/{}\u{e9}", "x".repeat(122)).into_bytes(),
            "\\xc3\\xa9".repeat(4),
            format!("/{}\\xc3", "x".repeat(122)),
        ),
        (b"P\tT".to_vec(), b"/a\t\"b\\".to_vec(), "P\\x09T".to_owned(), "/a\\x09\"b\\".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("original.{number}");
        let request = Request::get("/connect/validate?scope=read")
            .header("X-Request-Id", id.as_str())
            .header("X-Forwarded-For", "192.0.2.9")
            .header("X-Original-Method", method)
            .header("X-Original-URI", uri);
        assert_eq!(server.ask(&request).status, 401);
        let (line, text) = line_of(&server, &id);
        assert_eq!(line["original_method"], logged_method);
        assert_eq!(line["original_path"], logged_path);
        assert!(text.len() < 1000 && !text.contains("secret"), "{text}");
    }
    let audit = std::fs::read_to_string(server.home.path("audit.jsonl")).unwrap_or_default();
    assert!(!audit.contains("xxx"), "{audit}");
}

#[test]
fn a_path_that_was_not_found_is_logged() {
    let server = Program::shared();
    let long = format!("/{}", "x".repeat(4_000));
    for (number, (path, logged)) in [
        ("/connect/tokens?client_id=a", "/connect/tokens"),
        ("/v1/api/oauth/Token", "/v1/api/oauth/Token"),
        ("/v1/getAccessToken/a/b", "/v1/getAccessToken/a/b"),
        ("/a%0Ab/\"c\\", "/a%0Ab/\"c\\"),
        (&long, &long[..128]),
        // This path is logged: a segment of three parts separated by dots is not always a token.
        ("/static/app.min.js", "/static/app.min.js"),
    ]
    .into_iter()
    .enumerate()
    {
        for (way, request) in [
            ("get", Request::get(path)),
            ("form", Request::token(Encoding::Urlencoded, &DEMO).with_target(path)),
            ("parts", Request::token(Encoding::Multipart, &DEMO).with_target(path)),
        ] {
            let id = format!("unknown.{number}.{way}");
            let answer = server.ask(&request.header("X-Request-Id", id.as_str()));
            assert_eq!(answer.status, 404, "{path}");
            let (line, text) = line_of(&server, &id);
            assert_eq!((&line["cause"], &line["path"]), (&"not_found".into(), &logged.into()));
            assert!(text.len() < 1000 && line["scope"].is_null(), "{text}");
        }
    }
    // If the route is known, the log has the route instead of the path.
    let answer = server.ask(&Request::get("/.well-known/jwks.json"));
    let (line, _) = line_of(&server, answer.header("x-request-id").unwrap());
    assert!(line["path"].is_null(), "{line}");
}

const WITHHELD: &str = "(withheld: may be a credential)";

#[test]
fn a_path_that_may_be_a_credential_is_withheld() {
    let server = Program::shared();
    let [secret, token] = [DEMO[1].1.to_owned(), token_of(server.address, "one-audience")];
    let path = format!("/api/{secret}/x");
    let twice = format!("{{\"client_secret\":\"{secret}\",\"client_secret\":\"x\"}}");
    let escaped = format!("/%{:02x}{}", secret.as_bytes()[0], &secret[1..]);
    let json = serde_json::json!({ "client_secret": secret }).to_string();
    let request = || Request::token(Encoding::Urlencoded, &DEMO);
    let unread = request().without_header("Content-Type");
    let requests = [
        Request::token(Encoding::Urlencoded, &DEMO).with_target(&path),
        Request::token(Encoding::Multipart, &DEMO).with_target(&path),
        request().with_target(&escaped),
        Request::new("POST", &path).typed_body("application/json", json),
        Request::new("POST", &path).typed_body("application/json", twice),
        unread.clone().header("Content-Type", "text/plain").with_target(&path),
        unread.clone().header("Content-Encoding", "gzip").with_target("/api/x"),
        request().body(vec![b'x'; 20_000]).with_target("/api/x"),
        Request::get(&path).basic(&format!("demo-client:{secret}")),
        Request::get(&path).basic(&format!("demo-client:{}", secret.replace('-', "%2D"))),
        Request::get(&path).header("Authorization", format!("Bearer {secret}")),
        Request::get(&format!("{path}?client_secret={secret}")),
        Request::get(&format!("/{token}")),
        Request::get(&format!("/a/{}", token.replace('.', "%2E"))),
        Request::get(&format!("/{token}/a")),
    ];
    for (number, request) in requests.into_iter().enumerate() {
        let id = format!("credential.{number}");
        assert_eq!(server.ask(&request.header("X-Request-Id", id.as_str())).status, 404);
        assert_eq!(line_of(&server, &id).0["path"], WITHHELD, "{number}");
    }
    // This client waits for `100 Continue`, so the server answers before it has the body. The
    // unread body could contain the text of the path as a secret, so the log withholds the path.
    let id = "credential.expects";
    let request = request().with_target("/api/x").header("Expect", "100-continue");
    let mut connection = Connection::open(server.address);
    connection.send(&request.header("X-Request-Id", id).head());
    assert_eq!(connection.read_answer().status, 404);
    assert_eq!(line_of(&server, id).0["path"], WITHHELD);
}

/// Returns requests for this scope, one for each dialect and encoding.
fn scoped(scope: &str) -> Vec<Request> {
    let (user, secret) = USER;
    let vision = serde_json::json!({ "grant_type": "client_credentials", "scope": scope,
        "client_id": user, "client_secret": secret });
    let post = |path| Request::new("POST", path).typed_body("application/json", vision.to_string());
    let escaped = form::percent_encode(scope.as_bytes());
    let mut requests: Vec<_> = ENCODINGS
        .into_iter()
        .map(|encoding| Request::token(encoding, &demo_with(&[("scope", scope)])))
        .collect();
    requests.push(post("/v1/api/oauth/token"));
    requests.push(
        Request::get(&format!("/v1/getAccessToken?scope={escaped}"))
            .header("Content-Type", "application/json")
            .basic(&format!("{user}:{secret}")),
    );
    requests
}

#[test]
fn a_refused_scope_is_logged() {
    let server = Program::shared();
    for (number, (scope, cause, logged)) in [
        ("nothing", "scope_not_allowed", "nothing"),
        ("firstvision.payments.read", "scope_not_allowed", "firstvision.payments.read"),
        ("a\tb", "scope_malformed", "a\\x09b"),
    ]
    .into_iter()
    .enumerate()
    {
        for (way, request) in scoped(scope).into_iter().enumerate() {
            let id = format!("scope.{number}.{way}");
            assert!(server.ask(&request.header("X-Request-Id", id.as_str())).status >= 400);
            let (line, text) = line_of(&server, &id);
            assert_eq!((&line["cause"], &line["scope"]), (&cause.into(), &logged.into()), "{text}");
            assert!(line["path"].is_null(), "{text}");
        }
    }
    let named = |id: &str, request: Request| {
        assert!(server.ask(&request.header("X-Request-Id", id)).status >= 400);
        line_of(&server, id).0["scope"].clone()
    };
    let form = |scope: &str| Request::token(Encoding::Urlencoded, &demo_with(&[("scope", scope)]));
    // If a request has several scopes, the log has the scope that was refused.
    assert_eq!(named("scope.one", form("external-api other")), "other");
    assert_eq!(named("scope.long", form(&"x".repeat(4_000))), "x".repeat(128));
    // The log has the full name of the scope, which begins with the value of `appContext`.
    let body = scoped("other")[2].body_bytes().to_vec();
    let v2 = Request::new("POST", "/v2/api/oauth/token?appContext=firstvision");
    let v2 = v2.typed_body("application/json", body);
    assert_eq!(named("scope.v2", v2), "firstvision.other");
    // For `/connect/validate` the log has the requested scope that the token lacks.
    let token = token_of(server.address, "one-audience");
    let question = Request::get("/connect/validate?scope=read%20admin")
        .header("Authorization", format!("Bearer {token}"));
    assert_eq!(named("scope.lacked", question), "read\\x20admin");
}

#[test]
fn a_scope_that_may_be_a_credential_is_withheld() {
    let server = Program::shared();
    let token = token_of(server.address, "one-audience");
    let demo = DEMO[1].1;
    let mut requests = vec![
        Request::token(Encoding::Multipart, &demo_with(&[("scope", &token)])),
        Request::token(Encoding::Urlencoded, &demo_with(&[("scope", demo)])),
        Request::token(Encoding::Urlencoded, &demo_with(&[("scope", &format!("{demo}\t"))])),
        Request::token(
            Encoding::Urlencoded,
            &[demo_without(&["client_id", "client_secret"]), vec![("scope", demo)]].concat(),
        )
        .basic(&format!("demo-client:{demo}")),
    ];
    requests.extend(scoped(USER.1).split_off(2));
    for (number, request) in requests.into_iter().enumerate() {
        let id = format!("secret.scope.{number}");
        assert!(server.ask(&request.header("X-Request-Id", id.as_str())).status >= 400);
        assert_eq!(line_of(&server, &id).0["scope"], WITHHELD, "{number}");
    }
}

/// The secret in a Basic pair has two readings: as sent and form-decoded. The log contains neither.
#[test]
fn a_scope_that_is_the_secret_in_either_reading_is_withheld() {
    let home = Home::new();
    let secret = "S3cret+with/plus==0123456789abcdefgh";
    home.register(&[client_with_hash("raw", &hash_of(secret))]);
    let server = Program::start(home, &[]);
    let pair = format!("raw:{secret}");
    let encoded = form::percent_encode(secret.as_bytes());
    let firstvision =
        |target: &str| Request::get(target).header("Content-Type", "application/json").basic(&pair);
    let form = [("grant_type", "client_credentials"), ("scope", secret)];
    for (index, request) in [
        firstvision(&format!("/v1/getAccessToken/{encoded}")),
        firstvision(&format!("/v1/getAccessToken?scope={encoded}")),
        firstvision("/v1/getAccessToken").body(json!({ "scope": [secret] }).to_string()),
        Request::token(Encoding::Urlencoded, &form).basic(&pair),
        Request::token(Encoding::Multipart, &form).basic(&pair),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("scope-{index}");
        let answer = server.ask(&request.header("X-Request-Id", id.as_str()));
        assert!(answer.status >= 400, "{}", answer.text());
        let line = server.log.of_request(&id);
        assert_eq!(line["cause"], "scope_not_allowed");
        assert_eq!(line["scope"], "(withheld: may be a credential)", "{line}");
    }
}

/// A secret in the path is withheld in every notation.
#[test]
fn a_path_that_contains_the_requests_secret_is_withheld_in_every_notation() {
    let server = Program::shared();
    let secret = "hunter2+hunter2";
    let twice = "hunter2%252Bhunter2";
    let body = form::encode(Encoding::Urlencoded, &[("client_secret", secret)]);
    let post = |target: &str| Request::new("POST", target);
    let plain = Encoding::Urlencoded.content_type();
    let tabbed = format!("Basic\t{}", STANDARD_NO_PAD.encode(format!("a:{secret}")));
    let url_safe = URL_SAFE_NO_PAD.encode("a:~~~?~~~?");
    let nested = json!({ "a": { "clientSecret": secret } }).to_string();
    for (index, request) in [
        post(&format!("/a/{twice}")).typed_body(plain, body.clone()),
        post("/%68unter2+hunter2").typed_body(plain, body.clone()),
        post("/token;s=hunter2%2Bhunter2").typed_body(plain, body.clone()),
        post("/a/hunter2%20hunter2").typed_body(plain, "client_secret=hunter2+hunter2"),
        post("/a/%68unter2").typed_body("text/plain", "hunter2"),
        post("/a/%68unter2").typed_body(&format!("{plain}; charset=utf-16"), "hunter2"),
        post(&format!("/a/{secret}")).typed_body("application/json", nested),
        post(&format!("/a/{secret}")).header("Authorization", tabbed.as_str()),
        post("/a/~~~?~~~?".replace('?', "%3F").as_str())
            .header("Authorization", format!("Basic {url_safe}").as_str()),
        post(&format!("/a/{secret}?x={twice}&x=%zz")),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("path-{index}");
        let answer = server.ask(&request.header("X-Request-Id", id.as_str()));
        assert_eq!(answer.status, 404, "{}", answer.text());
        let line = server.log.of_request(&id);
        assert_eq!(line["path"], "(withheld: may be a credential)", "{index}: {line}");
    }
}

/// nginx states the path of the API request in `X-Original-URI`. That path may contain a token.
#[test]
fn a_token_in_the_path_stated_by_a_proxy_is_withheld() {
    let home = Home::new();
    home.write("grantd.toml", "trusted_proxies = [\"127.0.0.1\"]\nallow_demo_clients = true\n");
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let token = server.ask(&Request::token(Encoding::Urlencoded, &DEMO)).json();
    let token = token["access_token"].as_str().unwrap();
    for (id, path, shown) in [
        ("whole", format!("/reports/{token}"), "(withheld: may be a credential)"),
        ("short", "/reports/opaque-token-1".to_owned(), "(withheld: may be a credential)"),
        ("plain", "/reports/a?x=opaque-token-1".to_owned(), "/reports/a"),
    ] {
        let bearer = if id == "whole" { token } else { "opaque-token-1" };
        let request = Request::get("/connect/validate?scope=external-api")
            .header("Authorization", format!("Bearer {bearer}"))
            .header("X-Forwarded-For", "192.0.2.1")
            .header("X-Original-URI", path.as_str())
            .header("X-Request-Id", id);
        server.ask(&request);
        assert_eq!(server.log.of_request(id)["original_path"], shown);
    }
}
