//! Public documents: server metadata and keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::support::{
    Connection, DEMO, ENCODINGS, Home, Library, Program, Request, Response, Token,
};

const OPENID: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";
const JWKS: &str = "/.well-known/openid-configuration/jwks";
const JWKS_ALIAS: &str = "/.well-known/jwks.json";
const DOCUMENTS: [&str; 4] = [OPENID, OAUTH, JWKS, JWKS_ALIAS];

#[track_caller]
fn assert_public(answer: &Response) {
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    let etag = answer.header("etag").unwrap();
    assert!(etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    assert!(answer.header("x-request-id").is_some());
}

fn expected(issuer: &str, base: &str) -> Value {
    json!({
        "issuer": issuer,
        "token_endpoint": format!("{base}/connect/token"),
        "jwks_uri": format!("{base}/.well-known/openid-configuration/jwks"),
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
        "introspection_endpoint": format!("{base}/connect/introspect"),
        "introspection_endpoint_auth_methods_supported":
            ["client_secret_basic", "client_secret_post", "private_key_jwt"],
        "introspection_endpoint_auth_signing_alg_values_supported": ["RS256", "PS256", "ES256", "EdDSA"],
        "revocation_endpoint": format!("{base}/connect/revocation"),
        "revocation_endpoint_auth_methods_supported":
            ["client_secret_basic", "client_secret_post", "private_key_jwt"],
        "revocation_endpoint_auth_signing_alg_values_supported": ["RS256", "PS256", "ES256", "EdDSA"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS256", "PS256", "ES256", "EdDSA"],
        "dpop_signing_alg_values_supported": ["RS256", "PS256", "ES256", "EdDSA"],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    })
}

#[test]
fn both_discovery_documents_are_equal_and_list_supported_features_only() {
    let server = Program::shared();
    let [openid, oauth] = [OPENID, OAUTH].map(|path| server.ask(&Request::get(path)));
    for answer in [&openid, &oauth] {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_public(answer);
        assert_eq!(answer.json(), expected(&server.issuer, &server.issuer));
    }
    assert_eq!(openid.body, oauth.body);
    assert_eq!(openid.header("etag"), oauth.header("etag"));
    assert_eq!(server.issuer, format!("http://{}", server.address));
}

#[test]
fn the_issuer_is_byte_identical_everywhere() {
    for issuer in [
        "https://auth.example",
        "https://auth.example/",
        "https://AUTH.example:443",
        "https://auth.example/tenant/",
        "https://auth.example/a%2Fb",
    ] {
        let server = Library::start(Home::new(), issuer, 1_790_000_000);
        let metadata = Request::get(OPENID).send(server.address);
        assert_eq!(metadata.json()["issuer"], issuer);
        let base = issuer.trim_end_matches('/');
        assert_eq!(metadata.json(), expected(issuer, base));
        for encoding in ENCODINGS {
            let token = Token::verified(
                &Request::token(encoding, &DEMO).send(server.address),
                server.address,
            );
            assert_eq!(
                (&token.claims["iss"], &token.claims["aud"]),
                (&json!(issuer), &json!(issuer))
            );
        }
    }
}

#[test]
fn an_issuer_with_a_path_has_its_routes_below_it() {
    for issuer in ["https://auth.example/tenant", "https://auth.example/tenant/"] {
        let server = Library::start(Home::new(), issuer, 1_790_000_000);
        let get = |path: &str| Request::get(path).send(server.address);
        // RFC 8414 inserts its well-known path in front of the issuer's path; OpenID Connect
        // appends its well-known path to the issuer's path.
        for path in [
            "/.well-known/oauth-authorization-server/tenant",
            "/tenant/.well-known/openid-configuration",
        ] {
            let answer = get(path);
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.json(), expected(issuer, "https://auth.example/tenant"));
        }
        let keys = get("/tenant/.well-known/openid-configuration/jwks");
        assert_eq!((keys.status, keys.body.clone()), (200, get(JWKS).body));
        for encoding in ENCODINGS {
            let request = Request::token(encoding, &DEMO).with_target("/tenant/connect/token");
            let token = Token::verified(&request.send(server.address), server.address);
            assert_eq!(token.claims["iss"], issuer);
        }
        for path in [
            "/other/.well-known/openid-configuration",
            "/.well-known/oauth-authorization-server/other",
            "/tenantconnect/token",
            "/tenant/tenant/connect/token",
            "/tenant",
        ] {
            get(path).assert_refused(404, "invalid_request");
        }
    }
}

#[test]
fn the_key_set_holds_public_members_only() {
    let server = Program::shared();
    let [jwks, alias] = [JWKS, JWKS_ALIAS].map(|path| server.ask(&Request::get(path)));
    assert_eq!(jwks.body, alias.body);
    assert_public(&jwks);
    let document = jwks.json();
    assert_eq!(document.as_object().unwrap().keys().collect::<Vec<_>>(), ["keys"]);
    let keys = document["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1);
    let key = keys[0].as_object().unwrap();
    let names: Vec<_> = key.keys().map(String::as_str).collect();
    assert_eq!(names, ["kty", "use", "alg", "kid", "n", "e"]);
    assert_eq!(
        (&key["kty"], &key["use"], &key["alg"]),
        (&json!("RSA"), &json!("sig"), &json!("RS256"))
    );

    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    assert_eq!(bytes("e"), [1, 0, 1]);
    assert_eq!(bytes("n").len(), 256);
    assert_ne!(bytes("n")[0], 0, "a leading zero");
    // The `kid` is the key's thumbprint (RFC 7638, section 3).
    let members = format!(r#"{{"e":{},"kty":"RSA","n":{}}}"#, key["e"], key["n"]);
    let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()));
    assert_eq!(key["kid"], thumbprint);
}

#[test]
fn a_matching_etag_is_answered_with_304() {
    let server = Program::shared();
    for path in DOCUMENTS {
        let first = server.ask(&Request::get(path));
        let etag = first.header("etag").unwrap();
        assert_eq!(server.ask(&Request::get(path)).header("etag"), Some(etag));
        for known in [etag, &format!("W/{etag}"), "*", &format!("\"other\", {etag}")] {
            let answer = server.ask(&Request::get(path).header("If-None-Match", known));
            assert_eq!((answer.status, answer.text()), (304, ""), "{known}");
            assert_eq!(answer.header("etag"), Some(etag));
            assert_public(&answer);
        }
        for other in ["\"other\"", etag.trim_matches('"'), ""] {
            let answer = server.ask(&Request::get(path).header("If-None-Match", other));
            assert_eq!((answer.status, &answer.body), (200, &first.body), "{other}");
        }
    }
}

#[test]
fn head_answers_like_get_without_a_body() {
    let server = Program::shared();
    for path in DOCUMENTS {
        let get = server.ask(&Request::get(path));
        let mut connection = Connection::open(server.address);
        let head = connection.ask(&Request::new("HEAD", path));
        assert_eq!((head.status, head.body.len()), (200, 0));
        for name in ["content-type", "content-length", "etag", "cache-control"] {
            assert_eq!(head.header(name), get.header(name), "{name}");
        }
        assert_public(&head);
        // The answer to HEAD had no body, so the next answer can be read.
        assert_eq!(connection.ask(&Request::get(path)).body, get.body);
    }
}

#[test]
fn the_cache_time_is_the_configured_one() {
    let server = Program::configured("jwks_max_age = 60\n");
    for path in DOCUMENTS {
        let answer = server.ask(&Request::get(path));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=60"));
    }
}

#[test]
fn other_methods_get_405_with_allow() {
    let server = Program::shared();
    for path in DOCUMENTS {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = server.ask(&Request::new(method, path).body("x"));
            answer.assert_refused(405, "invalid_request");
            assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method} {path}");
        }
    }
}

#[test]
fn cors_headers_are_on_the_public_documents_only() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let origin = |request: Request| request.header("Origin", "https://other.example");
        let token = server.ask(&origin(Request::token(encoding, &DEMO)));
        assert_eq!((token.status, token.header("access-control-allow-origin")), (200, None));
        let refused = server.ask(&origin(Request::token(encoding, &DEMO[..1])));
        refused.assert_refused(400, "invalid_request");
        server.ask(&origin(Request::get("/nothing"))).assert_refused(404, "invalid_request");
        let document = server.ask(&origin(Request::get(OPENID)));
        assert_eq!(document.header("access-control-allow-origin"), Some("*"));
        assert_eq!(document.header("access-control-allow-credentials"), None);
    }
}

#[test]
fn other_paths_are_not_found() {
    let server = Program::shared();
    for path in [
        "/other",
        "/connect",
        "/connect/token/",
        "/connect//token",
        "/Connect/Token",
        "/connect/%74oken",
        "/connect/authorize",
        "/.well-known/openid-configuration/",
        "/.well-known/../connect/token",
        "/metrics",
        "/livez",
        "/readyz",
    ] {
        for method in ["GET", "POST"] {
            let answer = server.ask(&Request::new(method, path));
            answer.assert_refused(404, "invalid_request");
            let description = answer.json()["error_description"].to_string();
            assert!(description.contains("There is nothing at this path."), "{description}");
        }
    }
}
