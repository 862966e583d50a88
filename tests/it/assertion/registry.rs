//! Client keys in the registry: inline or in a file of their own.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{ISSUER, NOW, START, ask, changed, claims, header, home_of};
use crate::support::command::run;
use crate::support::{Home, Library, Signer};

#[test]
fn a_registry_key_must_be_public_and_usable() {
    let [rs256, _, es256, _] = Signer::all();
    let private = changed(es256.jwk(), &json!({ "d": "hunter2" }));
    let weak = json!({ "kty": "RSA", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode([0xFF; 128]) });
    let symmetric = json!({ "kty": "oct", "k": "hunter2" });
    let set = |key: &Value| json!({ "keys": [rs256.jwk(), key] });
    for (jwks, says) in [
        (set(&private), "clients[0].jwks.keys[1]: contains the private key"),
        (set(&symmetric), "clients[0].jwks.keys[1]: is a symmetric key"),
        (set(&weak), "clients[0].jwks.keys[1]: is an RSA key of fewer than 2048"),
        (json!({ "keys": [] }), "clients[0].jwks: is a JWK Set without a key"),
        (json!({ "hunter2": [] }), "clients[0].jwks: must be a JWK Set"),
        (json!(["hunter2"]), "clients[0].jwks: must be a JWK Set"),
        (json!([[es256.jwk()]]), "clients[0].jwks: must be a JWK Set"),
        (json!("hunter2"), "clients[0].jwks: names a file that cannot be read"),
    ] {
        let inline = home_of(&[("c", json!({ "jwks": jwks }))]);
        let ended = run(inline.command(&["check"]));
        ended.assert_error(1, &["clients.json:", says]);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
        // The registry is pretty-printed. The error names the line of the member `jwks`, or the
        // line of a key inside `jwks`.
        let text = std::fs::read_to_string(inline.clients()).unwrap();
        let place = ended.stderr.split("clients.json:").nth(1).unwrap();
        let line: usize = place.split(':').next().unwrap().parse().unwrap();
        let there = text.lines().nth(line - 1).unwrap();
        assert!(there.contains('{') || there.contains("\"jwks\""), "{line}: {there}");

        if jwks.is_string() {
            continue;
        }
        let filed = home_of(&[("c", json!({ "jwks": "keys-of-c.json" }))]);
        filed.write("keys-of-c.json", &jwks.to_string());
        let ended = run(filed.command(&["check"]));
        ended.assert_error(1, &["keys-of-c.json:1:", says]);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
    for (more, says) in [
        (json!({}), "clients[0].auth_methods: holds private_key_jwt, which needs"),
        (
            json!({ "jwks": es256.jwks(), "token_endpoint_auth_signing_alg": "hunter2" }),
            "clients[0].token_endpoint_auth_signing_alg: must be \"RS256\"",
        ),
    ] {
        let ended = run(home_of(&[("c", more)]).command(&["check"]));
        ended.assert_error(1, &["clients.json:", says]);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
}

#[test]
fn keys_may_be_in_a_file_beside_the_registry() {
    let signer = Signer::es256();
    let home = home_of(&[("c", json!({ "jwks": "keys-of-c.json" }))]);
    home.write("keys-of-c.json", &signer.jwks().to_string());
    let library = Library::start(home, ISSUER, START);
    library.clock.set(NOW);
    let assertion = signer.sign(&header(&signer), &claims("c", ISSUER, NOW));
    assert_eq!(ask(library.address, &assertion).status, 200);
}

/// A client's published key set may also contain keys for other servers or for other uses. The
/// server skips these keys.
#[test]
fn keys_for_other_uses_are_ignored() {
    let [rs256, ps256, es256, eddsa] = Signer::all();
    let further = [
        json!({ "kty": "OKP", "crv": "X25519", "x": "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08" }),
        json!({ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" }),
        json!({ "kty": "AKP", "alg": "ML-DSA-65", "pub": "AA" }),
        changed(rs256.jwk(), &json!({ "alg": "RSA-OAEP", "use": "enc", "kid": "enc" })),
        changed(rs256.jwk(), &json!({ "alg": "RSA-OAEP-256", "kid": "oaep" })),
        changed(es256.jwk(), &json!({ "key_ops": ["deriveKey"], "kid": "derive" })),
    ];
    for signer in [rs256, ps256, es256, eddsa] {
        let mut keys = further.to_vec();
        keys.insert(2, signer.jwk());
        let home = home_of(&[("c", json!({ "jwks": { "keys": keys } }))]);
        let checked = run(home.command(&["check"]));
        for skipped in [0, 1, 3, 4, 5, 6] {
            let says = format!("client c: jwks.keys[{skipped}] is skipped: it ");
            assert!(checked.assert_fine().contains(&says), "{}", checked.stdout);
        }
        assert!(!checked.stdout.contains("keys[2]"), "{}", checked.stdout);
        let library = Library::start(home, ISSUER, START);
        library.clock.set(NOW);
        let assertion = signer.sign(&header(&signer), &claims("c", ISSUER, NOW));
        assert_eq!(ask(library.address, &assertion).status, 200);
    }
    let none = home_of(&[("c", json!({ "jwks": { "keys": further } }))]);
    let ended = run(none.command(&["check"]));
    ended.assert_error(1, &["clients.json:", "clients[0].jwks: holds no key that verifies"]);
}

#[test]
fn a_client_is_added_with_its_keys_and_without_a_secret() {
    let signer = Signer::rs256();
    let home = Home::new();
    home.write("jwks.json", &signer.jwks().to_string());
    let mut add = home.command(&["client", "add", "--id", "new", "--scope", "read"]);
    add.args(["--method", "private_key_jwt", "--jwks", "jwks.json"]);
    assert_eq!(run(&mut add).assert_fine(), "{\"client_id\":\"new\"}\n");
    let shown = run(home.command(&["client", "show", "--id", "new"])).json();
    assert_eq!(shown["secrets"], json!([]));
    assert_eq!(shown["auth_methods"], json!(["private_key_jwt"]));
    assert_eq!(shown["jwks"], signer.jwks());

    let library = Library::start(home, ISSUER, START);
    library.clock.set(NOW);
    let assertion = signer.sign(&header(&signer), &claims("new", ISSUER, NOW));
    assert_eq!(ask(library.address, &assertion).status, 200);

    let home = Home::new();
    home.write("private.json", &json!({ "keys": [{ "kty": "oct", "k": "hunter2" }] }).to_string());
    home.write("text.json", "\"hunter2\"");
    let before = std::fs::read_to_string(home.clients()).unwrap();
    let base = ["client", "add", "--id", "new", "--method", "private_key_jwt"];
    for (more, says) in [
        (&["--jwks", "private.json"][..], "private.json:1:10: keys[0]: is a symmetric key"),
        (&["--jwks", "text.json"], "text.json:1:1: must be a JWK Set"),
        (&["--jwks", "none.json"], "none.json: cannot be read"),
        (&[], "private_key_jwt, which needs"),
        (&["--secret-stdin"], "no --method of this client takes a secret"),
    ] {
        let ended = run(home.command(&base).args(more));
        ended.assert_error(1, &[says]);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
        assert_eq!(std::fs::read_to_string(home.clients()).unwrap(), before);
    }
}
