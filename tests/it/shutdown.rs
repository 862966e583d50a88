//! Shutdown while clients are connected.

use std::os::unix::net::UnixDatagram;

use serde_json::Value;

use crate::support::{Connection, DEMO, ENCODINGS, Encoding, GUARD, Home, Program, Request};

/// Sends the head of a request and waits until the server asks for the body.
fn begin(server: &Program, request: &Request) -> Connection {
    let mut connection = Connection::open(server.address);
    connection.send(&request.clone().header("Expect", "100-continue").head());
    assert_eq!(connection.read_answer().status, 100);
    connection
}

fn stop(server: &Program) {
    server.terminate();
    server.log.wait_for(|line| line["message"] == "stopping: no new connections are accepted");
}

#[test]
fn requests_in_flight_are_answered_and_idle_connections_get_one_last_answer() {
    let mut server = Program::configured("[limits]\ndrain_seconds = 50\n");
    for encoding in ENCODINGS {
        assert_eq!(server.ask(&Request::token(encoding, &DEMO)).status, 200);
    }
    let requests = ENCODINGS.map(|encoding| Request::token(encoding, &DEMO));
    let mut in_flight = requests.each_ref().map(|request| begin(&server, request));
    let mut idle = requests.each_ref().map(|request| {
        let mut connection = Connection::open(server.address);
        let answer = connection.ask(request);
        assert_eq!((answer.status, answer.header("connection")), (200, None));
        connection
    });
    stop(&server);

    for (connection, request) in in_flight.iter_mut().zip(&requests) {
        connection.send(request.body_bytes());
        let answer = connection.read_answer();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        connection.assert_closes();
    }
    for (connection, request) in idle.iter_mut().zip(&requests) {
        let answer = connection.ask(request);
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        connection.assert_closes();
    }
    assert_eq!(server.wait().code(), Some(0));
    let log = server.log.to_the_end();
    assert!(log.contains("\"message\":\"stopped\""), "{log}");
}

#[test]
fn a_draining_server_is_not_ready_and_accepts_no_connection() {
    let mut server = Program::configured("[limits]\ndrain_seconds = 50\n");
    let request = Request::token(Encoding::Multipart, &DEMO);
    let mut in_flight = begin(&server, &request);
    stop(&server);

    let answer = Request::get("/readyz").send(server.admin);
    assert_eq!((answer.status, answer.text()), (503, "not ready: starting or stopping\n"));
    assert_eq!(Request::get("/livez").send(server.admin).status, 200);

    in_flight.send(request.body_bytes());
    assert_eq!(in_flight.read_answer().status, 200);
    assert_eq!(server.wait().code(), Some(0));
    let refused = std::net::TcpStream::connect(server.address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn after_the_drain_time_connections_are_closed_and_unfinished_requests_counted() {
    let mut server = Program::configured("[limits]\ndrain_seconds = 1\n");
    let request = Request::token(Encoding::Urlencoded, &DEMO);
    let mut idle = Connection::open(server.address);
    assert_eq!(idle.ask(&request).status, 200);
    let mut unfinished = begin(&server, &request);
    server.terminate();
    idle.assert_closes();
    unfinished.assert_closes();
    assert_eq!(server.wait().code(), Some(0));
    let log = server.log.to_the_end();
    assert!(log.contains("\"left\":1"), "{log}");
}

const DELAYED: &str = "not ready: stopping after shutdown_delay_seconds, or at a second signal";
const STOPPING: &str = "stopping: no new connections are accepted";

/// Returns the messages of a log that are about the shutdown, in order.
fn end_of(log: &str) -> Vec<String> {
    let messages = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let messages = messages.filter_map(|line| Some(line["message"].as_str()?.to_owned()));
    messages.filter(|message| [DELAYED, STOPPING, "stopped"].contains(&&**message)).collect()
}

#[test]
fn in_the_shutdown_delay_it_is_not_ready_and_serves_until_a_second_signal() {
    let home = Home::new();
    let notify = home.path("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(GUARD)).unwrap();
    let told = || {
        let mut message = [0; 100];
        let length = manager.recv(&mut message).expect("a message in time");
        String::from_utf8(message[..length].to_vec()).unwrap().trim().to_owned()
    };
    // The delay is longer than any test, so the server can stop only because of the second signal.
    home.write("grantd.toml", "shutdown_delay_seconds = 3000\n[limits]\ndrain_seconds = 50\n");
    let variables = [("NOTIFY_SOCKET", notify.to_str().unwrap())];
    let mut server = Program::start_with(home, &["--config", "grantd.toml"], &variables);
    let requests = ENCODINGS.map(|encoding| Request::token(encoding, &DEMO));
    let mut kept = Connection::open(server.address);
    assert_eq!(kept.ask(&requests[0]).status, 200);
    assert_eq!(Request::get("/readyz").send(server.admin).status, 200);
    assert_eq!(told(), "READY=1");

    server.terminate();
    server.log.wait_for(|line| line["message"] == DELAYED && line["seconds"] == 3000);
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(Request::get("/readyz").send(server.admin).status, 503);
    assert_eq!(Request::get("/livez").send(server.admin).status, 200);
    let before = server.issued();
    for request in &requests {
        let mut new = Connection::open(server.address);
        for connection in [&mut new, &mut kept] {
            let answer = connection.ask(request);
            assert_eq!((answer.status, answer.header("connection")), (200, None));
        }
    }
    assert_eq!(server.issued(), before + 2 * requests.len() as u64);

    stop(&server);
    let answer = kept.ask(&requests[0]);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(end_of(&server.log.to_the_end()), [DELAYED, STOPPING, "stopped"]);
}

#[test]
fn the_shutdown_delay_ends_by_itself() {
    let mut server = Program::configured("shutdown_delay_seconds = 1\n");
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(end_of(&server.log.to_the_end()), [DELAYED, STOPPING, "stopped"]);
}

/// The server starts with a long shutdown delay. A reload then sets the delay to 0.
#[test]
fn without_a_shutdown_delay_the_stop_begins_at_once() {
    let mut server = Program::configured("shutdown_delay_seconds = 3000\n");
    server.home.write("grantd.toml", "shutdown_delay_seconds = 0\n");
    server.hang_up();
    server.log.wait_for(|line| line["message"] == "reloaded");
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(end_of(&server.log.to_the_end()), [STOPPING, "stopped"]);
}
