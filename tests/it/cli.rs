//! `serve` and `check`: exit codes, warnings, the order of settings, completions and manual pages.

use std::net::TcpListener;
use std::process::Command;

use serde_json::json;

use crate::support::command::run;
use crate::support::home::secret_of;
use crate::support::registry::client_json;
use crate::support::{DEMO, ENCODINGS, Home, Program, Request};

#[test]
fn usage_errors_exit_with_2() {
    let home = Home::new();
    for arguments in [
        &["--nonsense"][..],
        &["frobnicate"],
        &["serve", "--listen", "nonsense"],
        &["serve", "--listen", "127.0.0.1:65536"],
        &["serve", "--listen", "unix:"],
        &["serve", "--issuer", "ftp://auth.example"],
        &["serve", "--issuer", "https://auth.example/?a=b"],
        &["serve", "--workers", "some"],
        &["serve", "--signer", "fast"],
        &["check", "--log-format", "xml"],
        &["client", "add"],
        &["client", "add", "--id", "a", "--method", "none"],
        &["client", "add", "--id", "a", "--claim", "no-value"],
        &["client", "add", "--id", "a", "--lifetime", "an hour"],
        &["key", "generate", "--bits", "many"],
        &["key", "import"],
        &["completions"],
        &["completions", "cmd"],
        &["man", "frobnicate"],
        &["man", "key", "frobnicate"],
    ] {
        run(home.command(arguments)).assert_error(2, &["error: "]);
    }
    // A command group without a subcommand prints its usage.
    run(home.command(&["client"])).assert_error(2, &["Usage: grantd client <COMMAND>"]);
    for arguments in [&["--help"][..], &["--version"], &["serve", "--help"], &["client", "--help"]]
    {
        assert!(!run(home.command(arguments)).assert_fine().is_empty());
    }
}

#[test]
fn check_counts_clients_and_keys_and_warns() {
    let home = Home::new();
    let checked = run(home.command(&["check"]));
    let lines: Vec<_> = checked.assert_fine().lines().collect();
    let warning = "warning: clients.json: the demo clients (demo-client, vision-api-user) have";
    assert!(lines[0].starts_with(warning), "{lines:?}");
    let registered = crate::support::registry::registry().matches("\"client_id\"").count();
    for (line, says) in lines[1..].iter().zip([
        ": client no-scope: can get no token: it has no scope",
        ": client no-secret: can get no token: it has no secret",
        ": client expired: can get no token: none of its secrets is valid now",
        ": client not-yet: can get no token: none of its secrets is valid now",
    ]) {
        assert!(line.starts_with("warning: clients.json:") && line.contains(says), "{line}");
    }
    assert_eq!(lines[5..], [format!("ok: clients: {registered}, keys: 1")]);

    let home = Home::without_key();
    home.write("clients.json", "{\"clients\": []}");
    let checked = run(home.command(&["check"]));
    assert_eq!(
        checked.assert_fine(),
        "warning: clients.json: no client is registered; see `grantd client add`\n\
         note: keys: holds no key; `serve` will generate one\n\
         ok: clients: 0, keys: 0\n"
    );
    assert!(home.keys().read_dir().unwrap().next().is_none(), "check makes no key");
}

#[test]
fn an_address_that_cannot_be_bound_is_named() {
    let home = Home::new();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    for arguments in [
        ["--listen", &taken, "--admin-listen", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--admin-listen", &taken],
    ] {
        let ended = run(home.command(&["serve"]).args(arguments));
        let flag = if arguments[1] == taken { "with --listen (" } else { "with --admin-listen (" };
        ended.assert_error(1, &[&format!("grantd: {taken}: cannot be listened on: "), flag]);
    }
    drop(held);
    let far = ["serve", "--listen", "192.0.2.1:0", "--admin-listen", "127.0.0.1:0"];
    let says = ["grantd: 192.0.2.1:0: cannot be listened on: "];
    run(home.command(&far)).assert_error(1, &says);
    let unix = home.command(&["serve", "--listen", "unix:s", "--admin-listen", "127.0.0.1:0"]);
    run(unix).assert_error(1, &["(--issuer, GRANTD_ISSUER)"]);
}

#[test]
fn demo_clients_are_served_on_loopback_only() {
    let home = Home::new();
    let public = "https://auth.example";
    for arguments in [
        &["--listen", "0.0.0.0:0"][..],
        &["--listen", "[::]:0"],
        &["--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0"],
        &["--listen", "127.0.0.1:0", "--issuer", public],
    ] {
        let ended = run(home.command(&["serve", "--admin-listen", "127.0.0.1:0"]).args(arguments));
        ended.assert_error(
            1,
            &["grantd: the demo clients (demo-client, vision-api-user)", "--allow-demo-clients"],
        );
        for (_, secret) in [DEMO[1], ("", "abcdefghizklmnopponommnshfghzxxs")] {
            assert!(!ended.stderr.contains(secret));
        }
    }
    let allowed = Program::start(home, &["--issuer", public, "--allow-demo-clients"]);
    for encoding in ENCODINGS {
        assert_eq!(allowed.ask(&Request::token(encoding, &DEMO)).status, 200);
    }
    assert_eq!(allowed.issuer, public);
}

#[test]
fn a_registry_without_demo_clients_is_served_in_public() {
    let home = Home::new();
    home.register(&[client_json("own", &json!({}))]);
    let server = Program::start(home, &["--issuer", "https://auth.example"]);
    let secret = secret_of("own");
    let own = crate::support::request_of("own", &secret, &[]);
    for encoding in ENCODINGS {
        assert_eq!(server.ask(&Request::token(encoding, &own)).status, 200);
        server.ask(&Request::token(encoding, &DEMO)).assert_refused(400, "invalid_client");
    }
}

#[test]
fn the_first_start_makes_a_key_and_says_so() {
    let server = Program::start(Home::without_key(), &[]);
    let line = server.log.wait_for(|line| line["message"] == "made the first signing key");
    let file = format!("{}.pem", line["key_id"].as_str().unwrap());
    assert!(server.home.keys().join(file).exists());
    for encoding in ENCODINGS {
        assert_eq!(server.ask(&Request::token(encoding, &DEMO)).status, 200);
    }
}

#[test]
fn a_flag_wins_over_environment_over_file_over_default() {
    let home = Home::new();
    home.write("a.toml", "workers = 3\nissuer = \"http://localhost/file\"\n");
    let issuer = |home: Home, environment: Option<&str>, flag: Option<&str>, config: bool| {
        let mut arguments = Vec::new();
        arguments.extend(flag.iter().flat_map(|flag| ["--issuer", flag]));
        arguments.extend(config.then_some(["--config", "a.toml"]).iter().flatten());
        let variables: Vec<_> = environment.map(|url| ("GRANTD_ISSUER", url)).into_iter().collect();
        let server = Program::start_with(home, &arguments, &variables);
        (server.issuer.clone(), server.into_home())
    };
    let (flag, environment) = ("http://localhost/flag", "http://localhost/environment");
    let (found, home) = issuer(home, Some(environment), Some(flag), true);
    assert_eq!(found, flag);
    let (found, home) = issuer(home, Some(environment), None, true);
    assert_eq!(found, environment);
    let (found, home) = issuer(home, None, None, true);
    assert_eq!(found, "http://localhost/file");
    let (found, _home) = issuer(home, None, None, false);
    assert!(found.starts_with("http://127.0.0.1:"), "{found}");
}

#[test]
fn the_environment_reaches_subcommands() {
    let home = Home::new();
    home.write("other.json", "{\"clients\": []}");
    let mut check = home.command(&["check"]);
    check.env("GRANTD_CLIENTS", "other.json").env("GRANTD_LISTEN", "127.0.0.1:1,127.0.0.1:2");
    assert!(run(&mut check).assert_fine().ends_with("ok: clients: 0, keys: 1\n"));
    let mut list = home.command(&["client", "list"]);
    assert_eq!(run(list.env("GRANTD_CLIENTS", "other.json")).assert_fine(), "");
    let bad = run(home.command(&["check"]).env("GRANTD_WORKERS", "some"));
    bad.assert_error(1, &["grantd: GRANTD_WORKERS: must be a number from 1 to 1024"]);
}

#[test]
fn completions_are_printed_for_every_shell() {
    let home = Home::new();
    for (shell, begins) in [
        ("bash", "_grantd() {"),
        ("zsh", "#compdef grantd"),
        ("fish", "# Print an optspec"),
        ("elvish", "\nuse builtin;"),
        ("powershell", "\nusing namespace"),
    ] {
        let ended = run(home.command(&["completions", shell]));
        let script = ended.assert_fine();
        assert!(script.starts_with(begins), "{shell}: {}", &script[..60]);
        for word in ["serve", "client", "key", "check", "rotate", "retire", "admin-listen"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
    let script = run(home.command(&["completions", "bash"])).stdout;
    let file = home.write("grantd.bash", &script);
    let bash = |script: &str| {
        let mut bash = Command::new("bash");
        run(bash.args(["--norc", "-c", script, "bash"]).arg(&file))
    };
    assert_eq!(bash("bash -n \"$1\"").assert_fine(), "");
    // Runs the completion function as bash does when the user presses Tab.
    let completed = bash(
        ". \"$1\"; COMP_WORDS=(grantd key r); COMP_CWORD=2; _grantd grantd r key; \
         echo \"${COMPREPLY[@]}\"",
    );
    assert_eq!(completed.assert_fine(), "rotate retire\n");
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let home = Home::new();
    let page = |command: &[&str]| {
        run(home.command(&[&["man"], command].concat())).assert_fine().to_owned()
    };
    for (command, title, words) in [
        (&[][..], "grantd", &["grantd\\-key(1)", "GRANTD_LISTEN"][..]),
        (&["key"], "grantd-key", &["grantd\\-key\\-rotate(1)", "grantd\\-key\\-retire(1)"]),
        (&["key", "retire"], "grantd-key-retire", &["KID", "GRANTD_KEYS"]),
        (&["client", "add"], "grantd-client-add", &["\\-\\-secret\\-stdin"]),
    ] {
        let text = page(command);
        // The page begins with the title (`.TH`). Two lines that define how roff prints an
        // apostrophe (`.ie`, `.el`) may precede the title.
        assert!(text.starts_with(".ie ") || text.starts_with(".TH "), "{text}");
        assert!(text.contains(&format!("\n.TH {title} 1 ")), "{text}");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"] {
            assert!(text.contains(&format!("\n.SH {section}\n")), "{title} lacks {section}");
        }
        for word in words {
            assert!(text.contains(word), "{title} lacks {word}: {text}");
        }
        // Every macro is defined in the `man` macro package.
        for line in text.lines().filter(|line| line.starts_with('.')) {
            let request = line.split(' ').next().unwrap();
            let known = [".ie", ".el", ".TH", ".SH", ".TP", ".br", ".IP", ".RS", ".RE", ".PP"];
            assert!(known.contains(&request), "{line}");
        }
    }
}

#[test]
fn check_notes_settings_whose_meaning_has_changed() {
    const PROXY: &str = "warning: trusted_proxies: is empty";
    const ROUTE: &str = "note: route: the htu of a DPoP proof";
    let public = "issuer = \"https://auth.example\"\n";
    let route = "[[route]]\npath = \"/token\"\ndialect = \"connect\"\n";
    for (toml, bound, says, says_not) in [
        (public.to_owned(), false, vec![PROXY], vec![ROUTE]),
        (format!("{public}trusted_proxies = [\"unix\"]\n{route}"), true, vec![ROUTE], vec![PROXY]),
        (route.to_owned(), false, vec![], vec![PROXY, ROUTE]),
    ] {
        let home = Home::new();
        let client = json!({
            "client_id": "a", "scopes": ["read"], "dpop_bound_access_tokens": bound,
        });
        home.register(&[client]);
        home.write("grantd.toml", &toml);
        let checked = run(home.command(&["check", "--config", "grantd.toml"]));
        let told = checked.assert_fine();
        assert!(says.iter().all(|text| told.contains(text)), "{told}");
        assert!(!says_not.iter().any(|text| told.contains(text)), "{told}");
    }
}
