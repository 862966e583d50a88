//! Request smuggling: bytes that one program reads as one message and another program reads as two
//! messages. The server must send exactly one answer to such bytes.

use crate::support::http::{count_answers, exchange, exchange_cut_off, find};
use crate::support::{
    Connection, DEMO, ENCODINGS, Encoding, Home, Program, Request, TOKEN, demo_without, form,
};

/// Returns the demo client's request with these header lines and this body. No `Content-Length` or
/// `Transfer-Encoding` is added.
fn raw(headers: &str, body: &str) -> Vec<u8> {
    let content_type = Encoding::Urlencoded.content_type();
    format!(
        "POST {TOKEN} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

fn demo() -> String {
    String::from_utf8(form::encode(Encoding::Urlencoded, &DEMO)).unwrap()
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

fn length() -> String {
    format!("Content-Length: {}\r\n", demo().len())
}

/// Sends each payload on a new connection. Asserts that the server answers with one refusal and
/// closes the connection.
#[track_caller]
fn assert_refused(status: u16, payloads: &[Vec<u8>]) {
    let server = Program::start(Home::new(), &[]);
    for payload in payloads {
        let said = exchange(server.address, payload);
        let shown = format!("{} => {}", payload.escape_ascii(), said.escape_ascii());
        assert!(said.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{shown}");
        assert_eq!(count_answers(&said), 1, "{shown}");
        assert!(find(&said, b"access_token").is_none(), "{shown}");
    }
    assert_eq!(server.issued(), 0);
    assert_eq!(server.ask(&Request::token(Encoding::Urlencoded, &DEMO)).status, 200);
}

#[test]
fn a_length_beside_a_transfer_coding_ends_the_connection() {
    let server = Program::shared();
    let smuggled = String::from_utf8(Request::get("/smuggled").to_bytes()).unwrap();
    let (te, cl) = ("Transfer-Encoding: chunked\r\n", length());
    for headers in [format!("{te}{cl}"), format!("{cl}{te}"), format!("Content-Length: 5\r\n{te}")]
    {
        let payload = raw(&headers, &(chunked(&demo()) + &smuggled));
        let said = exchange(server.address, &payload);
        assert_eq!(count_answers(&said), 1, "{}", said.escape_ascii());
        // RFC 9112, section 6.3: the server may refuse the message or use the transfer coding. In
        // both cases it must close the connection after the answer.
        assert!(find(&said, b"connection: close").is_some(), "{}", said.escape_ascii());
    }
}

#[test]
fn lengths_that_differ_or_are_no_numbers_are_refused() {
    let n = demo().len();
    let payloads: Vec<_> = [
        format!("Content-Length: {n}\r\nContent-Length: {}\r\n", n + 1),
        format!("Content-Length: 0\r\nContent-Length: {n}\r\n"),
        format!("Content-Length: {n}, {n}\r\n"),
        format!("Content-Length: +{n}\r\n"),
        format!("Content-Length: -{n}\r\n"),
        "Content-Length: 1 0\r\n".to_owned(),
        format!("Content-Length: 0x{n:x}\r\n"),
        "Content-Length: \r\n".to_owned(),
        "Content-Length: ten\r\n".to_owned(),
        "Content-Length: 99999999999999999999999\r\n".to_owned(),
    ]
    .iter()
    .map(|headers| raw(headers, &demo()))
    .collect();
    assert_refused(400, &payloads);
    // The length is a valid number, but larger than any body can be.
    assert_refused(431, &[raw("Content-Length: 18446744073709551615\r\n", &demo())]);
}

#[test]
fn transfer_codings_other_than_one_chunked_are_refused() {
    let payloads: Vec<_> = [
        "chunked, chunked",
        "xchunked",
        "chunked, identity",
        "identity",
        "gzip, chunked",
        "chunked\r\nTransfer-Encoding: chunked",
        "gzip\r\nTransfer-Encoding: chunked",
        "chunked;q=1",
        "\"chunked\"",
        "",
    ]
    .iter()
    .map(|coding| raw(&format!("Transfer-Encoding: {coding}\r\n"), &chunked(&demo())))
    .collect();
    assert_refused(400, &payloads);

    let server = Program::shared();
    let upper = raw("Transfer-Encoding: CHUNKED\r\n", &chunked(&demo()));
    let said = exchange(server.address, &upper);
    assert!(said.starts_with(b"HTTP/1.1 200 ") && count_answers(&said) == 1);
}

#[test]
fn chunks_with_a_malformed_size_are_refused() {
    let body = demo();
    let n = body.len();
    let payloads: Vec<_> = [
        format!("\r\n{body}\r\n0\r\n\r\n"),
        format!("-{n:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("+{n:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("0x{n:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("{n:x}g\r\n{body}\r\n0\r\n\r\n"),
        format!("10000000000000000\r\n{body}\r\n0\r\n\r\n"),
        format!("fffffffffffffffff{n:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("{:x}\r\n{body}\r\n0\r\n\r\n", n - 1),
        format!("{n:x}\r\n{body}0\r\n\r\n"),
    ]
    .iter()
    .map(|body| raw("Transfer-Encoding: chunked\r\n", body))
    .collect();
    assert_refused(400, &payloads);

    let server = Program::shared();
    let description = "The body ended early, or its chunks or trailers are not valid.";
    let trailers = format!("{n:x}\r\n{body}\r\n0\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let trailers = raw("Transfer-Encoding: chunked\r\n", &trailers);
    for payload in [&payloads[0], &payloads[4], &trailers] {
        let said = exchange(server.address, payload);
        assert!(find(&said, description.as_bytes()).is_some(), "{}", said.escape_ascii());
    }
    for missing in ["\r\n", "0\r\n\r\n"] {
        let whole = chunked(&body);
        let cut_off = whole.strip_suffix(missing).unwrap();
        let said =
            exchange_cut_off(server.address, &raw("Transfer-Encoding: chunked\r\n", cut_off));
        assert!(said.starts_with(b"HTTP/1.1 400 "), "{}", said.escape_ascii());
        assert_eq!(count_answers(&said), 1);
    }
}

#[test]
fn malformed_heads_are_refused() {
    let (host, n) = ("Host: 127.0.0.1\r\n", length());
    let head = |head: String| [head.into_bytes(), demo().into_bytes()].concat();
    let start = format!("POST {TOKEN} HTTP/1.1\r\n{host}{n}");
    assert_refused(
        400,
        &[
            raw(&format!("{n}X-Nul: a\0b\r\n"), &demo()),
            raw(&format!("{n}X\0: ab\r\n"), &demo()),
            head(format!("POST {TOKEN}\0 HTTP/1.1\r\n{host}{n}\r\n")),
            raw(&format!("{n}X-Folded: a\r\n b\r\n"), &demo()),
            raw(&format!("{n} X-Space: a\r\n"), &demo()),
            raw(&format!("{n}X-Space : a\r\n"), &demo()),
            raw(&format!("Content-Length : {}\r\n", demo().len()), &demo()),
            raw(&format!("{n}Transfer-Encoding : chunked\r\n"), &chunked(&demo())),
            raw(&format!("{n}no colon\r\n"), &demo()),
            raw(&format!("{n}X-Cr: a\rb\r\n"), &demo()),
            head(format!("{start}: empty\r\n\r\n")),
            head(format!("POST  {TOKEN} HTTP/1.1\r\n{host}{n}\r\n")),
            head(format!("POST {TOKEN} HTTP/1.1 \r\n{host}{n}\r\n")),
            head(format!("POST {TOKEN} HTTP/1.2\r\n{host}{n}\r\n")),
            head(format!("POST {TOKEN} HTTP/2.0\r\n{host}{n}\r\n")),
            head(format!("POST {TOKEN}\r\n{host}{n}\r\n")),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        ],
    );
}

#[test]
fn exactly_one_valid_host_is_required() {
    let form = format!("Content-Type: {}\r\n{}", Encoding::Urlencoded.content_type(), length());
    let payloads: Vec<_> = [
        "",
        "Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n",
        "Host: 127.0.0.1\r\nHost: other.example\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: user@a\r\n",
        "Host: a, b\r\n",
        "Host: \u{e9}\r\n",
    ]
    .iter()
    .map(|host| format!("POST {TOKEN} HTTP/1.1\r\n{host}{form}\r\n{}", demo()).into_bytes())
    .collect();
    assert_refused(400, &payloads);

    let server = Program::shared();
    let no_host = Request::token(Encoding::Multipart, &DEMO).without_header("Host");
    let answer = server.ask(&no_host);
    answer.assert_refused(400, "invalid_request");
    let description = "Exactly one valid Host header is required.";
    assert_eq!(answer.json()["error_description"], description);
    for host in ["127.0.0.1:80", "auth.example", "[::1]:8080"] {
        let request = Request::token(Encoding::Multipart, &DEMO).without_header("Host");
        assert_eq!(server.ask(&request.header("Host", host)).status, 200, "{host}");
    }
}

#[test]
fn absolute_form_is_accepted() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let request = Request::token(encoding, &DEMO);
        let answer =
            server.ask(&request.clone().with_target(&format!("http://other.example{TOKEN}")));
        assert_eq!((answer.status, &answer.json()["expires_in"]), (200, &3600.into()));
        let answer = server.ask(&request.clone().with_target("http://other.example/nothing"));
        answer.assert_refused(404, "invalid_request");
        // Two `Host` fields are refused even if the target is in absolute form.
        let answer =
            server.ask(&request.with_target(&format!("http://a{TOKEN}")).header("Host", "a"));
        answer.assert_refused(400, "invalid_request");
    }
    let options = server.ask(&Request::new("OPTIONS", "*"));
    options.assert_refused(404, "invalid_request");
}

#[test]
fn http_2_is_closed_without_an_answer() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let server = Program::shared();
    for opening in [preface.to_vec(), [preface.as_slice(), settings].concat()] {
        // The server sends no answer, because an HTTP/2 client could not read an answer in
        // HTTP/1.1.
        assert_eq!(exchange(server.address, &opening), b"");
    }

    for encoding in ENCODINGS {
        let request = Request::token(encoding, &DEMO)
            .header("Connection", "Upgrade, HTTP2-Settings")
            .header("Upgrade", "h2c")
            .header("HTTP2-Settings", "AAMAAABkAAQAAP__");
        let answer = server.ask(&request);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("upgrade"), None);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let id = |request: Request, id: &str| request.header("X-Request-Id", id).to_bytes();
        let bytes = [
            id(Request::token(encoding, &DEMO), "first"),
            id(Request::get("/nothing"), "second"),
            id(Request::token(encoding, &demo_without(&["grant_type"])), "third"),
            id(Request::token(encoding, &DEMO), "fourth"),
        ]
        .concat();
        let mut connection = Connection::open(server.address);
        connection.send(&bytes);
        for (id, status) in [("first", 200), ("second", 404), ("third", 400), ("fourth", 200)] {
            let answer = connection.read_answer();
            assert_eq!((answer.header("x-request-id"), answer.status), (Some(id), status));
        }
        connection.finish_sending();
        connection.assert_closes();
    }
}

#[test]
fn bytes_after_a_refused_message_are_discarded() {
    let server = Program::start(Home::new(), &[]);
    let good = Request::token(Encoding::Urlencoded, &DEMO).to_bytes();
    let twice = "Transfer-Encoding: chunked, chunked\r\n";
    for first in [
        raw(twice, &chunked(&demo())),
        raw("Content-Length: 1\r\nContent-Length: 2\r\n", ""),
        Request::token(Encoding::Urlencoded, &DEMO).header("Host", "a").to_bytes(),
        raw("Transfer-Encoding: chunked\r\n", "zz\r\n"),
    ] {
        let said = exchange(server.address, &[first, good.clone()].concat());
        assert!(said.starts_with(b"HTTP/1.1 400 "), "{}", said.escape_ascii());
        assert_eq!(count_answers(&said), 1, "{}", said.escape_ascii());
    }
    assert_eq!(server.issued(), 0);
}

/// A body that `/connect/validate` does not read is not parsed as the next request.
#[test]
fn an_unread_body_is_not_a_request() {
    let server = Program::start(Home::new(), &[]);
    let good = String::from_utf8(Request::token(Encoding::Urlencoded, &DEMO).to_bytes()).unwrap();
    let chunk = format!("{:x}\r\n{good}\r\n0\r\n\r\n", good.len());
    let ask = |method: &str, headers: &str, body: &str| {
        format!("{method} /connect/validate HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n{body}")
    };
    let length = format!("Content-Length: {}", good.len());
    for payload in [
        ask("GET", &length, &good),
        ask("GET", &length, &(good.clone() + &good)),
        ask("HEAD", &length, &(good.clone() + &good)),
        ask("POST", &length, &(good.clone() + &good)),
        ask("GET", &format!("{length}\r\nExpect: 100-continue"), &good),
        ask("GET", "Content-Length: 1", &good),
        ask("GET", "Transfer-Encoding: chunked", &chunk),
        ask("GET", "Transfer-Encoding: chunked", &(chunk.clone() + &good)),
        ask("GET", "Transfer-Encoding: chunked", &good),
        ask("GET", "Transfer-Encoding: chunked, chunked", &chunk),
    ] {
        let said = exchange(server.address, payload.as_bytes());
        assert_eq!(count_answers(&said), 1, "{payload} => {}", said.escape_ascii());
        assert!(find(&said, b"connection: close").is_some(), "{}", said.escape_ascii());
    }
    assert_eq!(server.issued(), 0);
}

/// A body that arrives after the answer is not parsed as a request, even if it looks like the head
/// of a request.
#[test]
fn a_body_after_the_answer_is_not_a_request() {
    let server = Program::start(Home::new(), &[]);
    let good = Request::token(Encoding::Urlencoded, &DEMO).to_bytes();
    let many = Request::get("/connect/validate");
    let many = (0..110).fold(many, |request, at| request.header(&format!("X-{at}"), "v"));
    for first in ["Content-Length: 20000", "Transfer-Encoding: chunked"] {
        for start in [vec![], vec![b'a'; 9000]] {
            for lines in
                ["\r\n".repeat(110).into_bytes(), "a\n".repeat(110).into_bytes(), many.to_bytes()]
            {
                let mut connection = Connection::open(server.address);
                let head = format!("GET /connect/validate HTTP/1.1\r\nHost: a\r\n{first}\r\n\r\n");
                connection.send(&[head.into_bytes(), start.clone()].concat());
                assert_eq!(connection.read_answer().status, 401);
                connection.send_if_open(&lines);
                connection.send_if_open(&good);
                connection.finish_sending();
                connection.assert_closes();
            }
        }
    }
    // Routes other than `/connect/validate` read an unwanted body and discard it, but they read at
    // most a mebibyte.
    for (method, path) in [("POST", "/nothing"), ("PUT", TOKEN), ("POST", TOKEN)] {
        let mut connection = Connection::open(server.address);
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
        connection.send(head.as_bytes());
        connection.send_if_open(&vec![b'a'; 1_100_000]);
        connection.send_if_open(&"\r\n".repeat(110).into_bytes());
        connection.send_if_open(&good);
        connection.finish_sending();
        let said = connection.read_to_end();
        assert!(count_answers(&said) <= 1, "{}", said.escape_ascii());
    }
    assert_eq!(server.issued(), 0);
}

#[test]
fn head_and_options_issue_nothing() {
    let server = Program::start(Home::new(), &[]);
    for encoding in ENCODINGS {
        let mut connection = Connection::open(server.address);
        let answer = connection.ask(&Request::new("HEAD", TOKEN).form(encoding, &DEMO));
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
        // The answer to HEAD has no body, so the test can read the next answer on the same
        // connection.
        let answer = connection.ask(&Request::new("OPTIONS", TOKEN).form(encoding, &DEMO));
        answer.assert_refused(405, "invalid_request");
        assert_eq!(answer.header("allow"), Some("POST"));
        let preflight = Request::new("OPTIONS", TOKEN)
            .header("Origin", "https://evil.example")
            .header("Access-Control-Request-Method", "POST");
        connection.ask(&preflight).assert_refused(405, "invalid_request");
    }
    assert_eq!(server.issued(), 0);
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        for request in [
            Request::token(encoding, &DEMO),
            Request::token(encoding, &DEMO).without_header("Host"),
        ] {
            let bytes = String::from_utf8(request.to_bytes()).unwrap();
            let bytes = bytes.replacen("HTTP/1.1", "HTTP/1.0", 1);
            let mut connection = Connection::open(server.address);
            connection.send(bytes.as_bytes());
            let answer = connection.read_answer();
            assert_eq!((answer.status, &answer.json()["expires_in"]), (200, &3600.into()));
            connection.assert_closes();
        }
    }
    let chunked = raw("Transfer-Encoding: chunked\r\n", &chunked(&demo()));
    let old = String::from_utf8(chunked).unwrap().replacen("HTTP/1.1", "HTTP/1.0", 1);
    let said = exchange(server.address, old.as_bytes());
    assert!(find(&said, b" 400 ").is_some_and(|at| at == 8), "{}", said.escape_ascii());
}

#[test]
fn a_bare_line_feed_makes_no_second_message() {
    let server = Program::shared();
    let whole = String::from_utf8(Request::token(Encoding::Urlencoded, &DEMO).to_bytes()).unwrap();
    let said = exchange(server.address, whole.replace("\r\n", "\n").as_bytes());
    assert_eq!(count_answers(&said), 1, "{}", said.escape_ascii());
    let hidden = format!("{}X: a\nContent-Length: 0\n\r\n", length());
    let said = exchange(server.address, &raw(&hidden, &demo()));
    assert!(said.starts_with(b"HTTP/1.1 400 "), "{}", said.escape_ascii());
    assert_eq!(count_answers(&said), 1, "{}", said.escape_ascii());
}
