//! APIs that verify tokens by themselves, in three languages.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::recipes::{Recipe, Serving, addresses_of, local, moved, registered, run};
use crate::support::ports::free_port;
use crate::support::{Encoding, Home, Program, Request, Response, Signer, request_of, wait_until};

const AUDIENCE: &str = "https://api.example.com";
const OTHER: &str = "https://other.example.com";

#[test]
fn python_verifies_tokens() {
    verifies_tokens("python-api.md", "api.py", "uvicorn");
}

#[test]
fn node_verifies_tokens() {
    verifies_tokens("node-api.md", "api.mjs", "node");
}

#[test]
fn java_verifies_tokens() {
    verifies_tokens("java-api.md", "Api.java", "jars=");
}

/// Follows a recipe for an API. The server signs with the key of [`Signer::rs256`], so that the test
/// can sign tokens that the server would not issue.
fn verifies_tokens(recipe: &'static str, file: &str, command: &str) {
    let recipe = Recipe::open(recipe);
    let key = Signer::rs256();
    let home = home_with(&key);
    let clients = registered(&home, recipe.commands("grantd client add"));
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let port = free_port();
    let addresses = [vec![("9000", port.to_string())], addresses_of(&server)].concat();
    server.home.write(file, &moved(recipe.file(file), &addresses));
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/node/node_modules");
    symlink(modules, server.home.path("node_modules")).unwrap();
    let script = moved(recipe.commands(command), &addresses);
    let _api = Serving::start(&server.home, &script, &[], port);

    let check = moved(recipe.commands("token="), &addresses);
    let secret = format!("REPORTING_SECRET={}\n", clients[0].1);
    let printed = run(&server.home, &(secret + &check));
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), json!({ "client": "reporting" }));
    let (server, key, address) = (&server, &key, local(port));
    let api = Api { server, key, clients: &clients, address, path: "/reports", unfit: 401 };
    api.assert_verifies();
    recipe.assert_all_run();
}

/// Returns a home in which `key` signs, and a next key signs soon after it was published.
pub(super) fn home_with(key: &Signer) -> Home {
    let home = Home::without_key();
    home.write_key(&format!("{}.pem", key.thumbprint()), &key.pem());
    home.write("grantd.toml", "jwks_max_age = 1\n");
    home
}

/// Returns a token of one of `clients`.
pub(super) fn token_of(server: &Program, (id, secret): &(String, String)) -> String {
    let answer = server.ask(&Request::token(Encoding::Urlencoded, &request_of(id, secret, &[])));
    answer.json()["access_token"].as_str().expect("a token").to_owned()
}

pub(super) fn ask(api: SocketAddr, path: &str, token: &str) -> Response {
    let request = Request::get(path).without_header("Host").header("Host", api.to_string());
    request.header("Authorization", format!("Bearer {token}")).send(api)
}

/// An API in front of which the tests put all kinds of tokens.
pub(super) struct Api<'a> {
    pub(super) server: &'a Program,
    /// The key with which the server signs.
    pub(super) key: &'a Signer,
    /// The first one has the scope that the API needs, and the second one has not.
    pub(super) clients: &'a [(String, String)],
    pub(super) address: SocketAddr,
    pub(super) path: &'a str,
    /// The status for a valid token for another audience or of another type.
    pub(super) unfit: u16,
}

impl Api<'_> {
    /// Asserts which tokens the API accepts.
    pub(super) fn assert_verifies(&self) {
        self.assert_needs_a_token_with_the_scope();
        self.assert_refuses_other_tokens();
        self.assert_follows_a_rotation();
    }

    fn status(&self, token: &str) -> u16 {
        ask(self.address, self.path, token).status
    }

    fn assert_needs_a_token_with_the_scope(&self) {
        let [good, without_scope] = [0, 1].map(|at| token_of(self.server, &self.clients[at]));
        assert_eq!((self.status(&good), self.status(&without_scope)), (200, 403));
        let refused = Request::get(self.path).send(self.address);
        assert_eq!(refused.status, 401);
        assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer"), "{refused:?}");
        let broken = good[..good.len() - 4].to_owned() + "AAAA";
        for token in [&*broken, "a.b.c", "a", ""] {
            assert_eq!(self.status(token), 401, "{token}");
        }
        // Another server of the same name has another key.
        let foreign = Home::new();
        std::fs::copy(self.server.home.clients(), foreign.clients()).unwrap();
        let foreign = Program::start(foreign, &["--issuer", &self.server.issuer]);
        assert_eq!(self.status(&token_of(&foreign, &self.clients[0])), 401);
    }

    /// Signs tokens that the server would not issue.
    fn assert_refuses_other_tokens(&self) {
        let Self { key, unfit, .. } = *self;
        let now = grantd::clock::Clock::unix_micros() / 1_000_000;
        let header = json!({ "alg": "RS256", "kid": key.thumbprint(), "typ": "at+jwt" });
        let claims = json!({
            "iss": self.server.issuer, "exp": now + 600, "aud": AUDIENCE, "sub": "reporting",
            "client_id": "reporting", "iat": now, "jti": "a", "scope": "a reports.read",
        });
        let audiences = json!([OTHER, AUDIENCE]);
        for (name, value, expected) in [
            ("jti", json!("the test signs as the server does"), 200),
            ("aud", audiences, 200),
            ("exp", json!(now - 600), 401),
            ("exp", Value::Null, 401),
            ("aud", json!(OTHER), unfit),
            ("aud", Value::Null, unfit),
            ("iss", json!(OTHER), 401),
            ("iss", Value::Null, 401),
            ("cnf", json!({ "jkt": "a" }), unfit),
            ("scope", json!("reports.readers"), 403),
            ("scope", json!("a"), 403),
            ("scope", Value::Null, 403),
        ] {
            let token = key.sign(&header, &changed(&claims, name, &value));
            assert_eq!(self.status(&token), expected, "{name}: {value}");
        }
        for (name, value, expected) in [
            ("typ", json!("JWT"), unfit),
            ("typ", Value::Null, unfit),
            ("kid", json!("unknown"), 401),
            ("alg", json!("RS512"), 401),
        ] {
            let token = key.sign(&changed(&header, name, &value), &claims);
            assert_eq!(self.status(&token), expected, "{name}: {value}");
        }
        let vision = key.sign(&json!({ "alg": "RS256" }), &claims);
        assert_eq!(self.status(&vision), unfit, "a vision token");
        let parts = [&changed(&header, "alg", &json!("none")), &claims].map(Value::to_string);
        let unsigned = parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".") + ".";
        assert_eq!(self.status(&unsigned), 401);
    }

    /// The API accepts tokens of the next key, and still those of the old one.
    fn assert_follows_a_rotation(&self) {
        let before = token_of(self.server, &self.clients[0]);
        let rotated = run(&self.server.home, "grantd key rotate --config grantd.toml");
        let next = serde_json::from_str::<Value>(&rotated).unwrap()["kid"].clone();
        let is_by_next = |token: &str| {
            let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
            serde_json::from_slice::<Value>(&header).unwrap()["kid"] == next
        };
        wait_until(|| is_by_next(&token_of(self.server, &self.clients[0])));
        let after = token_of(self.server, &self.clients[0]);
        wait_until(|| self.status(&after) == 200);
        assert_eq!(self.status(&before), 200, "the old key is still published");
    }
}

/// Returns `object` with one member replaced, or removed if `value` is null.
fn changed(object: &Value, name: &str, value: &Value) -> Value {
    crate::support::registry::changed(object.clone(), &json!({ name: value }))
}
