//! `grantd client … --admin ADDRESS`: the command waits until the change is in force in the server.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::command::{Ended, run};
use crate::support::home::{secret_of, set_mode};
use crate::support::registry::{ODD_SECRET, PERCENT_SECRET};
use crate::support::{Encoding, Home, Program, Request, Response, request_of};

fn client(home: &Home, arguments: &[&str], admin: &str) -> Ended {
    run(home.command(&[&["client"], arguments, &["--admin", admin]].concat()))
}

fn ask(server: &Program, id: &str, secret: &str) -> Response {
    server.ask(&Request::token(Encoding::Urlencoded, &request_of(id, secret, &[])))
}

#[test]
fn a_command_returns_once_its_change_is_in_force() {
    let server = Program::start(Home::new(), &[]);
    let (home, admin) = (&server.home, server.admin.to_string());
    // The commands run at the same time, because each waits for the server to look at its files.
    std::thread::scope(|scope| {
        for (arguments, secret) in [
            (&["disable", "--id", "reuser"][..], secret_of("reuser")),
            (&["remove", "--id", "timed"], secret_of("timed")),
            (&["expire-secret", "--id", "percent", "--label", "a"], PERCENT_SECRET.to_owned()),
            (&["disable", "--id", "an:identifier"], ODD_SECRET.to_owned()),
        ] {
            let (server, admin) = (&server, &admin);
            scope.spawn(move || {
                let id = arguments[2];
                assert_eq!(ask(server, id, &secret).status, 200, "{id}");
                let ended = client(home, arguments, admin);
                assert_eq!((ended.code, &*ended.stdout), (Some(0), ""), "{ended:?}");
                ask(server, id, &secret).assert_refused_quietly();
            });
        }
        let rotated = client(home, &["rotate-secret", "--id", "basic-only"], &admin).json();
        let secret = rotated["client_secret"].as_str().unwrap();
        let request = Request::token(Encoding::Urlencoded, &[("grant_type", "client_credentials")]);
        assert_eq!(server.ask(&request.basic(&format!("basic-only:{secret}"))).status, 200);
    });
}

impl Response {
    #[track_caller]
    fn assert_refused_quietly(&self) {
        assert_eq!(self.status, 400, "{}", self.text());
        assert_eq!(self.json()["error"], "invalid_client");
    }
}

#[test]
fn a_change_that_is_written_but_not_in_force_is_an_error() {
    let other = Program::start(Home::new(), &[]);
    let home = Home::new();
    let (admin, public) = (other.admin.to_string(), other.address.to_string());
    std::thread::scope(|scope| {
        for (arguments, admin) in [
            (&["disable", "--id", "reuser"][..], &*admin),
            (&["remove", "--id", "timed"], &*admin),
            // This is the address of the public listener, which gives no information about clients.
            // The command therefore cannot learn whether the change is in force.
            (&["remove", "--id", "percent"], &*public),
            (&["expire-secret", "--id", "no-scope", "--label", "a"], &*admin),
            (&["rotate-secret", "--id", "post-only"], &*admin),
            (&["disable", "--id", "one-audience"], "127.0.0.1:1"),
        ] {
            let (home, public) = (&home, &*public);
            scope.spawn(move || {
                let ended = client(home, arguments, admin);
                assert_eq!(ended.code, Some(1), "{ended:?}");
                let known =
                    if admin == public { "not known whether in force" } else { "not in force" };
                let says = format!("grantd: written, {known}: client {}: ", arguments[2]);
                assert!(ended.stderr.contains(&says), "{ended:?}");
                // The new secret is already in the registry, so `rotate-secret` prints it although
                // the change is not in force.
                assert_eq!(ended.stdout.contains("client_secret"), arguments[0] == "rotate-secret");
            });
        }
    });
    let text = std::fs::read_to_string(home.clients()).unwrap();
    assert!(!text.contains("\"timed\"") && !text.contains("\"percent\""));
    run(home.command(&["client", "show", "--id", "reuser"])).assert_fine();
}

/// Answers every request with `status`, and returns the listener's address and a counter of the
/// requests.
fn admin_that_answers(status: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 4096]);
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, asked)
}

#[test]
fn a_server_that_refuses_to_tell_is_asked_once() {
    let home = Home::new();
    set_mode(&home.write("token", &"t".repeat(32)), 0o600);
    let with_token = ["--admin-token-file", "token"];
    for (status, token, says) in [
        ("401 Unauthorized", &[][..], "requires the admin token; pass the token's file"),
        ("401 Unauthorized", &with_token, "token does not hold its admin token"),
        ("403 Forbidden", &[], "answered 403"),
        ("421 Misdirected Request", &[], "use an IP address or localhost, or pass"),
        ("421 Misdirected Request", &with_token, "token does not hold its admin token"),
    ] {
        let (admin, asked) = admin_that_answers(status);
        let enable = ["client", "disable", "--id", "reuser", "--admin", &admin];
        let ended = run(home.command(&enable).args(token));
        let begin = "grantd: written, not known whether in force: client reuser: ";
        ended.assert_error(1, &[begin, says]);
        assert_eq!(asked.load(Ordering::Relaxed), 1, "{status}");
        let show = ["client", "show", "--id", "reuser", "--admin", &admin];
        run(home.command(&show).args(token)).assert_error(1, &[says]);
    }
    // Nor is one asked without the token that was to be sent.
    let (admin, asked) = admin_that_answers("200 OK");
    let rotate = ["key", "rotate", "--admin", &admin, "--admin-token-file", "none"];
    let ended = run(home.command(&rotate));
    assert_eq!((ended.code, asked.load(Ordering::Relaxed)), (Some(1), 0), "{ended:?}");
    let says = "grantd: written, not known whether in force: key ";
    assert!(ended.stderr.contains(says) && ended.stdout.contains("kid"), "{ended:?}");
}

#[test]
fn a_server_that_does_not_answer_has_had_ten_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::new();
    let ended =
        client(&home, &["disable", "--id", "reuser"], &silent.local_addr().unwrap().to_string());
    let says = "not in force: client reuser: ";
    ended.assert_error(1, &[says, "has not answered within 10 seconds"]);
}
