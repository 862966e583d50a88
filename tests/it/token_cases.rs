//! Cases that other token servers have got wrong.

use crate::support::form::percent_encode;
use crate::support::http::{count_answers, exchange, exchange_cut_off};
use crate::support::registry::{ODD_SECRET, PERCENT_SECRET};
use crate::support::{
    Connection, DEMO, ENCODINGS, Encoding, Program, Request, TOKEN, demo_with, demo_without,
};

const BASIC: &str = "demo-client:demo-secret-for-local-use-only-0001";
const GRANT: [(&str, &str); 1] = [("grant_type", "client_credentials")];

#[test]
fn basic_keeps_characters_that_form_encoding_changes() {
    let server = Program::shared();
    let secret = percent_encode(ODD_SECRET.as_bytes());
    assert!(["+", "%25", "%26", "%2B"].iter().all(|part| secret.contains(part)), "{secret}");
    for encoding in ENCODINGS {
        let request = Request::token(encoding, &GRANT);
        let answer = server.ask(&request.clone().basic(&format!("an%3Aidentifier:{secret}")));
        assert_eq!((answer.status, &answer.json()["scope"]), (200, &"read".into()));
        // In form encoding `+` is a space, so this is a different secret.
        let wrong = secret.replace("%2B", "+");
        let answer = server.ask(&request.basic(&format!("an%3Aidentifier:{wrong}")));
        answer.assert_refused(401, "invalid_client");
    }
}

#[test]
fn bad_percent_encoding_is_refused() {
    let server = Program::shared();
    let demo =
        String::from_utf8(crate::support::form::encode(Encoding::Urlencoded, &DEMO)).unwrap();
    for bad in ["&a=%", "&a=%4", "&a=%zz", "&%=a", "&a=%+1", "&a=% 1", "&a=%u00e9", "&a=%%41"] {
        let body = format!("{demo}{bad}");
        let request = Request::new("POST", TOKEN);
        let answer = server.ask(&request.typed_body(Encoding::Urlencoded.content_type(), body));
        answer.assert_refused(400, "invalid_request");
        let description = "Every % must be followed by two hexadecimal digits.";
        assert_eq!(answer.json()["error_description"], description, "{bad}");
    }
    for encoding in ENCODINGS {
        let request = Request::token(encoding, &DEMO).with_target(&format!("{TOKEN}?a=%zz"));
        server.ask(&request).assert_refused(400, "invalid_request");
        // Many clients do not form-encode their id and secret for Basic. The server therefore uses
        // an id or a secret as sent if it is not valid form encoding.
        let request = Request::token(encoding, &GRANT).basic(&format!("percent:{PERCENT_SECRET}"));
        let raw = server.metric("grantd_raw_basic_pairs_total");
        assert_eq!(server.ask(&request).status, 200);
        assert!(server.metric("grantd_raw_basic_pairs_total") > raw);
    }
}

#[test]
fn authorization_that_is_not_basic_credentials_is_refused() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        for value in [
            &b"Basic"[..],
            b"Basic ",
            b"Basic ZGVtby1jbGllbnQ=",
            b"Basic ZGVtb!1jbGllbnQ6eA==",
            b"Basic \xffZGVtbw==",
            b"Basic ZGVtby1jbGllbnQ6eA",
            b"Basic ZGVtby1jbGllbnQ6eA== x",
            b"Basic /zp4",
            b"Basic Onh4eA==",
            b"Basic ZGVtby1jbGllbnQ6",
            b"Basic Og==",
            b"Bearer abc.def.ghi",
            b"Digest username=\"demo-client\"",
            b"",
            b"BasicZGVtby1jbGllbnQ6eA==",
        ] {
            let request = Request::token(encoding, &GRANT).header("Authorization", value);
            let answer = server.ask(&request);
            answer.assert_refused(401, "invalid_client");
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(challenge.starts_with("Basic "), "{}", value.escape_ascii());
        }
    }
}

#[test]
fn an_empty_secret_never_matches() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        for client in ["demo-client", "no-secret", "unknown"] {
            let body = [GRANT[0], ("client_id", client), ("client_secret", "")];
            let answer = server.ask(&Request::token(encoding, &body));
            answer.assert_refused(400, "invalid_client");
            let answer = server.ask(&Request::token(encoding, &GRANT).basic(&format!("{client}:")));
            answer.assert_refused(401, "invalid_client");
        }
    }
}

#[test]
fn credentials_in_both_body_and_header_are_refused() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let with = |more: &[(&str, &str)]| {
            let parameters = [&GRANT, more].concat();
            server.ask(&Request::token(encoding, &parameters).basic(BASIC))
        };
        assert_eq!(with(&[("client_id", "demo-client")]).status, 200);
        with(&[("client_id", "vision-api-user")]).assert_refused(400, "invalid_request");
        with(&[("client_id", "Demo-Client")]).assert_refused(400, "invalid_request");
        with(&DEMO[1..2]).assert_refused(400, "invalid_request");
        with(&[("client_secret", "wrong")]).assert_refused(400, "invalid_request");
        with(&DEMO[..2]).assert_refused(400, "invalid_request");
    }
}

#[test]
fn a_chunked_body_is_accepted() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        for size in [1, 7, 4096] {
            let mut connection = Connection::open(server.address);
            connection.send(&Request::token(encoding, &DEMO).to_chunked_bytes(size));
            let answer = connection.read_answer();
            assert_eq!((answer.status, &answer.json()["expires_in"]), (200, &3600.into()));
            // The message ended at the last chunk, so the connection can be used again.
            assert_eq!(connection.ask(&Request::token(encoding, &DEMO)).status, 200);
        }
    }
}

#[test]
fn content_length_zero_is_an_empty_form() {
    let server = Program::shared();
    let empty = Request::new("POST", TOKEN).typed_body(Encoding::Urlencoded.content_type(), "");
    let answer = server.ask(&empty);
    assert_eq!((answer.status, answer.text()), (400, r#"{"error":"invalid_request"}"#));
    let answer = server.ask(&Request::new("POST", TOKEN).body(""));
    assert_eq!((answer.status, answer.text()), (400, r#"{"error":"invalid_request"}"#));
    // A multipart body without its closing boundary is truncated, even if it is empty.
    let empty = Request::new("POST", TOKEN).typed_body(Encoding::Multipart.content_type(), "");
    server.ask(&empty).assert_refused(400, "invalid_request");
}

#[test]
fn a_body_shorter_than_its_content_length_is_not_answered() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let request = Request::token(encoding, &DEMO).header("X-Request-Id", "cut-off");
        let mut bytes = request.open_head();
        let length = request.body_bytes().len() + 1;
        bytes.extend(format!("Content-Length: {length}\r\n\r\n").bytes());
        bytes.extend(request.body_bytes());
        let said = exchange_cut_off(server.address, &bytes);
        assert!(said.starts_with(b"HTTP/1.1 400 "), "{}", said.escape_ascii());
        assert_eq!(count_answers(&said), 1);
        assert_eq!(server.log.of_request("cut-off")["cause"], "body_aborted");
    }
}

#[test]
fn a_body_ends_at_its_content_length() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let request = Request::token(encoding, &DEMO);
        for missing in [1, 10] {
            let mut bytes = request.open_head();
            let length = request.body_bytes().len() - missing;
            bytes.extend(format!("Content-Length: {length}\r\n\r\n").bytes());
            bytes.extend(request.body_bytes());
            let said = exchange(server.address, &bytes);
            // The server reads only `Content-Length` bytes as the body. The remaining bytes follow
            // as a second request, which is not valid.
            if encoding == Encoding::Multipart && missing == 1 {
                // The closing boundary is complete, and only the line feed after it is missing. The
                // form is therefore complete.
                assert!(said.starts_with(b"HTTP/1.1 200 "), "{}", said.escape_ascii());
            } else {
                assert!(said.starts_with(b"HTTP/1.1 400 "), "{}", said.escape_ascii());
                assert!(!said.windows(12).any(|part| part == b"access_token"));
            }
            assert!(count_answers(&said) <= 2, "{}", said.escape_ascii());
        }
    }
}

#[test]
fn a_client_that_disconnects_within_its_body_gets_no_token() {
    let server = Program::start(crate::support::Home::new(), &[]);
    for (index, encoding) in ENCODINGS.into_iter().enumerate() {
        let id = format!("gone-{index}");
        let bytes = Request::token(encoding, &DEMO).header("X-Request-Id", id.as_str()).to_bytes();
        let mut connection = Connection::open(server.address);
        connection.send(&bytes[..bytes.len() - 20]);
        drop(connection);
        assert_eq!(server.log.of_request(&id)["cause"], "body_aborted");
    }
    assert_eq!(server.issued(), 0);
}

#[test]
fn a_body_with_a_byte_order_mark_is_refused() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let form = crate::support::form::encode(encoding, &DEMO);
        let body = [b"\xEF\xBB\xBF".as_slice(), &form].concat();
        let request = Request::new("POST", TOKEN).typed_body(encoding.content_type(), body);
        let answer = server.ask(&request);
        answer.assert_refused(400, "invalid_request");
        let description = "The body must not begin with a byte order mark.";
        assert_eq!(answer.json()["error_description"], description);
    }
}

#[test]
fn raw_bytes_that_are_not_utf_8_are_refused() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let form = crate::support::form::encode(encoding, &demo_with(&[("x", "MARK")]));
        let at = crate::support::http::find(&form, b"MARK").unwrap();
        let body = [&form[..at], b"\xC3\x28", &form[at + 4..]].concat();
        let request = Request::new("POST", TOKEN).typed_body(encoding.content_type(), body);
        server.ask(&request).assert_refused(400, "invalid_request");
    }
}

#[test]
fn a_charset_other_than_utf_8_is_refused() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        let ask = |charset: &str| {
            let content_type = format!("{}; charset={charset}", encoding.content_type());
            let body = crate::support::form::encode(encoding, &DEMO);
            server.ask(&Request::new("POST", TOKEN).typed_body(&content_type, body))
        };
        for charset in ["utf-16", "iso-8859-15", "\"windows-1251\"", "utf-7", "nonsense"] {
            ask(charset).assert_refused(415, "invalid_request");
        }
        for charset in ["utf-8", "UTF-8", "\"utf-8\""] {
            assert_eq!(ask(charset).status, 200, "{charset}");
        }
        for charset in ["", "utf-8; charset=utf-8", "\"utf-8"] {
            ask(charset).assert_refused(415, "invalid_request");
        }
    }
}

#[test]
fn another_content_type_is_refused() {
    const NAMES_BOTH: &str =
        "The body must be multipart/form-data or application/x-www-form-urlencoded.";
    const SENT_ONCE: &str = "Content-Type must be sent once, as multipart/form-data or \
         application/x-www-form-urlencoded, without empty or repeated parameters.";
    let server = Program::shared();
    for encoding in ENCODINGS {
        let body = crate::support::form::encode(encoding, &DEMO);
        for content_type in [
            "",
            "text/plain",
            "application/json",
            "application/xml; charset=utf-8",
            "multipart/mixed; boundary=x",
            "application/x-www-form-urlencodedx",
        ] {
            let request = Request::new("POST", TOKEN).typed_body(content_type, body.clone());
            let answer = server.ask(&request);
            answer.assert_refused(415, "invalid_request");
            assert_eq!(answer.json()["error_description"], NAMES_BOTH, "{content_type}");
        }
        server
            .ask(&Request::new("POST", TOKEN).body(body.clone()))
            .assert_refused(415, "invalid_request");
        let twice = Request::token(encoding, &DEMO).header("Content-Type", encoding.content_type());
        let typed =
            |content_type| Request::new("POST", TOKEN).typed_body(content_type, body.clone());
        let malformed = [
            "invalid/@@##",
            "text",
            "application/x-www-form-urlencoded, application/x-www-form-urlencoded",
            "application/x-www-form-urlencoded; charset=",
            "application/x-www-form-urlencoded; charset=utf-8; charset=utf-8",
            "multipart/form-data; boundary=a; boundary=b",
        ];
        for request in malformed.map(typed).into_iter().chain([twice]) {
            let answer = server.ask(&request);
            answer.assert_refused(415, "invalid_request");
            assert_eq!(answer.json()["error_description"], SENT_ONCE);
        }
    }
    let json = r#"{"grant_type":"client_credentials","client_id":"demo-client"}"#;
    let answer = server.ask(&Request::new("POST", TOKEN).typed_body("application/json", json));
    answer.assert_refused(415, "invalid_request");
    assert_eq!(answer.json()["error_description"], NAMES_BOTH);
}

#[test]
fn the_case_of_a_media_type_does_not_matter() {
    let server = Program::shared();
    for (encoding, content_type) in [
        (Encoding::Urlencoded, "Application/X-WWW-Form-URLEncoded"),
        (Encoding::Multipart, "MULTIPART/Form-Data; BOUNDARY=----grantd-7MA4YWxkTrZu0gW"),
    ] {
        let body = crate::support::form::encode(encoding, &DEMO);
        let request = Request::new("POST", TOKEN).typed_body(content_type, body);
        assert_eq!(server.ask(&request).status, 200, "{content_type}");
    }
}

#[test]
fn a_compressed_body_is_refused() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        for coding in ["gzip", "deflate", "br", "identity, gzip"] {
            let request = Request::token(encoding, &DEMO).header("Content-Encoding", coding);
            server.ask(&request).assert_refused(415, "invalid_request");
        }
        let identity = Request::token(encoding, &DEMO).header("Content-Encoding", "identity");
        assert_eq!(server.ask(&identity).status, 200);
    }
}

#[test]
fn a_scope_with_a_line_feed_is_refused() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        for scope in ["external-api\n", "external-api\nall", "\nexternal-api", "external-api\r\n"] {
            let request = Request::token(encoding, &demo_with(&[("scope", scope)]));
            server.ask(&request).assert_refused(400, "invalid_scope");
        }
        let secret = [demo_without(&["client_secret"]), vec![("client_secret", "a\nb")]].concat();
        server.ask(&Request::token(encoding, &secret)).assert_refused(400, "invalid_request");
    }
}
