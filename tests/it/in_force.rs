//! `grantd client … --admin ADDRESS`: the command waits until the change is in force in the server.

use crate::support::command::{Ended, run};
use crate::support::home::secret_of;
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
            let home = &home;
            scope.spawn(move || {
                let ended = client(home, arguments, admin);
                assert_eq!(ended.code, Some(1), "{ended:?}");
                let says = format!("grantd: written, not in force: client {}: ", arguments[2]);
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
