//! Who may ask the admin listener for what: from which machine, by which name, with which token.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::support::command::run;
use crate::support::home::{hash_of, secret_of, set_mode, signing_key};
use crate::support::http::exchange;
use crate::support::{GUARD, Home, Program, Request, Response};

const TOKEN: &str = "admin-token.Zq7xV2mK9pLs4tWc8yRb";
const FILE: &str = "admin.token";
const OPEN: [&str; 2] = ["/livez", "/readyz"];
/// All else: what is there, what is not, and what was meant for the other listener.
const CLOSED: [&str; 7] = [
    "/metrics",
    "/keys",
    "/clients/demo-client",
    "/explain/none",
    "/",
    "/livez/",
    "/connect/token",
];

fn home_with_token(token: &str) -> Home {
    let home = Home::new();
    write_token(&home, token);
    home
}

fn write_token(home: &Home, token: &str) {
    set_mode(&home.write(FILE, token), 0o600);
}

fn bearer(request: Request, token: &str) -> Request {
    request.header("Authorization", format!("Bearer {token}"))
}

/// An address of this machine that others have too, if it has one. No packet is sent.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("203.0.113.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// A server whose admin listener is on every address, and that listener's outer address.
fn public(home: Home, arguments: &[&str]) -> Option<(Program, SocketAddr)> {
    let Some(address) = outer_address() else {
        eprintln!("not tested: this machine has no address but loopback");
        return None;
    };
    let arguments = [&["--admin-listen", "0.0.0.0:0"][..], arguments].concat();
    let server = Program::start(home, &arguments);
    let admin = SocketAddr::new(address, server.admin.port());
    Some((server, admin))
}

#[track_caller]
fn assert_wants_token(answer: &Response) {
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.text().contains("admin_token_file"), "{}", answer.text());
}

#[track_caller]
fn assert_misdirected(answer: &Response, what: &str) {
    assert_eq!((answer.status, answer.header("www-authenticate")), (421, None), "{what}");
    assert!(answer.text().contains("localhost"), "{}", answer.text());
}

/// The request with these `Host` fields, whatever is in them, to an admin listener on loopback.
fn with_hosts(request: &Request, hosts: &[&[u8]]) -> Request {
    let request = request.clone().without_header("Host");
    hosts.iter().fold(request, |request, host| request.header("Host", *host))
}

#[test]
fn a_name_that_a_stranger_may_own_is_answered_about_life_alone() {
    let server = Program::shared();
    let evil: [&[&[u8]]; 11] = [
        &[b"evil.example"],
        &[b"evil.example:8081"],
        &[b"localhost.evil.example"],
        &[b"127.0.0.1.evil.example"],
        &[b"localhost@evil.example"],
        &[b"127.1"],
        &[b"::1"],
        &[b""],
        &[b"\xff\xfe"],
        &[b"localhost", b"evil.example"],
        &[b"localhost", b"localhost"],
    ];
    for hosts in evil {
        let what = format!(
            "{:?}",
            hosts.iter().map(|host| host.escape_ascii().to_string()).collect::<Vec<_>>()
        );
        for path in OPEN {
            for method in ["GET", "HEAD"] {
                let answer = with_hosts(&Request::new(method, path), hosts).send(server.admin);
                assert_eq!(answer.status, 200, "{what}");
            }
        }
        for path in CLOSED {
            let answer = with_hosts(&Request::get(path), hosts).send(server.admin);
            assert_misdirected(&answer, &what);
        }
        for path in ["/livez", "/metrics", "/nothing"] {
            let answer = with_hosts(&Request::new("POST", path).body("x"), hosts);
            assert_misdirected(&answer.send(server.admin), &what);
        }
    }
}

#[test]
fn this_machines_own_names_are_answered() {
    let server = Program::shared();
    let own: [&[&[u8]]; 10] = [
        &[],
        &[b"localhost"],
        &[b"LOCALHOST"],
        &[b"LocalHost:8081"],
        &[b"127.0.0.1"],
        &[b"127.0.0.1:8081"],
        &[b"192.0.2.7:9090"],
        &[b"[::1]"],
        &[b"[::1]:8081"],
        &[b"[2001:db8::1]:1"],
    ];
    for hosts in own {
        for path in OPEN.into_iter().chain(["/metrics", "/keys", "/clients/demo-client"]) {
            let answer = with_hosts(&Request::get(path), hosts).send(server.admin);
            assert_eq!(answer.status, 200, "{path} {hosts:?}");
        }
        let unknown = with_hosts(&Request::get("/nothing"), hosts).send(server.admin);
        assert_eq!(unknown.status, 404);
        let post = with_hosts(&Request::new("POST", "/livez").body("x"), hosts);
        assert_eq!(post.send(server.admin).status, 405);
    }
    // A token that is not asked for, or wrong, takes nothing away.
    for token in ["", TOKEN] {
        assert_eq!(bearer(Request::get("/metrics"), token).send(server.admin).status, 200);
    }
    // Without a field, as HTTP/1.0 has it.
    let old = exchange(server.admin, b"GET /keys HTTP/1.0\r\n\r\n");
    assert_eq!(Response::take_from(&mut &old[..]).status, 200);
}

#[test]
fn a_target_in_absolute_form_counts_as_the_host() {
    let server = Program::shared();
    for (target, host, status) in [
        ("http://localhost/metrics", "evil.example", 200),
        ("http://127.0.0.1:8081/metrics", "127.0.0.1", 200),
        ("http://[::1]/metrics", "localhost", 200),
        ("http://evil.example/metrics", "localhost", 421),
        ("http://evil.example:80/nothing", "127.0.0.1", 421),
        ("http://localhost@evil.example/metrics", "localhost", 421),
        ("http://evil.example@localhost/metrics", "localhost", 421),
        ("http://evil.example/livez", "localhost", 200),
    ] {
        let request = with_hosts(&Request::get(target), &[host.as_bytes()]);
        assert_eq!(request.send(server.admin).status, status, "{target} {host}");
    }
    let several = with_hosts(&Request::get("http://localhost/metrics"), &[&b"localhost"[..]; 2]);
    assert_eq!(several.send(server.admin).status, 421);
}

#[test]
fn with_the_token_the_host_is_not_looked_at() {
    let home = home_with_token(&format!("{TOKEN}\n"));
    let server = Program::start(home, &["--admin-token-file", FILE]);
    let evil = |request: Request| with_hosts(&request, &[b"evil.example", b"\xff"]);
    for path in ["/metrics", "/keys", "/clients/demo-client"] {
        let answer = evil(bearer(Request::get(path), TOKEN)).send(server.admin);
        assert_eq!(answer.status, 200, "{path}");
        let absolute = format!("http://evil.example{path}");
        let answer = bearer(Request::get(&absolute), TOKEN).send(server.admin);
        assert_eq!(answer.status, 200, "{absolute}");
    }
    assert_eq!(evil(bearer(Request::get("/x"), TOKEN)).send(server.admin).status, 404);
    assert_eq!(evil(bearer(Request::new("POST", "/x"), TOKEN)).send(server.admin).status, 405);
    for wrong in wrong_fields() {
        let request = wrong.iter().fold(Request::get("/metrics"), |request, field| {
            request.header("Authorization", field.as_str())
        });
        assert_misdirected(&evil(request).send(server.admin), &format!("{wrong:?}"));
    }
}

/// `Authorization` fields that do not show [`TOKEN`].
fn wrong_fields() -> Vec<Vec<String>> {
    let right = format!("Bearer {TOKEN}");
    vec![
        vec![],
        vec![String::new()],
        vec!["Bearer".to_owned()],
        vec!["Bearer ".to_owned()],
        vec![TOKEN.to_owned()],
        vec![format!("Basic {TOKEN}")],
        vec![right[..right.len() - 1].to_owned()],
        vec![format!("{right}x")],
        vec![format!("Bearer {}", TOKEN.to_uppercase())],
        vec![right.clone(), right],
    ]
}

#[test]
fn another_machine_needs_the_token() {
    let Some((server, admin)) = public(home_with_token(TOKEN), &["--admin-token-file", FILE])
    else {
        return;
    };
    for host in ["127.0.0.1", "localhost", "evil.example"] {
        let ask = |request: Request| with_hosts(&request, &[host.as_bytes()]).send(admin);
        for path in OPEN {
            assert_eq!(ask(Request::get(path)).status, 200);
        }
        for path in CLOSED {
            assert_wants_token(&ask(Request::get(path)));
            let status = if path == "/explain/none" || !is_there(path) { 404 } else { 200 };
            assert_eq!(ask(bearer(Request::get(path), TOKEN)).status, status, "{path}");
        }
        assert_wants_token(&ask(Request::new("POST", "/livez").body("x")));
        assert_eq!(ask(bearer(Request::new("POST", "/livez"), TOKEN)).status, 405);
        for wrong in wrong_fields() {
            let request = wrong.iter().fold(Request::get("/metrics"), |request, field| {
                request.header("Authorization", field.as_str())
            });
            assert_wants_token(&ask(request));
        }
        // The scheme's name has no case.
        let lower = Request::get("/keys").header("Authorization", format!("bearer {TOKEN}"));
        assert_eq!(ask(lower).status, 200);
    }
    // What a client says of a proxy makes it no neighbour.
    let forged = Request::get("/metrics").header("X-Forwarded-For", "127.0.0.1");
    assert_wants_token(&forged.send(admin));
    // The same listener by loopback is this machine's.
    assert_eq!(Request::get("/metrics").send(server.admin).status, 200);
}

fn is_there(path: &str) -> bool {
    ["/metrics", "/keys", "/clients/", "/explain/"].iter().any(|known| path.starts_with(known))
}

#[test]
fn without_a_token_file_no_token_is_right() {
    let Some((server, admin)) = public(Home::new(), &["--allow-demo-clients"]) else { return };
    for request in [Request::get("/metrics"), bearer(Request::get("/metrics"), TOKEN)] {
        assert_wants_token(&request.send(admin));
    }
    assert_wants_token(&bearer(Request::get("/metrics"), "").send(admin));
    assert_eq!(Request::get("/livez").send(admin).status, 200);
    assert_eq!(Request::get("/metrics").send(server.admin).status, 200);
}

#[test]
fn an_ipv4_address_in_ipv6_is_itself() {
    let server = Program::start(Home::new(), &["--admin-listen", "[::]:0"]);
    for loopback in ["127.0.0.1", "::1"] {
        let admin = SocketAddr::new(loopback.parse().unwrap(), server.admin.port());
        assert_eq!(Request::get("/metrics").send(admin).status, 200, "{loopback}");
    }
    if let Some(address) = outer_address() {
        let admin = SocketAddr::new(address, server.admin.port());
        assert_wants_token(&Request::get("/metrics").send(admin));
    }
}

#[test]
fn a_unix_socket_is_on_this_machine() {
    let home = home_with_token(TOKEN);
    let socket = home.path("admin.socket");
    let address = format!("unix:{}", socket.display());
    let arguments = ["--admin-listen", &address, "--admin-token-file", FILE];
    let server = Program::start(home, &arguments);
    let ask = |request: &Request| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        let request = request.clone().header("Connection", "close");
        stream.write_all(&request.to_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        Response::take_from(&mut &answer[..]).status
    };
    let evil = with_hosts(&Request::get("/metrics"), &[b"evil.example"]);
    assert_eq!(ask(&Request::get("/metrics")), 200);
    assert_eq!(ask(&evil), 421);
    assert_eq!(ask(&bearer(evil, TOKEN)), 200);
    let list = ["key", "list", "--admin", &address];
    let listed = run(server.home.command(&list)).assert_fine().to_owned();
    assert!(listed.contains("\"fetches\":0"), "{listed}");
}

/// Both commands that load everything fail with this.
#[track_caller]
fn assert_refused(home: &Home, says: &[&str]) {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    for command in [&["check"][..], &serve] {
        let ended = run(home.command(command).args(["--admin-token-file", FILE]));
        ended.assert_error(1, says);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
}

#[test]
fn a_token_file_that_will_not_do_is_refused_with_what_to_do() {
    let home = Home::new();
    assert_refused(&home, &["grantd: admin.token: cannot be read: "]);
    for mode in [0o604, 0o644, 0o601, 0o606] {
        write_token(&home, TOKEN);
        set_mode(&home.path(FILE), mode);
        assert_refused(
            &home,
            &["grantd: admin.token: can be read by everyone", "chmod 600", "defaultMode: 0440"],
        );
    }
    let long = "hunter2-".repeat(129);
    for text in
        ["", "\n", "hunter2-hunter2-hunter2-hunter2", "hunter2-hunter2-hunter2-hunter2\r\n", &long]
    {
        write_token(&home, text);
        assert_refused(&home, &["admin.token: must hold one line of 32 to 1024 printable ASCII"]);
    }
    for bad in ["é", " ", "\t", "\n", "\u{7f}", "\0"] {
        write_token(&home, &format!("hunter2-hunter2-{bad}-hunter2-hunter2-hunter2"));
        assert_refused(&home, &["admin.token: must hold one line of 32", "openssl rand -hex 32"]);
    }
    fs::write(home.path(FILE), b"hunter2-hunter2-hunter2-\xff-hunter2-hunter2").unwrap();
    assert_refused(&home, &["admin.token: must hold one line of 32 to 1024 printable ASCII"]);
    // Faults of other files are told with it.
    home.write("clients.json", "[]");
    assert_refused(&home, &["grantd: clients.json:1:", "grantd: admin.token: must hold one line"]);
}

#[test]
fn the_setting_is_a_flag_a_variable_and_a_line_of_the_file() {
    for (ends, mode) in [("", 0o600), ("\n", 0o400), ("\r\n", 0o440)] {
        let home = home_with_token(&format!("\u{feff}{TOKEN}{ends}"));
        set_mode(&home.path(FILE), mode);
        home.write("grantd.toml", &format!("admin_token_file = \"{FILE}\"\n"));
        let mut home = home;
        for (arguments, variables) in [
            (&["--admin-token-file", FILE][..], &[][..]),
            (&[], &[("GRANTD_ADMIN_TOKEN_FILE", FILE)]),
            (&["--config", "grantd.toml"], &[]),
        ] {
            let server = Program::start_with(home, arguments, variables);
            let evil = |request| with_hosts(&request, &[b"evil.example"]).send(server.admin);
            assert_eq!(evil(Request::get("/metrics")).status, 421);
            assert_eq!(evil(bearer(Request::get("/metrics"), TOKEN)).status, 200);
            home = server.into_home();
        }
    }
}

const NEXT: &str = "the-next-admin-token.aB3dE5fG7hJ9";

#[test]
fn a_changed_token_is_noticed_and_a_bad_one_changes_nothing() {
    let server = Program::start(home_with_token(TOKEN), &["--admin-token-file", FILE]);
    let is_right = |token: &str| {
        let request = with_hosts(&bearer(Request::get("/keys"), token), &[b"evil.example"]);
        request.send(server.admin).status == 200
    };
    let reloaded = |generation: u64| {
        let is_it =
            |line: &Value| line["message"] == "reloaded" && line["generation"] == json!(generation);
        server.log.wait_for(is_it)["changes"].clone()
    };
    assert_eq!((is_right(TOKEN), is_right(NEXT)), (true, false));
    // The watch notices by itself.
    write_token(&server.home, NEXT);
    assert_eq!(reloaded(2), "admin token");
    assert_eq!((is_right(TOKEN), is_right(NEXT)), (false, true));

    write_token(&server.home, "short");
    server.hang_up();
    let refused = |says: &str| {
        let is_it = |line: &Value| line["fault"].as_str().is_some_and(|it| it.contains(says));
        server.log.wait_for(is_it);
    };
    refused("admin.token: must hold one line");
    assert!(is_right(NEXT));
    assert_eq!(server.metric("grantd_reload_refused"), 1);
    write_token(&server.home, TOKEN);
    set_mode(&server.home.path(FILE), 0o644);
    server.hang_up();
    refused("admin.token: can be read by everyone");
    assert_eq!((is_right(TOKEN), is_right(NEXT)), (false, true));

    set_mode(&server.home.path(FILE), 0o600);
    server.hang_up();
    assert_eq!(reloaded(3), "admin token");
    assert_eq!((is_right(TOKEN), is_right(NEXT)), (true, false));
    let log = std::sync::Arc::clone(&server.log);
    server.terminate();
    let log = log.to_the_end();
    assert!(!log.contains(TOKEN) && !log.contains(NEXT), "{log}");
}

#[test]
fn a_reload_takes_the_setting_up_and_away() {
    let home = home_with_token(TOKEN);
    home.write("grantd.toml", "");
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let status = || {
        let request = bearer(Request::get("/keys"), TOKEN);
        with_hosts(&request, &[b"evil.example"]).send(server.admin).status
    };
    assert_eq!(status(), 421);
    for (generation, toml, expected) in
        [(2, "admin_token_file = \"admin.token\"\n", 200), (3, "", 421)]
    {
        server.home.write("grantd.toml", toml);
        server.hang_up();
        let is_it =
            |line: &Value| line["message"] == "reloaded" && line["generation"] == json!(generation);
        assert_eq!(server.log.wait_for(is_it)["changes"], "settings; admin token");
        assert_eq!(status(), expected);
    }
}

#[test]
fn every_command_that_asks_a_server_shows_it_the_token() {
    let Some((server, admin)) = public(home_with_token(TOKEN), &["--admin-token-file", FILE])
    else {
        return;
    };
    let admin = admin.to_string();
    let local = server.admin.to_string();
    let home = &server.home;
    for command in [&["client", "show", "--id", "demo-client"][..], &["key", "list"]] {
        let with = |more: &[&str]| {
            let mut made = home.command(command);
            made.args(more);
            made
        };
        let without = run(with(&["--admin", &admin]));
        without.assert_error(1, &[&format!("grantd: {admin}: answered 401"), "--admin-token-file"]);
        let flag = ["--admin", &admin, "--admin-token-file", FILE];
        let shown = run(with(&flag)).assert_fine().to_owned();
        assert!(shown.contains("\"uses\"") || shown.contains("\"fetches\""), "{shown}");
        let mut by_variable = with(&["--admin", &admin]);
        let by_variable = run(by_variable.env("GRANTD_ADMIN_TOKEN_FILE", FILE));
        assert_eq!(by_variable.assert_fine(), shown);
        // It is not looked for where no server is asked, and not needed on the same machine.
        let none = with(&["--admin-token-file", "none"]);
        run(none).assert_fine();
        run(with(&["--admin", &local])).assert_fine();

        home.write("wrong.token", &"x".repeat(40));
        set_mode(&home.path("wrong.token"), 0o604);
        let wrong = ["--admin", &admin, "--admin-token-file", "wrong.token"];
        let shared = run(with(&wrong));
        shared.assert_error(1, &["grantd: wrong.token: can be read by everyone"]);
        set_mode(&home.path("wrong.token"), 0o600);
        run(with(&wrong)).assert_error(1, &["answered 401"]);
    }
}

/// One that nothing is said about.
fn ordinary_client() -> String {
    let hash = hash_of(&secret_of("a"));
    let secret = serde_json::json!({ "label": "a", "hash": hash });
    serde_json::json!({ "client_id": "a", "scopes": ["read"], "secrets": [secret] }).to_string()
}

#[test]
fn check_warns_of_an_admin_listener_that_others_reach_in_vain() {
    let home = home_with_token(TOKEN);
    home.write("clients.json", &format!("{{\"clients\": [{}]}}", ordinary_client()));
    let (name, pem) = signing_key();
    home.write_key(name, pem);
    let check =
        |arguments: &[&str]| run(home.command(&["check"]).args(arguments)).assert_fine().to_owned();
    let says = "warning: admin_listen: 0.0.0.0:8081: other machines, such as Prometheus, get 401 \
                except from /livez and /readyz; set admin_token_file, or listen on 127.0.0.1\n";
    let public = ["--admin-listen", "0.0.0.0:8081"];
    assert!(check(&public).contains(says));
    for address in ["[::]:8081", "0.0.0.0:8082"] {
        let warned = check(&["--admin-listen", address]);
        assert!(warned.starts_with(&format!("warning: admin_listen: {address}: ")), "{warned}");
    }
    for arguments in [
        &[][..],
        &["--admin-listen", "127.0.0.1:9"],
        &["--admin-listen", "[::1]:9"],
        &["--admin-listen", "localhost:9"],
        &["--admin-listen", "unix:admin.sock"],
        &["--admin-listen", "0.0.0.0:8081", "--admin-token-file", FILE],
    ] {
        assert_eq!(check(arguments), "ok: clients: 1, keys: 1\n", "{arguments:?}");
    }
}
