//! `multipart/form-data` where parsers differ: names, boundaries, part headers.

use crate::support::{Program, Request, Response, TOKEN};

const B: &str = "XbX";

fn part(headers: &str, value: &str) -> String {
    format!("--{B}\r\n{headers}\r\n\r\n{value}\r\n")
}

fn field(name: &str, value: &str) -> String {
    part(&format!("Content-Disposition: form-data; name=\"{name}\""), value)
}

fn demo() -> String {
    field("client_id", "demo-client")
        + &field("client_secret", "demo-secret-for-local-use-only-0001")
        + &field("grant_type", "client_credentials")
}

fn closed(parts: &str) -> String {
    format!("{parts}--{B}--\r\n")
}

fn send(content_type: &str, body: impl Into<Vec<u8>>) -> Response {
    Program::shared().ask(&Request::new("POST", TOKEN).typed_body(content_type, body))
}

fn ask(body: impl Into<Vec<u8>>) -> Response {
    send(&format!("multipart/form-data; boundary={B}"), body)
}

#[track_caller]
fn assert_granted(answer: &Response) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["scope"], "external-api");
}

/// Builds two forms from a valid form: one with `part` before the other parts, one with `part`
/// after them. Asserts that both are refused.
#[track_caller]
fn assert_part_refused(part: &str) -> Vec<Response> {
    let bodies = [closed(&(part.to_owned() + &demo())), closed(&(demo() + part))];
    bodies
        .into_iter()
        .map(|body| {
            let answer = ask(body);
            assert_eq!(answer.status, 400, "{part:?}");
            answer.assert_refused(400, "invalid_request");
            answer
        })
        .collect()
}

/// Asserts that a form with `part` is refused with this description.
#[track_caller]
fn assert_described(part: &str, description: &str) {
    for answer in assert_part_refused(part) {
        assert_eq!(answer.json()["error_description"], description, "{part:?}");
    }
}

const NOT_ONE_NAME: &str = "Every part must have one Content-Disposition: form-data with one name.";

#[test]
fn a_part_with_a_file_name_is_refused() {
    for disposition in [
        "form-data; name=\"scope\"; filename=\"a.txt\"",
        "form-data; name=\"scope\"; filename=\"\"",
        "form-data; filename=a; name=scope",
        "form-data; name=\"scope\"; FILENAME=\"a\"",
        "form-data; name=\"scope\"; filename*=UTF-8''a",
        "form-data; filename*0=x; name=\"scope\"",
        "form-data; name=\"unknown\"; filename=\"a\"",
    ] {
        let part = part(&format!("Content-Disposition: {disposition}"), "external-api");
        for answer in assert_part_refused(&part) {
            let description = answer.json()["error_description"].to_string();
            assert!(description.contains("without a file name"), "{disposition}: {description}");
        }
    }
}

#[test]
fn a_name_inside_a_file_name_is_ignored() {
    let hidden = part(
        "Content-Disposition: form-data; filename=\"x; name=client_id; y\"; name=\"scope\"",
        "demo-client",
    );
    assert_part_refused(&hidden);
    // If the form has no real `client_id`, the server must not use the one that is hidden in the
    // file name.
    let without = closed(
        &(hidden
            + &field("client_secret", "demo-secret-for-local-use-only-0001")
            + &field("grant_type", "client_credentials")),
    );
    ask(without).assert_refused(400, "invalid_request");
    // The server takes the name of a part only from the parameter `name`. It ignores the text of
    // the parameter `x`, and it does not read the parameter `xname` as `name`.
    let decoy = part("Content-Disposition: form-data; x=\"; name=client_id\"; name=\"a\"", "b");
    assert_granted(&ask(closed(&(decoy + &demo()))));
    let prefixed = part("Content-Disposition: form-data; xname=\"client_id\"; name=\"a\"", "b");
    assert_granted(&ask(closed(&(prefixed + &demo()))));
}

#[test]
fn a_part_in_another_charset_is_refused() {
    for charset in ["utf-16", "iso-8859-15", "\"windows-1251\"", "UTF-7"] {
        let headers = format!(
            "Content-Disposition: form-data; name=\"x\"\r\nContent-Type: text/plain; charset={charset}"
        );
        for answer in assert_part_refused(&part(&headers, "y")) {
            let description = "The charset of every part must be UTF-8.";
            assert_eq!(answer.json()["error_description"], description);
        }
    }
    for content_type in ["text/plain", "text/plain; charset=UTF-8", "application/octet-stream"] {
        let headers =
            format!("Content-Disposition: form-data; name=\"x\"\r\nContent-Type: {content_type}");
        assert_granted(&ask(closed(&(demo() + &part(&headers, "é")))));
    }
    for content_type in ["text", "text/plain; charset", ";", "text/plain; charset=utf-8; charset=x"]
    {
        let headers =
            format!("Content-Disposition: form-data; name=\"x\"\r\nContent-Type: {content_type}");
        assert_described(&part(&headers, "y"), "The Content-Type of a part must be a media type.");
    }
    for bad in [&b"\xff"[..], b"\xc3(", b"ab\xe2\x82"] {
        for placeholder in ["VALUE", "NAME"] {
            let body = closed(&(demo() + &field("NAME", "VALUE"))).into_bytes();
            let at = crate::support::http::find(&body, placeholder.as_bytes()).unwrap();
            let body = [&body[..at], bad, &body[at + placeholder.len()..]].concat();
            ask(body).assert_refused(400, "invalid_request");
        }
    }
}

#[test]
fn a_repeated_name_is_refused() {
    for name in ["client_id", "client_secret", "grant_type"] {
        for value in ["demo-client", ""] {
            for answer in assert_part_refused(&field(name, value)) {
                let description = "A parameter must not be repeated.";
                assert_eq!(answer.json()["error_description"], description, "{name}");
            }
        }
    }
    // A repeated name is refused even if the headers of the two parts are spelled differently.
    assert_part_refused(&part("content-disposition:form-data;name=client_id", "x"));
    assert_part_refused(&part("Content-Disposition: form-data; name=\"client\\_id\"", "x"));
}

#[test]
fn a_repeated_part_header_is_refused() {
    let disposition = "Content-Disposition: form-data; name=\"x\"";
    for headers in [
        format!("Content-Disposition: form-data; name=\"scope\"\r\n{disposition}"),
        format!("{disposition}\r\ncontent-disposition: form-data; name=\"scope\""),
        format!("{disposition}\r\n{disposition}"),
        format!(
            "{disposition}\r\nContent-Type: text/plain; charset=utf-16\r\nContent-Type: text/plain"
        ),
        format!(
            "{disposition}\r\nContent-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 8bit"
        ),
        format!("{disposition}\r\nX-Header: a\r\nx-header: b"),
    ] {
        assert_described(&part(&headers, "y"), "A part must not repeat a header field.");
    }
}

#[test]
fn a_part_needs_form_data_and_exactly_one_name() {
    for headers in [
        "Content-Type: text/plain",
        "Content-Disposition: form-data",
        "Content-Disposition: attachment; name=\"x\"",
        "Content-Disposition: form-data; name=\"x\"; name=\"y\"",
        "Content-Disposition: form-data; name=\"x",
        "Content-Disposition: form-data; name=\"x\"; name*=utf-8''client_id",
        "Content-Disposition: form-data; name*0=x",
        "Content-Disposition: form-data; name",
        "Content-Disposition: form-data; name=\"x\" y",
        "Content-Disposition: form-data; name=a b",
        "X-Header: y",
        "",
    ] {
        assert_described(&part(headers, "y"), NOT_ONE_NAME);
    }
    // A part without headers begins with the empty line.
    assert_described(&format!("--{B}\r\n\r\ny\r\n"), NOT_ONE_NAME);
    assert_described(&format!("--{B}\r\n\r\n\r\n"), NOT_ONE_NAME);
}

#[test]
fn the_headers_of_a_part_are_well_formed() {
    const SYNTAX: &str = "A part must begin with header fields, each on a line, and an empty line.";
    let disposition = "Content-Disposition: form-data; name=\"x\"";
    for headers in [
        "Content-Disposition form-data; name=\"x\"",
        "Content-Disposition : form-data; name=\"x\"",
        "Content-Disposition: form-data;\r\n name=\"x\"",
        // A parser that accepts a line feed as a line break would end the headers at the empty
        // line.
        "Content-Disposition: form-data; name=\"x\"\n\nX-Header: y",
    ] {
        assert_described(&part(headers, "y"), SYNTAX);
    }
    // The headers of the last part do not end.
    let endless = ask(closed(&format!("{}--{B}\r\n{disposition}\r\n", demo())));
    endless.assert_refused(400, "invalid_request");
    assert_eq!(endless.json()["error_description"], SYNTAX);
    for encoding in ["base64", "quoted-printable", ""] {
        let headers = format!("{disposition}\r\nContent-Transfer-Encoding: {encoding}");
        let description = "The Content-Transfer-Encoding of a part must be 7bit, 8bit or binary.";
        assert_described(&part(&headers, "y"), description);
    }
    let others =
        |count: usize| -> String { (0..count).map(|index| format!("X-{index}: y\r\n")).collect() };
    assert_granted(&ask(closed(&(demo() + &part(&(others(31) + disposition), "y")))));
    for count in [32, 100] {
        let description = "A part must not have more than 32 header fields.";
        assert_described(&part(&(others(count) + disposition), "y"), description);
    }
}

#[test]
fn unusual_but_valid_bodies_are_accepted() {
    for headers in [
        "content-disposition:form-data;name=x",
        "CONTENT-DISPOSITION: FORM-DATA; NAME=\"x\"",
        "Content-Disposition: form-data ; name = \"x\"",
        "Content-Disposition: form-data; name=\"a;b=\\\"c\\\\\"",
        "Content-Disposition: form-data; name=\"x\"; other=y",
        "X-Header: y\r\nContent-Disposition: form-data; name=\"x\"\r\nContent-Length: 1",
        "Content-Disposition: form-data; name=\"x\"\r\nContent-Transfer-Encoding: 8BIT",
        "Content-Disposition: form-data; name=\"\"",
    ] {
        assert_granted(&ask(closed(&(part(headers, "y") + &demo()))));
        assert_granted(&ask(closed(&(demo() + &part(headers, "y")))));
    }
}

#[test]
fn a_value_may_contain_anything_but_the_boundary() {
    for value in [
        "",
        "\r\n",
        "--",
        "\r\n--",
        "--XbX",
        "\r\n--XbY\r\n",
        "a\r\n\r\nb",
        "a&b=c%zz+",
        "\0\u{1}",
        "a\nContent-Disposition: form-data; name=\"scope\"",
    ] {
        assert_granted(&ask(closed(&(field("x", value) + &demo()))));
        assert_granted(&ask(closed(&(demo() + &field("x", value)))));
    }
}

#[test]
fn a_boundary_has_1_to_70_characters() {
    let body = |boundary: &str| closed(&demo()).replace(B, boundary);
    let type_of = |boundary: &str| format!("multipart/form-data; boundary={boundary}");
    let longest = "x".repeat(70);
    let odd = "'()+_,-./:=? x";
    let odd = format!("\"{odd}\"");
    for boundary in ["x", "0", &longest, "\"x y\"", &odd, "\"x\\y\"", "----WebKitFormBoundaryAb1"] {
        let raw = boundary.trim_matches('"').replace('\\', "");
        assert_granted(&send(&type_of(boundary), body(&raw)));
    }
    let too_long = "x".repeat(71);
    for (content_type, raw) in [
        (type_of("\"\""), ""),
        (type_of(&too_long), too_long.as_str()),
        ("multipart/form-data".to_owned(), ""),
        ("multipart/form-data; charset=utf-8".to_owned(), "XbX"),
        (type_of("\"x \""), "x "),
        (type_of("\"x@y\""), "x@y"),
        (type_of("\"x\ty\""), "x\ty"),
        (type_of(""), "a"),
        (type_of("a/b"), "a/b"),
    ] {
        let answer = send(&content_type, body(raw));
        answer.assert_refused(400, "invalid_request");
        let description = "The multipart boundary must be 1 to 70 valid characters, in quotes if \
                           one of ( ) , / : = ? or a space is among them.";
        assert_eq!(answer.json()["error_description"], description, "{content_type}");
    }
    let twice = "multipart/form-data; boundary=a;boundary=b";
    send(twice, body("a")).assert_refused(415, "invalid_request");
}

#[test]
fn a_body_without_its_closing_boundary_is_refused_wherever_it_is_cut() {
    let whole = closed(&demo());
    // Without its last two bytes, the body ends with the closing boundary but without a line break.
    let end = whole.len() - 2;
    assert_granted(&ask(&whole[..end]));
    let unclosed = "The multipart body ends before its closing boundary.";
    let cuts = [1, 2, 3, 5, 7, 8, 20, 60, 100, end - 1].map(|cut| whole[..end - cut].to_owned());
    let endings = ["", "--XbX", "--XbX-", "--YbY--\r\n"].map(|ending| demo() + ending);
    for body in cuts.into_iter().chain(endings) {
        let answer = ask(&*body);
        answer.assert_refused(400, "invalid_request");
        assert_eq!(answer.json()["error_description"], unclosed, "{body:?}");
    }
    ask("--XbX--\r\n").assert_refused(400, "invalid_request");
}

#[test]
fn there_are_at_most_16_parts() {
    let padding = |count: usize| -> String {
        (0..count).map(|index| field(&format!("x{index}"), "y")).collect()
    };
    assert_granted(&ask(closed(&(demo() + &padding(13)))));
    for body in [demo() + &padding(14), padding(14) + &demo(), padding(14) + &demo() + &padding(99)]
    {
        let answer = ask(closed(&body));
        answer.assert_refused(400, "invalid_request");
        let description = "There are too many parameters.";
        assert_eq!(answer.json()["error_description"], description);
    }
}

#[test]
fn the_body_limit_bounds_part_headers() {
    let disposition = "Content-Disposition: form-data; name=\"x\"";
    let long = format!("{disposition}\r\nX-Long: {}", "y".repeat(15_000));
    assert_granted(&ask(closed(&(part(&long, "y") + &demo()))));
    let many: String = (0..40).map(|index| format!("X-{index}: y\r\n")).collect();
    assert_part_refused(&part(&format!("{many}{disposition}"), "y"));
    let endless = format!("--{B}\r\nX-Endless: {}", "y".repeat(16_000));
    ask(demo() + &endless).assert_refused(400, "invalid_request");
    let over = format!("{disposition}\r\nX-Long: {}", "y".repeat(17_000));
    ask(closed(&(part(&over, "y") + &demo()))).assert_refused(413, "invalid_request");
}

#[test]
fn preamble_and_epilogue_are_ignored() {
    for (preamble, epilogue) in [
        ("", ""),
        ("This is a message in several parts.\r\n", ""),
        ("\r\n", "\r\n\r\n"),
        ("", "an epilogue"),
        ("", "\r\n--XbX\r\nContent-Type: text/plain\r\n\r\nx\r\n--XbX--"),
        ("client_id: unknown\r\n\r\n", ""),
    ] {
        let body = format!("{preamble}{}{epilogue}", closed(&demo()));
        assert_granted(&ask(body));
    }
    // Even well-formed parts are ignored after the closing boundary, so this form is empty.
    let behind = closed("") + &closed(&demo());
    ask(behind).assert_refused(400, "invalid_request");
    let padded = closed(&demo()).replace("--XbX\r\n", "--XbX \t\r\n");
    assert_granted(&ask(padded));
}
