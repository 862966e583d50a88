//! `grantd check`: it reports the errors that would stop `serve`, and warns of settings that are
//! probably mistakes.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::support::Home;
use crate::support::command::{Ended, run};
use crate::support::home::{hash_of, secret_of, set_mode};
use crate::support::ports::free_port;
use crate::support::registry::{changed, client_json};

/// A home whose registry causes no warning.
fn quiet_home() -> Home {
    let home = Home::new();
    register(&home, &[client("a", &json!({}))]);
    home
}

fn client(id: &str, more: &Value) -> Value {
    client_json(id, &changed(json!({ "default_scopes": null }), more))
}

/// Writes a registry with one client on each line.
fn register(home: &Home, clients: &[Value]) {
    let lines: Vec<_> = clients.iter().map(Value::to_string).collect();
    home.write("clients.json", &format!("{{\"clients\": [\n{}\n]}}", lines.join(",\n")));
}

fn check(home: &Home, arguments: &[&str]) -> Ended {
    run(home.command(&["check", "--admin-listen", "127.0.0.1:0"]).args(arguments))
}

/// Asserts that `check` and `serve` fail with an error that contains all of `says`.
#[track_caller]
fn assert_both_refuse(home: &Home, arguments: &[&str], says: &[&str]) {
    for command in ["check", "serve"] {
        run(home.command(&[command]).args(arguments)).assert_error(1, says);
    }
}

#[test]
fn addresses_that_cannot_be_bound_are_refused() {
    let home = quiet_home();
    let admin = ["--admin-listen", "127.0.0.1:0"];
    let long = format!("unix:{}", "x".repeat(200));
    for (address, says) in [
        ("192.0.2.1:0", "192.0.2.1:0: cannot be listened on: "),
        ("nonsense.invalid:0", "the name nonsense.invalid has no address"),
        (&*long, "cannot be listened on: "),
    ] {
        let with_flag = [&["--listen", address][..], &admin].concat();
        assert_both_refuse(&home, &with_flag, &[says, "--listen (GRANTD_LISTEN"]);
        let as_admin = ["--listen", "127.0.0.1:0", "--admin-listen", address];
        assert_both_refuse(&home, &as_admin, &[says, "--admin-listen (GRANTD_ADMIN_LISTEN"]);
    }
    // The two listeners cannot share an address. The test gives the admin listener the address of
    // the public listener, and then `0.0.0.0` with the same port, which includes that address.
    let port = free_port();
    let one = format!("127.0.0.1:{port}");
    for other in [one.clone(), format!("0.0.0.0:{port}")] {
        let twice = ["--listen", &one, "--admin-listen", &other];
        assert_both_refuse(&home, &twice, &[&format!("{other}: "), "--admin-listen"]);
    }
    // Without a TCP address the server cannot derive a default issuer.
    let unix = ["--listen", "unix:s", "--admin-listen", "127.0.0.1:0"];
    assert_both_refuse(&home, &unix, &["(--issuer, GRANTD_ISSUER)"]);

    // `check` accepts addresses that a running server listens on, and leaves no socket file behind.
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let _socket = UnixListener::bind(home.path("held.sock")).unwrap();
    let unix = format!("unix:{}", home.path("held.sock").display());
    let free = format!("unix:{}", home.path("free.sock").display());
    for address in [&address, &unix, &free] {
        let checked = check(&home, &["--listen", address, "--issuer", "http://localhost"]);
        assert_eq!(checked.assert_fine(), "ok: clients: 1, keys: 1\n");
    }
    assert!(!home.path("free.sock").exists());
    // If the directory of a Unix socket is missing, `check` prints a warning and no error, because
    // a service manager may create the directory when it starts the server.
    let run = ["--listen", "unix:run/s", "--issuer", "http://localhost"];
    let checked = check(&home, &run);
    assert!(
        checked.assert_fine().contains("warning: unix:run/s: run does not exist"),
        "{checked:?}"
    );
}

#[test]
fn demo_clients_are_refused_in_public() {
    let home = Home::new();
    let admin = ["--admin-listen", "127.0.0.1:0"];
    for public in [
        &["--listen", "0.0.0.0:0"][..],
        &["--listen", "127.0.0.1:0", "--issuer", "https://auth.example"],
        &["--listen", "127.0.0.1:0", "--config", "proxied.toml"],
    ] {
        home.write("proxied.toml", "trusted_proxies = [\"127.0.0.1\"]\n");
        let arguments = [public, &admin].concat();
        let says =
            "the demo clients (demo-client, vision-api-user) have secrets that everyone knows";
        assert_both_refuse(&home, &arguments, &[says, "--allow-demo-clients"]);
        let allowed = check(&home, &[public, &["--allow-demo-clients"]].concat());
        assert!(allowed.assert_fine().contains("warning: clients.json: the demo clients"));
    }
}

#[test]
fn audit_and_state_paths_that_cannot_be_written_are_refused() {
    let local = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--config", "g.toml"];
    for (toml, says) in [
        (
            "audit = \"none/audit.jsonl\"\n",
            "g.toml:1:9: audit: none/audit.jsonl: cannot be written: ",
        ),
        ("audit = \"directory\"\n", "directory: cannot be written: "),
        ("audit = \"clients.json/x\"\n", "clients.json/x: cannot be written: "),
        ("state = \"clients.json\"\n", "clients.json"),
        ("state = \"clients.json/x\"\n", "clients.json/x"),
    ] {
        let home = quiet_home();
        fs::create_dir(home.path("directory")).unwrap();
        home.write("g.toml", toml);
        assert_both_refuse(&home, &local, &[says]);
    }
    let home = quiet_home();
    home.write("g.toml", "audit = \"audit.jsonl\"\n");
    check(&home, &["--config", "g.toml"]).assert_fine();
    assert!(!home.path("audit.jsonl").exists() && !home.path("state").exists());
    // `check` accepts a FIFO that no process reads. `serve` would write to the FIFO as soon as a
    // process reads it.
    let made = std::process::Command::new("mkfifo").arg(home.path("audit.jsonl")).status();
    assert!(made.unwrap().success());
    check(&home, &["--config", "g.toml"]).assert_fine();
}

#[test]
fn files_that_the_servers_user_cannot_read_are_refused() {
    use std::os::unix::fs::{MetadataExt, chown};
    let home = quiet_home();
    if fs::metadata(home.clients()).unwrap().uid() != 0 {
        // The rest of this test needs root: only root can check which files another user can read.
        return;
    }
    let (user, group) = (Some(12_345), Some(12_346));
    set_mode(home.clients().parent().unwrap(), 0o755);
    home.write("g.toml", "admin_token_file = \"token\"\n");
    home.write("token", &"x".repeat(40));
    fs::create_dir(home.path("state")).unwrap();
    let key = fs::read_dir(home.keys()).unwrap().next().unwrap().unwrap().path();
    let files = [home.clients(), home.path("g.toml"), home.path("token"), key, home.keys()];
    for file in &files {
        chown(file, user, group).unwrap();
        set_mode(file, if file.is_dir() { 0o700 } else { 0o400 });
    }
    // Root owns the key directory and the state directory. `check` therefore assumes that the
    // server runs as root, and root can read every file.
    let checked = || check(&home, &["--config", "g.toml"]);
    chown(home.keys(), Some(0), Some(0)).unwrap();
    checked().assert_fine();
    chown(home.keys(), user, group).unwrap();
    chown(home.path("state"), user, group).unwrap();
    checked().assert_fine();
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        chown(file, Some(0), Some(0)).unwrap();
        let says =
            [&*format!("{name}: cannot be read by the user 12345"), "run chown 12345:12346 on it"];
        checked().assert_error(1, &says);
        // Root owns the file and the group may read it, as in a Kubernetes volume.
        chown(file, Some(0), group).unwrap();
        set_mode(file, if file.is_dir() { 0o750 } else { 0o440 });
        checked().assert_fine();
    }
    set_mode(home.clients().parent().unwrap(), 0o700);
    checked().assert_error(1, &["clients.json: cannot be read by the user 12345 because of "]);
}

#[test]
fn a_fault_of_a_setting_has_the_place_where_it_is_set() {
    let home = quiet_home();
    home.write(
        "g.toml",
        "admin_token_file = \"nope\"\naudit = \"/none/a\"\n[keys]\nrotate_every = \"300s\"\n",
    );
    let local = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let ended = |command: &str, arguments: &[&str], variables: &[(&str, &str)]| {
        run(home.command(&[command]).args(local).args(arguments).envs(variables.iter().copied()))
    };
    let of_file = ["--config", "g.toml"];
    let token = "grantd: g.toml:1:20: admin_token_file: nope: cannot be read: ";
    let audit = "grantd: g.toml:2:9: audit: /none/a: cannot be written: ";
    let short = "grantd: g.toml:4:16: keys.rotate_every: 300 s are too short: ";
    ended("check", &of_file, &[]).assert_error(1, &[token, audit]);
    ended("serve", &of_file, &[]).assert_error(1, &[token]);
    set_mode(&home.write("token", &"t".repeat(32)), 0o600);
    let flag = [&of_file[..], &["--admin-token-file", "token"]].concat();
    ended("check", &flag, &[]).assert_error(1, &[audit, short]);
    ended("serve", &flag, &[]).assert_error(1, &[audit]);
    for (arguments, variable, says) in [
        (&["--admin-token-file", "nope"][..], None, "grantd: --admin-token-file: nope: cannot be"),
        (
            &[],
            Some(("GRANTD_ADMIN_TOKEN_FILE", "nope")),
            "_FILE: admin_token_file: nope: cannot be",
        ),
        (&[], Some(("GRANTD_AUDIT", "/none/a")), "grantd: GRANTD_AUDIT: audit: /none/a: cannot be"),
    ] {
        for command in ["check", "serve"] {
            ended(command, arguments, variable.as_slice()).assert_error(1, &[says]);
        }
    }
    let says = "grantd: GRANTD_KEYS__ROTATE_EVERY: keys.rotate_every: 300 s are too short: ";
    ended("check", &[], &[("GRANTD_KEYS__ROTATE_EVERY", "300")]).assert_error(1, &[says]);
    let list = ["key", "list", "--admin", "127.0.0.1:1", "--admin-token-file", "nope"];
    let says = "grantd: --admin-token-file (GRANTD_ADMIN_TOKEN_FILE): nope: cannot be read: ";
    run(home.command(&list)).assert_error(1, &[says]);
}

#[test]
fn a_route_with_a_path_that_is_taken_is_refused() {
    let home = quiet_home();
    let route = |path: &str, dialect: &str| {
        format!("[[route]]\npath = \"{path}\"\ndialect = \"{dialect}\"\n")
    };
    let local = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--config", "g.toml"];
    let one = route("/a/token", "connect");
    for (toml, says) in [
        (one.repeat(2), "g.toml:5:8: route.path: stands twice"),
        (format!("{one}{}", route("/a/token", "vision")), "g.toml:5:8: route.path: stands twice"),
        (route("/connect/token", "vision"), "g.toml:2:8: route.path: is a path that is answered"),
        (route("/connect/validate", "connect"), "is a path that is answered"),
        (route("/v1/api/oauth/token", "connect"), "is a path that is answered"),
        (route("/.well-known/openid-configuration", "connect"), "is a path that is answered"),
        (
            route("/v1/getAccessToken/all", "connect"),
            "g.toml:2:8: route.path: is a path that is answered already \
             (/v1/getAccessToken/{scope}): choose another",
        ),
        (route("/v1/getAccessToken/all", "firstvision"), "is a path that is answered"),
        (route("/docs", "connect"), "is a path that is answered"),
        (route("/docs/page.css", "connect"), "is a path that is answered"),
        (route("/docs/page.js", "connect"), "is a path that is answered"),
        (route("/openapi.json", "connect"), "is a path that is answered"),
        (route("/favicon.ico", "connect"), "is a path that is answered"),
        (route("/", "connect"), "g.toml:2:8: route.path: is a path that is answered already (/)"),
        (route("a/token", "connect"), "g.toml:2:8: route.path: must begin with a slash"),
        (route("/get/", "firstvision"), "g.toml:2:8: route.path: must not end with a slash"),
        (route("/connect", "firstvision"), "would take a path that is answered already"),
        (route("/v1", "firstvision"), "would take a path that is answered already"),
        (
            route("/a?b=c", "connect"),
            "g.toml:2:8: route.path: must be a path as it is in a request",
        ),
        (route("/a b", "connect"), "must be a path as it is in a request"),
    ] {
        home.write("g.toml", &toml);
        assert_both_refuse(&home, &local, &[says]);
    }
    for (toml, says) in [
        (
            format!("{}{}", route("/get", "firstvision"), route("/get/token", "connect")),
            "warning: route: /get/token: never matches",
        ),
        (
            format!("issuer = \"http://localhost/t\"\n{}", route("/t/token", "connect")),
            "warning: route: /t/token: begins with the issuer's path",
        ),
    ] {
        home.write("g.toml", &toml);
        let checked = check(&home, &["--config", "g.toml"]);
        assert!(checked.assert_fine().contains(says), "{checked:?}");
    }
    home.write(
        "g.toml",
        &format!("{}{}", route("/get/token", "connect"), route("/get", "firstvision")),
    );
    assert_eq!(check(&home, &["--config", "g.toml"]).assert_fine(), "ok: clients: 1, keys: 1\n");
}

#[test]
fn probable_mistakes_in_a_registry_are_warned_of_with_their_place() {
    let home = Home::new();
    let hash = hash_of(&secret_of("a"));
    let timed =
        |more: Value| json!({ "secrets": [changed(json!({ "label": "s", "hash": hash }), &more)] });
    for (more, says) in [
        (json!({ "scopes": [] }), "clients[1]: client b: can get no token: it has no scope"),
        (json!({ "secrets": [] }), "clients[1]: client b: can get no token: it has no secret"),
        (
            json!({ "auth_methods": [] }),
            "client b: can get no token: it has no authentication method",
        ),
        (timed(json!({ "expires_at": 5 })), "none of its secrets is valid now"),
        (
            timed(json!({ "expires_at": 0 })),
            "clients[1].secrets: client b: expires_at of the secret \"s\" is 0",
        ),
        (timed(json!({ "not_before": 0 })), "not_before of the secret \"s\" is 0"),
        (timed(json!({ "expires_at": 1_790_000_000_000_u64 })), "are these milliseconds?"),
        (timed(json!({ "not_before": 1_790_000_000_000_u64 })), "are these milliseconds?"),
        (
            timed(json!({ "not_before": 9, "expires_at": 8 })),
            "never valid: it ends before it begins",
        ),
        (
            json!({ "not_before": 1_790_000_000_000_u64 }),
            "clients[1].not_before: client b: is too late for Unix seconds: are these milliseconds?",
        ),
        (json!({ "not_before": 32_503_680_000_u64 }), "is in the future"),
    ] {
        register(&home, &[client("a", &json!({})), client("b", &more)]);
        let checked = check(&home, &[]);
        let line = checked.assert_fine().lines().find(|line| line.contains(says));
        let line = line.unwrap_or_else(|| panic!("{} does not say {says}", checked.stdout));
        assert!(line.starts_with("warning: clients.json:3:1: "), "{line}");
        assert!(checked.stdout.ends_with("ok: clients: 2, keys: 1\n"), "{checked:?}");
    }
    for fine in [
        json!({ "enabled": false, "scopes": [] }),
        json!({ "scopes": [], "introspects": ["urn:a"] }),
        timed(json!({ "not_before": 1, "expires_at": 32_503_680_000_u64 })),
    ] {
        register(&home, &[client("b", &fine)]);
        assert_eq!(check(&home, &[]).assert_fine(), "ok: clients: 1, keys: 1\n");
    }
    // Only the first 20 warnings of a kind are listed, so that other warnings stay visible.
    let many: Vec<_> = (0..50).map(|n| client(&n.to_string(), &json!({ "scopes": [] }))).collect();
    register(&home, &many);
    let checked = check(&home, &[]);
    assert_eq!(checked.assert_fine().lines().count(), 22);
    assert!(checked.stdout.contains("warning: clients.json: and 30 more of these\n"));
}

#[test]
fn a_fault_of_the_registry_hides_no_other_fault() {
    let home = Home::new();
    let demo = fs::read_to_string(home.path("clients.json")).unwrap();
    let mut registry: Value = serde_json::from_str(&demo).unwrap();
    let clients = registry["clients"].as_array_mut().unwrap();
    clients.insert(0, client("a", &json!({ "token_lifetime": 0 })));
    clients.push(client("a", &json!({ "audience": [""] })));
    let last = clients.len() - 1;
    home.write("clients.json", &registry.to_string());
    let ended = check(&home, &["--listen", "127.0.0.1:0", "--issuer", "https://auth.example"]);
    let says = [
        "clients[0].token_lifetime: must be",
        &format!("clients[{last}].audience: must not"),
        "grantd: the demo clients (demo-client, vision-api-user)",
    ];
    ended.assert_error(1, &says);

    // If the registry is not JSON, `check` reads no clients but still checks the settings.
    home.write("clients.json", "{");
    let ended = check(&home, &["--listen", "unix:s"]);
    ended.assert_error(1, &["clients.json:1:", "(--issuer, GRANTD_ISSUER)"]);
}
