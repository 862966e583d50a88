//! Failures around the server: signing, disk, clock, panics, kills.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use grantd::clock::Clock;
use grantd::config::Config;
use grantd::random::Random;
use grantd::server::{Arrival, Peer, Server};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use serde_json::Value;
use tokio::runtime::Builder;

use crate::support::command::run;
use crate::support::{
    Connection, DEMO, ENCODINGS, Encoding, Home, Library, Program, Request, Token, wait_until,
};

#[test]
fn requests_beyond_the_signing_queue_are_refused_at_once() {
    let home = Home::new();
    home.write("grantd.toml", "[limits]\nsigning_queue = 1\n");
    let arguments = ["--config", "grantd.toml", "--signer", "ring", "--workers", "1"];
    let server = Program::start(home, &arguments);
    let mut connections: Vec<_> = (0..64)
        .map(|number| {
            let mut connection = Connection::open(server.address);
            connection.send(&Request::token(ENCODINGS[number % 2], &DEMO).to_bytes());
            connection
        })
        .collect();
    let mut served = 0;
    for connection in &mut connections {
        let answer = connection.read_answer();
        if answer.status == 200 {
            Token::verified(&answer, server.address);
            served += 1;
        } else {
            answer.assert_refused(503, "temporarily_unavailable");
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
    }
    assert!((1..64).contains(&served), "{served} of 64");
    let refused = r#"grantd_requests_total{cause="overloaded",outcome="refused",route="token"}"#;
    assert_eq!(server.metric(refused), 64 - served);
}

#[test]
fn a_full_disk_stops_no_token_and_lost_lines_are_counted() {
    let home = Home::new();
    home.write("grantd.toml", "audit = \"audit.jsonl\"\n");
    let server = Program::start_without_room(home, &["--config", "grantd.toml"]);
    let long = "x".repeat(40);
    wait_until(|| {
        for encoding in ENCODINGS {
            let request = Request::token(encoding, &DEMO);
            let answer = server.ask(&request.header("X-Request-Id", long.as_str()));
            assert_eq!(answer.status, 200);
        }
        server.metric("grantd_audit_lines_lost_total") > 0
    });
    let whole = std::fs::read_to_string(server.home.path("audit.jsonl")).unwrap();
    assert!(whole.starts_with("{\"time\":"), "{whole}");
    assert_eq!(server.metric("grantd_log_lines_lost_total"), 0);
}

#[test]
fn a_clock_step_makes_no_token_that_expires_before_its_iat() {
    const NOW: u64 = 1_790_000_000;
    let library = Library::start(Home::new(), "https://auth.example", NOW);
    for now in [NOW, NOW - 3600, NOW + 3600, NOW] {
        library.clock.set(now);
        for encoding in ENCODINGS {
            let answer = Request::token(encoding, &DEMO).send(library.address);
            let claims = Token::verified(&answer, library.address).claims;
            assert_eq!((&claims["iat"], &claims["exp"]), (&now.into(), &(now + 3600).into()));
        }
    }
}

/// A request body that panics when it is read. It stands for a bug in an HTTP server that embeds
/// grantd.
struct Panics;

impl Body for Panics {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("on purpose")
    }
}

#[test]
fn a_panic_fails_one_request_only() {
    let home = Home::new();
    let mut config = Config::default();
    config.startup.state = home.path("state");
    config.startup.workers = 1;
    config.live.clients = home.clients();
    config.live.keys = home.keys();
    let server = Server::new(&config, Clock::system(), Random::system()).unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let peer = Peer::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000)));
    let arrival = || Arrival { peer, first_byte: Clock::system().instant() };
    let head = || {
        hyper::Request::post("/connect/token")
            .header("host", "localhost")
            .header("content-type", "application/x-www-form-urlencoded")
    };
    let broken = head().body(Panics).unwrap();
    let answer = runtime.block_on(server.service().respond(broken, arrival()));
    assert_eq!(answer.status(), 500);
    let text = runtime.block_on(answer.into_body().collect()).unwrap().to_bytes();
    assert!(text.starts_with(b"{\"error\":\"server_error\""), "{text:?}");

    let body = crate::support::form::encode(Encoding::Urlencoded, &DEMO);
    let whole = head().body(Full::new(Bytes::from(body))).unwrap();
    let answer = runtime.block_on(server.service().respond(whole, arrival()));
    assert_eq!(answer.status(), 200);
}

#[test]
fn a_change_acknowledged_before_a_kill_is_on_disk() {
    let home = Home::new();
    let mut acknowledged = Vec::new();
    for number in 0..40 {
        let id = format!("client-{number}");
        let mut command = match number % 4 {
            0 => home.command(&["key", "generate"]),
            _ => home.command(&["client", "add", "--id", &id, "--scope", "read"]),
        };
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // Some commands end by themselves, but most are killed while they run.
        std::thread::sleep(Duration::from_micros(number * 400));
        child.kill().unwrap();
        let printed = child.wait_with_output().unwrap().stdout;
        // A printed line acknowledges the change.
        let line: Option<Value> = serde_json::from_slice(&printed).ok();
        let name = line.map(|line| {
            [&line["client_id"], &line["kid"]].map(|it| it.as_str().map(str::to_owned))
        });
        acknowledged.extend(name.into_iter().flatten().flatten());
    }
    run(home.command(&["check"])).assert_fine();
    let clients = run(home.command(&["client", "list"]));
    let keys = run(home.command(&["key", "list"]));
    let known = [clients.assert_fine(), keys.assert_fine()].concat();
    for name in acknowledged {
        assert!(known.contains(&format!("\"{name}\"")), "{name} is not in {known}");
    }
}
