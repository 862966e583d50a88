//! File descriptors: silent connections use them up, but not those that other clients, the admin
//! listener and files need.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use grantd::clock::Clock;
use serde_json::Value;

use crate::support::registry::{client_with_hash, registry_with};
use crate::support::status::{assert_revoked, home as introspecting_home, revoke, token_of};
use crate::support::{
    Connection, DEMO, ENCODINGS, Encoding, Home, Program, Request, Token, request_of, wait_until,
};

/// A limit of open files that allows 96 connections.
const LIMIT: &str = "ulimit -n 160";
const OPEN: &str = "grantd_connections ";
const SHED: &str = "grantd_connections_shed_total";

fn is_out_of_descriptors(line: &Value) -> bool {
    line["message"].as_str().is_some_and(|it| it.starts_with("out of file descriptors: "))
}

/// Opens connections and sends nothing on them.
fn crowd(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

#[track_caller]
fn assert_serves(server: &Program) {
    for encoding in ENCODINGS {
        let answer = server.ask(&Request::token(encoding, &DEMO));
        Token::verified(&answer, server.address);
    }
}

#[track_caller]
fn assert_admin_answers(server: &Program) {
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(Request::get(path).send(server.admin).status, 200, "{path}");
    }
}

#[test]
fn silent_connections_beyond_the_limit_of_files_shut_out_nothing() {
    let server = Program::start_limited(introspecting_home(), LIMIT, &[]);
    let says = "limits.connections is lowered from 10000 to 96, because this process may have only \
                160 open files; raise this limit to 10064 ";
    server.log.wait_for(|line| line["message"].as_str().unwrap_or_default().starts_with(says));
    let token = token_of(server.address, "timed");
    let silent = crowd(server.address, 240);
    for _ in 0..3 {
        assert_serves(&server);
        assert_admin_answers(&server);
    }
    assert!(server.metric(OPEN) <= 96);
    assert!(server.metric(SHED) >= 240 - 96);
    // Files can still be opened.
    assert_revoked(&revoke(server.address, "timed", &token));
    server.home.write("clients.json", &registry_with(&[]));
    server.hang_up();
    server.log.wait_for(|line| line["message"] == "reloaded");
    assert_admin_answers(&server);
    assert_eq!(server.log.count(is_out_of_descriptors), 0);
    drop(silent);
}

#[test]
fn the_program_raises_its_limit_of_files() {
    let home = Home::new();
    home.write("grantd.toml", "[limits]\nconnections = 448\n");
    let limit = "ulimit -n 512; ulimit -S -n 80";
    let server = Program::start_limited(home, limit, &["--config", "grantd.toml"]);
    assert_eq!(server.limits("Max open files"), ["512", "512"]);
    let is_lowered = |line: &Value| line.to_string().contains("is lowered");
    assert_eq!(server.log.count(is_lowered), 0);
}

#[test]
fn silent_connections_on_a_unix_socket_shut_out_nothing() {
    let arguments = ["--listen", "unix:s", "--issuer", "http://localhost"];
    let server = Program::start_limited(Home::new(), LIMIT, &arguments);
    let socket = server.home.path("s");
    let open = || UnixStream::connect(&socket).unwrap();
    let silent: Vec<_> = (0..240).map(|_| open()).collect();
    for encoding in ENCODINGS {
        // The first of the two listeners is at an IP address.
        assert_serves(&server);
        let mut stream = open();
        let request = Request::token(encoding, &DEMO).header("Connection", "close");
        stream.write_all(&request.to_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
    }
    assert_admin_answers(&server);
    assert_eq!(server.log.count(is_out_of_descriptors), 0);
    drop(silent);
}

#[test]
fn silent_connections_on_the_admin_listener_shut_out_nothing() {
    let server = Program::start_limited(Home::new(), LIMIT, &[]);
    let silent = [crowd(server.address, 120), crowd(server.admin, 240)];
    for _ in 0..3 {
        assert_serves(&server);
        assert_admin_answers(&server);
    }
    assert_eq!(server.log.count(is_out_of_descriptors), 0);
    drop(silent);
}

#[test]
fn clients_of_the_admin_listener_that_keep_it_waiting_shut_out_nothing() {
    let server = Program::start(Home::new(), &[]);
    let whole = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let body = "POST /keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx";
    for sent in ["", "GET /livez HTTP/1.1\r\nHo", body, whole] {
        let mut waiting = crowd(server.admin, 20);
        // The server may have closed the connection already.
        waiting.iter_mut().for_each(|stream| drop(stream.write_all(sent.as_bytes())));
        assert_admin_answers(&server);
    }
}

/// The limit of open files is lowered while the server runs, so that `accept` fails.
#[test]
fn without_descriptors_one_connection_that_waits_for_its_client_is_closed_for_a_new_one() {
    let server = Program::start(Home::new(), &["--workers", "1"]);
    let request = Request::token(Encoding::Urlencoded, &DEMO);
    let begin = Clock::system().instant();
    let silent = crowd(server.address, 60);
    let mut known = Connection::open(server.address);
    assert_eq!(known.ask(&request).status, 200);
    wait_until(|| server.metric(OPEN) == 61);
    server.limit_files(60);
    let mut kept = Vec::new();
    for round in 1..=20 {
        // This connection stays open, so that no descriptor is free.
        let mut connection = Connection::open(server.address);
        assert_eq!(connection.ask(&Request::token(ENCODINGS[round % 2], &DEMO)).status, 200);
        kept.push(connection);
        assert_admin_answers(&server);
        // A connection that is in use is closed later than a silent one.
        assert_eq!(known.ask(&request).status, 200, "{round}");
    }
    server.log.wait_for(is_out_of_descriptors);
    assert!(server.metric(SHED) > 0);
    // The admin listener closes its own silent connections.
    let on_admin = crowd(server.admin, 20);
    assert_admin_answers(&server);
    drop((silent, on_admin, kept));
    assert_serves(&server);
    let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap();
    server.terminate();
    server.log.to_the_end();
    let lines = server.log.count(is_out_of_descriptors);
    // Both listeners together log at most one line in each second of the clock.
    assert!((1..=seconds + 2).contains(&lines), "{lines} in {seconds} s");
}

/// A hash of an unknown secret, the computation of which takes a good part of a second.
const SLOW_HASH: &str = "$2b$12$TnE0l4bsgWyWTvjvvWPBkeXL5cZDNjUtDoIMQhOu9QNQ4nbH1qf4m";

/// Sends a request with a wrong secret, which waits until its slow hash is computed.
fn waiting_request(server: &Program, number: usize) -> Connection {
    let secret = format!("wrong-{number}");
    let parameters = request_of("slow", &secret, &[]);
    let mut connection = Connection::open(server.address);
    connection.send(&Request::token(ENCODINGS[number % 2], &parameters).to_bytes());
    connection
}

/// Starts a server that computes slow hashes on one thread, and lets `count` requests wait there.
fn waiting_requests(count: usize, toml: &str) -> (Program, Vec<Connection>) {
    let home = Home::new();
    home.write("clients.json", &registry_with(&[client_with_hash("slow", SLOW_HASH)]));
    home.write("grantd.toml", &format!("limits.password_threads = 1\n{toml}"));
    let server = Program::start(home, &["--config", "grantd.toml", "--workers", "1"]);
    let waiting = (0..count).map(|number| waiting_request(&server, number)).collect();
    let arrived = || {
        server.metric("grantd_password_queue ") + server.metric("grantd_password_hashes_total ") + 1
    };
    wait_until(|| arrived() >= count as u64);
    (server, waiting)
}

#[track_caller]
fn assert_all_are_answered(waiting: Vec<Connection>) {
    for mut connection in waiting {
        connection.read_answer().assert_refused(400, "invalid_client");
    }
}

#[test]
fn without_descriptors_no_complete_request_is_cut() {
    let (server, waiting) = waiting_requests(8, "");
    let silent = crowd(server.address, 60);
    wait_until(|| server.metric(OPEN) == 68);
    server.limit_files(60);
    for _ in 0..10 {
        assert_serves(&server);
    }
    server.log.wait_for(is_out_of_descriptors);
    assert_all_are_answered(waiting);
    drop(silent);
}

#[test]
fn at_the_limit_of_connections_no_complete_request_is_cut() {
    let (server, waiting) = waiting_requests(6, "limits.connections = 8\n");
    let silent = crowd(server.address, 40);
    assert_serves(&server);
    assert!(server.metric(SHED) >= 38, "{}", server.metrics());
    assert_all_are_answered(waiting);
    drop(silent);
}

/// The server is stopped while a new client connects and then the only open connection, which is
/// idle, sends a request. So the server usually evicts this connection before it reads the request.
/// If it reads the request first, it may refuse the new client.
#[test]
fn a_request_that_arrives_during_the_eviction_of_its_connection_is_answered() {
    let home = Home::new();
    home.write("grantd.toml", "limits.connections = 1\n");
    let server = Program::start(home, &["--config", "grantd.toml", "--workers", "1"]);
    for encoding in [ENCODINGS, ENCODINGS].concat() {
        let request = Request::token(encoding, &DEMO);
        let mut known = Connection::open(server.address);
        assert_eq!(known.ask(&request).status, 200);
        server.stop();
        let mut new = Connection::open(server.address);
        known.send(&request.to_bytes());
        server.go_on();
        assert_eq!(known.read_answer().status, 200);
        new.send_if_open(&request.to_bytes());
        let answer = new.read_if_answered();
        assert!(answer.is_none_or(|answer| [200, 503].contains(&answer.status)));
    }
}

/// While a request waits, a half-closed connection may use a second descriptor.
#[test]
fn half_closed_connections_leave_descriptors_for_files() {
    let toml = "limits.password_queue = 400\nfailures.client_failures = 1000\n";
    let (server, mut waiting) = waiting_requests(8, toml);
    server.limit_files(70);
    waiting.iter_mut().for_each(Connection::finish_sending);
    let more = (8..32).map(|number| {
        let mut connection = waiting_request(&server, number);
        connection.finish_sending();
        connection
    });
    waiting.extend(more);
    wait_until(|| server.metric(OPEN) == 32);
    let open = || fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
    // The server has one event loop, which handles these requests after the half-closes.
    (0..3).for_each(|_| assert_admin_answers(&server));
    assert!(open() <= 64, "{} files are open", open());
    server.home.write("clients.json", &registry_with(&[]));
    server.hang_up();
    server.log.wait_for(|line| line["message"] == "reloaded");
}
