//! Requests that are refused, for each kind of operation.

use serde_json::{Value, json};

use crate::support::home::secret_of;
use crate::support::{Encoding, Program, Request, request_of, wait_until};

/// Bytes to send, and whether the client then closes its sending side.
pub(super) type Sent = (Vec<u8>, bool);

pub(super) fn whole(request: &Request) -> Sent {
    (request.to_bytes(), false)
}

/// Requests that are refused before their content counts.
pub(super) fn http_cases(method: &str, path: &str, route: &str) -> Vec<Sent> {
    let path = path.replace("{scope}", "read");
    let request = Request::new(method, &path);
    let announced = |rest: &[u8]| [&request.open_head(), rest].concat();
    let mut cases = vec![
        whole(&Request::new("PUT", &path)),
        whole(&request.clone().with_target(&format!("{path}#x"))),
        whole(&request.clone().header("X-Large", "x".repeat(40_000))),
        whole(&request.clone().without_header("Host").header("Host", "two hosts")),
        (announced(b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), false),
    ];
    if route != "validate" {
        cases.extend([
            whole(&request.clone().body(vec![b'x'; 20_000])),
            whole(&request.clone().header("Content-Encoding", "gzip").body("x")),
            (announced(b"Content-Length: 10\r\n\r\nx"), true),
            (announced(b"Content-Length: 10\r\n\r\nx"), false),
        ]);
    }
    if path.ends_with("/read") {
        cases.push(whole(&request.with_target(&format!("{path}/"))));
    }
    cases
}

/// Requests with a form, which are refused for the form or for the credentials.
pub(super) fn form_cases(path: &str, own: &[(&str, &str)], server: &Program) -> Vec<Sent> {
    const MULTIPART: &str = "multipart/form-data; boundary=b";
    let secret = secret_of("post");
    let right = [&[("client_id", "post"), ("client_secret", &*secret)], own].concat();
    let of = |parameters: &[(&str, &str)]| {
        whole(&Request::new("POST", path).form(Encoding::Urlencoded, parameters))
    };
    let with = |more: &[(&str, &str)]| of(&[&right, more].concat());
    let own_with = |more: &[(&str, &str)]| of(&[own, more].concat());
    let basic = |pair: &str| Request::new("POST", path).basic(pair);
    let typed = |content_type: &str, body: &[u8]| {
        whole(&Request::new("POST", path).typed_body(content_type, body))
    };
    let part = |headers: &str| {
        let body = format!("--b\r\n{headers}\r\n\r\nvalue\r\n--b--\r\n");
        typed(MULTIPART, body.as_bytes())
    };
    let urlencoded = Encoding::Urlencoded.content_type();
    let many: Vec<_> = (0..20).map(|number| (number.to_string(), "x")).collect();
    let guess = || {
        let parameters = [own, &[("client_id", "guessed"), ("client_secret", "wrong")]].concat();
        let request = Request::new("POST", path).form(Encoding::Urlencoded, &parameters);
        request.header("X-Forwarded-For", GUESSER)
    };
    for _ in 0..4 {
        server.ask(&guess());
    }
    vec![
        typed("text/plain", b"x"),
        typed("text", b"x"),
        typed("application/x-www-form-urlencoded; charset=utf-16", b"a=b"),
        typed(urlencoded, b"{\"a\":\"b\"}"),
        typed(urlencoded, b"\xEF\xBB\xBFa=b"),
        typed(urlencoded, b"a=%zz"),
        typed(urlencoded, b"a=%ff"),
        whole(&Request::new("POST", path).form(Encoding::Urlencoded, &many)),
        typed("multipart/form-data", b"x"),
        typed(MULTIPART, b"--b\r\n"),
        part("Content-Disposition: form-data"),
        part("Content-Disposition: form-data; name=a; filename=b"),
        part("Content-Disposition: form-data; name=a\r\nContent-Type: text"),
        part("Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64"),
        part("Content-Disposition: form-data; name=a\r\nX: a\r\nX: b"),
        part("Content-Disposition"),
        part(&"X: a\r\n".repeat(40)),
        part("Content-Disposition: form-data; name=a\r\nContent-Type: text/plain; charset=utf-16"),
        with(&[("client_id", "post")]),
        whole(
            &Request::new("POST", &format!("{path}?client_id=post"))
                .form(Encoding::Urlencoded, &right),
        ),
        own_with(&[]),
        own_with(&[("client_id", "\n"), ("client_secret", "x")]),
        own_with(&[("client_id", "post"), ("client_secret", "wrong")]),
        own_with(&[("client_assertion", "x"), ("client_assertion_type", "x")]),
        whole(&basic("post:wrong").form(Encoding::Urlencoded, own)),
        whole(&basic("post:wrong").form(Encoding::Urlencoded, &right)),
        whole(&basic("post").form(Encoding::Urlencoded, own)),
        whole(
            &basic("post:x").form(Encoding::Urlencoded, &[own, &[("client_id", "other")]].concat()),
        ),
        whole(
            &Request::new("POST", path)
                .header("Authorization", "Bearer x")
                .form(Encoding::Urlencoded, own),
        ),
        whole(&guess()),
    ]
}

/// Token requests in the `connect` dialect that are refused for the grant.
pub(super) fn grant_cases(path: &str, server: &Program) -> Vec<Sent> {
    let request = |client: &str, more: &[(&str, &str)]| {
        let secret = if client == "idle" { client.to_owned() } else { secret_of(client) };
        let parameters = request_of(client, &secret, more);
        Request::new("POST", path).form(Encoding::Urlencoded, &parameters)
    };
    server.ask(&request("limited", &[]));
    vec![
        whole(&request("limited", &[])),
        whole(&request("bound", &[])),
        whole(&request("idle", &[])),
        whole(&request("no-default", &[])),
        whole(&request("post", &[("scope", "a\n")])),
        whole(&request("post", &[("scope", "unknown")])),
        whole(&request("post", &[("resource", "unknown")])),
        whole(&request("post", &[]).header("DPoP", "x")),
        whole(&Request::new("POST", path)),
        whole(&Request::new("POST", path).form(
            Encoding::Urlencoded,
            &[
                ("client_id", "post"),
                ("client_secret", &secret_of("post")),
                ("grant_type", "other"),
            ],
        )),
    ]
}

/// Requests with JSON in the `vision` dialect. `own` are the fields beside the credentials.
pub(super) fn vision_cases(path: &str, query: &str, own: &[(&str, &str)]) -> Vec<Sent> {
    let json_type = "application/json";
    let target = format!("{path}{query}");
    let body = |client: &str, changes: &Value| {
        let mut body = json!({ "client_id": client, "client_secret": secret_of(client) });
        for (name, value) in own {
            body[*name] = json!(value);
        }
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body.to_string()
    };
    let typed = |content_type: &str, body: &str| {
        whole(&Request::new("POST", &target).typed_body(content_type, body))
    };
    let with = |changes: Value| typed(json_type, &body("post", &changes));
    let long = "x".repeat(101);
    let mut cases = vec![
        whole(&Request::new("POST", &target).body(body("post", &json!({})))),
        typed("text/plain", "{}"),
        typed("application/json; charset=utf-16", "{}"),
        typed("application/octet-stream", &body("post", &json!({}))),
        typed(json_type, &body("octets", &json!({}))),
        typed(json_type, " "),
        typed(json_type, "{"),
        typed(json_type, "[]"),
        with(json!({ "client_secret": "wrong" })),
        with(json!({ "client_id": 1 })),
        with(json!({ "grant_type": "other" })),
        whole(
            &Request::new("POST", &format!("{path}?scope=x"))
                .typed_body(json_type, body("post", &json!({}))),
        ),
        whole(&Request::new("POST", path).typed_body(json_type, body("post", &json!({})))),
        whole(
            &Request::new("POST", &format!("{path}?appContext=other"))
                .typed_body(json_type, body("post", &json!({}))),
        ),
    ];
    let proof = Request::new("POST", &target).typed_body(json_type, body("post", &json!({})));
    cases.push(whole(&proof.header("DPoP", "x")));
    cases.push(typed(
        json_type,
        &body("post", &json!({ "x": 0 })).replace(":0", ":{\"a\":1,\"a\":1}"),
    ));
    for field in ["client_id", "client_secret", "grant_type", "scope", "token"] {
        cases.push(with(json!({ field: null })));
        cases.push(with(json!({ field: long })));
    }
    let guess = Request::new("POST", &target)
        .typed_body(json_type, body("guessed", &json!({ "client_secret": "wrong" })));
    cases.push(whole(&guess.header("X-Forwarded-For", GUESSER)));
    cases
}

/// Requests in the `firstvision` dialect.
pub(super) fn firstvision_cases(path: &str) -> Vec<Sent> {
    let json_type = "application/json";
    let get = || Request::get(&path.replace("{scope}", "read"));
    let right = format!("post:{}", secret_of("post"));
    let guess = get().header("Content-Type", json_type).basic("guessed:wrong");
    vec![
        whole(&get().basic(&right)),
        whole(&get().typed_body(json_type, "[]").basic(&right)),
        whole(&get().header("Content-Type", json_type)),
        whole(&get().header("Content-Type", json_type).basic("post:wrong")),
        whole(&get().header("Content-Type", "text/plain").basic(&right)),
        whole(&get().header("Content-Type", "application/octet-stream; charset=utf-16")),
        whole(&get().typed_body(json_type, "{\"client_id\": \"octets\"}").basic(&right)),
        whole(&get().typed_body(json_type, "{\"client_secret\": \"x\"}").basic(&right)),
        whole(&get().header("Content-Type", json_type).basic(&right).header("DPoP", "x")),
        whole(
            &get()
                .header("Content-Type", json_type)
                .basic(&format!("octets:{}", secret_of("octets"))),
        ),
        whole(&guess.header("X-Forwarded-For", GUESSER)),
    ]
}

pub(super) fn validate_cases(server: &Program) -> Vec<Sent> {
    let ask = |query: &str, authorization: Option<&str>| {
        let request = Request::get(&format!("/connect/validate{query}"));
        whole(&match authorization {
            Some(value) => request.header("Authorization", value),
            None => request,
        })
    };
    let [right, brief] =
        ["post", "brief"].map(|client| format!("Bearer {}", token(server, client)));
    let expired = Request::get("/connect/validate").header("Authorization", brief.as_str());
    wait_until(|| server.ask(&expired).status != 204);
    let mut cases = vec![
        ask("?scope=%zz", None),
        ask("?scope=%ff", None),
        ask("?scope=a&scope=b", None),
        ask(&format!("?{}", "a=b&".repeat(20)), None),
        ask("?\u{feff}a=b", None),
    ];
    for dialect in ["connect", "vision", "firstvision"] {
        let query = format!("?dialect={dialect}");
        cases.extend([
            ask(&format!("{query}&scope="), None),
            ask(&query, None),
            ask(&query, Some("Basic x")),
            ask(&query, Some("Bearer x")),
            ask(&query, Some(&brief)),
            ask(&format!("{query}&scope=other"), Some(&right)),
        ]);
    }
    cases
}

pub(super) fn token(server: &Program, client: &str) -> String {
    let secret = secret_of(client);
    let request = Request::token(Encoding::Urlencoded, &request_of(client, &secret, &[]));
    server.ask(&request).json()["access_token"].as_str().unwrap().to_owned()
}

/// A client address, as the trusted proxy states it: the failures of most requests count for the
/// proxy, whose budget is not exhausted.
const GUESSER: &str = "192.0.2.1";
