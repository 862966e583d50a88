//! Access to the admin listener: decided by the client's address, the `Host` field and the token.

mod token_file;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;

use crate::support::command::run;
use crate::support::home::set_mode;
use crate::support::http::exchange;
use crate::support::{GUARD, Home, Program, Request, Response};

const TOKEN: &str = "admin-token.Zq7xV2mK9pLs4tWc8yRb";
const FILE: &str = "admin.token";
const OPEN: [&str; 2] = ["/livez", "/readyz"];
/// Paths that the admin listener refuses to clients without access. Some of these paths do not
/// exist. The last one exists only on the public listener.
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

/// Returns an address of this machine on the network, or `None` if the machine has only loopback
/// addresses. The function connects a UDP socket to find the address. This sends no packet.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("203.0.113.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// Starts a server whose admin listener is bound to every address. Returns the server and the admin
/// listener's address on the network, or `None` if the machine has only loopback addresses.
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

/// Returns `request` with its `Host` field replaced by one field for each of `hosts`. The values
/// may be invalid.
fn with_hosts(request: &Request, hosts: &[&[u8]]) -> Request {
    let request = request.clone().without_header("Host");
    hosts.iter().fold(request, |request, host| request.header("Host", *host))
}

#[test]
fn a_host_that_is_not_local_gets_the_health_paths_only() {
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
fn a_local_host_is_answered_without_a_token() {
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
    // The server has no admin token, so a bearer token does not change the answer.
    for token in ["", TOKEN] {
        assert_eq!(bearer(Request::get("/metrics"), token).send(server.admin).status, 200);
    }
    // HTTP/1.0 allows a request without a `Host` field.
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
fn with_the_token_any_host_is_accepted() {
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

/// Returns the `Authorization` fields of requests that the server must refuse, one list for each
/// request.
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
        // The scheme's name is case-insensitive.
        let lower = Request::get("/keys").header("Authorization", format!("bearer {TOKEN}"));
        assert_eq!(ask(lower).status, 200);
    }
    // `X-Forwarded-For` is ignored: a client that claims a loopback address still needs the token.
    let forged = Request::get("/metrics").header("X-Forwarded-For", "127.0.0.1");
    assert_wants_token(&forged.send(admin));
    // A client that connects through loopback needs no token.
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
fn an_ipv4_mapped_address_counts_as_ipv4() {
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
fn a_unix_socket_counts_as_this_machine() {
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
