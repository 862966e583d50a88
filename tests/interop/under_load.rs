//! Reloads, key rotations and a restart under load behind nginx: no request fails.

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use grantd::clock::Clock;
use serde_json::{Value, json};

use crate::support::command::run;
use crate::support::home::{hash_of, secret_of};
use crate::support::nginx::Nginx;
use crate::support::registry::{client_json, registry_of};
use crate::support::{
    ENCODINGS, Home, Program, Request, StopOnDrop, Token, request_of, wait_until,
};

/// Settings like the shipped ones, but with short times.
const TOML: &str = "issuer = \"https://auth.example.com\"\ntrusted_proxies = [\"unix\"]\n\
                    jwks_max_age = 1\n[limits]\ndrain_seconds = 2\n";

/// A resource server. It fetches the key set only if its copy is older than `max-age`.
struct Verifier<'n> {
    nginx: &'n Nginx,
    copy: Option<(Instant, Value)>,
}

impl Verifier<'_> {
    fn key_id_of(&mut self, answer: &crate::support::Response) -> String {
        const MAX_AGE: Duration = Duration::from_secs(1);
        let is_fresh = |(at, _): &(Instant, Value)| at.elapsed() < MAX_AGE;
        if !self.copy.as_ref().is_some_and(is_fresh) {
            let asked_at = Clock::system().instant();
            let keys = self.nginx.ask(&Request::get("/.well-known/jwks.json"));
            assert_eq!(keys.header("cache-control"), Some("public, max-age=1"));
            self.copy = Some((asked_at, keys.json()));
        }
        let (_, keys) = self.copy.as_ref().unwrap();
        Token::verified_with(answer, keys).header["kid"].as_str().unwrap().to_owned()
    }
}

/// The state shared by clients that send requests continuously.
struct Load<'n> {
    nginx: &'n Nginx,
    secret: Mutex<String>,
    answers: AtomicUsize,
    key_ids: Mutex<BTreeSet<String>>,
    is_over: AtomicBool,
}

impl Load<'_> {
    fn ask(&self, mut number: usize) {
        let mut verifier = Verifier { nginx: self.nginx, copy: None };
        while !self.is_over.load(Ordering::Relaxed) {
            let secret = self.secret.lock().unwrap().clone();
            let form = request_of("steady", &secret, &[]);
            let answer = self.nginx.ask(&Request::token(ENCODINGS[number % 2], &form));
            assert_eq!(answer.status, 200, "{answer:?}");
            let key_id = verifier.key_id_of(&answer);
            self.key_ids.lock().unwrap().insert(key_id);
            self.answers.fetch_add(1, Ordering::Relaxed);
            number += 1;
            // The site allows 50 requests per second from one address, so each client pauses here.
            std::thread::sleep(Duration::from_millis(40));
        }
    }

    /// Waits until `answers` further answers have arrived. Panics after [`GUARD`](crate::support::GUARD).
    fn go_on(&self, answers: usize) {
        let before = self.answers.load(Ordering::Relaxed);
        self.wait_until(|| self.answers.load(Ordering::Relaxed) >= before + answers);
    }

    fn wait_until(&self, is_so: impl Fn() -> bool) {
        wait_until(|| {
            assert!(!self.is_over.load(Ordering::Relaxed), "a request has failed");
            is_so()
        });
    }
}

fn register(home: &Home, lifetime: u64) {
    let secrets = json!([{ "label": "old", "hash": hash_of(&secret_of("steady")) }]);
    let members = json!({ "token_lifetime": lifetime, "secrets": secrets });
    let registry = registry_of(&[client_json("steady", &members)]);
    let written = home.write("clients.json.new", &registry);
    std::fs::rename(written, home.clients()).unwrap();
}

#[test]
fn fifty_reloads_two_rotations_and_a_restart_under_load() {
    let home = Home::new();
    home.write("grantd.toml", TOML);
    register(&home, 99);
    let path = home.path("grantd.sock");
    // The test keeps the socket open, as a service manager does, so that no connection is refused
    // during the restart.
    let socket = UnixListener::bind(&path).unwrap();
    let start = |home: Home| {
        let socket = socket.try_clone().unwrap().into();
        Program::start_on(home, socket, &["--config", "grantd.toml"])
    };
    let mut server = start(home);
    let nginx = Nginx::before(&path);
    let load = Load {
        nginx: &nginx,
        secret: Mutex::new(secret_of("steady")),
        answers: AtomicUsize::new(0),
        key_ids: Mutex::default(),
        is_over: AtomicBool::new(false),
    };
    // Returns the new server from the scope, so that the server runs until the last client has
    // received its answer.
    let _server = std::thread::scope(|scope| {
        let stop = StopOnDrop(&load.is_over);
        for client in 0..2 {
            let load = &load;
            scope.spawn(move || {
                let _stop = StopOnDrop(&load.is_over);
                load.ask(client);
            });
        }
        load.go_on(5);
        for generation in 2..=51 {
            register(&server.home, generation + 98);
            server.hang_up();
            let is_it = |line: &Value| {
                line["message"] == "reloaded" && line["generation"] == json!(generation)
            };
            server.log.wait_for(is_it);
        }
        load.go_on(5);

        let rotated =
            run(server.home.command(&["key", "generate", "--config", "grantd.toml"])).json();
        let key_id = rotated["kid"].as_str().unwrap();
        load.wait_until(|| load.key_ids.lock().unwrap().contains(key_id));
        load.go_on(5);

        let rotate = ["client", "rotate-secret", "--id", "steady", "--label", "new"];
        let rotated = run(server.home.command(&rotate)).json();
        let is_it = |line: &Value| line["changes"] == "clients changed: steady (+new)";
        server.log.wait_for(is_it);
        load.go_on(5);
        let secret = rotated["client_secret"].as_str().unwrap();
        secret.clone_into(&mut load.secret.lock().unwrap());
        load.go_on(5);
        let expire = ["client", "expire-secret", "--id", "steady", "--label", "old"];
        run(server.home.command(&expire)).assert_fine();
        server.log.wait_for(|line| line["changes"] == "clients changed: steady (~old)");
        load.go_on(5);

        server.terminate();
        assert_eq!(server.wait().code(), Some(0));
        let log = server.log.to_the_end();
        assert!(log.contains("\"message\":\"stopped\""), "{log}");
        let next = start(server.into_home());
        load.go_on(20);
        drop(stop);
        next
    });
    assert_eq!(load.key_ids.lock().unwrap().len(), 2, "signed with the old key and the new");
}
