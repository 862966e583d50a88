//! The page in a browser: what a developer does on it who has just got an id and a secret. The
//! scripts in `page/` say what happens; each of them starts browsers of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::command::{python, succeed};
use crate::support::home::{hash_of, secret_of};
use crate::support::registry::{changed, client_json, registry_with, secrets_json};
use crate::support::{Home, Program};

/// A client with characters that each language and encoding has to escape.
const SPECIAL_ID: &str = "special:client";
const SPECIAL_SECRET: &str = r#"a"b\c\d$HOME`e` f'g%41h+i&j=k:l;m<n>$(o)#p!{q}@r"#;

/// Starts a server with these settings, two more routes and three more clients: `octet`, which
/// sends octet streams, `limited`, which may make two requests per day, and `SPECIAL_ID`.
fn start(settings: &str) -> Program {
    let client = |id: &str, changes: Value| {
        client_json(
            id,
            &changed(
                json!({ "scopes": ["all", "firstvision.all"], "default_scopes": null }),
                &changes,
            ),
        )
    };
    let home = Home::new();
    let clients = [
        client("octet", json!({ "content_type": "application/octet-stream" })),
        client("limited", json!({ "rate_limit": { "requests": 2, "seconds": 86_400 } })),
        client(SPECIAL_ID, json!({ "secrets": secrets_json(&hash_of(SPECIAL_SECRET)) })),
    ];
    home.write("clients.json", &registry_with(&clients));
    let routes = "[[route]]\npath = \"/o/token\"\ndialect = \"connect\"\n\
         [[route]]\npath = \"/o/getToken\"\ndialect = \"firstvision\"\n";
    home.write("grantd.toml", &format!("{settings}{routes}"));
    Program::start(home, &["--config", "grantd.toml"])
}

/// The facts about the server and its clients that the scripts need.
fn facts(server: &Program, path: &str) -> Value {
    let client = |id: &str| json!({ "id": id, "secret": secret_of(id), "scope": "all" });
    json!({
        "base": format!("http://{}{path}", server.address),
        "routes": ["/o/token", "/o/getToken"],
        "octet": client("octet"),
        "limited": client("limited"),
        "special": { "id": SPECIAL_ID, "secret": SPECIAL_SECRET, "scope": "all" },
    })
}

/// Returns the directory of the packages from npm that `tests/run` installs.
fn packages() -> PathBuf {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/node");
    let driver = packages.join("node_modules/playwright-core");
    assert!(driver.exists(), "{} is missing: tests/run installs it", driver.display());
    packages
}

/// Returns the command that runs a script against the server, whose issuer has this path.
fn script(name: &str, server: &Program, path: &str) -> Command {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/page").join(name);
    let mut node = Command::new("node");
    node.arg(file).arg(facts(server, path).to_string()).env("BROWSER_PACKAGES", packages());
    node
}

#[test]
fn every_service_and_encoding_gives_a_token_that_the_browser_verifies() {
    let server = start("issuer = \"http://localhost/tenant\"\n");
    let printed = succeed(&mut script("tokens.mjs", &server, "/tenant"));
    assert!(printed.ends_with(" tokens\n"), "{printed}");
}

#[test]
fn every_refusal_is_explained() {
    succeed(&mut script("refusals.mjs", &start(""), ""));
}

#[test]
fn a_token_of_a_new_key_is_verified() {
    let server = start("");
    let (keys, admin) = (server.home.keys(), server.admin.to_string());
    let program = env!("CARGO_BIN_EXE_grantd");
    let replace_key = json!([program, "key", "rotate", "--now", "--keys", keys, "--admin", admin]);
    succeed(script("rotation.mjs", &server, "").arg(replace_key.to_string()));
}

#[test]
fn the_secret_is_nowhere_after_use() {
    // By default, the page is not served under the name that is no secure context.
    let server = start("[page]\nenabled = true\n");
    succeed(&mut script("secrets.mjs", &server, ""));
}

#[test]
fn the_pages_are_for_everyone() {
    succeed(&mut script("people.mjs", &start(""), ""));
}

/// The code for C# is not run: Debian has no .NET.
#[test]
fn the_code_on_the_page_gets_tokens() {
    let server = start("");
    let folder = server.home.path("code");
    std::fs::create_dir(&folder).unwrap();
    let mut script = script("snippets.mjs", &server, "");
    succeed(script.arg(folder).env("PYTHON", python()));
}
