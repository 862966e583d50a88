//! Bytes that are not an HTTP/1 request, on a port that expects one.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use grantd::clock::Clock;

use crate::support::http::exchange_cut_off;
use crate::support::{DEMO, Encoding, Home, Program, Request, wait_until};

/// The start of a TLS connection: a record header of 5 bytes and a ClientHello.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x00\x08\x01\x00\x00\x04\x03\x03ab";

fn counted(server: &Program, kind: &str) -> u64 {
    server.metric(&format!("grantd_not_http_total{{kind=\"{kind}\"}}"))
}

#[test]
fn a_connection_without_http_is_counted_and_logged() {
    for (kind, bytes) in [
        ("tls", CLIENT_HELLO.to_vec()),
        ("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("other", b"\x00\x01\x02\x03 hunter2\r\n\r\n".to_vec()),
        ("other", b"EHLO hunter2\r\n".to_vec()),
        ("other", b"GET / HTTP/1.1\r\nno colon: but a space\r\n\r\n".to_vec()),
        ("large_head", [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; 60_000]].concat()),
    ] {
        let server = Program::start(Home::new(), &[]);
        assert_eq!(counted(&server, kind), 0);
        exchange_cut_off(server.address, &bytes);
        wait_until(|| counted(&server, kind) == 1);
        let line = server.log.wait_for(|line| line["kind"] == kind);
        assert_eq!(line["level"], "WARN");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        let message = line["message"].as_str().unwrap();
        assert!(message.starts_with("a client s"), "{line}");
        assert!(!line.to_string().contains("hunter2"), "{line}");
        let total: u64 =
            ["tls", "http2", "large_head", "other"].iter().map(|kind| counted(&server, kind)).sum();
        assert_eq!(total, 1);
    }
}

/// Bytes that are not HTTP are counted even if they follow a request on the same connection.
/// Complete requests, incomplete requests and empty connections are not counted.
#[test]
fn requests_and_empty_connections_are_not_counted() {
    let server = Program::start(Home::new(), &[]);
    let request = Request::token(Encoding::Urlencoded, &DEMO).to_bytes();
    exchange_cut_off(server.address, &[&request[..], b"\x80\x81\x82\r\n\r\n"].concat());
    wait_until(|| counted(&server, "other") == 1);
    // The first connection sends nothing, the second ends within a head, and the third ends within
    // a body.
    for bytes in [&b""[..], &b"POST /conn"[..], &request[..request.len() - 1]] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        drop(stream);
    }
    assert_eq!(server.ask(&Request::token(Encoding::Urlencoded, &DEMO)).status, 200);
    wait_until(|| server.metric("grantd_connections ") == 0);
    let metrics = server.metrics();
    let counts = metrics.lines().filter_map(|line| line.strip_prefix("grantd_not_http_total{"));
    let total: u64 =
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(total, 1, "{metrics}");
}

#[test]
fn a_scanner_does_not_fill_the_log() {
    let server = Program::start(Home::new(), &[]);
    let begin = Clock::system().instant();
    for _ in 0..50 {
        exchange_cut_off(server.address, CLIENT_HELLO);
    }
    wait_until(|| counted(&server, "tls") == 50);
    let lines = || server.log.count(|line| line["kind"] == "tls") as u64;
    wait_until(|| lines() > 0);
    let seconds = begin.elapsed().as_secs() + 2;
    let lines = lines();
    assert!((1..=seconds).contains(&lines), "{lines} lines in {seconds} seconds");
}
