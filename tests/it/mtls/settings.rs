//! Settings for client certificates: trusted proxies, header names, and faults.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::{ODD, TRUSTING, escaped, home, program, request, with};
use crate::support::command::run;
use crate::support::registry::{changed, registry_of};
use crate::support::{ENCODINGS, Encoding, Home, Program, Request, wait_until};

#[test]
fn certificate_headers_count_from_a_trusted_proxy_only() {
    for toml in [
        "",
        "trusted_proxies = []",
        "trusted_proxies = [\"10.0.0.1\", \"unix\"]",
        "trusted_proxies = [\"127.0.0.1\"]\n[client_certificate]\nproxies = []",
        "trusted_proxies = [\"127.0.0.0/8\"]\n[client_certificate]\nproxies = [\"127.0.0.2\"]",
    ] {
        let server = program(toml);
        for encoding in ENCODINGS {
            let answer = server.ask(&with(request(encoding, "dns"), ODD));
            answer.assert_refused(400, "invalid_client");
        }
    }
    let home = home("trusted_proxies = [\"unix\"]");
    let path = home.path("socket");
    let listen = format!("unix:{}", path.display());
    let server = Program::start(home, &["--config", "grantd.toml", "--listen", &listen]);
    let request = with(request(Encoding::Urlencoded, "dns"), ODD);
    server.ask(&request).assert_refused(400, "invalid_client");
    let mut socket = UnixStream::connect(path).unwrap();
    let mut text = String::new();
    socket.write_all(&request.header("Connection", "close").to_bytes()).unwrap();
    socket.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

/// If `trusted_proxies` contains a network, each host of the network could be a client. The server
/// trusts such hosts to state client addresses, but not certificates. If a client needs a
/// certificate, the server refuses to start, because the client would be locked out.
#[test]
fn a_trusted_network_states_certificates_only_if_proxies_names_it() {
    const WORD: &str = "client_certificate.proxies is not set";
    let serve = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let serve = [&["serve", "--config", "grantd.toml"][..], &serve].concat();
    let check = ["check", "--config", "grantd.toml"];
    for toml in [
        "trusted_proxies = [\"127.0.0.0/8\"]",
        "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/31\"]",
        "trusted_proxies = [\"unix\", \"fd00::/127\"]\n[client_certificate]\nverify_header = \"X-V\"",
    ] {
        let home = home(toml);
        run(home.command(&serve)).assert_error(1, &[WORD, "(as-dns, as-uri, bound, "]);
        run(home.command(&check)).assert_error(1, &[WORD, "more)"]);
        // Without a client that needs a certificate, the same settings are accepted.
        home.write("clients.json", r#"{"clients":[]}"#);
        assert!(run(home.command(&check)).assert_fine().contains("ok: "));
    }
    // A client that authenticates by its secret needs a certificate if its tokens are bound to
    // certificates.
    let toml = "trusted_proxies = [\"127.0.0.0/8\"]";
    let home_of = |client: Value| {
        let home = home(toml);
        home.register(&[client]);
        home
    };
    let mut client = json!({ "client_id": "c" });
    assert_eq!(run(home_of(client.clone()).command(&check)).code, Some(0));
    client["tls_client_certificate_bound_access_tokens"] = true.into();
    run(home_of(client).command(&check)).assert_error(1, &[WORD, "(c)"]);

    for (toml, warns) in [
        ("trusted_proxies = [\"127.0.0.1/32\"]", Some("is not set, so all of trusted_proxies")),
        ("[client_certificate]\nproxies = [\"127.0.0.1\"]", None),
        (
            "trusted_proxies = [\"127.0.0.0/8\"]\n[client_certificate]\nproxies = [\"127.0.0.1\"]",
            None,
        ),
        ("[client_certificate]\nproxies = [\"127.0.0.0/8\"]", Some("holds a network")),
    ] {
        let home = home(toml);
        let checked = run(home.command(&check));
        let printed = checked.assert_fine();
        assert_eq!(printed.contains("warning: client_certificate.proxies"), warns.is_some());
        assert!(warns.is_none_or(|warns| printed.contains(warns)), "{printed}");
        let server = Program::start(home, &["--config", "grantd.toml"]);
        let is_warning = |line: &Value| {
            let message = line["message"].as_str().unwrap_or_default();
            line["level"] == "WARN" && message.starts_with("client_certificate.proxies: ")
        };
        assert_eq!(server.log.lines().iter().any(is_warning), warns.is_some(), "{toml}");
        let answer = server.ask(&with(request(Encoding::Urlencoded, "dns"), ODD));
        assert_eq!(answer.status, 200, "{toml}");
    }
    let printed = run(home("").command(&check));
    assert!(printed.assert_fine().contains("no proxy may forward certificates"), "{printed:?}");
}

/// A reload makes the same checks as a start, after a change of the settings and after a change of
/// the registry.
#[test]
fn a_reload_that_would_lock_certificate_clients_out_is_refused() {
    let home = home(TRUSTING);
    let clients = std::fs::read_to_string(home.clients()).unwrap();
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let is_in = || server.ask(&with(request(Encoding::Urlencoded, "dns"), ODD)).status == 200;
    let says =
        |line: &Value, word: &str| line["fault"].as_str().is_some_and(|it| it.contains(word));
    server.home.write("grantd.toml", "trusted_proxies = [\"127.0.0.0/8\"]");
    server.hang_up();
    server.log.wait_for(|line| says(line, "client_certificate.proxies"));
    assert!(is_in());

    // Now no client in the registry needs a certificate, so the server accepts the new setting.
    // While this setting is in force, the server refuses the old registry, because it has clients
    // that need a certificate.
    server.home.write("clients.json", r#"{"clients":[]}"#);
    server.hang_up();
    wait_until(|| server.metric("grantd_clients") == 0);
    let refused = server.metric("grantd_reloads_total{outcome=\"refused\"}");
    server.home.write("clients.json", &clients);
    server.hang_up();
    wait_until(|| server.metric("grantd_reloads_total{outcome=\"refused\"}") > refused);
    assert_eq!(server.metric("grantd_clients"), 0);
    server.home.write("grantd.toml", "[client_certificate]\nproxies = [\"127.0.0.0/8\"]");
    server.hang_up();
    wait_until(|| server.metric("grantd_clients") > 0);
    assert!(is_in());
}

#[test]
fn the_header_names_are_configurable() {
    let server = program(
        "trusted_proxies = [\"127.0.0.1\"]\n[client_certificate]\nverify_header = \"X-V\"\n\
         certificate_header = \"X-C\"",
    );
    let base = || request(Encoding::Multipart, "dns");
    server.ask(&with(base(), ODD)).assert_refused(400, "invalid_client");
    let own = base().header("x-v", "SUCCESS").header("X-C", escaped(ODD));
    assert_eq!(server.ask(&own).status, 200);
}

#[test]
fn metadata_lists_certificates_only_if_a_proxy_states_them() {
    let document = |toml: &str| {
        let server = program(toml);
        server.ask(&Request::get("/.well-known/oauth-authorization-server")).json()
    };
    let on = document(TRUSTING);
    assert_eq!(
        on["token_endpoint_auth_methods_supported"],
        json!([
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
            "tls_client_auth",
            "self_signed_tls_client_auth",
        ])
    );
    assert_eq!(on["tls_client_certificate_bound_access_tokens"], true);
    for toml in ["", "trusted_proxies = [\"127.0.0.1\"]\n[client_certificate]\nproxies = []"] {
        let off = document(toml);
        let methods = off["token_endpoint_auth_methods_supported"].to_string();
        assert!(!methods.contains("tls"), "{methods}");
        assert_eq!(off.get("tls_client_certificate_bound_access_tokens"), None);
    }
    let named = document("[client_certificate]\nproxies = [\"unix\"]");
    assert_eq!(named["tls_client_certificate_bound_access_tokens"], true);
    let home = Home::new();
    home.write("grantd.toml", "trusted_proxies = [\"127.0.0.0/8\"]");
    let server = Program::start(home, &["--config", "grantd.toml", "--allow-demo-clients"]);
    let request = Request::get("/.well-known/openid-configuration");
    let methods = server.ask(&request).json()["token_endpoint_auth_methods_supported"].to_string();
    assert!(!methods.contains("tls"), "{methods}");
}

#[test]
fn invalid_certificate_settings_are_refused_with_their_place() {
    let client = |more: Value| registry_of(&[changed(json!({ "client_id": "c" }), &more)]);
    for (more, says) in [
        (
            json!({ "auth_methods": ["tls_client_auth"] }),
            "clients[0].auth_methods: holds tls_client_auth, which needs one of the fields",
        ),
        (
            json!({ "auth_methods": ["self_signed_tls_client_auth"] }),
            "clients[0].auth_methods: holds self_signed_tls_client_auth, which needs",
        ),
        (
            json!({ "tls_client_auth_san_dns": "a", "tls_client_auth_san_uri": "hunter2" }),
            "clients[0].tls_client_auth_san_uri: is one subject too many",
        ),
        (
            json!({ "tls_client_auth_san_ip": "hunter2" }),
            "clients[0].tls_client_auth_san_ip: must be an IP address",
        ),
        (
            json!({ "tls_client_auth_subject_dn": "" }),
            "clients[0].tls_client_auth_subject_dn: must not be empty",
        ),
        (
            json!({ "tls_client_certificate_bound_access_tokens": "hunter2" }),
            "clients[0].tls_client_certificate_bound_access_tokens: must be true or false",
        ),
    ] {
        let home = Home::new();
        home.write("clients.json", &client(more));
        let ended = run(home.command(&["check"]));
        ended.assert_error(1, &["clients.json:1:", says]);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
    for (toml, says) in [
        ("trusted_proxies = [\"10.0.0.1/8\"]", "a trusted proxy is an address, a network"),
        ("[client_certificate]\nverify_header = \"a b\"", "must be the name of a header field"),
        ("[client_certificate]\nproxies = [\"10.0.0.1/8\"]", "a trusted proxy is an address"),
    ] {
        let home = home(toml);
        run(home.command(&["check", "--config", "grantd.toml"])).assert_error(1, &[says]);
    }
    // Clients on other machines may reach the server through the proxy, so the demo clients are
    // refused unless they are allowed.
    let home = Home::new();
    home.write("grantd.toml", TRUSTING);
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let ended = run(home.command(&serve).args(["--config", "grantd.toml"]));
    ended.assert_error(1, &["the demo clients"]);
}
