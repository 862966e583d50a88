//! Shutdown while clients are connected.

use crate::support::{Connection, DEMO, ENCODINGS, Encoding, Program, Request};

/// A request that the server has begun to handle and whose body is missing.
fn begin(server: &Program, request: &Request) -> Connection {
    let mut connection = Connection::open(server.address);
    connection.send(&request.clone().header("Expect", "100-continue").head());
    assert_eq!(connection.read_answer().status, 100);
    connection
}

fn stop(server: &Program) {
    server.terminate();
    server.log.wait_for(|line| line["message"] == "stopping: nothing new is accepted");
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
fn an_idle_connection_delays_the_end_by_the_drain_time_at_most() {
    let mut server = Program::configured("[limits]\ndrain_seconds = 1\n");
    let mut idle = Connection::open(server.address);
    assert_eq!(idle.ask(&Request::token(Encoding::Urlencoded, &DEMO)).status, 200);
    server.terminate();
    idle.assert_closes();
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_client_that_never_finishes_is_closed_and_counted() {
    let mut server = Program::configured("[limits]\ndrain_seconds = 1\n");
    let mut unfinished = begin(&server, &Request::token(Encoding::Urlencoded, &DEMO));
    server.terminate();
    unfinished.assert_closes();
    assert_eq!(server.wait().code(), Some(0));
    let log = server.log.to_the_end();
    assert!(log.contains("\"left\":1"), "{log}");
}
