//! Shared by the tests of introspection and revocation: clients that may introspect, tokens and
//! requests.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::home::secret_of;
use crate::support::registry::{client_json, registry_with};
use crate::support::{Encoding, Home, Request, Response, request_of};

pub(crate) const INTROSPECT: &str = "/connect/introspect";
pub(crate) const REVOKE: &str = "/connect/revocation";
pub(crate) const ISSUER: &str = "https://auth.example";
/// Arguments that keep the issuer of a server of [`home`] the same across restarts.
pub(crate) const SAME_ISSUER: [&str; 3] = ["--issuer", ISSUER, "--allow-demo-clients"];

/// The body of the introspection answer about a token that is not active.
pub(crate) const INACTIVE: &str = r#"{"active":false}"#;

/// Returns a home with the usual clients and three more: `resource-one`, which may introspect
/// tokens for two audiences; `resource-issuer`, which may introspect tokens for the issuer; and
/// `cut-off`, whose tokens are revoked if they were issued before `not_before` (Unix seconds).
pub(crate) fn home_with(not_before: u64) -> Home {
    let audiences = ["https://api.example/none", "https://api.example/one"];
    let clients = [
        client_json("resource-one", &json!({ "introspects": audiences })),
        client_json("resource-issuer", &json!({ "introspects": [ISSUER] })),
        client_json("cut-off", &json!({ "not_before": not_before, "token_reuse": 600 })),
    ];
    let home = Home::new();
    home.write("clients.json", &registry_with(&clients));
    home
}

pub(crate) fn home() -> Home {
    home_with(0)
}

/// Returns a request by `client` to `path`, with the client's secret in the form.
pub(crate) fn about(
    path: &str,
    encoding: Encoding,
    client: &str,
    parameters: &[(&str, &str)],
) -> Request {
    let secret = secret_of(client);
    let credentials = [("client_id", client), ("client_secret", &*secret)];
    Request::new("POST", path).form(encoding, &[&credentials, parameters].concat())
}

pub(crate) fn introspect(address: SocketAddr, client: &str, token: &str) -> Response {
    about(INTROSPECT, Encoding::Urlencoded, client, &[("token", token)]).send(address)
}

/// Introspects the token as `client` and returns whether the token is active.
#[track_caller]
pub(crate) fn is_active(address: SocketAddr, client: &str, token: &str) -> bool {
    let response = introspect(address, client, token);
    assert_eq!(response.status, 200, "{}", response.text());
    response.text() != INACTIVE
}

pub(crate) fn revoke(address: SocketAddr, client: &str, token: &str) -> Response {
    about(REVOKE, Encoding::Urlencoded, client, &[("token", token)]).send(address)
}

#[track_caller]
pub(crate) fn assert_revoked(response: &Response) {
    assert_eq!((response.status, response.text()), (200, ""));
}

#[track_caller]
fn access_token(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["access_token"].as_str().expect("a token").to_owned()
}

/// Requests a token for `client`. The token has a unique id.
#[track_caller]
pub(crate) fn token_of(address: SocketAddr, client: &str) -> String {
    let secret = secret_of(client);
    let request = Request::token(Encoding::Urlencoded, &request_of(client, &secret, &[]));
    access_token(&request.send(address))
}

/// Requests a token for `client`. The token is in the profile `vision`, whose tokens have no claims
/// `aud`, `sub` and `jti`.
#[track_caller]
pub(crate) fn vision_token_of(address: SocketAddr, client: &str) -> String {
    let request = Request::get("/v1/getAccessToken/read")
        .header("Content-Type", "application/json")
        .basic(&format!("{client}:{}", secret_of(client)));
    access_token(&request.send(address))
}

/// Returns the answer of `GET /connect/validate` about a token.
pub(crate) fn validate(address: SocketAddr, token: &str) -> Response {
    let request = Request::get("/connect/validate");
    request.header("Authorization", format!("Bearer {token}")).send(address)
}

/// Asks `validateToken` about a token of `client` and returns the answer's member `valid`.
#[track_caller]
pub(crate) fn validate_token(address: SocketAddr, client: &str, token: &str) -> Value {
    let body = json!({ "token": token, "client_id": client, "client_secret": secret_of(client) });
    let request = Request::new("POST", "/v1/api/oauth/validateToken");
    let response = request.typed_body("application/json", body.to_string()).send(address);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["valid"].clone()
}

/// The lines of the file that revoke a token.
pub(crate) fn revoked_rows(home: &Home) -> Vec<String> {
    let text = fs::read_to_string(home.path("state/revocations")).unwrap_or_default();
    // The other lines have a hash that begins with `grantd:`.
    text.lines().filter(|line| !line.contains(" sha256:Z3JhbnRkO")).map(str::to_owned).collect()
}
