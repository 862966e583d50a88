//! Tokens bound to a key that the client proves to hold (DPoP, RFC 9449).

use serde_json::{Value, json};

use crate::support::home::secret_of;
use crate::support::registry::{changed, client_json};
use crate::support::{
    ENCODINGS, Encoding, Home, Library, Program, Request, Response, Signer, Token, request_of,
};

const ISSUER: &str = "https://auth.example";
const URL: &str = "https://auth.example/connect/token";
const START: u64 = 1_750_384_800;
const NOW: u64 = START + 1000;

fn home() -> Home {
    let home = Home::new();
    let scopes = ["read", "aplus.read"];
    home.register(&[
        client_json("may", &json!({ "scopes": scopes })),
        client_json("must", &json!({ "scopes": scopes, "dpop_bound_access_tokens": true })),
        client_json("reuser", &json!({ "token_reuse": 600 })),
    ]);
    home
}

fn library() -> Library {
    let library = Library::start(home(), ISSUER, START);
    library.clock.set(NOW);
    library
}

fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("proof-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn header(signer: &Signer) -> Value {
    json!({ "typ": "dpop+jwt", "alg": signer.algorithm, "jwk": signer.jwk() })
}

fn claims(now: u64) -> Value {
    json!({ "jti": unique(), "htm": "POST", "htu": URL, "iat": now })
}

fn proof(signer: &Signer, now: u64) -> String {
    signer.sign(&header(signer), &claims(now))
}

fn request(encoding: Encoding, client: &str) -> Request {
    Request::token(encoding, &request_of(client, &secret_of(client), &[]))
}

fn ask(library: &Library, client: &str, proof: &str) -> Response {
    request(Encoding::Urlencoded, client).header("DPoP", proof).send(library.address)
}

#[test]
fn a_token_is_bound_to_the_key_of_the_proof() {
    let library = library();
    for signer in Signer::all() {
        for encoding in ENCODINGS {
            for client in ["may", "must"] {
                let request = request(encoding, client).header("DPoP", proof(&signer, NOW));
                let answer = request.send(library.address);
                let token = Token::verified(&answer, library.address);
                assert_eq!(answer.json()["token_type"], "DPoP");
                assert_eq!(token.claims["cnf"], json!({ "jkt": signer.thumbprint() }));
                assert_eq!(token.header["typ"], "at+jwt");
                assert_eq!(answer.header("dpop-nonce"), None);

                // The DPoP-bound token is refused if it is sent as a bearer token.
                let bearer = format!("Bearer {}", answer.json()["access_token"].as_str().unwrap());
                let validate = Request::get("/connect/validate").header("Authorization", bearer);
                assert_eq!(validate.send(library.address).status, 401);
            }
        }
    }
}

#[test]
fn a_proof_is_required_where_registered_and_optional_elsewhere() {
    let library = library();
    for encoding in ENCODINGS {
        let without = request(encoding, "must").send(library.address);
        without.assert_refused(400, "invalid_dpop_proof");
        let without = request(encoding, "may").send(library.address);
        assert_eq!(without.json()["token_type"], "Bearer");
        assert_eq!(Token::verified(&without, library.address).claims.get("cnf"), None);
    }
}

/// Returns the token requests of the dialects `vision` and `firstvision`, each with its method, its
/// path and the code of a refused proof.
fn sibling_requests(client: &str) -> [(Request, &'static str, &'static str, &'static str); 4] {
    let secret = secret_of(client);
    let body = json!({
        "grant_type": "client_credentials", "scope": "read",
        "client_id": client, "client_secret": secret,
    });
    let vision =
        |target| Request::new("POST", target).typed_body("application/json", body.to_string());
    let firstvision = |target| {
        let request = Request::get(target).header("Content-Type", "application/json");
        request.basic(&format!("{client}:{secret}"))
    };
    [
        (vision("/v1/api/oauth/token"), "POST", "/v1/api/oauth/token", "240008"),
        (vision("/v2/api/oauth/token?appContext=aplus"), "POST", "/v2/api/oauth/token", "240008"),
        (firstvision("/v1/getAccessToken?scope=read"), "GET", "/v1/getAccessToken", "AGT400BR"),
        (firstvision("/v1/getAccessToken/read"), "GET", "/v1/getAccessToken/read", "AGT400BR"),
    ]
}

#[track_caller]
fn assert_code(answer: &Response, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.text().contains(&format!("\"errorCode\":\"{code}\"")), "{}", answer.text());
}

#[test]
fn every_dialect_binds_a_token_to_the_key_of_the_proof() {
    let library = library();
    let signer = Signer::es256();
    let signed = |changes: &Value| signer.sign(&header(&signer), &changed(claims(NOW), changes));
    for client in ["may", "must"] {
        for (request, method, path, code) in sibling_requests(client) {
            let send = |proof: &str| request.clone().header("DPoP", proof).send(library.address);
            let url = format!("{ISSUER}{path}");
            let right = signed(&json!({ "htm": method, "htu": url }));
            let answer = send(&right);
            let token = Token::verified(&answer, library.address);
            assert_eq!(answer.json()["token_type"], "DPoP", "{path}");
            assert_eq!(token.claims["cnf"], json!({ "jkt": signer.thumbprint() }));
            assert_eq!(token.header["typ"], "at+jwt");
            assert_eq!(answer.header("dpop-nonce"), None);
            let own = json!({
                "token": answer.json()["access_token"],
                "client_id": client, "client_secret": secret_of(client),
            });
            let validate = Request::new("POST", "/v1/api/oauth/validateToken")
                .typed_body("application/json", own.to_string());
            assert_eq!(validate.send(library.address).json(), json!({ "valid": false }));

            let text_of = |answer: &Response| match answer.json() {
                Value::Array(errors) => errors[0]["invalid-params"][0].clone(),
                error => error["errorMessage"].clone(),
            };
            let other_method = if method == "GET" { "POST" } else { "GET" };
            for proof in [
                right,
                signed(&json!({ "htm": other_method, "htu": url })),
                signed(&json!({ "htm": method, "htu": URL })),
                signed(&json!({ "htm": method, "htu": format!("{url}/x") })),
                signed(&json!({ "htm": method, "htu": url, "iat": NOW - 61 })),
                String::new(),
                "a.b.c".to_owned(),
            ] {
                let answer = send(&proof);
                assert_code(&answer, 400, code);
                assert_eq!(text_of(&answer), "DPoP proof is not valid");
                assert_eq!(answer.header("dpop-nonce"), None);
            }
            let twice = [(); 2].map(|()| signed(&json!({ "htm": method, "htu": url })));
            let twice = twice
                .iter()
                .fold(request.clone(), |request, proof| request.header("DPoP", proof.as_str()));
            assert_code(&twice.send(library.address), 400, code);

            // Without a proof, nothing is different from a client without DPoP.
            let plain = request.send(library.address);
            if client == "may" {
                assert_eq!(plain.json()["token_type"], "Bearer");
                let token = Token::verified(&plain, library.address);
                assert_eq!((token.claims.get("cnf"), token.header.get("typ")), (None, None));
            } else {
                let code = if code == "240008" { "240101" } else { "AGT401UA" };
                assert_code(&plain, 401, code);
            }
        }
    }
}

#[test]
fn every_dialect_takes_a_nonce_and_the_url_of_its_route() {
    let home = home();
    home.write(
        "grantd.toml",
        "dpop_nonce = true\nissuer = \"https://auth.example/tenant\"\n\
         [[route]]\npath = \"/own/vision\"\ndialect = \"vision\"\n\
         [[route]]\npath = \"/own/get\"\ndialect = \"firstvision\"\n",
    );
    home.write_uses();
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let now = || grantd::clock::Clock::system().unix_seconds();
    let signer = Signer::eddsa();
    let [v1, v2, in_query, in_path] = sibling_requests("must");
    let own = |(request, method, _, code): &(Request, _, _, _), target: &str, path| {
        (request.clone().with_target(target), *method, path, *code)
    };
    let own_routes = [
        own(&v1, "/own/vision", "/own/vision"),
        own(&in_query, "/tenant/own/get?scope=read", "/own/get"),
        own(&in_path, "/own/get/read", "/own/get/read"),
    ];
    for (request, method, path, code) in [v1, v2, in_query, in_path].into_iter().chain(own_routes) {
        let send = |nonce: Value| {
            let changes = json!({
                "htm": method, "htu": format!("{ISSUER}/tenant{path}"), "nonce": nonce,
            });
            let proof = signer.sign(&header(&signer), &changed(claims(now()), &changes));
            server.ask(&request.clone().header("DPoP", proof))
        };
        let answer = send(json!(null));
        assert_code(&answer, 400, code);
        let answer = send(json!(answer.header("dpop-nonce").expect("a nonce")));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.json()["token_type"], "DPoP");
        assert!(answer.header("dpop-nonce").is_some());
    }
}

#[test]
fn a_wrong_claim_or_header_of_a_proof_is_refused() {
    let library = library();
    let signer = Signer::es256();
    let other = Signer::es256();
    let private = changed(signer.jwk(), &json!({ "d": "AA" }));
    let weak = json!({ "kty": "RSA", "e": "AQAB", "n": "_____w" });
    let mut proofs = Vec::new();
    for changes in [
        json!({ "typ": null }),
        json!({ "typ": "JWT" }),
        json!({ "typ": "at+jwt" }),
        json!({ "alg": "none" }),
        json!({ "alg": "HS256" }),
        json!({ "alg": "RS256" }),
        json!({ "alg": null }),
        json!({ "jwk": null }),
        json!({ "jwk": "AA" }),
        json!({ "jwk": other.jwk() }),
        json!({ "jwk": private }),
        json!({ "jwk": weak }),
        json!({ "jwk": { "kty": "oct", "k": "AA" } }),
        json!({ "jku": "https://evil.example" }),
        json!({ "crit": ["exp"] }),
    ] {
        let header = changed(header(&signer), &changes);
        proofs.push((changes.to_string(), signer.sign(&header, &claims(NOW))));
    }
    for changes in [
        json!({ "jti": null }),
        json!({ "jti": "" }),
        json!({ "jti": 5 }),
        json!({ "htm": null }),
        json!({ "htm": "GET" }),
        json!({ "htm": "post" }),
        json!({ "htu": null }),
        json!({ "htu": ISSUER }),
        json!({ "htu": "/connect/token" }),
        json!({ "htu": "http://auth.example/connect/token" }),
        json!({ "htu": "https://evil.example/connect/token" }),
        json!({ "htu": "https://auth.example/connect/token/" }),
        json!({ "htu": "https://auth.example/connect/introspect" }),
        json!({ "iat": null }),
        json!({ "iat": NOW.to_string() }),
        json!({ "iat": NOW - 61 }),
        json!({ "iat": NOW + 11 }),
        json!({ "iat": -1 }),
    ] {
        let claims = changed(claims(NOW), &changes);
        proofs.push((changes.to_string(), signer.sign(&header(&signer), &claims)));
    }
    let good = proof(&signer, NOW);
    let last = good.rfind('.').unwrap();
    proofs.extend([
        ("no signature".to_owned(), good[..=last].to_owned()),
        ("two parts".to_owned(), good[..last].to_owned()),
        ("empty".to_owned(), String::new()),
        ("dots".to_owned(), ".".repeat(8000)),
        ("two in one".to_owned(), format!("{good}, {good}")),
    ]);
    for (what, proof) in &proofs {
        for encoding in ENCODINGS {
            let request = request(encoding, "may").header("DPoP", proof.as_str());
            let answer = request.send(library.address);
            assert_eq!(answer.status, 400, "{what}: {}", answer.text());
            answer.assert_refused(400, "invalid_dpop_proof");
        }
    }
    let twice = request(Encoding::Multipart, "may")
        .header("DPoP", proof(&signer, NOW))
        .header("DPoP", proof(&signer, NOW));
    twice.send(library.address).assert_refused(400, "invalid_dpop_proof");

    for changes in [
        json!({ "htu": "HTTPS://Auth.Example:443/connect/./token" }),
        json!({ "htu": "https://auth.example/connect/token?a=b#c" }),
        json!({ "iat": NOW - 60 }),
        json!({ "iat": NOW + 10 }),
    ] {
        let claims = changed(claims(NOW), &changes);
        let answer = ask(&library, "may", &signer.sign(&header(&signer), &claims));
        assert_eq!(answer.status, 200, "{changes}: {}", answer.text());
    }
}

#[test]
fn a_proof_names_the_url_that_was_called() {
    let home = home();
    home.write(
        "grantd.toml",
        "issuer = \"https://auth.example/tenant\"\n\
         [[route]]\npath = \"/api/connect/token\"\ndialect = \"connect\"\n\
         [[route]]\npath = \"/o/token/\"\ndialect = \"connect\"\n",
    );
    home.write_uses();
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let now = || grantd::clock::Clock::system().unix_seconds();
    let signer = Signer::es256();
    let paths = ["/connect/token", "/api/connect/token", "/o/token/"];
    for encoding in ENCODINGS {
        for called in paths {
            for proven in paths {
                let url = format!("https://auth.example/tenant{proven}");
                // A proxy may keep or remove the issuer's path (`/tenant`) in front of `called`.
                // The server treats both targets as the same URL.
                for target in [called.to_owned(), format!("/tenant{called}")] {
                    let claims = changed(claims(now()), &json!({ "htu": url }));
                    let proof = signer.sign(&header(&signer), &claims);
                    let request = request(encoding, "must").header("DPoP", proof);
                    let answer = server.ask(&request.with_target(&target));
                    if called == proven {
                        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
                        assert_eq!(answer.json()["token_type"], "DPoP");
                    } else {
                        answer.assert_refused(400, "invalid_dpop_proof");
                    }
                }
            }
        }
        for url in ["https://auth.example/o/token/", "https://auth.example/tenant/tenant/o/token/"]
        {
            let claims = changed(claims(now()), &json!({ "htu": url }));
            let proof = signer.sign(&header(&signer), &claims);
            let request = request(encoding, "must").header("DPoP", proof);
            let answer = server.ask(&request.with_target("/tenant/o/token/"));
            answer.assert_refused(400, "invalid_dpop_proof");
        }
    }
}

#[test]
fn of_concurrent_uses_of_a_proof_one_is_accepted() {
    let library = library();
    let signer = Signer::eddsa();
    let good = proof(&signer, NOW);
    // A request that fails to authenticate does not use up its proof.
    let wrong = Request::token(Encoding::Urlencoded, &request_of("may", "wrong", &[]));
    let wrong = wrong.header("DPoP", good.as_str()).send(library.address);
    wrong.assert_refused(400, "invalid_client");
    let granted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|number| {
                let request = request(ENCODINGS[number % 2], "may").header("DPoP", good.as_str());
                let address = library.address;
                scope.spawn(move || {
                    let answer = request.send(address);
                    if answer.status != 200 {
                        answer.assert_refused(400, "invalid_dpop_proof");
                    }
                    usize::from(answer.status == 200)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(granted, 1);
    for at in [NOW + 10, NOW + 3600, NOW, NOW - 3600, NOW + 5] {
        library.clock.set(at);
        ask(&library, "may", &good).assert_refused(400, "invalid_dpop_proof");
    }
    // A proof id (`jti`) may be used once with each key.
    library.clock.set(NOW);
    let same = changed(claims(NOW), &json!({ "jti": "same" }));
    let [one, two] = [Signer::es256(), Signer::es256()].map(|s| s.sign(&header(&s), &same));
    assert_eq!(ask(&library, "may", &one).status, 200);
    assert_eq!(ask(&library, "may", &two).status, 200);
    ask(&library, "may", &two).assert_refused(400, "invalid_dpop_proof");
}

#[test]
fn a_proof_from_before_the_record_of_uses_is_refused() {
    let library = Library::start(home(), ISSUER, START);
    library.clock.set(START + 12);
    let signer = Signer::es256();
    ask(&library, "may", &proof(&signer, START + 10)).assert_refused(400, "invalid_dpop_proof");
    assert_eq!(ask(&library, "may", &proof(&signer, START + 11)).status, 200);
    // After a restart, nothing more is refused.
    let library = library.restart(ISSUER, START + 13);
    assert_eq!(ask(&library, "may", &proof(&signer, START + 11)).status, 200);
}

#[test]
fn a_used_proof_dated_ahead_is_refused_after_a_restart() {
    let library = library();
    let signer = Signer::es256();
    let ahead = proof(&signer, NOW + 8);
    assert_eq!(ask(&library, "may", &ahead).status, 200);
    let library = library.restart(ISSUER, NOW + 1);
    library.clock.set(NOW + 2);
    ask(&library, "may", &ahead).assert_refused(400, "invalid_dpop_proof");
    assert_eq!(ask(&library, "may", &proof(&signer, NOW + 2)).status, 200);
}

#[test]
fn a_bound_token_is_reused_for_the_same_key_only() {
    let library = library();
    let [one, two] = [Signer::es256(), Signer::es256()];
    let token = |signer: Option<&Signer>| {
        let request = request(Encoding::Urlencoded, "reuser");
        let request = match signer {
            Some(signer) => request.header("DPoP", proof(signer, NOW)),
            None => request,
        };
        let answer = request.send(library.address);
        let token_type = if signer.is_some() { "DPoP" } else { "Bearer" };
        assert_eq!(answer.json()["token_type"], token_type);
        answer.json()["access_token"].as_str().unwrap().to_owned()
    };
    let [first, second, bearer] = [token(Some(&one)), token(Some(&two)), token(None)];
    assert_ne!(first, second);
    assert_ne!(first, bearer);
    let again = [token(Some(&one)), token(Some(&two)), token(None)];
    assert_eq!(again, [first, second, bearer]);
}

#[test]
fn a_nonce_is_required_issued_and_accepted_for_a_while() {
    let home = home();
    home.write("grantd.toml", "dpop_nonce = true\nissuer = \"https://auth.example\"");
    home.write_uses();
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let now = || grantd::clock::Clock::system().unix_seconds();
    let signer = Signer::es256();
    let with = |nonce: Value| {
        let claims = changed(claims(now()), &json!({ "nonce": nonce }));
        signer.sign(&header(&signer), &claims)
    };
    for encoding in ENCODINGS {
        let ask = |proof: &str| server.ask(&request(encoding, "must").header("DPoP", proof));
        let told = |answer: &Response| answer.header("dpop-nonce").map(str::to_owned);
        for nonce in [json!(null), json!(""), json!("made-up"), json!("AAAAAAAAAAAAAAAAAAAAAA")] {
            let answer = ask(&with(nonce));
            answer.assert_refused(400, "use_dpop_nonce");
            let nonce = told(&answer).expect("a nonce");
            // A proof with the nonce from the answer is accepted.
            let answer = ask(&with(json!(nonce)));
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(told(&answer).is_some());
        }
        // A malformed proof is refused as invalid, and the answer contains no nonce.
        let answer = ask("a.b.c");
        answer.assert_refused(400, "invalid_dpop_proof");
        assert_eq!(told(&answer), None);
        // A request without a proof needs no nonce.
        let plain = server.ask(&request(encoding, "may"));
        assert_eq!((plain.status, told(&plain)), (200, None));
    }
}

#[test]
fn metadata_names_the_algorithms() {
    let library = library();
    let document = Request::get("/.well-known/oauth-authorization-server").send(library.address);
    let algorithms = &document.json()["dpop_signing_alg_values_supported"];
    assert_eq!(algorithms, &json!(["RS256", "PS256", "ES256", "EdDSA"]));
}
