//! Signs a client assertion (`private_key_jwt`) or a DPoP proof for each request of a load test,
//! and writes all of them to a file for `wrk`'s scripts.
//!
//! ```sh
//! cargo run --release --example signed -- client       # a key, and a registry with its client
//! cargo run --release --example signed -- assertion    # 20000 forms with an assertion each
//! cargo run --release --example signed -- dpop 50000 http://127.0.0.1:8080/connect/token
//! ```

use std::error::Error;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::{env, fs};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use grantd::clock::Clock;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

const USAGE: &str = "usage: signed client | assertion [count] [url] | dpop [count] [url]";

/// A function that makes one line of the file. The parameters are the signer, the number of the
/// line, the time in Unix seconds, and the URL.
type Line = fn(&Signer, u64, u64, &str) -> Result<String, Box<dyn Error>>;

/// The id of the client that authenticates with assertions.
const CLIENT: &str = "load-by-assertion";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let what = arguments.first().map_or("", String::as_str);
    let count: u64 = arguments.get(1).map_or(Ok(20_000), |count| count.parse())?;
    let url = arguments.get(2).map_or("http://127.0.0.1:8080/connect/token", String::as_str);
    let directory =
        env::var_os("SIGNED").map_or_else(|| "target/load/signed".into(), PathBuf::from);
    fs::create_dir_all(&directory)?;
    #[expect(clippy::disallowed_methods, reason = "a program of its own")]
    let random = SystemRandom::new();
    let signer = Signer::open(&directory.join("key"), random)?;
    if what == "client" {
        let file = directory.join("clients.json");
        fs::write(&file, format!("{:#}\n", registry(&signer)?))?;
        println!("grantd serve --clients {}", file.display());
        return Ok(());
    }
    let file = directory.join(what);
    let line: Line = match what {
        "assertion" => assertion,
        "dpop" => proof,
        _ => return Err(USAGE.into()),
    };
    let mut out = BufWriter::new(fs::File::create(&file)?);
    let now = Clock::unix_micros() / 1_000_000;
    for number in 0..count {
        writeln!(out, "{}", line(&signer, number, now, url)?)?;
    }
    out.flush()?;
    let good = if what == "dpop" { "a minute" } else { "five minutes" };
    println!("{count} in {}: good for {good}, and each for one use", file.display());
    Ok(())
}

/// Returns the shipped registry with an additional client. This client has the signer's public key.
fn registry(signer: &Signer) -> Result<Value, Box<dyn Error>> {
    let mut registry: Value = serde_json::from_str(include_str!("../../clients.json"))?;
    let client = json!({
        "client_id": CLIENT, "auth_methods": ["private_key_jwt"], "jwks": { "keys": [signer.jwk()] },
        "scopes": ["external-api"], "default_scopes": ["external-api"],
    });
    registry["clients"].as_array_mut().ok_or("clients.json has no list")?.push(client);
    Ok(registry)
}

/// Returns a token request with a client assertion (RFC 7523, section 2.2) as a form.
fn assertion(signer: &Signer, number: u64, now: u64, url: &str) -> Result<String, Box<dyn Error>> {
    // The audience is the server's issuer. This program supports only issuers without a path: the
    // part of the URL before the third slash.
    let issuer = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    let claims = json!({
        "iss": CLIENT, "sub": CLIENT, "aud": issuer, "jti": format!("{now}-{number}"),
        "iat": now, "exp": now + 300,
    });
    let assertion = signer.sign(&json!({ "alg": "ES256", "typ": "JWT" }), &claims)?;
    Ok(format!(
        "grant_type=client_credentials&client_assertion={assertion}&client_assertion_type=\
         urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
    ))
}

/// Returns a DPoP proof: the value of the `DPoP` header field (RFC 9449, section 4.2).
fn proof(signer: &Signer, number: u64, now: u64, url: &str) -> Result<String, Box<dyn Error>> {
    let header = json!({ "alg": "ES256", "typ": "dpop+jwt", "jwk": signer.jwk() });
    let jti = format!("{now}-{number}");
    signer.sign(&header, &json!({ "htm": "POST", "htu": url, "iat": now, "jti": jti }))
}

/// The client's key. It is kept in a file, so that all calls of this program use the same key.
struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    fn open(file: &std::path::Path, random: SystemRandom) -> Result<Self, Box<dyn Error>> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        if !file.exists() {
            let made =
                EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| "no random bytes")?;
            fs::write(file, made.as_ref())?;
        }
        let key = EcdsaKeyPair::from_pkcs8(algorithm, &fs::read(file)?, &random);
        let key = key.map_err(|error| format!("{}: {error}; remove it", file.display()))?;
        Ok(Self { key, random })
    }

    fn jwk(&self) -> Value {
        // An uncompressed point (SEC 1) is the byte 4, followed by both coordinates.
        let point = self.key.public_key().as_ref();
        let coordinate = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({ "kty": "EC", "crv": "P-256", "x": coordinate(&point[1..33]), "y": coordinate(&point[33..]) })
    }

    fn sign(&self, header: &Value, claims: &Value) -> Result<String, Box<dyn Error>> {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(header), part(claims));
        let signature =
            self.key.sign(&self.random, input.as_bytes()).map_err(|_| "no signature")?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
