//! The OpenAPI document and what is made from it, in the hands of the programs that read them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::command::{python, succeed};
use crate::support::home::{OWN_ROUTES, hash_of, secret_of};
use crate::support::registry::{client_json, secrets_json};
use crate::support::{Encoding, Home, Program, Request, request_of};

/// The failure budgets are too large to be exhausted.
const SETTINGS: &str = r#"
[failures]
client_failures = 1_000_000
source_failures = 1_000_000
"#;

/// The client `json`, and `octets` with the other Content-Type. Both have the secret of `json`.
fn server() -> Program {
    let home = Home::new();
    let client = |id: &str, content_type: &str| {
        let changes = json!({
            "secrets": secrets_json(&hash_of(&secret_of("json"))),
            "scopes": ["firstvision.a", "b"],
            "default_scopes": ["firstvision.a"],
            "content_type": content_type,
        });
        client_json(id, &changes)
    };
    home.register(&[
        client("json", "application/json"),
        client("octets", "application/octet-stream"),
    ]);
    home.write("grantd.toml", &format!("{SETTINGS}{OWN_ROUTES}"));
    Program::start(home, &["--config", "grantd.toml"])
}

fn document(server: &Program) -> Value {
    let answer = server.ask(&Request::get("/openapi.json"));
    assert_eq!(answer.status, 200);
    answer.json()
}

fn token(server: &Program) -> String {
    let secret = secret_of("json");
    let request = request_of("json", &secret, &[]);
    let answer = server.ask(&Request::token(Encoding::Urlencoded, &request));
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

#[test]
fn the_document_follows_the_specification() {
    let server = server();
    server.home.write("openapi.json", &document(&server).to_string());
    let mut validator = Command::new(python());
    validator.args(["-m", "openapi_spec_validator", "--schema", "3.1"]);
    succeed(validator.arg(server.home.path("openapi.json")));
}

/// schemathesis sends what the document allows and what it forbids, and compares each answer with
/// the document. Every operation succeeds often, with each encoding, and refuses for several causes.
#[test]
fn schemathesis_finds_no_answer_that_is_not_described() {
    let server = server();
    let document = document(&server);
    server.home.write("openapi.json", &document.to_string());
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/openapi");
    let mut schemathesis = Command::new("timeout");
    schemathesis
        .arg("1800")
        .arg(python().with_file_name("schemathesis"))
        .arg("run")
        .arg(server.home.path("openapi.json"))
        .args(["--url", &format!("http://{}", server.address), "--checks", CHECKS])
        .args(["--phases", "examples,coverage,fuzzing", "--mode", "all", "--seed", "1"])
        .args(["--max-examples", "250", "--suppress-health-check", "all", "--no-color"])
        .args(["--generation-database", "none"])
        .current_dir(server.home.path("."))
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", directory)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SECRET", secret_of("json"))
        .env("TOKEN", token(&server))
        .env("REVOCABLE", token(&server));
    succeed(&mut schemathesis);

    let seen = Seen::of(&server);
    assert!(seen.total >= 5_000, "only {} requests", seen.total);
    for (operation, types) in operations(&document) {
        let succeeded = types.iter().map(|media_type| {
            let succeeded = seen.succeeded.get(&(operation.clone(), media_type.clone()));
            let succeeded = succeeded.copied().unwrap_or_default();
            assert!(succeeded >= 20, "{operation} with {media_type:?} succeeded {succeeded} times");
            succeeded
        });
        let succeeded: usize = succeeded.sum();
        assert!(succeeded >= 100, "{operation} succeeded {succeeded} times");
        let causes = seen.causes.get(&operation);
        let is_refused = causes.is_some_and(|causes| causes.len() >= 5);
        assert!(is_refused, "{operation} was refused for {causes:?}");
    }
}

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_schema_conformance,response_headers_conformance";

/// An operation as schemathesis names it, as in `POST /connect/token`.
type Label = String;

/// The answers that schemathesis has seen, by the operation of its request: `hooks.py` writes a line about each
/// answer, and the server's log says why it refused the request.
#[derive(Default)]
struct Seen {
    total: usize,
    /// The number of requests that succeeded, by operation and media type.
    succeeded: BTreeMap<(Label, Option<String>), usize>,
    causes: BTreeMap<Label, BTreeSet<String>>,
}

impl Seen {
    fn of(server: &Program) -> Self {
        server.ask(&Request::get("/").header("X-Request-Id", "the-last"));
        server.log.of_request("the-last");
        // Several requests may have the same id. They came one after the other, so the lines of the
        // log are in the same order as the answers.
        let mut logged: BTreeMap<String, VecDeque<String>> = BTreeMap::new();
        let requests = server.log.lines().into_iter().filter(|line| line["route"].is_string());
        for line in requests {
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            logged.entry(text("request_id")).or_default().push_back(text("cause"));
        }
        let mut seen = Self::default();
        let calls = std::fs::read_to_string(server.home.path("calls.jsonl")).unwrap();
        for call in calls.lines() {
            let call: Value = serde_json::from_str(call).unwrap();
            let operation = call["operation"].as_str().unwrap().to_owned();
            let lines = logged.get_mut(call["request_id"].as_str().unwrap());
            let cause = lines.and_then(VecDeque::pop_front).expect("a line of the log");
            let is_refused = call["status"].as_u64().unwrap() >= 400;
            assert_eq!(cause.is_empty(), !is_refused, "{call} is logged as {cause:?}");
            seen.total += 1;
            if (200..300).contains(&call["status"].as_u64().unwrap()) {
                let media_type = call["type"].as_str().map(str::to_owned);
                *seen.succeeded.entry((operation, media_type)).or_default() += 1;
            } else if is_refused {
                seen.causes.entry(operation).or_default().insert(cause);
            }
        }
        seen
    }
}

/// Returns all operations that the document describes, each with the media types of its body; `None`
/// stands for no body.
fn operations(document: &Value) -> Vec<(Label, Vec<Option<String>>)> {
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let types = operation["requestBody"]["content"].as_object();
            let types = match types {
                Some(types) => types.keys().cloned().map(Some).collect(),
                None => vec![None],
            };
            operations.push((format!("{} {path}", method.to_uppercase()), types));
        }
    }
    operations
}

/// Every request of the collection succeeds once the client's id, its secret and a scope are filled
/// in.
#[test]
fn newman_runs_the_collection() {
    let server = server();
    let collection = server.ask(&Request::get("/docs/grantd.postman_collection.json")).json();
    for variable in collection["variable"].as_array().unwrap() {
        let is_empty = variable["value"] == "";
        assert_eq!(is_empty, variable["key"] != "base_url", "{variable}");
    }
    server.home.write("collection.json", &collection.to_string());
    let variable = |key: &str, value: &str| json!({ "key": key, "value": value, "enabled": true });
    let environment = json!({
        "name": "test",
        "values": [
            variable("client_id", "json"),
            variable("client_secret", &secret_of("json")),
            variable("scope", "firstvision.a"),
        ],
    });
    server.home.write("environment.json", &environment.to_string());
    let program =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/node/node_modules/.bin/newman");
    assert!(program.exists(), "{} is missing: tests/run installs it", program.display());
    let mut newman = Command::new(program);
    newman.args(["run", "collection.json", "--environment", "environment.json"]);
    newman.args(["--reporters", "json", "--reporter-json-export", "report.json"]);
    succeed(newman.current_dir(server.home.path(".")));

    let report = std::fs::read_to_string(server.home.path("report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let executions = report["run"]["executions"].as_array().unwrap();
    assert!(executions.len() >= 22, "only {} requests", executions.len());
    for execution in executions {
        let (name, code) = (&execution["item"]["name"], &execution["response"]["code"]);
        assert!([200, 204].contains(&code.as_u64().unwrap_or(0)), "{name}: {code}");
    }
}
