//! The rules of the token endpoint, by number. Rule 5 (throttling) and the part of rule 20 about
//! slow hashes are tested in `throttle.rs` and `password_hashes.rs`.

use crate::support::home::secret_of;
use crate::support::registry::{ODD_SECRET, PERCENT_SECRET};
use crate::support::{
    DEMO, ENCODINGS, Encoding, Program, Request, Response, TOKEN, Token, demo_with, demo_without,
    request_of,
};

const BASIC: &str = "demo-client:demo-secret-for-local-use-only-0001";
const GRANT: [(&str, &str); 1] = [("grant_type", "client_credentials")];

/// Sends the parameters in both encodings and passes each answer to `check`.
#[track_caller]
fn ask_both(parameters: &[(&str, &str)], mut check: impl FnMut(&Response)) {
    let server = Program::shared();
    for encoding in ENCODINGS {
        check(&server.ask(&Request::token(encoding, parameters)));
    }
}

#[track_caller]
fn assert_granted(answer: &Response) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["token_type"], "Bearer");
}

#[test]
fn rule_01_only_post_gets_a_token() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post", "PROPFIND"] {
            let answer = server.ask(&Request::new(method, TOKEN).form(encoding, &DEMO));
            answer.assert_refused(405, "invalid_request");
            assert_eq!(answer.header("allow"), Some("POST"), "{method}");
        }
        let answer = server.ask(&Request::new("HEAD", TOKEN).form(encoding, &DEMO));
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    }
}

#[test]
fn rule_02_parameters_in_the_uri_are_refused() {
    let server = Program::shared();
    let [id, secret, grant] = DEMO.map(|(name, value)| format!("{name}={value}"));
    for encoding in ENCODINGS {
        for query in [
            &secret,
            &id,
            &grant,
            "scope=external-api",
            "resource=urn%3Aa",
            "client_assertion=a",
            "client%5Fsecret=x",
            "a=b&client_secret=",
        ] {
            let target = format!("{TOKEN}?{query}");
            for parameters in [DEMO.to_vec(), demo_without(&["client_secret"])] {
                let request = Request::token(encoding, &parameters).with_target(&target);
                server.ask(&request).assert_refused(400, "invalid_request");
            }
        }
        let all = format!("{TOKEN}?{id}&{secret}&{grant}");
        let no_body = Request::token(encoding, &[] as &[(&str, &str)]).with_target(&all);
        server.ask(&no_body).assert_refused(400, "invalid_request");

        let harmless = Request::token(encoding, &DEMO).with_target(&format!("{TOKEN}?trace=1"));
        assert_granted(&server.ask(&harmless));
    }
}

#[test]
fn rule_03_two_client_authentications_are_refused() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        for more in [
            &[("client_assertion", "a.b.c")][..],
            &[("client_assertion", "a.b.c"), ("client_assertion_type", "urn:x")],
        ] {
            let answer = server.ask(&Request::token(encoding, &demo_with(more)));
            answer.assert_refused(400, "invalid_request");
        }
        let twice = Request::token(encoding, &DEMO).basic(BASIC);
        server.ask(&twice).assert_refused(400, "invalid_request");
        let two_headers = Request::token(encoding, &GRANT).basic(BASIC).basic(BASIC);
        server.ask(&two_headers).assert_refused(400, "invalid_request");
        let assertion = demo_without(&["client_secret", "client_id"]);
        let assertion = [assertion, vec![("client_assertion", "a.b.c")]].concat();
        let beside_basic = Request::token(encoding, &assertion).basic(BASIC);
        server.ask(&beside_basic).assert_refused(400, "invalid_request");
    }
}

#[test]
fn rule_04_basic_halves_are_form_decoded_and_split_at_the_first_colon() {
    let server = Program::shared();
    let odd = crate::support::form::percent_encode(ODD_SECRET.as_bytes());
    for encoding in ENCODINGS {
        let basic = |pair: &str| server.ask(&Request::token(encoding, &GRANT).basic(pair));
        assert_granted(&basic(BASIC));
        // This client form-encodes both halves (RFC 6749, section 2.3.1).
        assert_granted(&basic(&format!("an%3Aidentifier:{odd}")));
        assert_granted(&basic(&format!("an%3aidentifier:{}", odd.to_lowercase_triplets())));
        assert_granted(&basic("demo%2Dclient:demo-secret-for-local-use-only-0001"));
        // This client does not form-encode, and its secret is not a valid form encoding.
        assert_granted(&basic(&format!("percent:{PERCENT_SECRET}")));
        // The id ends at the first colon, and `an` is not a client.
        basic(&format!("an:identifier:{odd}")).assert_refused(401, "invalid_client");

        for scheme in ["basic", "BASIC", "bAsIc"] {
            let encoded = Request::token(encoding, &GRANT).basic(BASIC);
            let bytes = String::from_utf8(encoded.to_bytes()).unwrap();
            let bytes = bytes.replace("Authorization: Basic", &format!("Authorization: {scheme}"));
            let mut connection = crate::support::Connection::open(server.address);
            connection.send(bytes.as_bytes());
            assert_granted(&connection.read_answer());
        }
    }
}

trait Triplets {
    fn to_lowercase_triplets(&self) -> String;
}

impl Triplets for str {
    /// Converts the digits of percent triplets to lower case. Both cases are valid (RFC 3986,
    /// section 2.1).
    fn to_lowercase_triplets(&self) -> String {
        let mut parts = self.split('%');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| {
            let (digits, rest) = part.split_at(2);
            text + "%" + &digits.to_ascii_lowercase() + rest
        })
    }
}

#[test]
fn rule_06_repeated_parameters_are_refused() {
    for (name, value) in [
        ("client_id", "demo-client"),
        ("client_secret", "demo-secret-for-local-use-only-0001"),
        ("grant_type", "client_credentials"),
        ("grant_type", ""),
    ] {
        ask_both(&demo_with(&[(name, value)]), |a| a.assert_refused(400, "invalid_request"));
    }
    for more in [
        &[("scope", "external-api"), ("scope", "external-api")][..],
        &[("scope", ""), ("scope", "external-api")],
        &[("unknown", "a"), ("unknown", "b")],
    ] {
        ask_both(&demo_with(more), |answer| answer.assert_refused(400, "invalid_request"));
    }
    // A parameter in the body and again in the query counts as repeated.
    let server = Program::shared();
    for encoding in ENCODINGS {
        let request = Request::token(encoding, &demo_with(&[("trace", "1")]));
        let answer = server.ask(&request.with_target(&format!("{TOKEN}?trace=2")));
        answer.assert_refused(400, "invalid_request");
    }
}

#[test]
fn rule_07_unknown_parameters_are_ignored() {
    let more = [("foo", "bar"), ("Scope", "nothing"), ("audience", "x"), ("é", "\u{1f511}\n\0")];
    ask_both(&demo_with(&more), |answer| {
        assert_granted(answer);
        assert_eq!(answer.json()["scope"], "external-api");
    });
}

#[test]
fn rule_08_an_empty_value_counts_as_absent() {
    ask_both(&demo_with(&[("scope", ""), ("resource", ""), ("client_assertion", "")]), |answer| {
        assert_granted(answer);
        assert_eq!(answer.json()["scope"], "external-api");
    });
    for name in ["client_id", "client_secret"] {
        let parameters = [demo_without(&[name]), vec![(name, "")]].concat();
        ask_both(&parameters, |answer| answer.assert_refused(400, "invalid_client"));
    }
    let server = Program::shared();
    for encoding in ENCODINGS {
        let empty =
            [("grant_type", "client_credentials"), ("client_id", ""), ("client_secret", "")];
        assert_granted(&server.ask(&Request::token(encoding, &empty).basic(BASIC)));
    }
}

#[test]
fn rule_09_parameters_are_utf_8() {
    let server = Program::shared();
    for encoding in ENCODINGS {
        for bad in [&b"\xff"[..], b"a\xc3(", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"] {
            let mut parameters: Vec<(&[u8], &[u8])> =
                DEMO.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            parameters.push((b"unknown", bad));
            let answer = server.ask(&Request::token(encoding, &parameters));
            answer.assert_refused(400, "invalid_request");
            assert_eq!(answer.json()["error_description"], "Names and values must be valid UTF-8.");

            parameters.pop();
            parameters.push((bad, b"value"));
            let answer = server.ask(&Request::token(encoding, &parameters));
            answer.assert_refused(400, "invalid_request");
        }
    }
}

#[test]
fn rule_10_client_id_and_secret_are_printable_ascii() {
    for bad in ["\u{7f}", "demo\tclient", "demo-client\n", "é", "\0", "demo\u{a0}client"] {
        for name in ["client_id", "client_secret"] {
            let parameters = [demo_without(&[name]), vec![(name, bad)]].concat();
            ask_both(&parameters, |answer| answer.assert_refused(400, "invalid_request"));
        }
    }
    let odd = request_of("an:identifier", ODD_SECRET, &[]);
    ask_both(&odd, assert_granted);
}

#[test]
fn rule_11_grant_type_is_checked_first() {
    ask_both(&demo_without(&["grant_type"]), |answer| {
        answer.assert_refused(400, "invalid_request");
        assert_eq!(answer.text(), r#"{"error":"invalid_request"}"#);
    });
    for unknown in ["password", "authorization_code", "Client_Credentials", "client_credentials "] {
        let parameters = [demo_without(&["grant_type"]), vec![("grant_type", unknown)]].concat();
        ask_both(&parameters, |answer| answer.assert_refused(400, "unsupported_grant_type"));
    }
    let secret = secret_of("no-scope");
    let not_allowed = request_of("no-scope", &secret, &[]);
    ask_both(&not_allowed, |answer| answer.assert_refused(400, "unauthorized_client"));
}

#[test]
fn rule_12_there_are_no_public_clients() {
    ask_both(&demo_without(&["client_secret"]), |a| a.assert_refused(400, "invalid_client"));
    ask_both(&GRANT, |answer| answer.assert_refused(400, "invalid_client"));
    for secret in ["x", "$sha256$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let parameters = request_of("no-secret", secret, &[]);
        ask_both(&parameters, |answer| answer.assert_refused(400, "invalid_client"));
    }
}

#[test]
fn rule_13_there_is_never_a_refresh_token() {
    ask_both(&DEMO, |answer| {
        let body = answer.json();
        let members: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["access_token", "expires_in", "token_type", "scope"]);
    });
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", "x")];
    let parameters = [demo_without(&["grant_type"]), refresh.to_vec()].concat();
    ask_both(&parameters, |answer| answer.assert_refused(400, "unsupported_grant_type"));
}

#[test]
fn rule_14_scope_follows_its_grammar_and_its_case() {
    let secret = secret_of("one-audience");
    for bad in [
        "read\twrite",
        " read\t",
        "\u{a0}read",
        "read\nwrite",
        "read,write",
        "READ",
        "\"read\"",
        "re\\ad",
        "é",
        "read write admin",
        "read+write",
        "\u{7f}",
    ] {
        let parameters = request_of("one-audience", &secret, &[("scope", bad)]);
        ask_both(&parameters, |answer| answer.assert_refused(400, "invalid_scope"));
    }
}

#[test]
fn rule_15_the_answer_names_the_granted_scope() {
    let secret = secret_of("one-audience");
    let server = Program::shared();
    for encoding in ENCODINGS {
        for (asked, granted) in [
            ("read", "read"),
            ("write read", "write read"),
            ("read read", "read"),
            ("write read write", "write read"),
        ] {
            let parameters = request_of("one-audience", &secret, &[("scope", asked)]);
            let answer = server.ask(&Request::token(encoding, &parameters));
            assert_granted(&answer);
            assert_eq!(answer.json()["scope"], granted);
            assert_eq!(Token::verified(&answer, server.address).claims["scope"], granted);
        }
    }
}

#[test]
fn rule_16_without_scope_there_is_the_default_or_none() {
    let secret = secret_of("one-audience");
    ask_both(&request_of("one-audience", &secret, &[]), |answer| {
        assert_granted(answer);
        assert_eq!(answer.json()["scope"], "read");
    });
    let secret = secret_of("no-default");
    ask_both(&request_of("no-default", &secret, &[]), |a| a.assert_refused(400, "invalid_scope"));
    let vision = request_of("vision-api-user", "abcdefghizklmnopponommnshfghzxxs", &[]);
    ask_both(&vision, |answer| answer.assert_refused(400, "invalid_scope"));
}

#[test]
fn rule_17_the_answer_is_json_with_no_store() {
    ask_both(&DEMO, |answer| {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("pragma"), Some("no-cache"));
    });
}

#[test]
fn rule_18_errors_are_400_or_401_if_authorization_was_used() {
    let wrong = [demo_without(&["client_secret"]), vec![("client_secret", "wrong")]].concat();
    ask_both(&wrong, |answer| answer.assert_refused(400, "invalid_client"));
    let server = Program::shared();
    for encoding in ENCODINGS {
        let answer = server.ask(&Request::token(encoding, &GRANT).basic("demo-client:wrong"));
        answer.assert_refused(401, "invalid_client");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Basic realm=\""), "{challenge}");
        // A fault other than failed authentication gets 400, even with an `Authorization` field.
        let scope = [("grant_type", "client_credentials"), ("scope", "nothing")];
        let answer = server.ask(&Request::token(encoding, &scope).basic(BASIC));
        answer.assert_refused(400, "invalid_scope");
    }
}

#[test]
fn rule_19_descriptions_do_not_echo_the_request() {
    const CANARY: &str = "Kanarienvogel";
    let server = Program::shared();
    let canary = |name: &'static str| [demo_without(&[name]), vec![(name, CANARY)]].concat();
    for encoding in ENCODINGS {
        let mut refused = vec![
            Request::token(encoding, &canary("client_id")),
            Request::token(encoding, &canary("client_secret")),
            Request::token(encoding, &canary("grant_type")),
            Request::token(encoding, &demo_with(&[("scope", CANARY)])),
            Request::token(encoding, &demo_with(&[("resource", CANARY)])),
            Request::token(encoding, &demo_with(&[(CANARY, "a"), (CANARY, "b")])),
            Request::token(encoding, &DEMO).with_target(&format!("/{CANARY}")),
            Request::token(encoding, &GRANT).header("Authorization", CANARY),
            Request::token(encoding, &DEMO).with_target(&format!("{TOKEN}?scope={CANARY}")),
        ];
        refused.push(Request::new("POST", TOKEN).typed_body(CANARY, CANARY));
        refused.push(Request::new(&CANARY.to_uppercase(), TOKEN));
        for request in refused {
            let answer = server.ask(&request);
            assert!(answer.status >= 400);
            let shown = format!("{answer:?}{}", answer.text()).to_lowercase();
            assert!(!shown.contains(&CANARY.to_lowercase()), "{shown}");
            let body = answer.json();
            let description = body["error_description"].as_str().unwrap();
            assert!(!description.is_empty());
            let plain = |b| matches!(b, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E);
            assert!(description.bytes().all(plain), "{description}");
        }
    }
}

#[test]
fn rule_20_answers_do_not_reveal_which_clients_exist() {
    let server = Program::shared();
    let clients = [
        ("unregistered-client", "x".repeat(40)),
        ("unregistered-client", "x".to_owned()),
        ("one-audience", "x".repeat(40)),
        ("one-audience", secret_of("two-audiences")),
        ("disabled", secret_of("disabled")),
        ("disabled", "x".repeat(40)),
        ("expired", secret_of("expired")),
        ("not-yet", secret_of("not-yet")),
        ("no-secret", "x".repeat(40)),
    ];
    for encoding in ENCODINGS {
        let posted = clients.iter().map(|(id, secret)| {
            server.ask(&Request::token(encoding, &request_of(id, secret, &[])))
        });
        assert_all_alike(&posted.collect::<Vec<_>>(), 400);
        let in_header = clients.iter().map(|(id, secret)| {
            server.ask(&Request::token(encoding, &GRANT).basic(&format!("{id}:{secret}")))
        });
        assert_all_alike(&in_header.collect::<Vec<_>>(), 401);
    }
    // A client that uses a wrong authentication method gets the same answer as an unknown client.
    let secret = secret_of("basic-only");
    let wrong_method =
        Request::token(Encoding::Urlencoded, &request_of("basic-only", &secret, &[]));
    let unknown = Request::token(Encoding::Urlencoded, &request_of("unknown", &secret, &[]));
    assert_all_alike(&[server.ask(&wrong_method), server.ask(&unknown)], 400);
    let secret = secret_of("post-only");
    let basic = |id: &str| {
        server.ask(&Request::token(Encoding::Multipart, &GRANT).basic(&format!("{id}:{secret}")))
    };
    assert_all_alike(&[basic("post-only"), basic("unknown")], 401);
}

#[track_caller]
fn assert_all_alike(answers: &[Response], status: u16) {
    for answer in answers {
        answer.assert_refused(status, "invalid_client");
        assert_eq!(answer.without_id_and_date(), answers[0].without_id_and_date());
    }
}
