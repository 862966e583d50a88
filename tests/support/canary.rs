//! Texts that must not appear in any output for operators.

use crate::support::home::secret_of;
use crate::support::{
    DEMO, ENCODINGS, Request, Response, TOKEN, demo_with, demo_without, request_of,
};

/// A secret that a client might send by mistake in any field.
pub(crate) const CANARY: &str = "canary-7f3a9c51d2e84b60";

/// Returns requests that are refused at different stages, each with the cause that the log must
/// name.
pub(crate) fn refused() -> Vec<(Request, &'static str)> {
    let grant = [("grant_type", "client_credentials")];
    let canary = |name: &'static str| [demo_without(&[name]), vec![(name, CANARY)]].concat();
    let mut requests = Vec::new();
    for encoding in ENCODINGS {
        let form = |parameters: &[(&str, &str)]| Request::token(encoding, parameters);
        let expired = secret_of("expired");
        let disabled = secret_of("disabled");
        requests.extend([
            (form(&canary("client_secret")), "wrong_secret"),
            (form(&canary("client_id")), "unknown_client"),
            (form(&canary("grant_type")), "grant_type_unsupported"),
            // The client's own secret, sent as the scope.
            (form(&demo_with(&[("scope", DEMO[1].1)])), "scope_not_allowed"),
            (form(&demo_with(&[("resource", CANARY)])), "target"),
            (form(&demo_with(&[("client_assertion", CANARY)])), "several_authentications"),
            (form(&demo_with(&[("client_secret", CANARY)])), "parameter_repeated"),
            (form(&demo_with(&[(CANARY, "a"), (CANARY, "b")])), "parameter_repeated"),
            (form(&request_of("expired", &expired, &[])), "secret_not_current"),
            (form(&request_of("disabled", &disabled, &[])), "client_disabled"),
            (form(&demo_without(&["grant_type"])), "grant_type_missing"),
            (form(&grant).basic(&format!("demo-client:{CANARY}")), "wrong_secret"),
            (form(&grant).basic(&format!("{CANARY}:{CANARY}")), "unknown_client"),
            (form(&grant).basic(CANARY), "malformed_authorization"),
            (
                form(&grant).header("Authorization", format!("Bearer {CANARY}")),
                "unsupported_authentication",
            ),
            (
                form(&DEMO).with_target(&format!("{TOKEN}?client_secret={CANARY}")),
                "parameter_in_query",
            ),
            (form(&DEMO).with_target(&format!("/{}", DEMO[1].1)), "not_found"),
            (
                form(&grant).basic(&format!("a:{CANARY}")).with_target(&format!("/a/{CANARY}")),
                "not_found",
            ),
            (form(&canary("client_secret")).with_target(&format!("/{CANARY}/a")), "not_found"),
            (form(&grant).with_target(&format!("/{CANARY}?token={CANARY}")), "not_found"),
            (Request::new("POST", TOKEN).typed_body(CANARY, CANARY), "content_type_malformed"),
            (form(&DEMO).header("Host", CANARY), "host"),
        ]);
    }
    requests
}

/// Returns the claims, the signature and the whole token. No output may contain one of them: the
/// claims reveal the token's contents, and the signature helps to forge the token.
pub(crate) fn parts_of_token(answer: &Response) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    let mut parts: Vec<_> = token.split('.').skip(1).map(str::to_owned).collect();
    parts.push(token);
    parts
}
