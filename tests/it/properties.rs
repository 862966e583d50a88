//! Both encodings of the same parameters get the same decision.
//!
//! The tests use only parameters that both encodings can express. In a multipart form, a name is in
//! a header line, so the name cannot contain control characters. A value cannot contain the
//! boundary, and no value in these tests contains the boundary.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

use crate::support::home::secret_of;
use crate::support::{DEMO, Encoding, Program, Request, Response, Token};

type Parameter = (String, Vec<u8>);

/// Generates the parameters of a request. Each may be right, missing, wrong, repeated or odd.
fn parameters() -> impl Strategy<Value = Vec<Parameter>> {
    // A request may have at most 16 parameters. 14 extra parameters and three others exceed this
    // limit.
    let crowd = prop_oneof![9 => Just(0), 1 => Just(14)].prop_map(|count| {
        let parameter = |index| (format!("x{index}"), b"y".to_vec());
        (0..count).map(parameter).collect::<Vec<Parameter>>()
    });
    (client(), prop::collection::vec(odd_parameter(), 0..3), crowd)
        .prop_map(|(client, odd, crowd)| [client, odd, crowd].concat())
        .prop_shuffle()
}

fn client() -> impl Strategy<Value = Vec<Parameter>> {
    let demo: Vec<Parameter> =
        DEMO.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect();
    let of = |client: &str| {
        let mut own = demo.clone();
        own[0].1 = client.into();
        own[1].1 = secret_of(client).into();
        own
    };
    // The clients that can get a token are listed several times, so the test chooses them more
    // often.
    let clients = [
        demo.clone(),
        demo.clone(),
        demo.clone(),
        of("two-audiences"),
        of("two-audiences"),
        of("one-audience"),
        of("no-default"),
        of("no-scope"),
        of("basic-only"),
        of("disabled"),
        of("expired"),
        of("unknown"),
    ];
    let change = prop_oneof![
        30 => Just(None),
        1 => Just(Some(Vec::new())),
        1 => odd_value().prop_map(Some),
    ];
    let missing = prop_oneof![12 => Just(None), 1 => (0..3_usize).prop_map(Some)];
    let changes = prop::collection::vec(change, 3);
    (prop::sample::select(clients.to_vec()), changes, missing).prop_map(
        |(mut client, changes, missing)| {
            for (parameter, change) in client.iter_mut().zip(changes) {
                if let Some(value) = change {
                    parameter.1 = value;
                }
            }
            if let Some(index) = missing {
                client.remove(index);
            }
            client
        },
    )
}

fn odd_parameter() -> impl Strategy<Value = Parameter> {
    let known = prop::sample::select(vec![
        "scope",
        "resource",
        "client_id",
        "client_secret",
        "grant_type",
        "client_assertion",
        "unknown",
        "Scope",
        "",
    ]);
    let name = prop_oneof![
        4 => known.prop_map(str::to_owned),
        1 => "[ -~]{1,8}",
        1 => any::<String>().prop_map(|name| name.replace(char::is_control, "")),
    ];
    let value = prop_oneof![3 => sensible_value(), 1 => odd_value()];
    (name, value)
}

fn sensible_value() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        "",
        "read",
        "write",
        "read write",
        "external-api",
        "https://api.example/one",
        "urn:example:two",
        "demo-client",
        "read  write",
        "Read",
    ])
    .prop_map(Vec::from)
}

fn odd_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => "[ -~]{0,40}".prop_map(String::into_bytes),
        3 => any::<String>().prop_map(String::into_bytes),
        1 => "[\\x00-\\x1f\\x7f%&+=;\r\n]{1,10}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 1..10),
    ]
}

/// Returns the parts of an answer that must be equal for equal requests: the status, the body
/// without the token, and the token's claims except its id and times.
fn decision(answer: &Response, server: &Program) -> (u16, Value, Option<Value>) {
    let mut body = answer.json();
    let mut claims = None;
    if answer.status == 200 {
        let mut token = Token::verified(answer, server.address);
        let members = token.claims.as_object_mut().unwrap();
        for own in ["jti", "iat", "exp"] {
            assert!(members.remove(own).is_some(), "{own}");
        }
        claims = Some(token.claims);
        body["access_token"] = Value::Null;
    }
    (answer.status, body, claims)
}

#[test]
fn both_encodings_get_the_same_decision() {
    let server = Program::shared();
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let granted = std::cell::Cell::new(0);
    TestRunner::new(config)
        .run(&parameters(), |parameters| {
            let ask = |encoding| {
                let answer = server.ask(&Request::token(encoding, &parameters));
                decision(&answer, &server)
            };
            let (urlencoded, multipart) = (ask(Encoding::Urlencoded), ask(Encoding::Multipart));
            prop_assert_eq!(&urlencoded, &multipart);
            prop_assert!([200, 400].contains(&urlencoded.0), "{:?}", urlencoded);
            granted.set(granted.get() + u32::from(urlencoded.0 == 200));
            Ok(())
        })
        .unwrap();
    // If the server refused nearly all requests, the comparison would prove little.
    assert!(granted.get() > 10, "{} of 200 were granted", granted.get());
}

#[test]
fn of_two_faults_both_encodings_report_the_same_one() {
    let server = Program::shared();
    let not_utf8 = ("unknown".to_owned(), vec![0xff]);
    let repeated = ("client_id".to_owned(), b"demo-client".to_vec());
    let demo = || DEMO.iter().map(|&(name, value)| (name.to_owned(), Vec::from(value)));
    for (odd, error) in [
        (vec![not_utf8.clone(), repeated.clone()], "must be valid UTF-8"),
        (vec![repeated.clone(), not_utf8], "must be valid UTF-8"),
        ((0..20).map(|_| repeated.clone()).collect(), "too many parameters"),
    ] {
        let parameters: Vec<Parameter> = demo().chain(odd).collect();
        for encoding in [Encoding::Urlencoded, Encoding::Multipart] {
            let answer = server.ask(&Request::token(encoding, &parameters));
            answer.assert_refused(400, "invalid_request");
            assert!(answer.text().contains(error), "{encoding:?}: {}", answer.text());
        }
    }
}
