//! `grantd client add` and `update`: every field of the registry, and warnings about clients that
//! can get no token.

use std::fs;

use serde_json::{Value, json};

use crate::support::command::{Ended, run, run_with_input};
use crate::support::{Home, Signer};

/// Returns flags for every field except `secrets`. Each entry has the flags, the field that they
/// set, and the value that they write.
fn fields(jwks: &Value) -> Vec<(Vec<&'static str>, &'static str, Value)> {
    let (dn, san) = ("CN=a,O=b", "a.example");
    vec![
        (vec!["--enabled", "false"], "enabled", json!(false)),
        (vec!["--scope", "read write", "--scope", "x"], "scopes", json!(["read", "write", "x"])),
        (vec!["--scope", "a b", "--default-scope", "b"], "default_scopes", json!(["b"])),
        (vec!["--scope", "a b", "--no-default-scope"], "default_scopes", json!([])),
        (vec!["--no-scope"], "scopes", json!([])),
        (vec!["--audience", "a", "--audience", "b"], "audience", json!(["a", "b"])),
        (vec!["--introspects", "urn:a"], "introspects", json!(["urn:a"])),
        (vec!["--lifetime", "900"], "token_lifetime", json!(900)),
        (vec!["--lifetime", "15m"], "token_lifetime", json!(900)),
        (vec!["--lifetime", "24h"], "token_lifetime", json!(86_400)),
        (vec!["--lifetime", "90d"], "token_lifetime", json!(7_776_000)),
        (vec!["--claim", "a=b", "--claim", "c:=[1]"], "claims", json!({ "a": "b", "c": [1] })),
        (vec!["--method", "client_secret_post"], "auth_methods", json!(["client_secret_post"])),
        (vec!["--jwks", "jwks.json"], "jwks", jwks.clone()),
        (
            vec!["--token-endpoint-auth-signing-alg", "ES256"],
            "token_endpoint_auth_signing_alg",
            json!("ES256"),
        ),
        (vec!["--tls-client-auth-subject-dn", dn], "tls_client_auth_subject_dn", json!(dn)),
        (vec!["--tls-client-auth-san-dns", san], "tls_client_auth_san_dns", json!(san)),
        (vec!["--tls-client-auth-san-uri", "urn:a"], "tls_client_auth_san_uri", json!("urn:a")),
        (
            vec!["--tls-client-auth-san-ip", "192.0.2.1"],
            "tls_client_auth_san_ip",
            json!("192.0.2.1"),
        ),
        (vec!["--tls-client-auth-san-email", "a@b"], "tls_client_auth_san_email", json!("a@b")),
        (
            vec!["--tls-client-certificate-bound-access-tokens"],
            "tls_client_certificate_bound_access_tokens",
            json!(true),
        ),
        (vec!["--dpop-bound-access-tokens=no"], "dpop_bound_access_tokens", json!(false)),
        (vec!["--not-before", "1790000000"], "not_before", json!(1_790_000_000)),
        (vec!["--not-before", "2026-09-21T14:13:20Z"], "not_before", json!(1_790_000_000)),
        (vec!["--token-profile", "vision"], "token_profile", json!("vision")),
        (vec!["--content-type", "application/json"], "content_type", json!("application/json")),
        (vec!["--rate-limit", "100/1m"], "rate_limit", json!({ "requests": 100, "seconds": 60 })),
        (vec!["--token-reuse", "10m"], "token_reuse", json!(600)),
        (vec!["--server-timing"], "server_timing", json!(true)),
    ]
}

fn client(home: &Home, arguments: &[&str]) -> Ended {
    run(home.command(&["client"]).args(arguments))
}

/// Returns the entry of the client `id` in the registry file.
fn entry(home: &Home, id: &str) -> Value {
    let text = fs::read_to_string(home.clients()).unwrap();
    let registry: Value = serde_json::from_str(&text).unwrap();
    let mut clients = registry["clients"].as_array().unwrap().iter();
    clients.find(|client| client["client_id"] == id).expect("the client").clone()
}

#[test]
fn add_and_update_set_every_field() {
    let home = Home::new();
    let jwks = Signer::es256().jwks();
    home.write("jwks.json", &jwks.to_string());
    client(&home, &["add", "--id", "u", "--scope", "read"]).assert_fine();
    let secrets = entry(&home, "u")["secrets"].clone();
    let mut names = std::collections::BTreeSet::new();
    for (index, (flags, field, expected)) in fields(&jwks).into_iter().enumerate() {
        let id = format!("new-{index}");
        let added = client(&home, &[&["add", "--id", &id][..], &flags].concat());
        assert_eq!(added.code, Some(0), "{flags:?}: {added:?}");
        assert_eq!(entry(&home, &id)[field], expected, "add {flags:?}");
        let updated = client(&home, &[&["update", "--id", "u"][..], &flags].concat());
        assert_eq!(updated.code, Some(0), "{flags:?}: {updated:?}");
        assert_eq!(entry(&home, "u")[field], expected, "update {flags:?}");
        assert_eq!(entry(&home, "u")["secrets"], secrets);
        // `--unset` removes the field, so its default applies again.
        client(&home, &["update", "--id", "u", "--unset", field]);
        assert!(entry(&home, "u").get(field).is_none(), "{field}");
        names.insert(field);
    }
    assert_eq!(names.len(), 23, "every field that the registry's reader knows: {names:?}");
}

#[test]
fn an_update_changes_no_other_byte() {
    let home = Home::new();
    let before = "{ \"clients\" : [\n\t{\"client_id\":\"a\",  \"token_lifetime\" :60,\r\n \
                  \"claims\": {\"a\":\"b\"} , \"scopes\":[\"r\"]},\n {\"client_id\": \"b\"}\n ]}\n\n";
    home.write("clients.json", before);
    let text = || fs::read_to_string(home.clients()).unwrap();
    client(&home, &["update", "--id", "a", "--lifetime", "2m"]);
    let after = before.replace(":60", ":120");
    assert_eq!(text(), after);
    client(&home, &["update", "--id", "a", "--claim", "c=d"]);
    let after = after.replace("{\"a\":\"b\"}", "{\"a\":\"b\",\"c\":\"d\"}");
    assert_eq!(text(), after);
    client(&home, &["update", "--id", "a", "--unset", "claims", "--claim", "e=f"]);
    assert_eq!(entry(&home, "a")["claims"], json!({ "e": "f" }));
    client(&home, &["update", "--id", "a", "--unset", "scopes", "--unset", "claims"]);
    assert!(
        text().starts_with("{ \"clients\" : [\n\t{\"client_id\":\"a\",  \"token_lifetime\" :120}")
    );
    assert!(text().ends_with(",\n {\"client_id\": \"b\"}\n ]}\n\n"));
    let kept = text();
    for (arguments, says) in [
        (&["--id", "a"][..], "grantd: nothing is to be changed"),
        (&["--id", "none", "--lifetime", "1"], "grantd: clients.json: has no such client"),
        (&["--id", "a", "--lifetime", "0"], "grantd: --lifetime: must be a number of seconds"),
        (&["--id", "a", "--token-reuse", "121"], "grantd: --token-reuse: must be"),
        (&["--id", "a", "--method", "private_key_jwt"], "grantd: --method: holds private_key_jwt"),
        (&["--id", "a", "--claim", "iss=x"], "grantd: --claim: must not set a claim"),
        (&["--id", "a", "--claim", "a=1", "--claim", "a=2"], "grantd: --claim: gives a twice"),
        (&["--id", "a", "--jwks", "none.json"], "none.json: cannot be read: "),
        (&["--id", "a", "--unset", "audience", "--audience", "x"], "grantd: --unset audience: "),
    ] {
        client(&home, &[&["update"], arguments].concat()).assert_error(1, &[says]);
        assert_eq!(text(), kept);
    }
    for arguments in [
        &["--unset", "secrets"][..],
        &["--unset", "client_id"],
        &["--lifetime", "1w"],
        &["--not-before", "1790000000000"],
        &["--not-before", "yesterday"],
        &["--rate-limit", "100"],
        &["--claim", "a:=b"],
        &["--claim", "a:={\"b\":1,\"b\":2}"],
        &["--server-timing=maybe"],
        &["--scope", "a", "--no-scope"],
    ] {
        client(&home, &[&["update", "--id", "a"], arguments].concat())
            .assert_error(2, &["error: "]);
    }
    // The first update sets `token_reuse` to 100 s, which is valid. The second update is refused,
    // because it would make the token lifetime shorter than `token_reuse`.
    client(&home, &["update", "--id", "a", "--token-reuse", "100"]);
    client(&home, &["update", "--id", "a", "--lifetime", "50"]).assert_error(
        1,
        &["grantd: --lifetime: 50 s is less than the client's token_reuse of 100 s: "],
    );
    client(&home, &["update", "--id", "a", "--lifetime", "50", "--token-reuse", "51"])
        .assert_error(1, &["grantd: --token-reuse: must be a number of seconds"]);
}

#[test]
fn a_client_that_can_get_no_token_is_warned_of_unless_it_is_disabled() {
    let home = Home::new();
    let warned = |arguments: &[&str], says: &str| {
        let ended = client(&home, arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        let expected = if says.is_empty() { ended.stderr.is_empty() } else { true };
        assert!(expected && ended.stderr.contains(says), "{arguments:?}: {}", ended.stderr);
    };
    let no_scope = "grantd: warning: client a: it can get no token: it has no scope";
    warned(&["add", "--id", "a"], no_scope);
    warned(&["add", "--id", "b", "--no-scope"], "");
    warned(&["add", "--id", "c", "--introspects", "urn:a"], "");
    warned(&["add", "--id", "d", "--scope", "read"], "");
    warned(&["update", "--id", "a", "--lifetime", "15m"], no_scope);
    warned(&["update", "--id", "a", "--no-scope"], "");
    warned(&["update", "--id", "a", "--scope", "read"], "");
    warned(
        &["update", "--id", "d", "--unset", "scopes", "--unset", "default_scopes"],
        "client d: ",
    );
    warned(&["disable", "--id", "d"], "");
    warned(&["enable", "--id", "d"], "client d: it can get no token: it has no scope");
    let none = "client a: it can get no token: none of its secrets is valid now";
    warned(&["expire-secret", "--id", "a", "--label", "first", "--in", "1h"], "");
    warned(&["expire-secret", "--id", "a", "--label", "first"], none);
    warned(&["rotate-secret", "--id", "a", "--label", "next"], "");
    warned(&["expire-secret", "--id", "a", "--label", "next", "--at", "2027-01-31T12:00:00Z"], "");
    let text = || fs::read_to_string(home.clients()).unwrap();
    let kept = text();
    let at = ["expire-secret", "--id", "a", "--label", "next", "--at"];
    let ends = "grantd: warning: client a: the secret next already ends at 1801396800 \
                (2027-01-31T12:00:00Z), which is earlier: nothing is changed\n";
    warned(&[&at[..], &["2027-01-31T12:00:01Z"]].concat(), ends);
    warned(&[&at[..], &["2027-01-31T12:00:00Z"]].concat(), "");
    assert_eq!(text(), kept);
    warned(&["rotate-secret", "--id", "d"], "client d: it can get no token: it has no scope");
    let lines = [json!({ "client_id": "x", "scopes": ["r"] }), json!({ "client_id": "y" })];
    let lines = lines.map(|line| line.to_string()).join("\n");
    let imported = run_with_input(home.command(&["client", "import", "-"]), &lines);
    let says = "warning: client x: it can get no token: it has no secret";
    assert!(imported.stderr.contains(says), "{imported:?}");
    assert!(imported.stderr.contains("1 more of those imported"), "{imported:?}");
}
