//! The OpenAPI document says what the program answers, and nothing else.

mod cases;
mod faults;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::openapi::cases::{
    firstvision_cases, form_cases, grant_cases, http_cases, token, validate_cases, vision_cases,
    whole,
};
use crate::support::home::{OWN_ROUTES, hash_of, secret_of};
use crate::support::registry::{client_json, registry_with, secrets_json};
use crate::support::{Connection, Encoding, Home, Program, Request, Response};

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
seconds = 86_400
source_failures = 1_000
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
    home.write("grantd.toml", &format!("{SETTINGS}{OWN_ROUTES}"));
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

/// Every refusal that a test can provoke at once is sent to every operation, and gets exactly one of
/// the described answers. All others in the document are listed here.
#[test]
fn each_described_refusal_is_what_the_program_answers() {
    let server = server();
    let document = document(&server);
    let other = token(&server, "octets");
    for operation in Operation::all(&document) {
        let path = operation.path;
        let mut cases = http_cases(&operation.method, path, operation.route());
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

/// The refusals that need a fault of the server, for which see [`faults`], or many assertions.
const NOT_PROVOKED: [&str; 3] = [
    "500 ",
    "503 ",
    r#"429 {"error":"invalid_request","error_description":"The client asks too often"#,
];

/// The description allows no answer but those that it lists: no response is a default, no object in
/// an answer has other members, and every code of an error is one of a list.
#[test]
fn no_answer_is_described_vaguely() {
    let server = server();
    let document = document(&server);
    let mut codes = 0;
    for operation in Operation::all(&document) {
        for (status, response) in operation.described["responses"].as_object().unwrap() {
            assert!(status.parse::<u16>().is_ok(), "{} answers {status}", operation.path);
            let content = &operation.resolve(response)["content"];
            for content in content.as_object().into_iter().flat_map(|types| types.values()) {
                codes += assert_closed(&content["schema"], operation.path);
            }
        }
    }
    assert!(codes > 100, "only {codes} codes");
    let described = &document["paths"]["/openapi.json"]["get"]["responses"]["200"];
    let members = &described["content"]["application/json"]["schema"]["required"];
    assert_eq!(members, &json!(document.as_object().unwrap().keys().collect::<Vec<_>>()));
}

/// Returns the number of the schemas of codes in `schema`.
fn assert_closed(schema: &Value, path: &str) -> usize {
    let mut codes = 0;
    if schema["type"] == "object" {
        assert_eq!(schema["additionalProperties"], false, "{path}: {schema}");
        for (name, property) in schema["properties"].as_object().unwrap() {
            if ["error", "errorCode"].contains(&&**name) {
                assert!(property["enum"].is_array(), "{path}: {property}");
                codes += 1;
            }
            codes += assert_closed(property, path);
        }
    }
    let alternatives = schema["anyOf"].as_array().into_iter().flatten();
    codes + alternatives.chain(schema.get("items")).map(|it| assert_closed(it, path)).sum::<usize>()
}

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
            ("POST", "/o/token/", "token", "connect"),
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

/// The reference is made of the description alone: every operation, every error and its advice.
/// Every link leads to a place on the page, and nothing in it is a script, a style or unescaped.
#[test]
fn the_reference_shows_the_description() {
    let home = Home::new();
    home.write("grantd.toml", "[[route]]\npath = \"/o/'&amp;\"\ndialect = \"connect\"\n");
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let document = document(&server);
    let page = server.ask(&Request::get("/docs"));
    let page = page.text();
    let escaped = |text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        text.replace('"', "&quot;").replace('\'', "&#39;")
    };
    for operation in Operation::all(&document) {
        let heading =
            format!("{}</span> <code>{}</code></h3>", operation.method, escaped(operation.path));
        assert!(page.contains(&heading), "no {heading}");
    }
    assert!(page.contains("/o/&#39;&amp;amp;</code>"));
    for refusals in document["x-refusals"].as_object().unwrap().values() {
        for refusal in refusals.as_array().unwrap() {
            for name in ["code", "text", "what_to_do"] {
                let text = escaped(refusal[name].as_str().unwrap());
                assert!(page.contains(&text), "no {text}");
            }
        }
    }
    for link in page.split("href=\"#").skip(1) {
        let id = &link[..link.find('"').unwrap()];
        assert_eq!(page.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
    }
    for banned in ["<script", "style=", "<style", " on"] {
        let tags = page.split('<').filter_map(|tag| tag.split('>').next());
        let is_in = |tag: &str| format!("<{tag}").contains(banned);
        assert!(!tags.into_iter().any(is_in), "{banned} is on the page");
    }
}
