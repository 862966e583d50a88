//! `grantd token`: requests a token from the command line.

use serde_json::json;

use crate::support::command::{Ended, run, run_with_input};
use crate::support::ports::free_port;
use crate::support::{Home, Program, Token};

const SECRET: &str = "demo-secret-for-local-use-only-0001";

fn ask(home: &Home, url: &str, more: &[&str], secret: &str) -> Ended {
    let arguments = ["token", "--url", url, "--client-id", "demo-client"];
    run_with_input(home.command(&arguments).args(more), secret)
}

#[test]
fn token_prints_the_servers_token() {
    let server = Program::shared();
    let base = format!("http://{}", server.address);
    for url in [base.clone(), format!("{base}/"), format!("{base}/connect/token")] {
        let ended = ask(&server.home, &url, &[], &format!("{SECRET}\n"));
        let token = ended.assert_fine().trim_end().to_owned();
        let answer = crate::support::Response {
            status: 200,
            headers: Vec::new(),
            body: json!({ "access_token": token }).to_string().into_bytes(),
        };
        assert_eq!(Token::verified(&answer, server.address).claims["sub"], "demo-client");
    }
    let mut command = server.home.command(&["token", "--url", &base, "--client-id", "demo-client"]);
    let from_environment = run(command.env("GRANTD_CLIENT_SECRET", SECRET));
    assert_eq!(from_environment.assert_fine().split('.').count(), 3);
}

#[test]
fn a_token_is_decoded_once_its_signature_is_verified() {
    let server = Program::shared();
    let url = format!("http://{}", server.address);
    let decoded = ask(&server.home, &url, &["--decode", "--scope", "external-api"], SECRET).json();
    assert_eq!(decoded["header"]["typ"], "at+jwt");
    assert_eq!(decoded["claims"]["client_id"], "demo-client");
    assert_eq!(decoded["claims"]["scope"], "external-api");
    assert_eq!(decoded["claims"]["iss"], server.issuer);
}

#[test]
fn a_server_on_a_unix_socket_is_asked() {
    let home = Home::new();
    let socket = home.path("grantd.sock");
    let listen = format!("unix:{}", socket.display());
    let server = Program::start(home, &["--listen", &listen]);
    let ended = ask(&server.home, &listen, &["--decode"], SECRET);
    assert!(ended.assert_fine().contains("\"sub\": \"demo-client\""), "{}", ended.stdout);
}

#[test]
fn errors_do_not_contain_the_secret() {
    let server = Program::shared();
    let url = format!("http://{}", server.address);
    let unused = free_port();
    for (url, more, says) in [
        (&*url, &["--scope", "nope"][..], "refused with 400 invalid_scope"),
        (&format!("{url}/nowhere"), &[], "/nowhere: refused with 404 invalid_request"),
        (&format!("http://127.0.0.1:{unused}"), &[], "is the server running there?"),
        ("https://127.0.0.1", &[], "https is not supported"),
        ("127.0.0.1", &[], "the URL must be http://"),
        ("unix:/nowhere/grantd.sock", &[], "is the server running there?"),
    ] {
        let ended = ask(&server.home, url, more, SECRET);
        ended.assert_error(1, &["grantd: ", says]);
        assert!(!ended.stderr.contains(SECRET), "{}", ended.stderr);
    }
    let wrong = ask(&server.home, &url, &[], "hunter2");
    wrong.assert_error(1, &["refused with 400 invalid_client"]);
    assert!(!wrong.stderr.contains("hunter2"), "{}", wrong.stderr);
    ask(&server.home, &url, &[], "").assert_error(1, &["the secret is empty"]);
    // `--client-secret` does not exist: a secret is never taken from an argument.
    ask(&server.home, &url, &["--client-secret", "x"], "").assert_error(2, &["--client-secret"]);
}
