//! Clients of other token servers, and the settings that replace theirs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::recipes::{Recipe, addresses_of, directory, moved, run};
use crate::support::{Home, Program, Request};

/// The imported clients get tokens with the secrets that they have always used, at the paths that
/// they have always used.
#[test]
fn clients_are_imported_with_their_hashes() {
    let recipe = Recipe::open("moving.md");
    let home = Home::new();
    home.write("clients.json", "{\"clients\": []}");
    let entries = home.write("clients.jsonl", recipe.file("clients.jsonl"));
    let converted = run(&home, recipe.commands("printf %s 'H0c"));
    let entries = fs::read_to_string(entries).unwrap();
    assert!(entries.contains(&format!("$sha256${converted}\"")), "{converted}");
    let printed = run(&home, recipe.commands("grantd client import"));
    assert!(printed.starts_with("{\"imported\":3}\n"), "{printed}");
    home.write("grantd.toml", recipe.file("grantd.toml"));
    let server = Program::start(home, &["--config", "grantd.toml"]);

    let check = moved(recipe.commands("printf a-secret"), &addresses_of(&server));
    let printed = run(&server.home, &check);
    assert!(printed.contains("client_tenant"), "{printed}");
    for (id, secret, path, lifetime) in [
        ("from-identityserver", "a-secret-that-identityserver-knows-1", "/connect/token", 3600),
        ("from-hydra", "a-secret-that-hydra-knows", "/oauth2/token", 3600),
        ("from-oidc-provider", "a-secret-that-oidc-provider-knows-01", "/token", 600),
    ] {
        let ask = |secret: &str| {
            let form = "grant_type=client_credentials&scope=reports.read";
            let request = Request::new("POST", path).basic(&format!("{id}:{secret}"));
            server.ask(&request.typed_body("application/x-www-form-urlencoded", form))
        };
        let answer = ask(secret);
        assert_eq!((answer.status, &answer.json()["expires_in"]), (200, &json!(lifetime)), "{id}");
        assert_eq!(ask("another").status, 401, "{id}");
    }
    recipe.assert_all_run();
}

/// Every setting and field of grantd in the tables is in `docs/settings.md`, and every command and
/// path exists.
#[test]
fn the_tables_name_what_exists() {
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let settings = fs::read_to_string(settings).unwrap();
    let named: Vec<_> =
        settings.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    // Values of `auth_methods` and `token_profile`, and words of requests and tokens.
    let words = [
        "private_key_jwt",
        "self_signed_tls_client_auth",
        "client_secret_jwt",
        "none",
        "client_credentials",
        "client_",
        "at+jwt",
        "resource",
        "scope",
        "scp",
        "ext",
        "/resources",
        "Description",
        "Expiration",
        "Reference",
        "strategies.scope: wildcard",
        "[[route]]",
    ];
    let server = Program::shared();
    let text = fs::read_to_string(directory().join("moving.md")).unwrap();
    let (_, tables) = text.split_once("\n## From Duende").unwrap();
    let mut seen = 0;
    for row in tables.lines().filter(|line| line.starts_with("| ")) {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for code in cell.split('`').skip(1).step_by(2).filter(|code| !words.contains(code)) {
            seen += 1;
            if let Some(command) = code.strip_prefix("grantd ") {
                let words: Vec<_> = command.split(' ').chain(["--help"]).collect();
                let ended = crate::support::command::run(server.home.command(&words));
                assert_eq!(ended.code, Some(0), "{code}: {ended:?}");
            } else if code.starts_with('/') {
                assert_ne!(server.ask(&Request::get(code)).status, 404, "{code}");
            } else {
                assert!(named.contains(&code), "{code} in {row}");
            }
        }
    }
    assert!(seen > 60, "{seen} names");
    let value: Value = server.ask(&Request::get("/.well-known/openid-configuration")).json();
    assert_eq!(value["grant_types_supported"], json!(["client_credentials"]));
}
