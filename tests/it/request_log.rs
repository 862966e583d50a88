//! Text that a client made up, in the log: bounded and visible, wherever it comes from.

use serde_json::Value;

use crate::support::{Home, Program, Request};

/// The whole line about a request of this id, and as it reads.
fn line_of(server: &Program, id: &str) -> (Value, String) {
    let line = server.log.of_request(id);
    let text = line.to_string();
    (line, text)
}

#[test]
fn a_method_has_at_most_32_bytes() {
    let server = Program::shared();
    let long = "M".repeat(15_000);
    for (number, path) in [
        "/connect/token",
        "/connect/validate",
        "/connect/introspect",
        "/connect/revocation",
        "/v1/api/oauth/token",
        "/v1/api/oauth/validateToken",
        "/v1/getAccessToken",
        "/.well-known/jwks.json",
        "/nowhere",
    ]
    .into_iter()
    .enumerate()
    {
        for (method, logged) in [(&*long, 32), (&long[..33], 32), (&long[..32], 32), ("MM", 2)] {
            let id = format!("method.{number}.{}", method.len());
            let answer =
                server.ask(&Request::new(method, path).header("X-Request-Id", id.as_str()));
            assert!([404, 405].contains(&answer.status), "{path}: {}", answer.text());
            let (line, text) = line_of(&server, &id);
            assert_eq!(line["method"], "M".repeat(logged), "{path}");
            assert!(text.len() < 1000, "{text}");
            // What operators ask for afterwards has none of it.
            let told = Request::get(&format!("/explain/{id}")).send(server.admin);
            assert_eq!(told.status, 200);
            assert!(!told.text().contains("MMM"), "{}", told.text());
        }
    }
    assert!(!server.metrics().contains("MMM"));
    // Over the limit of a head, it is read and refused as well.
    let id = "method.over";
    let over = Request::new(&"M".repeat(17_000), "/connect/token").header("X-Request-Id", id);
    assert_eq!(server.ask(&over).status, 431);
    assert_eq!(line_of(&server, id).0["method"], "M".repeat(32));
}

#[test]
fn what_a_proxy_was_asked_for_is_short_and_visible() {
    let home = Home::new();
    home.write("grantd.toml", "trusted_proxies = [\"127.0.0.1\"]\naudit = \"audit.jsonl\"\n");
    let server = Program::start(home, &["--config", "grantd.toml", "--allow-demo-clients"]);
    let long = "x".repeat(4_000);
    for (number, (method, uri, logged_method, logged_path)) in [
        (b"POST".to_vec(), b"/a?secret".to_vec(), "POST".to_owned(), "/a".to_owned()),
        (
            long.clone().into_bytes(),
            format!("/{long}?{long}").into_bytes(),
            "x".repeat(32),
            format!("/{}", "x".repeat(127)),
        ),
        // No escape is cut in two.
        (
            "\u{e9}".repeat(9).into_bytes(),
            format!("/{}\u{e9}", "x".repeat(122)).into_bytes(),
            "\\xc3\\xa9".repeat(4),
            format!("/{}\\xc3", "x".repeat(122)),
        ),
        (b"P\tT".to_vec(), b"/a\t\"b\\".to_vec(), "P\\x09T".to_owned(), "/a\\x09\"b\\".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("original.{number}");
        let request = Request::get("/connect/validate?scope=read")
            .header("X-Request-Id", id.as_str())
            .header("X-Forwarded-For", "192.0.2.9")
            .header("X-Original-Method", method)
            .header("X-Original-URI", uri);
        assert_eq!(server.ask(&request).status, 401);
        let (line, text) = line_of(&server, &id);
        assert_eq!(line["original_method"], logged_method);
        assert_eq!(line["original_path"], logged_path);
        assert!(text.len() < 1000 && !text.contains("secret"), "{text}");
    }
    let audit = std::fs::read_to_string(server.home.path("audit.jsonl")).unwrap_or_default();
    assert!(!audit.contains("xxx"), "{audit}");
}
