//! The audit file: one line for each decision.

use std::fs;

use serde_json::{Value, json};

use crate::support::sibling::USER;
use crate::support::{
    DEMO, Encoding, Home, Program, Request, Token, demo_with, demo_without, request_of, wait_until,
};

fn lines(server: &mut Program, file: &str) -> Vec<Value> {
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    let text = fs::read_to_string(server.home.path(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_audit_has_a_line_for_each_token_refusal_revocation_and_reload() {
    let toml = "audit = \"audit.jsonl\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let home = Home::new();
    home.write("grantd.toml", toml);
    let mut server = Program::start(home, &["--config", "grantd.toml", "--allow-demo-clients"]);
    let ask = |request: Request, id: &str| {
        let request = request.header("X-Request-Id", id).header("X-Forwarded-For", "192.0.2.1");
        server.ask(&request)
    };
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let traced = Request::token(Encoding::Multipart, &DEMO)
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
    let issued = ask(traced, "issued");
    let claims = Token::verified(&issued, server.address).claims;
    let token = issued.json()["access_token"].as_str().unwrap().to_owned();
    let wrong = request_of("demo-client", "wrong", &[]);
    assert_eq!(ask(Request::token(Encoding::Urlencoded, &wrong), "refused").status, 400);
    let revoked = [demo_without(&["grant_type"]), vec![("token", &token)]].concat();
    let revoke = Request::new("POST", "/connect/revocation").form(Encoding::Urlencoded, &revoked);
    assert_eq!(ask(revoke, "revoked").status, 200);
    // For these requests the server makes no decision about a client, so it writes no audit line.
    assert_eq!(ask(Request::get("/nowhere"), "nowhere").status, 404);
    assert_eq!(ask(Request::get("/.well-known/jwks.json"), "public").status, 200);
    server.home.write("clients.json", "{");
    server.hang_up();
    server.log.wait_for(|line| line["fault"].is_string());
    server.home.write("clients.json", "{\"clients\":[]}");
    server.hang_up();
    server.log.wait_for(|line| line["message"] == "reloaded");

    let issuer = server.issuer.clone();
    let mut lines = lines(&mut server, "audit.jsonl");
    for line in &mut lines {
        let time = line["time"].take();
        assert!(time.as_str().unwrap().starts_with("20"), "{time}");
    }
    let about = |more: Value| {
        let mut line = json!({ "time": null, "client": "demo-client", "address": "192.0.2.1" });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };
    let fault = lines[4]["fault"].take();
    assert!(fault.as_str().unwrap().starts_with("clients.json:1:"), "{fault}");
    let changes = lines[5]["changes"].take();
    assert!(changes.as_str().unwrap().starts_with("clients removed: "), "{changes}");
    let expected = [
        json!({ "time": null, "event": "started", "issuer": issuer }),
        about(json!({ "event": "issued", "request_id": "issued", "route": "token",
                      "jti": claims["jti"], "reused": false, "trace_id": trace,
                      "scope": "external-api", "audience": [issuer], "lifetime": 3600 })),
        about(json!({ "event": "refused", "request_id": "refused", "route": "token",
                      "cause": "wrong_secret" })),
        about(json!({ "event": "revoked", "request_id": "revoked", "route": "revocation" })),
        json!({ "time": null, "event": "reload_refused", "fault": null }),
        json!({ "time": null, "event": "reloaded", "generation": 2, "changes": null }),
        json!({ "time": null, "event": "stopping" }),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_rotated_audit_file_is_opened_anew() {
    let mut server = Program::configured("audit = \"audit.jsonl\"\n");
    let file = server.home.path("audit.jsonl");
    let written = || fs::read_to_string(&file).unwrap_or_default();
    let ask = |id: &str| {
        let request = Request::token(Encoding::Urlencoded, &demo_with(&[]));
        assert_eq!(server.ask(&request.header("X-Request-Id", id)).status, 200);
    };
    ask("first");
    wait_until(|| written().contains("first"));
    fs::rename(&file, server.home.path("audit.1")).unwrap();
    ask("second");
    let lines = lines(&mut server, "audit.jsonl");
    assert_eq!(lines[0]["request_id"], "second");
    let old = fs::read_to_string(server.home.path("audit.1")).unwrap();
    assert!(old.contains("first") && !old.contains("second"), "{old}");
}

#[test]
fn an_audit_file_that_cannot_be_written_is_a_start_error() {
    let home = Home::new();
    home.write("grantd.toml", "audit = \"nowhere/audit.jsonl\"\n");
    let arguments = ["serve", "--config", "grantd.toml", "--listen", "127.0.0.1:0"];
    let command = home.command(&[&arguments[..], &["--admin-listen", "127.0.0.1:0"]].concat());
    let says = ["grantd: grantd.toml:1:9: audit: nowhere/audit.jsonl: cannot be written"];
    crate::support::command::run(command).assert_error(1, &says);
}

/// The audit line about an issued token contains the token's scope and audience. This is tested in
/// every dialect and for reused tokens.
#[test]
fn the_audit_has_the_scope_and_audience_of_each_token() {
    let home = Home::new();
    home.write("grantd.toml", "audit = \"audit.jsonl\"\n");
    let mut server = Program::start(home, &["--config", "grantd.toml"]);
    let [one, two] = ["https://api.example/one", "urn:example:two"];
    let vision = Request::get("/v1/getAccessToken/edit%20all")
        .header("Content-Type", "application/json")
        .basic(&format!("{}:{}", USER.0, USER.1));
    let form = |id: &str, more: &[(&'static str, &'static str)]| {
        let secret = crate::support::home::secret_of(id);
        Request::token(Encoding::Urlencoded, &request_of(id, &secret, more))
    };
    let asked = [
        (form("two-audiences", &[]), "read", vec![one, two]),
        (form("two-audiences", &[("scope", "write read")]), "write read", vec![one, two]),
        (form("two-audiences", &[("resource", two)]), "read", vec![two]),
        (vision, "edit all", vec![&*server.issuer]),
        (form("reuser", &[]), "read", vec![one, two]),
        (form("reuser", &[]), "read", vec![one, two]),
    ];
    let mut expected = Vec::new();
    for (request, scope, audience) in &asked {
        assert_eq!(server.ask(request).status, 200);
        expected.push(json!({ "scope": scope, "audience": audience }));
    }
    let lines = lines(&mut server, "audit.jsonl");
    let issued: Vec<_> = lines.iter().filter(|line| line["event"] == "issued").collect();
    let told: Vec<_> = issued
        .iter()
        .map(|line| json!({ "scope": line["scope"], "audience": line["audience"] }))
        .collect();
    assert_eq!(told, expected);
    let lifetimes: Vec<_> = issued.iter().map(|line| line["lifetime"].as_u64().unwrap()).collect();
    assert_eq!(lifetimes[..5], [3600, 3600, 3600, 7200, 3600]);
    // In the line about a reused token, `lifetime` is the time that remains until the token
    // expires.
    assert_eq!(issued[5]["reused"], true);
    assert!((3500..=3600).contains(&lifetimes[5]), "{lifetimes:?}");
}
