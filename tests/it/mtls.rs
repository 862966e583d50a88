//! Client certificates behind a proxy, and tokens bound to them (RFC 8705).
//!
//! The certificates below were made by `openssl req -x509`, and their names were printed by
//! `openssl x509 -subject -nameopt RFC2253,-esc_msb`. The keys and hashes were made by other
//! openssl commands.

mod settings;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::form::percent_encode;
use crate::support::home::secret_of;
use crate::support::registry::{client_json, client_without_secret};
use crate::support::status::{INTROSPECT, REVOKE, assert_revoked};
use crate::support::{ENCODINGS, Encoding, Home, Program, Request, Response, Token, request_of};

const ODD: &str = include_str!("certificates/odd.pem");
const RSA: &str = include_str!("certificates/rsa.pem");
const ED25519: &str = include_str!("certificates/ed25519.pem");
const P384: &str = include_str!("certificates/p384.pem");

/// The subject of the certificate [`ODD`]. It has every escape of RFC 4514, a multi-valued RDN,
/// non-ASCII text, and an attribute type without a name.
const ODD_NAME: &str = r##"2.3.4=#0C07756E6B6E6F776E,emailAddress=ops@client.example,CN=\ padded\ ,OU=\#first+serialNumber=12345,O=Müller\, Söhne \+ Co. \<x\; y=z\> \\\"q\",DC=example,C=DE"##;
const ODD_HASH: &str = "a1f0241c2a08977476f6ad7b1c97910b30e9d1182b443b0978ebf7a740bf44f3";

fn odd_key() -> Value {
    json!({
        "kty": "EC", "crv": "P-256",
        "x": "zX3GV0mtUoJNbcPBgcp_sqVZw9CnjVB5Jcgc_S8yr8s",
        "y": "Mhkz3y9hxLWPtEP9o7SLLlSjaAsv-hutaZpaWqqbWU8",
    })
}

fn ed25519_key() -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "x": "VnzkxvifBHliwX-XoI4jLgLqKm4ylSY4WE196Lcxdr8" })
}

fn rsa_key() -> Value {
    json!({
        "kty": "RSA", "e": "AQAB",
        "n": "wc967anmNnOW_mUF68oWzW24maQOIgrDSC0CinniE2W1XTHhZTN27AMYuoAbWcDh5-vk3f3jdvwCnInxCoq9\
              csmwh7NLV8bkVzStMEEmc4IsNZXXu_zEBFrHbmI7POpno1SNNgYKlRueYRNs1qP3PhnLC3hVBX1bI6hDO1Be\
              FxgJ1rtJmHcfd66JVehwMwZgARKFWckGnlHFm4mbuvoaZl_7ZlTw5lrzjhe03bihyWaKJ3bWVufafPJykmLc\
              tQvy1aX_wM5j3is3zHI3dPSUPgyJPlALR1GiiI0kphiKbdNLOB9avlRzxFZ0XN6bFXv0tsH0UeoqcQgOR68U\
              VWp22w",
    })
}

/// Returns a home with a client for each way to authenticate by certificate.
fn home(toml: &str) -> Home {
    let by_name = |id: &str, field: &str, value: &str| {
        client_without_secret(id, &json!({ "auth_methods": ["tls_client_auth"], field: value }))
    };
    let by_keys = |id: &str, keys: &[Value]| {
        let methods = ["self_signed_tls_client_auth"];
        client_without_secret(id, &json!({ "auth_methods": methods, "jwks": { "keys": keys } }))
    };
    let mut off = by_name("off", "tls_client_auth_subject_dn", ODD_NAME);
    off["enabled"] = false.into();
    let mut bound = by_name("bound", "tls_client_auth_san_dns", "client.example");
    bound["tls_client_certificate_bound_access_tokens"] = true.into();
    let clients = [
        by_name("dn", "tls_client_auth_subject_dn", ODD_NAME),
        by_name("plain", "tls_client_auth_subject_dn", "CN=ed25519,O=Example,C=DE"),
        by_name("dns", "tls_client_auth_san_dns", "client.example"),
        by_name("dns2", "tls_client_auth_san_dns", "second.example"),
        by_name("uri", "tls_client_auth_san_uri", "spiffe://client.example/a"),
        by_name("ip4", "tls_client_auth_san_ip", "192.0.2.7"),
        by_name("ip6", "tls_client_auth_san_ip", "2001:0db8:0::7"),
        by_name("email", "tls_client_auth_san_email", "ops@client.example"),
        by_name("turned", "tls_client_auth_subject_dn", "C=DE,O=Example,CN=ed25519"),
        by_name("upper", "tls_client_auth_san_dns", "CLIENT.example"),
        by_name("part", "tls_client_auth_san_dns", "lient.example"),
        by_name("as-uri", "tls_client_auth_san_uri", "client.example"),
        by_name("as-dns", "tls_client_auth_san_dns", "192.0.2.7"),
        by_keys("keys", &[rsa_key(), ed25519_key(), odd_key()]),
        by_keys("other-key", &[rsa_key()]),
        off,
        bound,
        client_json(
            "bound-own",
            &json!({
                "tls_client_certificate_bound_access_tokens": true,
                "auth_methods": [
                    "client_secret_basic", "client_secret_post", "self_signed_tls_client_auth",
                ],
                "jwks": { "keys": [odd_key()] },
            }),
        ),
        client_json(
            "bound-by-jwt",
            &json!({
                "tls_client_certificate_bound_access_tokens": true,
                "auth_methods": ["client_secret_post", "private_key_jwt"],
                "jwks": { "keys": [odd_key()] },
            }),
        ),
        client_json("secret", &json!({})),
        client_json(
            "bound-secret",
            &json!({
                "tls_client_certificate_bound_access_tokens": true, "token_reuse": 60,
            }),
        ),
    ];
    let home = Home::new();
    home.register(&clients);
    home.write("grantd.toml", toml);
    home
}

fn program(toml: &str) -> Program {
    Program::start(home(toml), &["--config", "grantd.toml"])
}

/// Escapes a certificate as nginx does in `$ssl_client_escaped_cert`.
fn escaped(pem: &str) -> String {
    percent_encode(pem.as_bytes()).replace('+', "%20")
}

fn request(encoding: Encoding, client: &str) -> Request {
    Request::token(encoding, &[("grant_type", "client_credentials"), ("client_id", client)])
}

fn with(request: Request, pem: &str) -> Request {
    stated(request, "SUCCESS", pem)
}

/// Adds the header fields of a proxy to `request`: the proxy's verdict on the certificate, and the
/// certificate itself.
fn stated(request: Request, verified: &str, pem: &str) -> Request {
    request.header("X-Client-Cert-Verify", verified).header("X-Client-Cert", escaped(pem))
}

/// The verdicts of nginx, with OpenSSL 3 and with OpenSSL 1.1, on a self-signed certificate that is
/// in no CA file.
const SELF_SIGNED: [&str; 2] = ["FAILED:self-signed certificate", "FAILED:self signed certificate"];
/// Verdicts that must not be confused with [`SELF_SIGNED`]. nginx also gives the first two verdicts
/// on a leaf certificate that is forged.
const UNVERIFIED: [&str; 11] = [
    "FAILED:self-signed certificate in certificate chain",
    "FAILED:self signed certificate in certificate chain",
    "FAILED:unable to verify the first certificate",
    "FAILED:unable to get local issuer certificate",
    "FAILED:certificate has expired",
    "FAILED:Self-signed certificate",
    "FAILED:self-signed certificate, SUCCESS",
    "FAILED: self-signed certificate",
    "FAILED",
    "self-signed certificate",
    "NONE",
];

const TRUSTING: &str = "trusted_proxies = [\"127.0.0.1\"]";

#[test]
fn a_certificate_authenticates_by_its_registered_name_or_key() {
    let server = program(TRUSTING);
    for (client, pem, is_its) in [
        ("dn", ODD, true),
        ("dn", ED25519, false),
        ("plain", ED25519, true),
        ("plain", ODD, false),
        ("dns", ODD, true),
        ("dns2", ODD, true),
        ("uri", ODD, true),
        ("ip4", ODD, true),
        ("ip6", ODD, true),
        ("email", ODD, true),
        ("dns", ED25519, false),
        // The comparison is exact: no other order, case, part or kind of name matches.
        ("turned", ED25519, false),
        ("upper", ODD, false),
        ("part", ODD, false),
        ("as-uri", ODD, false),
        ("as-dns", ODD, false),
        ("keys", ODD, true),
        ("keys", RSA, true),
        ("keys", ED25519, true),
        ("keys", P384, false),
        ("other-key", ODD, false),
        // The client `secret` authenticates by its secret, `off` is disabled, and `unknown` is not
        // registered.
        ("secret", ODD, false),
        ("off", ODD, false),
        ("unknown", ODD, false),
    ] {
        for encoding in ENCODINGS {
            let answer = server.ask(&with(request(encoding, client), pem));
            if is_its {
                let token = Token::verified(&answer, server.address);
                assert_eq!(token.claims["sub"], client);
                assert_eq!(token.claims.get("cnf"), None);
            } else {
                answer.assert_refused(400, "invalid_client");
                let text = &answer.json()["error_description"];
                assert_eq!(text, "Client authentication failed.", "{client}");
            }
        }
    }
    // A request with a certificate but without `client_id` authenticates no client.
    let no_client = [("grant_type", "client_credentials")];
    let answer = server.ask(&with(Request::token(Encoding::Urlencoded, &no_client), ODD));
    answer.assert_refused(400, "invalid_client");
}

#[test]
fn a_certificate_authenticates_at_introspection_and_revocation() {
    let server = program(TRUSTING);
    for encoding in ENCODINGS {
        let issued = server.ask(&with(request(encoding, "dns"), ODD)).json();
        let form = [("client_id", "dns"), ("token", issued["access_token"].as_str().unwrap())];
        let ask = |path| Request::new("POST", path).form(encoding, &form);
        for path in [INTROSPECT, REVOKE] {
            server.ask(&ask(path)).assert_refused(400, "invalid_client");
            server.ask(&with(ask(path), ED25519)).assert_refused(400, "invalid_client");
        }
        let told = |server: &Program| server.ask(&with(ask(INTROSPECT), ODD)).json();
        assert_eq!(told(&server)["active"], true);
        assert_revoked(&server.ask(&with(ask(REVOKE), ODD)));
        assert_eq!(told(&server), json!({ "active": false }));
    }
}

#[test]
fn only_one_readable_certificate_with_success_counts() {
    let server = program(TRUSTING);
    let base = |encoding| request(encoding, "dns");
    for encoding in ENCODINGS {
        let bare = || base(encoding).header("X-Client-Cert", escaped(ODD));
        let verified = || base(encoding).header("X-Client-Cert-Verify", "SUCCESS");
        let requests = [
            base(encoding),
            bare(),
            verified(),
            bare().header("X-Client-Cert-Verify", "NONE"),
            bare().header("X-Client-Cert-Verify", SELF_SIGNED[0]),
            bare().header("X-Client-Cert-Verify", SELF_SIGNED[1]),
            bare().header("X-Client-Cert-Verify", "success"),
            bare().header("X-Client-Cert-Verify", "SUCCESS, SUCCESS"),
            bare().header("X-Client-Cert-Verify", "SUCCESS").header("X-Client-Cert-Verify", "NONE"),
            with(base(encoding), ODD).header("X-Client-Cert", escaped(ED25519)),
            verified().header("X-Client-Cert", ""),
            verified().header("X-Client-Cert", "client.example"),
            verified().header("X-Client-Cert", "%zz"),
            verified().header("X-Client-Cert", "%FF"),
            with(base(encoding), &ODD.replace("CERTIFICATE", "PUBLIC KEY")),
            with(base(encoding), &ODD[..ODD.len() - 60]),
            with(base(encoding), &[ED25519, ODD].concat()),
            with(base(encoding), &ODD.replacen("MII", "AAA", 1)),
        ];
        for (index, request) in requests.iter().enumerate() {
            let answer = server.ask(request);
            assert_eq!(answer.status, 400, "{index}: {}", answer.text());
            answer.assert_refused(400, "invalid_client");
        }
        assert_eq!(server.ask(&with(base(encoding), ODD)).status, 200);
    }
}

/// A self-signed certificate authenticates by its registered key; the names in it are ignored.
#[test]
fn a_self_signed_certificate_authenticates_by_its_registered_key_only() {
    let server = program(TRUSTING);
    for encoding in ENCODINGS {
        for (client, pem, is_its) in [
            ("keys", ODD, true),
            ("keys", RSA, true),
            ("keys", ED25519, true),
            ("keys", P384, false),
            ("other-key", ODD, false),
            ("dn", ODD, false),
            ("plain", ED25519, false),
            ("dns", ODD, false),
            ("uri", ODD, false),
            ("ip4", ODD, false),
            ("email", ODD, false),
            ("bound", ODD, false),
            ("bound-by-jwt", ODD, false),
            ("unknown", ODD, false),
        ] {
            for verified in SELF_SIGNED {
                let answer = server.ask(&stated(request(encoding, client), verified, pem));
                if is_its {
                    assert_eq!(Token::verified(&answer, server.address).claims["sub"], client);
                } else {
                    answer.assert_refused(400, "invalid_client");
                    let text = &answer.json()["error_description"];
                    assert_eq!(text, "Client authentication failed.", "{client}");
                }
            }
        }
        for verified in UNVERIFIED {
            for (client, pem) in [("keys", ODD), ("dns", ODD), ("plain", ED25519)] {
                let answer = server.ask(&stated(request(encoding, client), verified, pem));
                answer.assert_refused(400, "invalid_client");
            }
        }

        // Introspection and revocation make the same decisions as the token endpoint.
        let issued = server.ask(&with(request(encoding, "keys"), ODD)).json();
        let token = issued["access_token"].as_str().unwrap();
        for path in [INTROSPECT, REVOKE] {
            let ask = |client| {
                let form = [("client_id", client), ("token", token)];
                Request::new("POST", path).form(encoding, &form)
            };
            for verified in UNVERIFIED {
                let answer = server.ask(&stated(ask("keys"), verified, ODD));
                answer.assert_refused(400, "invalid_client");
            }
            for verified in SELF_SIGNED {
                let answer = server.ask(&stated(ask("dns"), verified, ODD));
                answer.assert_refused(400, "invalid_client");
                assert_eq!(server.ask(&stated(ask("keys"), verified, ODD)).status, 200);
            }
        }
    }
}

/// The token is bound to the certificate even if the client authenticates by its secret (RFC 8705,
/// section 3).
#[test]
fn a_token_is_bound_to_a_self_signed_certificate_whose_key_is_registered_for_it() {
    let server = program(TRUSTING);
    let requests = |client: &str| {
        let secret = secret_of(client);
        let json = json!({ "grant_type": "client_credentials", "scope": "read",
                           "client_id": client, "client_secret": secret });
        let vision = Request::new("POST", "/v1/api/oauth/token");
        let firstvision = Request::get("/v1/getAccessToken/read");
        let firstvision = firstvision.header("Content-Type", "application/json");
        [
            Request::token(Encoding::Urlencoded, &request_of(client, &secret, &[])),
            Request::token(Encoding::Multipart, &request_of(client, &secret, &[])),
            vision.typed_body("application/json", json.to_string()),
            firstvision.basic(&format!("{client}:{secret}")),
        ]
    };
    for request in requests("bound-own") {
        for verified in SELF_SIGNED {
            let answer = server.ask(&stated(request.clone(), verified, ODD));
            assert_eq!(answer.status, 200, "{}", answer.text());
            let token = answer.json()["access_token"].as_str().unwrap().to_owned();
            let payload = token.split('.').nth(1).unwrap();
            let claims: Value =
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
            assert!(claims["cnf"]["x5t#S256"].is_string(), "{claims}");
            let answer = server.ask(&stated(request.clone(), verified, ED25519));
            assert!([400, 401].contains(&answer.status), "{}", answer.text());
        }
        for verified in UNVERIFIED {
            let answer = server.ask(&stated(request.clone(), verified, ODD));
            assert!([400, 401].contains(&answer.status), "{}", answer.text());
        }
    }
    // No key is registered for a self-signed certificate of these clients: the key of
    // `bound-by-jwt` is for assertions only, and `bound-secret` has no key. The server therefore
    // refuses the self-signed certificate, but it accepts a certificate that nginx has verified.
    for request in
        requests("bound-secret").into_iter().chain(requests("bound-by-jwt").into_iter().take(2))
    {
        for verified in SELF_SIGNED {
            let answer = server.ask(&stated(request.clone(), verified, ODD));
            assert!([400, 401].contains(&answer.status), "{}", answer.text());
        }
        assert_eq!(server.ask(&with(request, ODD)).status, 200);
    }
}

#[test]
fn a_self_signed_certificate_in_the_ca_file_is_counted_and_warned_of() {
    const SERIES: &str = "grantd_self_signed_certificates_total";
    let mut server = program(TRUSTING);
    let ask = |pem| server.ask(&with(request(Encoding::Urlencoded, "keys"), pem)).status;
    assert_eq!([ask(ODD), ask(ED25519), ask(ED25519), ask(P384)], [200, 200, 200, 400]);
    let own = request(Encoding::Urlencoded, "keys");
    assert_eq!(server.ask(&stated(own, SELF_SIGNED[0], RSA)).status, 200);
    assert_eq!(server.metric(SERIES), 4);
    server.terminate();
    assert!(server.wait().success());
    let log = server.log.to_the_end();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let warned: Vec<_> = lines.filter(|line| line["subject"].is_string()).collect();
    assert_eq!(warned.len(), 3, "{warned:?}");
    for line in &warned {
        assert_eq!(line["level"], "WARN");
        assert!(line["message"].as_str().unwrap().contains("remove it from the CA file"), "{line}");
        assert!(line["subject"].as_str().unwrap().len() <= 128, "{line}");
    }
    assert_eq!(warned[1]["subject"], "CN=ed25519,O=Example,C=DE");
}

#[test]
fn a_token_is_bound_to_the_certificate() {
    let server = program(TRUSTING);
    let hash = (0..32).map(|at| u8::from_str_radix(&ODD_HASH[at * 2..at * 2 + 2], 16).unwrap());
    let expected = URL_SAFE_NO_PAD.encode(hash.collect::<Vec<_>>());
    let secret = secret_of("bound-secret");
    for encoding in ENCODINGS {
        let by_certificate = with(request(encoding, "bound"), ODD);
        let own = request_of("bound-secret", &secret, &[]);
        let by_secret = Request::token(encoding, &own);
        for request in [by_certificate, with(by_secret.clone(), ODD)] {
            let answer = server.ask(&request);
            let token = Token::verified(&answer, server.address);
            assert_eq!(token.claims["cnf"], json!({ "x5t#S256": expected }));
            // RFC 8705, section 3: the token type is still Bearer.
            assert_eq!(answer.json()["token_type"], "Bearer");

            // The request has no certificate, so the bound token is refused.
            let bearer = format!("Bearer {}", answer.json()["access_token"].as_str().unwrap());
            let validate = Request::get("/connect/validate").header("Authorization", bearer);
            assert_eq!(server.ask(&validate).status, 401);
        }
        server.ask(&by_secret).assert_refused(400, "invalid_request");
    }
    // A token is reused only for a request with the same certificate.
    let own = request_of("bound-secret", &secret, &[]);
    let ask = |pem: &str| server.ask(&with(Request::token(Encoding::Urlencoded, &own), pem));
    let token = |answer: &Response| answer.json()["access_token"].as_str().unwrap().to_owned();
    let [first, other, again] = [ask(ODD), ask(ED25519), ask(ODD)];
    assert_eq!(token(&first), token(&again));
    assert_ne!(token(&first), token(&other));
    assert_eq!(again.header("x-token-reuse"), Some("reused"));
    assert_eq!(other.header("x-token-reuse"), Some("fresh"));
}
