//! Every command reads flags, `GRANTD_*` and the configuration as `serve` does.

use std::fs;

use serde_json::{Value, json};

use crate::support::command::{Ended, run, run_with_input};
use crate::support::home::{hash_of, secret_of};
use crate::support::ports::free_port;
use crate::support::{Home, Program};

/// A home with a registry, keys and a configuration in a directory of their own, and nothing where
/// the defaults are.
fn elsewhere() -> Home {
    let home = Home::new();
    fs::create_dir(home.path("d")).unwrap();
    fs::rename(home.clients(), home.path("d/registry.json")).unwrap();
    fs::rename(home.keys(), home.path("d/own-keys")).unwrap();
    home.write("g.toml", "clients = \"d/registry.json\"\nkeys = \"d/own-keys\"\n");
    home
}

/// One of the ways to name files to a command.
type Way<'a> = dyn Fn(&[&str]) -> Ended + 'a;

#[test]
fn every_client_and_key_command_acts_on_what_serve_serves() {
    let home = elsewhere();
    home.write(
        "lines",
        "{\"client_id\":\"imported\",\"client_secret\":\"short\",\"scopes\":[\"r\"]}",
    );
    let commands: [&[&str]; 15] = [
        &["client", "add", "--id", "new", "--scope", "read"],
        &["client", "update", "--id", "new", "--lifetime", "15m"],
        &["client", "list"],
        &["client", "show", "--id", "new"],
        &["client", "disable", "--id", "new"],
        &["client", "enable", "--id", "new"],
        &["client", "rotate-secret", "--id", "new", "--label", "second"],
        &["client", "expire-secret", "--id", "new", "--label", "first"],
        &["client", "import", "lines"],
        &["client", "remove", "--id", "new"],
        &["client", "remove", "--id", "imported"],
        &["key", "list"],
        &["key", "rotate"],
        &["key", "retire"],
        &["check"],
    ];
    let before = fs::read_to_string(home.path("d/registry.json")).unwrap();
    let ways: [&Way<'_>; 4] = [
        &|command| run(home.command(command).args(["--config", "g.toml"])),
        &|command| run(home.command(command).env("GRANTD_CONFIG", "g.toml")),
        &|command| {
            let paths = [("GRANTD_CLIENTS", "d/registry.json"), ("GRANTD_KEYS", "d/own-keys")];
            run(home.command(command).envs(paths))
        },
        // An empty variable is an unset one; a variable wins over the file.
        &|command| {
            home.write("other.toml", "clients = \"none.json\"\nkeys = \"d/own-keys\"\n");
            let variables =
                [("GRANTD_CLIENTS", "d/registry.json"), ("GRANTD_KEYS", ""), ("GRANTD_STATE", "")];
            run(home.command(command).envs(variables).args(["--config", "other.toml"]))
        },
    ];
    for (index, way) in ways.iter().enumerate() {
        for command in commands {
            // One key waits: another is refused.
            if command != ["key", "rotate"] || index == 0 {
                let ended = way(command);
                assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{index} {command:?}");
            }
        }
        assert_eq!(fs::read_to_string(home.path("d/registry.json")).unwrap(), before, "{index}");
    }
    assert!(!home.clients().exists() && !home.keys().exists() && !home.path("none.json").exists());
}

#[test]
fn a_key_lives_as_long_as_tokens_of_the_registry_that_is_named() {
    let home = Home::new();
    home.write("long.json", "{\"clients\": [{\"client_id\": \"a\", \"token_lifetime\": 1000000}]}");
    let gone_after = |command: &mut std::process::Command| {
        let made: Value = serde_json::from_str(run(command).assert_fine()).unwrap();
        let time = |name: &str| made["retires"][name].as_u64().unwrap();
        time("gone_at") - time("retires_at")
    };
    let mut rotate = home.command(&["key", "rotate"]);
    assert!(gone_after(rotate.env("GRANTD_CLIENTS", "long.json")) >= 1_000_000);
}

#[test]
fn a_variable_is_named_and_its_words_are_those_of_operators() {
    let home = Home::new();
    home.write("clients.json", "{\"clients\": []}");
    for (variable, value, says) in [
        ("GRANTD_WORKERS", "some", "must be a number from 1 to 1024"),
        ("GRANTD_LOG_LEVEL", "loud", "error, warn, info, debug"),
        ("GRANTD_LOG_FORMAT", "xml", "auto, json, human"),
        ("GRANTD_SIGNER", "fast", "auto, batch, ring, aws-lc"),
        ("GRANTD_ALLOW_DEMO_CLIENTS", "maybe", "yes or no"),
        ("GRANTD_LISTEN", "127.0.0.1", "host:port"),
        ("GRANTD_ADMIN_LISTEN", "::1:8081", "[::1]:8081"),
        ("GRANTD_ISSUER", "auth.example", "http:// or https://"),
    ] {
        let ended = run(home.command(&["check"]).env(variable, value));
        let named = format!("error: {variable}: invalid value '{value}'");
        ended.assert_error(2, &[&named, says]);
        run(home.command(&["check"]).env(variable, "")).assert_fine();
    }
    // What a flag says is the flag's fault.
    let flag = run(home.command(&["check", "--workers", "x"]).env("GRANTD_WORKERS", "3"));
    flag.assert_error(2, &["'--workers <N>'"]);
    assert!(!flag.stderr.contains("GRANTD_WORKERS"), "{}", flag.stderr);
    for (variable, value) in [
        ("GRANTD_LOG_LEVEL", "INFO"),
        ("GRANTD_LOG_FORMAT", "Json"),
        ("GRANTD_SIGNER", "Ring"),
        ("GRANTD_ALLOW_DEMO_CLIENTS", "ON"),
        ("GRANTD_ALLOW_DEMO_CLIENTS", "0"),
    ] {
        run(home.command(&["check"]).env(variable, value)).assert_fine();
    }
    for (word, is_allowed) in
        [("true", true), ("1", true), ("Yes", true), ("on", true), ("FALSE", false), ("no", false)]
    {
        let home = Home::new();
        home.write("g.toml", "allow_demo_clients = true\nissuer = \"https://auth.example\"\n");
        let mut check = home.command(&["check", "--config", "g.toml"]);
        let ended = run(check.env("GRANTD_ALLOW_DEMO_CLIENTS", word));
        assert_eq!(ended.code, Some(if is_allowed { 0 } else { 1 }), "{word}: {ended:?}");
    }
}

#[test]
fn an_ipv6_address_without_brackets_is_refused_with_the_right_one() {
    let home = Home::new();
    for flag in ["--listen", "--admin-listen"] {
        for (address, meant) in [("::1:8080", "[::1]:8080"), (":::8080", "[::]:8080")] {
            run(home.command(&["serve", flag, address])).assert_error(2, &[meant]);
        }
    }
    run(home.command(&["key", "list", "--admin", "::1:8081"])).assert_error(2, &["[::1]:8081"]);
    run(home.command(&["health", "--admin", "::1:8081"])).assert_error(2, &["[::1]:8081"]);
}

#[test]
fn an_issuer_that_no_client_can_ask_is_warned_of() {
    let home = Home::new();
    home.write("clients.json", "{\"clients\": []}");
    for arguments in [
        &["--listen", "0.0.0.0:0"][..],
        &["--listen", "[::]:0"],
        &["--issuer", "http://0.0.0.0:8080"],
    ] {
        let checked = run(home.command(&["check"]).args(arguments));
        let says = "clients cannot connect to this address: pass --issuer";
        assert!(checked.assert_fine().contains(says), "{checked:?}");
    }
    let checked = run(home.command(&["check", "--listen", "0.0.0.0:0", "--issuer", "http://a"]));
    assert!(!checked.assert_fine().contains("by this name"), "{checked:?}");
    let server = Program::start(home, &["--issuer", "http://0.0.0.0:1"]);
    let is_it = |line: &Value| {
        line["level"] == "WARN"
            && line["message"].as_str().is_some_and(|text| text.contains("no client can ask"))
    };
    server.log.wait_for(is_it);
}

#[test]
fn health_says_whether_a_server_is_alive_and_ready() {
    let server = Program::shared();
    let (home, admin) = (&server.home, server.admin.to_string());
    for ready in [&[][..], &["--ready"]] {
        let by_flag = run(home.command(&["health", "--admin", &admin]).args(ready));
        assert_eq!(by_flag.assert_fine(), "ok\n");
        let mut by_variable = home.command(&["health"]);
        run(by_variable.args(ready).env("GRANTD_ADMIN_LISTEN", &admin)).assert_fine();
        // A listener on every address is asked on this machine.
        let every = format!("0.0.0.0:{}", server.admin.port());
        home.write("h.toml", &format!("admin_listen = \"{every}\"\n"));
        let mut by_config = home.command(&["health", "--config", "h.toml"]);
        run(by_config.args(ready)).assert_fine();
    }
    let nothing = format!("127.0.0.1:{}", free_port());
    run(home.command(&["health", "--admin", &nothing]))
        .assert_error(1, &["cannot be reached", "is the server running there?"]);
    // The public listener has no such path.
    let public = server.address.to_string();
    run(home.command(&["health", "--admin", &public]))
        .assert_error(1, &["/livez: answered 404", "is this the admin listener"]);
}

#[test]
fn a_secret_ends_before_its_line_break_and_no_earlier() {
    let server = Program::shared();
    let url = format!("http://{}", server.address);
    let ask = ["token", "--url", &url, "--client-id", "demo-client"];
    let secret = crate::support::DEMO[1].1;
    for end in ["", "\n", "\r\n"] {
        let text = format!("{secret}{end}");
        run_with_input(server.home.command(&ask), &text).assert_fine();
        run(server.home.command(&ask).env("GRANTD_CLIENT_SECRET", &text)).assert_fine();
        let mut with_empty = server.home.command(&ask);
        run_with_input(with_empty.env("GRANTD_CLIENT_SECRET", ""), &text).assert_fine();
    }
    for end in ["\n\n", "\r", "\n "] {
        let text = format!("{secret}{end}");
        run_with_input(server.home.command(&ask), &text).assert_error(1, &["printable ASCII"]);
        run(server.home.command(&ask).env("GRANTD_CLIENT_SECRET", &text))
            .assert_error(1, &["GRANTD_CLIENT_SECRET: must be printable ASCII"]);
    }
    let home = Home::new();
    let add = ["client", "add", "--id", "new", "--scope", "read", "--secret-stdin"];
    run_with_input(home.command(&add), &format!("\u{feff}{}\r\n", secret_of("new"))).assert_fine();
    let registry = fs::read_to_string(home.clients()).unwrap();
    assert!(registry.contains(&hash_of(&secret_of("new"))), "without mark and line break");
}

#[test]
fn list_shows_what_is_in_force() {
    let home = Home::new();
    let hash = hash_of(&secret_of("a"));
    let secret = |label: &str, more: Value| {
        let mut secret = json!({ "label": label, "hash": hash });
        secret.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        secret
    };
    let (soon, far) = (32_503_680_000_u64, 32_503_680_001_u64);
    home.write(
        "clients.json",
        &json!({ "clients": [
            { "client_id": "off", "enabled": false },
            { "client_id": "a", "scopes": ["read"], "secrets": [
                secret("valid", json!({})),
                secret("ends", json!({ "expires_at": far })),
                secret("ended", json!({ "expires_at": 5 })),
                secret("comes", json!({ "not_before": soon })),
            ]},
        ]})
        .to_string(),
    );
    let list = |more: &[&str]| -> Vec<Value> {
        let listed = run(home.command(&["client", "list"]).args(more));
        listed.assert_fine().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = list(&[]);
    assert_eq!((&all[0]["enabled"], &all[1]["enabled"]), (&json!(false), &json!(true)));
    assert_eq!((&all[0]["valid_secrets"], &all[0]["token_lifetime"]), (&json!([]), &json!(3600)));
    let valid = json!([{ "label": "valid" }, { "label": "ends", "expires_at": far }]);
    assert_eq!(all[1]["valid_secrets"], valid);
    assert_eq!(all[1]["ended_secrets"], json!([{ "label": "ended", "expires_at": 5 }]));
    assert_eq!(all[1]["not_begun_secrets"], json!([{ "label": "comes", "not_before": soon }]));
    assert!(list(&["--expiring", "30d"]).is_empty());
    let expire = ["client", "expire-secret", "--id", "a", "--label", "ends", "--in", "29d"];
    run(home.command(&expire)).assert_fine();
    assert_eq!(list(&["--expiring", "30d"]).len(), 1);
    assert!(list(&["--expiring", "28d"]).is_empty());
    let show = run(home.command(&["client", "show", "--id", "a"]));
    let shown: Value = serde_json::from_str(show.assert_fine()).unwrap();
    let states: Vec<_> = (0..4).map(|index| &shown["secrets"][index]["state"]).collect();
    assert_eq!(states, ["valid", "valid", "ended", "not_begun"]);
}
