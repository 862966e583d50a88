//! The audiences that an assertion may name, at every endpoint that accepts assertions.

use serde_json::{Value, json};

use super::{changed, claims, header, home_of, now, program, request, unique};
use crate::support::command::run;
use crate::support::{ENCODINGS, Encoding, Home, Program, Request, Signer, Token};

const ISSUER: &str = "https://auth.example/tenant";
const ROUTES: &str = "[[route]]\npath = \"/api/connect/token\"\ndialect = \"connect\"\n\
                      [[route]]\npath = \"/o/token\"\ndialect = \"connect\"\n";
const PATHS: [&str; 5] = [
    "/connect/token",
    "/api/connect/token",
    "/o/token",
    "/connect/introspect",
    "/connect/revocation",
];

fn settings(audience: &str) -> String {
    format!("issuer = \"{ISSUER}\"\n{audience}\n{ROUTES}")
}

fn url(path: &str) -> String {
    format!("{ISSUER}{path}")
}

/// Makes assertions with the JOSE header `header`, signs them with `signer` and sends them to
/// `server`.
struct Asking<'a> {
    server: &'a Program,
    signer: &'a Signer,
    header: Value,
}

impl Asking<'_> {
    #[track_caller]
    fn is_accepted(&self, encoding: Encoding, path: &str, audience: &Value) -> bool {
        let id = unique();
        let claims = changed(claims("c", ISSUER, now()), &json!({ "aud": audience }));
        let assertion = self.signer.sign(&self.header, &claims);
        let answer = self.server.ask(
            &request(encoding, &assertion, &[("token", "none")])
                .with_target(path)
                .header("X-Request-Id", id.as_str()),
        );
        if answer.status != 200 {
            answer.assert_refused(400, "invalid_client");
            let logged = &self.server.log.of_request(&id)["cause"];
            assert_eq!(logged, "assertion_audience", "{path} {audience}");
        }
        answer.status == 200
    }

    #[track_caller]
    fn check(&self, path: &str, cases: &[(Value, bool)]) {
        for encoding in ENCODINGS {
            // A proxy may keep or remove the issuer's path (`/tenant`) in front of `path`. The
            // server treats both targets as the same URL.
            for called in [path.to_owned(), format!("/tenant{path}")] {
                for (audience, accepted) in cases {
                    assert_eq!(
                        self.is_accepted(encoding, &called, audience),
                        *accepted,
                        "{encoding:?} {called} {audience} {}",
                        self.header
                    );
                }
            }
        }
    }
}

/// Returns audiences for the strict rule, which accepts only the issuer as a string. Each audience
/// is paired with `true` if the rule accepts it.
fn strict_cases(path: &str) -> Vec<(Value, bool)> {
    vec![
        (json!(ISSUER), true),
        (json!([ISSUER]), false),
        (json!(url(path)), false),
        (json!([url("/connect/token")]), false),
        (json!(url("/connect/token")), false),
    ]
}

#[test]
fn by_default_the_issuer_the_called_url_and_the_token_endpoint_are_accepted() {
    let signer = Signer::es256();
    for audience in ["", "assertion_audience = \"endpoint\""] {
        let server = program(&signer, &settings(audience));
        let asking = Asking { server: &server, signer: &signer, header: header(&signer) };
        // The second server sets the default explicitly. One path is enough to show that its rules
        // are the same as those of the first server.
        let paths = if audience.is_empty() { &PATHS[..] } else { &PATHS[..1] };
        for path in paths {
            let other = PATHS.iter().rev().find(|other| ![path, "/connect/token"].contains(other));
            let other = url(other.unwrap());
            asking.check(
                path,
                &[
                    (json!(ISSUER), true),
                    (json!([ISSUER]), true),
                    (json!(url(path)), true),
                    (json!([url(path)]), true),
                    (json!(url("/connect/token")), true),
                    (json!([url("/connect/token")]), true),
                    (json!(other), false),
                    (json!([other]), false),
                    (json!([ISSUER, url(path)]), false),
                    (json!([ISSUER, ISSUER]), false),
                    (json!([[ISSUER]]), false),
                    (json!([]), false),
                    (json!([5]), false),
                    (json!(format!("https://auth.example{path}")), false),
                    (json!(url(&format!("/tenant{path}"))), false),
                ],
            );
        }
    }
}

#[test]
fn with_issuer_only_the_issuer_as_a_string_is_accepted() {
    let signer = Signer::es256();
    let server = program(&signer, &settings("assertion_audience = \"issuer\""));
    let asking = Asking { server: &server, signer: &signer, header: header(&signer) };
    for path in PATHS {
        asking.check(path, &strict_cases(path));
    }
}

#[test]
fn an_assertion_of_the_explicit_type_must_name_the_issuer() {
    let signer = Signer::es256();
    let server = program(&signer, &settings(""));
    let of_type = |name: &str| Asking {
        server: &server,
        signer: &signer,
        header: changed(header(&signer), &json!({ "typ": name })),
    };
    for path in PATHS {
        of_type("client-authentication+jwt").check(path, &strict_cases(path));
    }
    for name in ["Client-Authentication+JWT", "application/client-authentication+jwt"] {
        of_type(name).check("/o/token", &strict_cases("/o/token"));
    }
    // The strict rule applies only to the type `client-authentication+jwt`. For the types below,
    // the default rule applies. It accepts an array that contains only the issuer.
    for name in ["JWT", "at+jwt", "", "client-authentication+jwtx", "application/"] {
        let array = json!([ISSUER]);
        let asking = of_type(name);
        assert!(asking.is_accepted(Encoding::Urlencoded, "/connect/token", &array), "{name}");
    }
}

#[test]
fn validate_token_takes_no_assertion() {
    let signer = Signer::es256();
    let server = program(&signer, &settings(""));
    let path = "/v1/api/oauth/validateToken";
    for audience in [ISSUER.to_owned(), url(path), url("/connect/token")] {
        let assertion = signer.sign(&header(&signer), &claims("c", &audience, now()));
        let body = json!({
            "token": "none", "client_id": "c", "client_assertion": assertion,
            "client_assertion_type": super::JWT_BEARER,
        });
        let request = Request::new("POST", path).typed_body("application/json", body.to_string());
        let answer = server.ask(&request);
        assert_eq!((answer.status, &answer.json()[0]["errorCode"]), (400, &json!("240009")));
    }
}

#[test]
fn assertions_that_authenticate_are_counted_by_the_form_of_their_audience() {
    let signer = Signer::es256();
    let server = program(&signer, &settings(""));
    let counted = || {
        ["issuer", "issuer_array", "endpoint"].map(|form| {
            server.metric(&format!("grantd_assertion_audiences_total{{form=\"{form}\"}}"))
        })
    };
    let metrics = server.metrics();
    assert!(metrics.contains("# TYPE grantd_assertion_audiences_total counter"), "{metrics}");
    assert!(metrics.contains("grantd_assertion_audiences_total{form=\"issuer_array\"} 0"));
    let asking = Asking { server: &server, signer: &signer, header: header(&signer) };
    let one = |path: &str, audience: Value| {
        asking.is_accepted(Encoding::Multipart, path, &audience);
    };
    one("/connect/token", json!(ISSUER));
    assert_eq!(counted(), [1, 0, 0]);
    one("/connect/introspect", json!([ISSUER]));
    assert_eq!(counted(), [1, 1, 0]);
    one("/o/token", json!(url("/o/token")));
    one("/connect/revocation", json!([url("/connect/token")]));
    assert_eq!(counted(), [1, 1, 2]);
    // The server refuses an assertion for another server, `forged` (signed with another key) and
    // the second use of `used`. It counts none of these three. It accepts and counts the first use
    // of `used`.
    one("/connect/token", json!("https://other.example"));
    let stranger = Signer::es256();
    let forged = stranger.sign(&header(&stranger), &claims("c", ISSUER, now()));
    let used = signer.sign(&header(&signer), &claims("c", ISSUER, now()));
    for (assertion, status) in [(&forged, 400), (&used, 200), (&used, 400)] {
        let answer = server.ask(&request(Encoding::Urlencoded, assertion, &[]));
        assert_eq!(answer.status, status);
    }
    assert_eq!(counted(), [2, 1, 2]);
}

#[test]
fn a_reload_changes_what_is_accepted() {
    let signer = Signer::es256();
    let server = program(&signer, &settings(""));
    let asking = Asking { server: &server, signer: &signer, header: header(&signer) };
    let array = json!([ISSUER]);
    assert!(asking.is_accepted(Encoding::Urlencoded, "/connect/token", &array));
    server.home.write("grantd.toml", &settings("assertion_audience = \"issuer\""));
    server.hang_up();
    server.log.wait_for(|line| line["message"] == "reloaded");
    assert!(!asking.is_accepted(Encoding::Urlencoded, "/connect/token", &array));
    let answer = server.ask(&request(
        Encoding::Urlencoded,
        &signer.sign(&header(&signer), &claims("c", ISSUER, now())),
        &[],
    ));
    assert_eq!(Token::verified(&answer, server.address).claims["sub"], "c");
}

#[test]
fn check_names_the_clients_that_the_setting_concerns() {
    let key = Signer::es256().jwks();
    let secret = json!({ "auth_methods": ["client_secret_post"] });
    let clients =
        [("b", json!({ "jwks": key })), ("s", secret.clone()), ("a", json!({ "jwks": key }))];
    let home = home_of(&clients);
    let check = |home: &Home, toml: &str| {
        home.write("grantd.toml", toml);
        run(home.command(&["check", "--config", "grantd.toml"])).assert_fine().to_owned()
    };
    let strict = check(&home, "assertion_audience = \"issuer\"");
    let says = "note: assertion_audience = \"issuer\" refuses an assertion whose aud is an \
                endpoint's URL or an array; it applies to these private_key_jwt clients: a, b\n";
    assert!(strict.contains(says), "{strict}");
    for toml in ["", "assertion_audience = \"endpoint\""] {
        let open = check(&home, toml);
        let says = "note: assertion_audience = \"issuer\" is not set, ";
        assert!(
            open.contains(says) && open.contains("private_key_jwt clients must send the"),
            "{open}"
        );
        assert!(open.contains("as a string: a, b; grantd_assertion_audiences_total"), "{open}");
    }
    let without = home_of(&[("s", secret)]);
    assert!(!check(&without, "assertion_audience = \"issuer\"").contains("assertion"));

    home.write("grantd.toml", "\nassertion_audience = \"token\"\n");
    run(home.command(&["check", "--config", "grantd.toml"]))
        .assert_error(1, &["grantd.toml:2:22: assertion_audience: ", "endpoint", "issuer"]);
}
