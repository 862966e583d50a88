//! Client certificates.

use super::Site;
use crate::support::form::percent_encode;
use crate::support::home::secret_of;
use crate::support::{ENCODINGS, Encoding, Program, Request, Response, Token, request_of};

#[test]
fn only_a_certificate_from_the_handshake_counts() {
    let Site { server, nginx } = Site::start();
    let pem = std::fs::read(nginx.file("grantd/client.pem")).unwrap();
    let escaped = percent_encode(&pem).replace('+', "%20");
    for encoding in ENCODINGS {
        let request = of_certified("certified", encoding);
        let forged = request.clone().header("X-Client-Cert-Verify", "SUCCESS");
        let forged = forged.header("X-Client-Cert", escaped.clone());
        for request in [&request, &forged] {
            nginx.ask(request).assert_refused(400, "invalid_client");
            nginx.ask_as("stranger", request).assert_refused(400, "invalid_client");
        }
        assert_bound(&nginx.ask_as("client", &request), &server);
    }
}

/// Returns a request by a client that authenticates only with its certificate.
fn of_certified(client: &str, encoding: Encoding) -> Request {
    Request::token(encoding, &[("grant_type", "client_credentials"), ("client_id", client)])
}

#[track_caller]
fn assert_bound(answer: &Response, server: &Program) {
    let token = Token::verified(answer, server.address);
    assert!(token.claims["cnf"]["x5t#S256"].is_string(), "{:?}", token.claims);
}

/// openssl's default extensions make a self-signed certificate a CA certificate, so its owner can
/// sign other certificates with it. The names in those certificates must not authenticate a client.
/// The self-signed certificate need not be among nginx's trusted authorities.
#[test]
fn a_self_signed_certificate_authenticates_its_own_client_only() {
    let Site { server, nginx } = Site::start();
    let chain = nginx.file("grantd/self-signed.pem");
    let [alone, with_chain] = [&[][..], &["-cert_chain", chain.to_str().unwrap()]];
    let secret = secret_of("bound");
    for version in ["-tls1_2", "-tls1_3"] {
        for encoding in ENCODINGS {
            let ask = |certificate: &str, client: &str, more: &[&str]| {
                let request = of_certified(client, encoding);
                nginx.ask_with(certificate, &request, &[&[version], more].concat())
            };
            assert_bound(&ask("client", "certified", alone), &server);
            assert_bound(&ask("self-signed", "self-signed", alone), &server);
            assert_bound(&ask("self-signed", "self-signed", with_chain), &server);
            let bound = Request::token(encoding, &request_of("bound", &secret, &[]));
            assert_bound(&nginx.ask_with("client", &bound, &[version]), &server);
            for (certificate, more) in [
                ("forged", alone),
                ("forged", with_chain),
                ("self-signed", alone),
                ("stranger", alone),
            ] {
                ask(certificate, "certified", more).assert_refused(400, "invalid_client");
                if certificate != "self-signed" {
                    ask(certificate, "self-signed", more).assert_refused(400, "invalid_client");
                }
                let more = [&[version], more].concat();
                let answer = nginx.ask_with(certificate, &bound, &more);
                answer.assert_refused(400, "invalid_request");
            }
        }
    }
    assert_eq!(server.metric("grantd_self_signed_certificates_total"), 0);
}

/// nginx verifies the client certificate in a session's first handshake. The result is kept when
/// the TLS session is resumed.
#[test]
fn a_resumed_session_keeps_the_verdict_of_its_first_handshake() {
    let Site { server, nginx } = Site::start();
    let session = nginx.file("session");
    let session = session.to_str().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        for (certificate, client, is_in) in [
            ("client", "certified", true),
            ("self-signed", "self-signed", true),
            ("forged", "certified", false),
            ("self-signed", "certified", false),
        ] {
            let request = of_certified(client, Encoding::Urlencoded);
            for resume in ["-sess_out", "-sess_in"] {
                let answer = nginx.ask_with(certificate, &request, &[version, resume, session]);
                if is_in {
                    assert_bound(&answer, &server);
                } else {
                    answer.assert_refused(400, "invalid_client");
                }
            }
        }
    }
}

/// A self-signed client certificate may be among nginx's trusted authorities, but grantd warns of
/// it.
#[test]
fn a_client_certificate_among_the_authorities_works_with_a_warning() {
    let Site { server, nginx } = Site::trusting(&["self-signed"]);
    for encoding in ENCODINGS {
        for version in ["-tls1_2", "-tls1_3"] {
            let request = of_certified("self-signed", encoding);
            assert_bound(&nginx.ask_with("self-signed", &request, &[version]), &server);
            let request = of_certified("certified", encoding);
            assert_bound(&nginx.ask_with("client", &request, &[version]), &server);
        }
    }
    assert_eq!(server.metric("grantd_self_signed_certificates_total"), 4);
    let line = server.log.wait_for(|line| line["subject"] == "CN=self-signed");
    assert_eq!(line["level"], "WARN");
}
