//! The OpenAPI document says what the program answers, and nothing else.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::home::{hash_of, secret_of};
use crate::support::registry::{client_json, registry_with, secrets_json};
use crate::support::{
    Connection, Encoding, Home, Program, Request, Response, request_of, wait_until,
};

/// A client address, as the trusted proxy states it: the failures of most requests count for the
/// proxy, whose budget is not exhausted.
const GUESSER: &str = "192.0.2.1";

const SETTINGS: &str = r#"
trusted_proxies = ["127.0.0.1"]
allow_demo_clients = true
dpop_nonce = false
[page]
enabled = true
[limits]
request_seconds = 1
[failures]
client_failures = 3
source_failures = 1_000
[[route]]
path = "/o/token"
dialect = "connect"
[[route]]
path = "/o/vision"
dialect = "vision"
[[route]]
path = "/o/get"
dialect = "firstvision"
"#;

fn server() -> Program {
    let home = Home::new();
    let text = registry_with(&[
        client_json("limited", &json!({ "rate_limit": { "requests": 1, "seconds": 3600 } })),
        client_json("bound", &json!({ "tls_client_certificate_bound_access_tokens": true })),
        client_json("octets", &json!({ "content_type": "application/octet-stream" })),
        client_json("brief", &json!({ "token_lifetime": 1 })),
        client_json("post", &json!({ "scopes": ["read", "firstvision.read"] })),
        client_json("guessed", &json!({ "secrets": secrets_json(SLOW) })),
        client_json(
            "idle",
            &json!({ "secrets": secrets_json(&hash_of("idle")), "scopes": [], "default_scopes": [] }),
        ),
    ]);
    home.write("clients.json", &text);
    home.write("grantd.toml", SETTINGS);
    Program::start(home, &["--config", "grantd.toml"])
}

/// A slow hash: only a client that has one can be guessed, so only its attempts are limited.
const SLOW: &str = "$2b$04$abcdefghijklmnopqrstuuLrm1oG0RYdCDNBCzOdDVpKoTPRLCOlS";

fn document(server: &Program) -> Value {
    server.ask(&Request::get("/openapi.json")).json()
}

/// A described operation.
struct Operation<'d> {
    document: &'d Value,
    path: &'d str,
    method: String,
    described: &'d Value,
}

impl<'d> Operation<'d> {
    fn all(document: &'d Value) -> Vec<Self> {
        let mut all = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, described) in methods.as_object().unwrap() {
                all.push(Self { document, path, method: method.to_uppercase(), described });
            }
        }
        all
    }

    fn route(&self) -> &'d str {
        self.described["x-route"].as_str().unwrap()
    }

    fn resolve(&self, value: &'d Value) -> &'d Value {
        match value["$ref"].as_str() {
            Some(target) => self.document.pointer(&target[1..]).unwrap(),
            None => value,
        }
    }

    fn response(&self, status: u16) -> Option<&'d Value> {
        let response = self.described["responses"].get(status.to_string())?;
        Some(self.resolve(response))
    }

    /// Returns the text of each described refusal, after its status.
    fn refusals(&self) -> BTreeSet<String> {
        let statuses = self.described["responses"].as_object().unwrap().keys();
        statuses
            .map(|status| status.parse().unwrap())
            .filter(|status| *status >= 400)
            .flat_map(|status| {
                let content = &self.response(status).unwrap()["content"]["application/json"];
                let examples = content["examples"].as_object().unwrap().values();
                examples.map(move |example| name_of(status, &self.resolve(example)["value"]))
            })
            .collect()
    }

    /// Asserts that the refusal is described, with exactly this body and all its header fields.
    #[track_caller]
    fn assert_describes(&self, answer: &Response) -> String {
        let shown = format!("{} {}: {answer:?}", self.method, self.path);
        let response = self.response(answer.status).unwrap_or_else(|| panic!("{shown}"));
        for (name, header) in response["headers"].as_object().unwrap() {
            let header = self.resolve(header);
            let value = answer.header(name);
            assert!(value.is_some() || header["required"] != true, "no {name}: {shown}");
            if let (Some(values), Some(value)) = (header["schema"]["enum"].as_array(), value) {
                assert!(values.contains(&json!(value)), "{name}: {shown}");
            }
        }
        for (name, _) in &answer.headers {
            let headers = response["headers"].as_object().unwrap().keys();
            let usual = ["content-type", "content-length", "connection", "date"];
            let is_described = headers.into_iter().any(|other| other.eq_ignore_ascii_case(name));
            assert!(is_described || usual.contains(&&**name), "{name}: {shown}");
        }
        let body = answer.json();
        let examples = response["content"]["application/json"]["examples"].as_object().unwrap();
        let mut values = examples.values().map(|example| &self.resolve(example)["value"]);
        assert!(values.any(|value| *value == body), "{shown}");
        name_of(answer.status, &body)
    }
}

/// Returns the status and the body of a refusal.
fn name_of(status: u16, body: &Value) -> String {
    format!("{status} {body}")
}

/// Bytes to send, and whether the client then closes its sending side.
type Sent = (Vec<u8>, bool);

fn whole(request: &Request) -> Sent {
    (request.to_bytes(), false)
}

/// Requests that are refused before their content counts.
fn http_cases(operation: &Operation<'_>) -> Vec<Sent> {
    let path = operation.path.replace("{scope}", "read");
    let request = Request::new(&operation.method, &path);
    let announced = |rest: &[u8]| [&request.open_head(), rest].concat();
    let mut cases = vec![
        whole(&Request::new("PUT", &path)),
        whole(&request.clone().with_target(&format!("{path}#x"))),
        whole(&request.clone().header("X-Large", "x".repeat(40_000))),
        whole(&request.clone().without_header("Host").header("Host", "two hosts")),
        (announced(b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), false),
    ];
    if operation.route() != "validate" {
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
fn form_cases(path: &str, own: &[(&str, &str)], server: &Program) -> Vec<Sent> {
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
fn grant_cases(path: &str, server: &Program) -> Vec<Sent> {
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
fn vision_cases(path: &str, query: &str, own: &[(&str, &str)]) -> Vec<Sent> {
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
fn firstvision_cases(path: &str) -> Vec<Sent> {
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
        whole(
            &get()
                .header("Content-Type", json_type)
                .basic(&format!("octets:{}", secret_of("octets"))),
        ),
        whole(&guess.header("X-Forwarded-For", GUESSER)),
    ]
}

fn validate_cases(server: &Program) -> Vec<Sent> {
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

fn token(server: &Program, client: &str) -> String {
    let secret = secret_of(client);
    let request = Request::token(Encoding::Urlencoded, &request_of(client, &secret, &[]));
    server.ask(&request).json()["access_token"].as_str().unwrap().to_owned()
}

/// Every refusal that a test can provoke at once is sent to every operation, and gets exactly one of
/// the described answers. All others in the document are listed here.
#[test]
fn each_described_refusal_is_what_the_program_answers() {
    let server = server();
    let document = document(&server);
    let other = token(&server, "octets");
    for operation in Operation::all(&document) {
        let path = operation.path;
        let mut cases = http_cases(&operation);
        match operation.route() {
            "token" => {
                cases.extend(form_cases(path, &[("grant_type", "client_credentials")], &server));
                cases.extend(grant_cases(path, &server));
            }
            "introspect" => cases.extend(form_cases(path, &[("token", "x")], &server)),
            "revocation" => {
                cases.extend(form_cases(path, &[("token", "x")], &server));
                let secret = secret_of("post");
                let own = [("client_id", "post"), ("client_secret", &secret), ("token", &other)];
                cases.push(whole(&Request::new("POST", path).form(Encoding::Urlencoded, &own)));
            }
            "vision_token" => {
                let own = [("grant_type", "client_credentials"), ("scope", "read")];
                cases.extend(vision_cases(path, "", &own));
            }
            "vision_v2_token" => {
                let own = [("grant_type", "client_credentials"), ("scope", "read")];
                cases.extend(vision_cases(path, "?appContext=firstvision", &own));
            }
            "vision_validate_token" => cases.extend(vision_cases(path, "", &[("token", "x")])),
            "firstvision_token" => cases.extend(firstvision_cases(path)),
            "validate" => cases.extend(validate_cases(&server)),
            _ => {}
        }
        if ["introspect", "revocation"].contains(&operation.route()) {
            let secret = secret_of("post");
            let own = [("client_id", "post"), ("client_secret", &*secret)];
            cases.push(whole(&Request::new("POST", path).form(Encoding::Urlencoded, &own)));
        }
        let mut missing = operation.refusals();
        for (bytes, is_cut) in cases {
            let mut connection = Connection::open(server.address);
            connection.send_if_open(&bytes);
            if is_cut {
                connection.finish_sending();
            }
            let answer = connection.read_answer_to(&operation.method);
            if answer.status >= 400 {
                missing.remove(&operation.assert_describes(&answer));
            }
        }
        missing.retain(|name| !NOT_PROVOKED.iter().any(|known| name.starts_with(known)));
        assert!(missing.is_empty(), "{} {path} never answers {missing:#?}", operation.method);
    }
}

/// The refusals that need a fault of the server, or many assertions.
const NOT_PROVOKED: [&str; 3] = [
    "500 ",
    "503 ",
    r#"429 {"error":"invalid_request","error_description":"The client asks too often"#,
];

/// Every path that is served is described, those of the operator with the operation of their
/// dialect, and so is every label that a request of a program can have in the log.
#[test]
fn every_route_is_described() {
    let server = server();
    let document = document(&server);
    let operations = Operation::all(&document);
    let described: Vec<_> = operations
        .iter()
        .map(|it| {
            let dialect = it.described["x-dialect"].as_str().unwrap();
            (&*it.method, it.path, it.route(), dialect)
        })
        .collect();
    assert_eq!(
        described,
        [
            ("POST", "/connect/token", "token", "connect"),
            ("POST", "/v1/api/oauth/token", "vision_token", "vision"),
            ("POST", "/v2/api/oauth/token", "vision_v2_token", "vision"),
            ("GET", "/v1/getAccessToken", "firstvision_token", "firstvision"),
            ("GET", "/v1/getAccessToken/{scope}", "firstvision_token", "firstvision"),
            ("POST", "/v1/api/oauth/validateToken", "vision_validate_token", "vision"),
            ("GET", "/connect/validate", "validate", "connect"),
            ("POST", "/connect/introspect", "introspect", "connect"),
            ("POST", "/connect/revocation", "revocation", "connect"),
            ("GET", "/.well-known/openid-configuration/jwks", "jwks", "connect"),
            ("GET", "/.well-known/jwks.json", "jwks", "connect"),
            ("GET", "/.well-known/openid-configuration", "metadata", "connect"),
            ("GET", "/.well-known/oauth-authorization-server", "metadata", "connect"),
            ("POST", "/o/token", "token", "connect"),
            ("POST", "/o/vision", "vision_token", "vision"),
            ("GET", "/o/get", "firstvision_token", "firstvision"),
            ("GET", "/o/get/{scope}", "firstvision_token", "firstvision"),
            ("GET", "/openapi.json", "openapi", "connect"),
        ]
    );
    let ids: BTreeSet<_> =
        operations.iter().map(|it| it.described["operationId"].as_str()).collect();
    assert_eq!(ids.len(), operations.len(), "an id stands twice: {ids:?}");
    assert_eq!(document["servers"], json!([{ "url": server.issuer }]));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

/// The examples of the documents that the services come from are in the description.
#[test]
fn the_documented_examples_are_described() {
    let server = server();
    let document = document(&server);
    let answer = |path: &str, method: &str| {
        &document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["example"]
    };
    let connect = answer("/connect/token", "post");
    assert!(
        connect["access_token"]
            .as_str()
            .unwrap()
            .starts_with("eyJhbGciOiJSUzI1NiIsImtpZCI6IlJ2eURPZEF")
    );
    let rest = json!({ "expires_in": 3600, "token_type": "Bearer", "scope": "external-api" });
    for (name, value) in rest.as_object().unwrap() {
        assert_eq!(&connect[name], value);
    }
    assert_eq!(answer("/v1/api/oauth/token", "post")["expires_in"], 7199);
    assert_eq!(answer("/v1/getAccessToken", "get")["expires_in"], 1_750_392_000);
}

/// A reload changes the description together with what it describes.
#[test]
fn the_description_follows_the_settings() {
    let home = Home::new();
    home.write("grantd.toml", "[limits]\nbody_bytes = 5000\n");
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let described = |server: &Program| {
        let text = document(server)["paths"]["/connect/token"]["post"]["description"].to_string();
        let has = |limit: &str| text.contains(&format!("at most {limit} bytes"));
        (has("5000"), has("6000"))
    };
    assert_eq!(described(&server), (true, false));
    server.home.write("grantd.toml", "[limits]\nbody_bytes = 6000\n");
    server.hang_up();
    server.log.wait_for(|line| line["message"] == "reloaded");
    assert_eq!(described(&server), (false, true));
}

/// The list of refusals by dialect has an advice for each text, and one text has one advice.
#[test]
fn each_public_error_has_one_advice() {
    let server = server();
    let document = document(&server);
    for (dialect, least) in [("connect", 45), ("vision", 25), ("firstvision", 14)] {
        let refusals = document["x-refusals"][dialect].as_array().unwrap();
        assert!(refusals.len() >= least, "{dialect} has {}", refusals.len());
        let mut keys = BTreeSet::new();
        for refusal in refusals {
            let text = |name: &str| refusal[name].as_str().unwrap().to_owned();
            assert!(text("what_to_do").ends_with('.'), "{refusal}");
            let key = (refusal["status"].to_string(), text("code"), text("text"));
            assert!(keys.insert(key), "{refusal} stands twice");
        }
    }
}
