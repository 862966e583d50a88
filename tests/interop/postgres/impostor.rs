//! Servers that are not PostgreSQL, or answer what it never does. A command ends with an error: it
//! neither panics nor waits for ever.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crate::support::Home;

use super::store::on;

/// A message of the server.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], &length[..], body].concat()
}

fn logged_in() -> Vec<u8> {
    [message(b'R', &[0, 0, 0, 0]), ready()].concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// Says that the server accepts writes.
fn writable() -> Vec<u8> {
    value(b"transaction_read_only", b"off", b"SHOW\0")
}

/// One row with one text.
fn value(name: &[u8], value: &[u8], tag: &[u8]) -> Vec<u8> {
    let column = [&[0, 1], name, &[0; 7], &[0, 0, 0, 25], &[0; 8]].concat();
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    let row = [&[0, 1], &length[..], value].concat();
    [message(b'T', &column), message(b'D', &row), message(b'C', tag), ready()].concat()
}

/// Starts a server at this port that lets in a client, says that it accepts writes and is in `epoch`,
/// and then answers nothing.
pub(super) fn silent_after_login(port: u16, epoch: &str) {
    let state = value(b"concat_ws", format!("off {epoch}").as_bytes(), b"SELECT 1\0");
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    serve(listener, vec![logged_in(), state], false);
}

/// Starts a server on which each element of `answers` is sent after something was received. Then
/// it closes the connection, or leaves it open. Returns its URL.
fn impostor(answers: Vec<Vec<u8>>, closes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    serve(listener, answers, closes);
    format!("postgres://u:hunter2@{address}/d?connect_timeout=1")
}

fn serve(listener: TcpListener, answers: Vec<Vec<u8>>, closes: bool) {
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            open.extend(converse(stream, &answers).filter(|_| !closes));
        }
    });
}

fn converse(mut stream: TcpStream, answers: &[Vec<u8>]) -> Option<TcpStream> {
    let mut received = [0; 4096];
    for answer in answers {
        if stream.read(&mut received).ok()? == 0 {
            return None;
        }
        stream.write_all(answer).ok()?;
    }
    Some(stream)
}

/// A description of `count` columns of the type with this number.
fn columns(count: u16, oid: u32) -> Vec<u8> {
    let mut body = count.to_be_bytes().to_vec();
    for _ in 0..count {
        body.extend(b"c\0");
        body.extend([0; 6]);
        body.extend(oid.to_be_bytes());
        body.extend([0; 8]);
    }
    message(b'T', &body)
}

#[test]
fn a_malformed_answer_is_an_error() {
    let home = Home::new();
    let scram = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let begun = || vec![logged_in(), writable(), [message(b'C', b"BEGIN\0"), ready()].concat()];
    let then = |answer: Vec<u8>| [begun(), vec![answer]].concat();
    let parsed = || [message(b'1', b""), message(b'2', b"")].concat();
    let long = || [message(b'1', b""), message(b'2', b""), message(b't', &[0, 0])].concat();
    for (name, answers, closes, says) in [
        ("closes at once", vec![], true, "closed the connection"),
        ("says nothing", vec![], false, "no answer from"),
        ("closes after the login", vec![logged_in()], true, "closed the connection"),
        ("falls silent after the login", vec![logged_in()], false, "no answer from"),
        ("speaks HTTP", vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()], true, "a message of"),
        ("a message that is too long", vec![vec![b'R', 127, 255, 255, 255]], false, "a message of"),
        (
            "a message that is too short",
            vec![vec![b'R', 0, 0, 0, 0]],
            false,
            "a message of 0 bytes",
        ),
        ("an unknown message", vec![message(b'?', b"x")], false, "unknown message"),
        ("an unknown kind of login", vec![message(b'R', &[0, 0, 0, 99])], false, "unknown"),
        ("an empty login", vec![message(b'R', b"")], false, "answers as PostgreSQL does not"),
        ("no known proof", vec![message(b'R', b"\0\0\0\x0aX\0\0")], false, "SASL"),
        (
            "a proof that costs too much",
            vec![scram.clone(), message(b'R', b"\0\0\0\x0br=x,s=AAAA,i=2000000000")],
            false,
            "proof",
        ),
        (
            "a login without end",
            vec![message(b'N', &[b"Sx\0", &vec![b'M'; 300_000][..], b"\0\0"].concat())],
            false,
            "an answer that is too long",
        ),
        ("an error that is none", vec![message(b'E', b"\xff\xff")], false, "answers as"),
        (
            "an error with control characters",
            vec![message(b'E', b"SFATAL\0C28000\0M\x1b[31mred\0\0")],
            false,
            " [31mred",
        ),
        ("no rows about writes", vec![logged_in(), ready()], false, "standby"),
        (
            "a column of an unknown type",
            then([long(), columns(1, 99_999)].concat()),
            false,
            "unknown type",
        ),
        (
            "a description that is cut off",
            then([long(), message(b'T', &[0, 9, 65])].concat()),
            false,
            "unknown type",
        ),
        (
            "a row with other columns",
            then(
                [parsed(), columns(1, 16), message(b'D', &[0, 2, 0, 0, 0, 9, 1]), ready()].concat(),
            ),
            false,
            "answers",
        ),
        (
            "a value of another form",
            then(
                [
                    parsed(),
                    columns(1, 16),
                    message(b'D', &[0, 1, 0, 0, 0, 3, 1, 2, 3]),
                    message(b'C', b"SELECT 1\0"),
                    ready(),
                ]
                .concat(),
            ),
            false,
            "answers",
        ),
        ("an end in the middle", then(vec![b'1', 0, 0]), true, "closed the connection"),
    ] {
        let ended = on(&home, &impostor(answers, closes), &["store", "status"]);
        ended.assert_error(1, &["grantd: postgres://u@127.0.0.1:", says]);
        let said = &ended.stderr;
        assert!(
            !said.contains("panicked") && !said.contains("hunter2") && !said.contains('\x1b'),
            "{name}: {said}"
        );
    }
}

/// A server on another machine that offers no TLS does not get the password, and a server that is
/// not private cannot ask for it in plain text. On this machine, both are as safe as a file.
#[test]
fn the_password_is_not_sent_to_an_impostor() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 8];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(b"N").unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        (request, rest)
    });
    let url = format!("postgres://u:hunter2@127.0.0.1:{port}/d?sslmode=verify-full");
    on(&home, &url, &["store", "status"]).assert_error(1, &["offers no TLS"]);
    let (request, rest) = received.join().unwrap();
    assert_eq!((request, rest), ([0, 0, 0, 8, 4, 210, 22, 47], Vec::new()));
}
