//! The limits on requests and connections. A request that exceeds a limit gets no token.

use std::io::ErrorKind;
use std::io::Write;
use std::net::TcpStream;

use grantd::clock::Clock;

use crate::support::http::{count_answers, find};
use crate::support::{
    Connection, DEMO, ENCODINGS, Encoding, GUARD, Program, Request, Response, demo_with, form,
};

const BODY_LIMIT: usize = 16_384;

/// A request whose body has exactly `length` bytes.
fn padded(encoding: Encoding, length: usize) -> Request {
    let bare = form::encode(encoding, &demo_with(&[("padding", "")])).len();
    let padding = "x".repeat(length - bare);
    let request = Request::token(encoding, &demo_with(&[("padding", padding.as_str())]));
    assert_eq!(request.body_bytes().len(), length);
    request
}

#[track_caller]
fn assert_too_large(answer: &Response) {
    answer.assert_refused(413, "invalid_request");
    assert_eq!(answer.json()["error_description"], "The body is too large.");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn a_body_at_the_limit_is_read_and_one_over_it_is_not() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let answer = server.ask(&padded(encoding, BODY_LIMIT));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_too_large(&server.ask(&padded(encoding, BODY_LIMIT + 1)));
        assert_too_large(&server.ask(&padded(encoding, 200_000)));
    }
}

#[test]
fn a_chunked_body_is_refused_once_it_crosses_the_limit() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        for size in [1000, 20_000] {
            let mut connection = Connection::open(server.address);
            connection.send(&padded(encoding, BODY_LIMIT).to_chunked_bytes(size));
            assert_eq!(connection.read_answer().status, 200);
            connection.send(&padded(encoding, BODY_LIMIT + 1).to_chunked_bytes(size));
            assert_too_large(&connection.read_answer());
            connection.assert_closes();
        }
    }
}

#[test]
fn a_body_announced_as_too_large_gets_no_100_continue() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let mut connection = Connection::open(server.address);
        let request = padded(encoding, BODY_LIMIT + 1).header("Expect", "100-continue");
        connection.send(&request.head());
        assert_too_large(&connection.read_answer());
        connection.assert_closes();
    }
}

#[test]
fn a_body_within_the_limit_gets_100_continue() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let mut connection = Connection::open(server.address);
        let request = padded(encoding, BODY_LIMIT).header("Expect", "100-continue");
        connection.send(&request.head());
        assert_eq!(connection.read_answer().status, 100);
        connection.send(request.body_bytes());
        assert_eq!(connection.read_answer().status, 200);
        assert_eq!(connection.ask(&Request::token(encoding, &DEMO)).status, 200);
    }
}

/// A request with exactly `fields` header fields.
fn with_fields(encoding: Encoding, fields: usize) -> Request {
    // The request already has the three fields `Host`, `Content-Type` and `Content-Length`.
    let more = 0..fields - 3;
    more.fold(Request::token(encoding, &DEMO), |request, i| request.header(&format!("X-{i}"), "y"))
}

#[track_caller]
fn assert_head_too_large(answer: &Response) {
    answer.assert_refused(431, "invalid_request");
    assert_eq!(answer.json()["error_description"], "The header fields are too large.");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn there_are_at_most_64_header_fields() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        assert_eq!(server.ask(&with_fields(encoding, 64)).status, 200);
        assert_head_too_large(&server.ask(&with_fields(encoding, 65)));
        for fields in [100, 101, 256] {
            assert_head_too_large(&server.ask(&with_fields(encoding, fields)));
        }
    }
    // A higher limit is refused in the same way.
    let server = Program::configured("[limits]\nheader_fields = 300\n");
    for encoding in ENCODINGS {
        assert_eq!(server.ask(&with_fields(encoding, 300)).status, 200);
        assert_head_too_large(&server.ask(&with_fields(encoding, 301)));
    }
    let server = Program::shared();
    // hyper does not parse 300 fields, so the route is unknown and the answer has no body.
    let mut connection = Connection::open(server.address);
    connection.send(&with_fields(Encoding::Urlencoded, 300).head());
    let answer = connection.read_answer();
    assert_eq!((answer.status, answer.text()), (431, ""));
    connection.assert_closes();
}

#[test]
fn the_head_has_at_most_16_kib() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let with =
            |length: usize| Request::token(encoding, &DEMO).header("X-Long", "y".repeat(length));
        assert_eq!(server.ask(&with(15 * 1024)).status, 200);
        assert_head_too_large(&server.ask(&with(17 * 1024)));
        let long_target = format!("/connect/token?x={}", "y".repeat(17 * 1024));
        assert_head_too_large(
            &server.ask(&Request::token(encoding, &DEMO).with_target(&long_target)),
        );
    }
    // The head fills the server's read buffer exactly. When the server closes the connection, no
    // bytes are unread, so the kernel does not reset the connection.
    let mut head = Request::token(Encoding::Urlencoded, &DEMO).open_head();
    head.extend(b"X-Long: ");
    head.resize(40 * 1024, b'y');
    let mut connection = Connection::open(server.address);
    connection.send(&head);
    let answer = connection.read_answer();
    assert_eq!((answer.status, answer.text()), (431, ""));
    connection.assert_closes();
}

#[test]
fn there_are_at_most_16_parameters() {
    let server = Program::shared();
    let names: Vec<String> = (0..14).map(|index| format!("x{index}")).collect();
    let more: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "y")).collect();
    for encoding in ENCODINGS {
        let answer = server.ask(&Request::token(encoding, &demo_with(&more[..13])));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = server.ask(&Request::token(encoding, &demo_with(&more)));
        answer.assert_refused(400, "invalid_request");
        assert_eq!(answer.json()["error_description"], "There are too many parameters.");
    }
}

#[test]
fn slow_headers_get_408_and_are_closed_but_an_idle_connection_stays_open() {
    let server = Program::configured("[limits]\nheader_seconds = 1\n");
    let mut idle = Connection::open(server.address);
    assert_eq!(idle.ask(&Request::token(Encoding::Urlencoded, &DEMO)).status, 200);
    let slow = ENCODINGS.map(|encoding| {
        let mut connection = Connection::open(server.address);
        connection.send(&Request::token(encoding, &DEMO).open_head());
        connection
    });
    for mut connection in slow {
        let answer = connection.read_answer();
        assert_eq!((answer.status, answer.text()), (408, r#"{"error":"invalid_request"}"#));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("connection"), Some("close"));
        connection.assert_closes();
    }
    // An idle connection may wait longer than `header_seconds`.
    let answer = idle.ask(&Request::token(Encoding::Multipart, &DEMO));
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    assert_eq!(server.issued(), 2);
}

#[test]
fn a_slow_body_gets_408_in_its_dialect_and_is_closed() {
    let server = Program::configured("[limits]\nrequest_seconds = 1\n");
    let slow = ENCODINGS.map(|encoding| {
        let bytes = Request::token(encoding, &DEMO).to_bytes();
        let mut connection = Connection::open(server.address);
        connection.send(&bytes[..bytes.len() - 1]);
        connection
    });
    for mut connection in slow {
        let answer = connection.read_answer();
        answer.assert_refused(408, "invalid_request");
        let description = "The request did not arrive in time.";
        assert_eq!(answer.json()["error_description"], description);
        assert_eq!(answer.header("connection"), Some("close"));
        connection.assert_closes();
    }
    assert_eq!(server.issued(), 0);
}

#[test]
fn an_idle_connection_is_closed_after_its_timeout() {
    let server = Program::configured("[limits]\nidle_seconds = 1\n");
    let silent = Connection::open(server.address);
    let [one, two] = ENCODINGS.map(|encoding| {
        let mut connection = Connection::open(server.address);
        let answer = connection.ask(&Request::token(encoding, &DEMO));
        assert_eq!((answer.status, answer.header("connection")), (200, None));
        connection
    });
    for mut connection in [silent, one, two] {
        connection.assert_closes();
    }
    assert_eq!(server.issued(), 2);
}

#[test]
fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let server = Program::configured("[limits]\nwrite_stall_seconds = 1\n");
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_write_timeout(Some(GUARD)).unwrap();
    let requests = Request::get("/.well-known/jwks.json").to_bytes().repeat(100);
    // Sends until every send and receive buffer is full. After that, only a reset by the server
    // ends the loop.
    let error = loop {
        if let Err(error) = stream.write_all(&requests) {
            break error;
        }
    };
    assert!(
        [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()),
        "{error:?}"
    );
    let answer = server.ask(&Request::token(Encoding::Multipart, &DEMO));
    assert_eq!(answer.status, 200);
}

/// The listen backlog must hold a burst of connections. If it were full, the kernel would drop new
/// connection attempts, and the clients would repeat them only seconds later.
#[cfg(target_os = "linux")]
#[test]
fn the_listen_backlog_holds_hundreds_of_connections() {
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let many = most.trim().parse::<usize>().unwrap().min(300);
    let server = Program::configured("");
    server.stop();
    // The kernel completes these connections although the server is stopped.
    let mut waiting: Vec<_> = (0..many).map(|_| Connection::open(server.address)).collect();
    server.go_on();
    for connection in &mut waiting {
        assert_eq!(connection.ask(&Request::get("/.well-known/jwks.json")).status, 200);
    }
}

const SHED: &str = "grantd_connections_shed_total";

#[test]
fn slow_headers_on_every_connection_are_shed_for_new_clients() {
    let server = Program::configured("[limits]\nconnections = 8\n");
    let slow = Request::token(Encoding::Urlencoded, &DEMO).open_head();
    let mut held: Vec<_> = (0..16).map(|_| Connection::open(server.address)).collect();
    held.iter_mut().for_each(|connection| connection.send_if_open(&slow));
    for encoding in ENCODINGS {
        let answer = server.ask(&Request::token(encoding, &DEMO));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert!(server.metric(SHED) >= 8, "{}", server.metrics());
    assert_eq!(server.issued(), 2);
    drop(held);
}

#[test]
fn idle_connections_in_every_place_are_shed_for_new_clients() {
    let server = Program::configured("[limits]\nconnections = 8\n");
    let idle: Vec<_> = (0..8)
        .map(|index| {
            let mut connection = Connection::open(server.address);
            let answer = connection.ask(&Request::token(ENCODINGS[index % 2], &DEMO));
            assert_eq!(answer.status, 200);
            connection
        })
        .collect();
    for encoding in ENCODINGS {
        assert_eq!(server.ask(&Request::token(encoding, &DEMO)).status, 200);
    }
    assert!(server.metric(SHED) >= 1, "{}", server.metrics());
    drop(idle);
}

#[test]
fn slow_bodies_in_every_place_are_shed_in_time() {
    let server = Program::configured("[limits]\nconnections = 8\nrequest_seconds = 600\n");
    let slow = Request::token(Encoding::Urlencoded, &DEMO).header("Expect", "100-continue");
    let held: Vec<_> = (0..8)
        .map(|_| {
            let mut connection = Connection::open(server.address);
            connection.send(&slow.head());
            // The answer shows that the server waits for the body. The connection now occupies one
            // of the eight places.
            assert_eq!(connection.read_answer().status, 100);
            connection
        })
        .collect();
    for encoding in ENCODINGS {
        // Each refused request is sent again on a new connection.
        let request = Request::token(encoding, &DEMO).header("Connection", "close").to_bytes();
        let started = Clock::system().instant();
        let answer = loop {
            let mut connection = Connection::open(server.address);
            connection.send_if_open(&request);
            let said = connection.read_to_end();
            if find(&said, b"HTTP/1.1 200 ").is_some() {
                break said;
            }
            if count_answers(&said) > 0 {
                assert!(said.starts_with(b"HTTP/1.1 503 "), "{}", said.escape_ascii());
                assert!(find(&said, b"retry-after: 1\r\n").is_some());
                let whole = said.ends_with(br#"{"error":"temporarily_unavailable"}"#);
                assert!(whole, "{}", said.escape_ascii());
            }
            assert!(started.elapsed() < GUARD, "the places never become free");
            std::thread::yield_now();
        };
        assert_eq!(count_answers(&answer), 1);
    }
    assert_eq!(server.issued(), 2);
    drop(held);
}

/// Opens a connection with a small receive buffer, and sends requests without reading the answers
/// until the server reads no more or closes.
fn stalled_reader(server: &Program) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(server.address).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_write_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    let requests = Request::get("/.well-known/jwks.json").to_bytes().repeat(100);
    while stream.write_all(&requests).is_ok() {}
    stream
}

/// Slow headers, slow bodies, slow readers and silent clients, each at twice the limit of
/// connections: the others get their tokens.
#[test]
fn slow_clients_at_twice_the_limit_do_not_shut_out_others() {
    let head = Request::token(Encoding::Urlencoded, &DEMO).open_head();
    let body = padded(Encoding::Urlencoded, 1000).to_bytes();
    for unfinished in [&b""[..], b"P", &head, &body[..body.len() - 1]] {
        let server = Program::configured("[limits]\nconnections = 8\n");
        let mut held: Vec<_> = (0..16).map(|_| Connection::open(server.address)).collect();
        held.iter_mut().for_each(|connection| connection.send_if_open(unfinished));
        for encoding in ENCODINGS {
            for _ in 0..4 {
                // The next slow client takes the place of this one.
                assert_eq!(server.ask(&Request::token(encoding, &DEMO)).status, 200);
                held.push(Connection::open(server.address));
                held.last_mut().unwrap().send_if_open(unfinished);
            }
        }
        assert_eq!(server.issued(), 8);
        assert!(server.metric("grantd_connections ") <= 8);
    }
    let server = Program::configured("[limits]\nconnections = 8\n");
    let before = server.resident_kib();
    let held: Vec<_> = (0..16).map(|_| stalled_reader(&server)).collect();
    for encoding in ENCODINGS {
        assert_eq!(server.ask(&Request::token(encoding, &DEMO)).status, 200);
    }
    assert!(server.metric("grantd_connections ") <= 8);
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
    drop(held);
}
