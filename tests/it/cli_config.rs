//! Every command reads its settings from flags, `GRANTD_*` variables and the configuration file, in
//! the same way as `serve`.

use std::fs;

use serde_json::{Value, json};

use crate::support::command::{Ended, run, run_with_input};
use crate::support::home::{hash_of, secret_of};
use crate::support::ports::free_port;
use crate::support::registry::changed;
use crate::support::{Home, Program, Request};

/// A home whose registry and keys are in a separate directory. The default paths do not exist, so a
/// command succeeds only if it uses the configured paths.
fn elsewhere() -> Home {
    let home = Home::new();
    fs::create_dir(home.path("d")).unwrap();
    fs::rename(home.clients(), home.path("d/registry.json")).unwrap();
    fs::rename(home.keys(), home.path("d/own-keys")).unwrap();
    home.write("g.toml", "clients = \"d/registry.json\"\nkeys = \"d/own-keys\"\n");
    home
}

/// A function that runs a command. Each of these functions sets the paths of the registry and the
/// keys in a different way: by a file, by variables, or by both.
type Way<'a> = dyn Fn(&[&str]) -> Ended + 'a;

#[test]
fn every_command_uses_the_registry_and_keys_of_serve() {
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
        // An empty variable counts as unset; any other variable overrides the configuration file.
        &|command| {
            home.write("other.toml", "clients = \"none.json\"\nkeys = \"d/own-keys\"\n");
            let variables =
                [("GRANTD_CLIENTS", "d/registry.json"), ("GRANTD_KEYS", ""), ("GRANTD_STATE", "")];
            run(home.command(command).envs(variables).args(["--config", "other.toml"]))
        },
    ];
    for (index, way) in ways.iter().enumerate() {
        for command in commands {
            // `key rotate` runs only in the first of the four ways. The command refuses a second
            // rotation while the key that the first rotation made does not sign yet.
            if command != ["key", "rotate"] || index == 0 {
                let ended = way(command);
                assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{index} {command:?}");
            }
        }
        assert_eq!(fs::read_to_string(home.path("d/registry.json")).unwrap(), before, "{index}");
    }
    assert!(!home.clients().exists() && !home.keys().exists() && !home.path("none.json").exists());
}

/// No database listens there, so a command fails if it uses the store.
const NO_STORE: &str = "postgres://node@127.0.0.1:1/none";

#[test]
fn a_flag_that_names_files_is_not_ignored_for_a_store() {
    let home = Home::new();
    home.write("g.toml", &format!("[store]\nurl = \"{NO_STORE}\"\n"));
    let ways: [&Way<'_>; 2] =
        [&|command| run(home.command(command).env("GRANTD_STORE_URL", NO_STORE)), &|command| {
            run(home.command(command).args(["--config", "g.toml"]))
        }];
    for way in ways {
        way(&["client", "list", "--clients", "clients.json"]).assert_fine();
        for command in [
            &["key", "list", "--keys", "keys"][..],
            &["key", "rotate", "--now", "--keys", "keys"],
            &["key", "retire", "--keys", "keys", "--clients", "clients.json"],
        ] {
            let ended = way(command);
            let says =
                "grantd: warning: --keys: works on the keys in keys, not on those in postgres:";
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert!(
                ended.stderr.starts_with(says) && ended.stderr.lines().count() == 1,
                "{ended:?}"
            );
        }
        way(&["key", "list"]).assert_error(1, &["127.0.0.1:1", "cannot be reached"]);
        way(&["key", "list", "--clients", "clients.json"]).assert_error(
            1,
            &["grantd: warning: --clients: no effect: clients and keys are in the store postgres://"],
        );
    }
    // Variables and the file's settings stand below the store.
    let below = [("GRANTD_KEYS", "keys"), ("GRANTD_STORE_URL", NO_STORE)];
    run(home.command(&["key", "list"]).envs(below)).assert_error(1, &["cannot be reached"]);
}

#[test]
fn a_keys_lifetime_follows_from_the_registry_that_is_named() {
    let home = Home::new();
    home.write("long.json", "{\"clients\": [{\"client_id\": \"a\", \"token_lifetime\": 1000000}]}");
    let gone_after = |command: &mut std::process::Command| {
        let made = run(command).json();
        let time = |name: &str| made["retires"][name].as_u64().unwrap();
        time("gone_at") - time("retires_at")
    };
    let mut rotate = home.command(&["key", "rotate"]);
    assert!(gone_after(rotate.env("GRANTD_CLIENTS", "long.json")) >= 1_000_000);
}

#[test]
fn an_error_in_a_variable_names_it_and_its_values() {
    let home = Home::new();
    home.write("clients.json", "{\"clients\": []}");
    for (variable, value, says) in [
        ("GRANTD_WORKERS", "four", "must be a number from 1 to 1024\n"),
        ("GRANTD_WORKERS", "-1", "must be a number from 1 to 1024\n"),
        ("GRANTD_WORKERS", "1025", "must be a number from 1 to 1024\n"),
        ("GRANTD_LOG_LEVEL", "loud", "must be one of error, warn, info, debug\n"),
        ("GRANTD_LOG_FORMAT", "xml", "auto, json, human"),
        ("GRANTD_SIGNER", "fast", "auto, batch, ring, aws-lc"),
        ("GRANTD_ALLOW_DEMO_CLIENTS", "maybe", "yes or no"),
        ("GRANTD_LISTEN", "a", "an address is written host:port, [::1]:port or unix:/path\n"),
        ("GRANTD_LISTEN", "127.0.0.1:1,", "must not be empty\n"),
        ("GRANTD_ADMIN_LISTEN", "::1:8081", "[::1]:8081"),
        ("GRANTD_ISSUER", "auth.example", "http:// or https://, in lower case\n"),
        ("GRANTD_ISSUER", "HTTPS://a", "http:// or https://, in lower case\n"),
        ("GRANTD_ISSUER", "https://a/?b", "no query, fragment, user or space\n"),
        ("GRANTD_ISSUER", "https://a/é", "a character that no URL has, such as"),
        ("GRANTD_ISSUER", "https://a/{b}", "a character that no URL has, such as"),
    ] {
        let ended = run(home.command(&["check"]).env(variable, value));
        ended.assert_error(1, &[&format!("grantd: {variable}: "), says]);
        let health = run(home.command(&["health"]).env(variable, value));
        health.assert_error(1, &[&format!("grantd: {variable}: "), says]);
        run(home.command(&["check"]).env(variable, "")).assert_fine();
    }
    let is_taken = "is a path that is answered already (/docs): choose another\n";
    for (variable, value, says) in [
        ("GRANTD_JWKS_MAX_AGE", "0", "must be a number from 1 to 86400\n"),
        ("GRANTD_DPOP_NONCE", "maybe", "must be true or false, 1 or 0, yes or no, on or off\n"),
        ("GRANTD_ROUTES", "/a", "must be path=dialect\n"),
        ("GRANTD_ROUTES", "/a=b", "must be one of connect, vision, firstvision\n"),
        ("GRANTD_ROUTES", "/docs=connect", is_taken),
        ("GRANTD_ROUTES", "/v1/getAccessToken/all=connect", "(/v1/getAccessToken/{scope})"),
    ] {
        let ended = run(home.command(&["check"]).env(variable, value));
        ended.assert_error(1, &[&format!("grantd: {variable}: "), says]);
    }
    // The words that a flag offers are those of its setting.
    for (flag, words) in [
        ("--signer", "auto, batch, ring, aws-lc"),
        ("--log-format", "auto, json, human"),
        ("--log-level", "error, warn, info, debug"),
    ] {
        let ended = run(home.command(&["check", flag, "other"]));
        ended.assert_error(2, &[&format!("[possible values: {words}]")]);
        let variable = format!("GRANTD_{}", flag[2..].replace('-', "_").to_uppercase());
        let ended = run(home.command(&["check"]).env(&variable, "other"));
        ended.assert_error(1, &[&format!("grantd: {variable}: must be one of {words}\n")]);
    }
    // A flag overrides its variable, so an error in the flag names the flag and not the variable.
    let flag = run(home.command(&["check", "--workers", "x"]).env("GRANTD_WORKERS", "3"));
    flag.assert_error(2, &["'--workers <N>'"]);
    assert!(!flag.stderr.contains("GRANTD_WORKERS"), "{}", flag.stderr);
    for (variable, value) in [
        ("GRANTD_LOG_LEVEL", "INFO"),
        ("GRANTD_LOG__LEVEL", "INFO"),
        ("GRANTD_LOG_FORMAT", "Json"),
        ("GRANTD_SIGNER", "Ring"),
        ("GRANTD_ROUTES", "/a=Connect, /b=VISION"),
        ("GRANTD_TRUSTED_PROXIES", "Unix"),
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
fn words_are_in_any_case_in_a_file_too() {
    let home = Home::new();
    home.write(
        "g.toml",
        "signer = \"Ring\"\nassertion_audience = \"ISSUER\"\n[log]\nlevel = \"INFO\"\n\
         format = \"Json\"\n[[route]]\npath = \"/a\"\ndialect = \"Vision\"\n",
    );
    run(home.command(&["check", "--config", "g.toml"])).assert_fine();
}

#[test]
fn every_command_that_takes_a_configuration_reads_the_whole_environment() {
    let home = Home::new();
    let commands: [&[&str]; 7] = [
        &["serve"],
        &["check"],
        &["client", "list"],
        &["client", "enable", "--id", "demo-client"],
        &["key", "list"],
        &["key", "generate"],
        &["health"],
    ];
    let keys = || fs::read_dir(home.keys()).unwrap().count();
    let before = (keys(), fs::read_to_string(home.clients()).unwrap());
    for command in commands {
        for (variable, value, says) in [
            ("GRANTD_FAILURES__SECONDS", "soon", "must be a number from 1 to "),
            (
                "GRANTD_FAILURES__SECOND",
                "5",
                "unknown setting: did you mean `GRANTD_FAILURES__SECONDS`",
            ),
            ("GRANTD_KEYS__", "5", "unknown setting"),
            ("GRANTD_ADMIN__LISTEN", "1", "unknown setting: did you mean `GRANTD_ADMIN_LISTEN`?"),
            ("GRANTD_NOVEL__THING", "1", "unknown setting\n"),
        ] {
            let ended = run(home.command(command).env(variable, value));
            ended.assert_error(1, &[&format!("grantd: {variable}: {says}")]);
        }
    }
    assert_eq!((keys(), fs::read_to_string(home.clients()).unwrap()), before);
    // These variables are ignored. Kubernetes sets the first two for a service named grantd; the
    // last one names no setting but is empty, so it counts as unset.
    let others = [
        ("GRANTD_PORT", "tcp://10.0.0.1:8080"),
        ("GRANTD_SERVICE_PORT", "x"),
        ("GRANTD_LIMITS", "x"),
        ("GRANTDX__Y", "x"),
        ("GRANTD_FAILURES__SECOND", ""),
    ];
    run(home.command(&["check"]).envs(others)).assert_fine();
}

#[test]
fn all_faulty_variables_are_told_and_none_of_their_values() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let home = Home::new();
    let mut check = home.command(&["check"]);
    check.env("GRANTD_WORKERS", "hunter2").env("GRANTD_LIMITS__BODY_BYTES", "hunter2");
    check.env("GRANTD_AUDIT", OsStr::from_bytes(b"hunter2\xff"));
    check.env("GRANTD_LOG_LEVEL", "info").env("GRANTD_LOG__LEVEL", "warn");
    let ended = run(&mut check);
    ended.assert_error(
        1,
        &[
            "grantd: GRANTD_WORKERS: must be a number",
            "grantd: GRANTD_LIMITS__BODY_BYTES: must be a number",
            "grantd: GRANTD_AUDIT: is not UTF-8",
            "grantd: GRANTD_LOG__LEVEL: is different from GRANTD_LOG_LEVEL",
        ],
    );
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    let agreeing = [("GRANTD_LOG_LEVEL", "warn"), ("GRANTD_LOG__LEVEL", "warn")];
    run(home.command(&["check"]).envs(agreeing)).assert_fine();
}

#[test]
fn an_empty_path_is_refused_by_the_name_of_its_flag() {
    let home = Home::new();
    for flag in ["--clients", "--keys", "--state", "--admin-token-file", "--listen", "--issuer"] {
        let ended = run(home.command(&["check", flag, ""]));
        ended.assert_error(2, &[flag, "must not be empty"]);
    }
    run(home.command(&["check", "--config", ""])).assert_error(2, &["--config"]);
    run(home.command(&["check", "--workers", ""])).assert_error(2, &["--workers", "a number from"]);
    run(home.command(&["key", "list", "--keys", ""])).assert_error(2, &["--keys"]);
    run(home.command(&["client", "list", "--clients", ""])).assert_error(2, &["--clients"]);
}

/// Each setting is resolved on its own: a flag overrides a variable, a variable overrides the file,
/// and the file overrides the default.
#[test]
fn a_variable_lies_over_the_file_setting_by_setting() {
    let home = Home::new();
    let key = fs::read_dir(home.keys()).unwrap().next().unwrap().unwrap().path();
    let key = key.file_stem().unwrap().to_str().unwrap().to_owned();
    home.write("g.toml", "jwks_max_age = 7\n[limits]\nbody_bytes = 300\nform_parts = 9\n");
    let arguments = ["--config", "g.toml"];
    let variables = [
        ("GRANTD_LIMITS__BODY_BYTES", "200"),
        ("GRANTD_ROUTES", "/a/token=connect,/b/token=vision"),
    ];
    let server = Program::start_with(home, &arguments, &variables);
    let set = Request::get("/.well-known/jwks.json").send(server.address);
    assert!(set.text().contains(&key));
    assert!(set.header("cache-control").unwrap().contains("max-age=7"));
    let ask = |path: &str, length: usize| {
        let body = format!("grant_type=client_credentials&a={}", "x".repeat(length));
        Request::new("POST", path)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body)
            .send(server.address)
            .status
    };
    assert_eq!(ask("/a/token", 100), 400);
    assert_eq!(ask("/a/token", 200), 413);
    assert_eq!(ask("/c/token", 100), 404);
    let vision = Request::new("POST", "/b/token").send(server.address);
    assert!(vision.text().starts_with('['), "{}", vision.text());
}

#[test]
fn an_ipv6_address_without_brackets_is_refused_with_the_right_spelling() {
    let home = Home::new();
    for flag in ["--listen", "--admin-listen"] {
        for (address, meant) in [
            ("::1:8080", "[::1]:8080\n"),
            (":::8080", "[::]:8080\n"),
            ("fe80::1:80", "[fe80::1]:80\n"),
            ("fd00::abcd", "[fd00::abcd]:8080\n"),
        ] {
            run(home.command(&["serve", flag, address])).assert_error(2, &[meant]);
        }
    }
    run(home.command(&["key", "list", "--admin", "::1:8081"])).assert_error(2, &["[::1]:8081"]);
    run(home.command(&["health", "--admin", "::1:8081"])).assert_error(2, &["[::1]:8081"]);
}

#[test]
fn an_issuer_that_clients_cannot_reach_is_warned_of() {
    let home = Home::new();
    home.write("clients.json", "{\"clients\": []}");
    for (arguments, is_warned_of) in [
        (&["--listen", "0.0.0.0:0"][..], true),
        (&["--listen", "[::]:0"], true),
        (&["--issuer", "http://0.0.0.0:8080"], true),
        (&["--issuer", "http://[::]:8080/a"], true),
        (&["--issuer", "https://0.0.0.0"], true),
        (&["--issuer", "http://127.0.0.1:8080"], false),
        (&["--listen", "0.0.0.0:0", "--issuer", "https://a.example"], false),
    ] {
        let checked = run(home.command(&["check"]).args(arguments));
        let says = "clients cannot connect to this address: pass --issuer";
        assert_eq!(checked.assert_fine().contains(says), is_warned_of, "{checked:?}");
    }
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
        // If the admin listener is bound to every address, `health` connects to loopback.
        let every = format!("0.0.0.0:{}", server.admin.port());
        home.write("h.toml", &format!("admin_listen = \"{every}\"\n"));
        let mut by_config = home.command(&["health", "--config", "h.toml"]);
        run(by_config.args(ready)).assert_fine();
    }
    let nothing = format!("127.0.0.1:{}", free_port());
    run(home.command(&["health", "--admin", &nothing]))
        .assert_error(1, &["cannot be reached", "is the server running there?"]);
    // The public listener has no `/livez`.
    let public = server.address.to_string();
    run(home.command(&["health", "--admin", &public]))
        .assert_error(1, &["/livez: answered 404", "is this the admin listener"]);
}

#[test]
fn one_line_break_at_the_end_of_a_secret_is_dropped() {
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
fn list_shows_which_clients_and_secrets_are_valid() {
    let home = Home::new();
    let hash = hash_of(&secret_of("a"));
    let secret = |label: &str, more: Value| changed(json!({ "label": label, "hash": hash }), &more);
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
    let list = |more: &[&str]| run(home.command(&["client", "list"]).args(more)).json_lines();
    let all = list(&[]);
    assert_eq!((&all[0]["enabled"], &all[1]["enabled"]), (&json!(false), &json!(true)));
    assert_eq!((&all[0]["valid_secrets"], &all[0]["token_lifetime"]), (&json!([]), &json!(3600)));
    let ends = json!({ "expires_at": "3000-01-01T00:00:01Z" });
    let valid =
        json!([{ "label": "valid" }, { "label": "ends", "expires_at": far, "dates": ends }]);
    assert_eq!(all[1]["valid_secrets"], valid);
    let ended = json!({ "expires_at": "1970-01-01T00:00:05Z" });
    let ended = json!([{ "label": "ended", "expires_at": 5, "dates": ended }]);
    assert_eq!(all[1]["ended_secrets"], ended);
    let begins = json!({ "not_before": "3000-01-01T00:00:00Z" });
    let not_begun = json!([{ "label": "comes", "not_before": soon, "dates": begins }]);
    assert_eq!(all[1]["not_begun_secrets"], not_begun);
    assert!(list(&["--expiring", "30d"]).is_empty());
    let expire = ["client", "expire-secret", "--id", "a", "--label", "ends", "--in", "29d"];
    run(home.command(&expire)).assert_fine();
    assert_eq!(list(&["--expiring", "30d"]).len(), 1);
    assert!(list(&["--expiring", "28d"]).is_empty());
    let shown = run(home.command(&["client", "show", "--id", "a"])).json();
    let states: Vec<_> = (0..4).map(|index| &shown["secrets"][index]["state"]).collect();
    assert_eq!(states, ["valid", "valid", "ended", "not_begun"]);
}
