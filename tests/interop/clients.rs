//! Widely used OAuth libraries, in the versions that their package registries ship.

use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oauth2::basic::BasicClient;
use oauth2::http::StatusCode;
use oauth2::{
    AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, IntrospectionUrl, RevocationUrl,
    Scope, StandardRevocableToken, TokenIntrospectionResponse, TokenResponse, TokenUrl,
};

use crate::support::command::{python, run, succeed};
use crate::support::home::{hash_of, secret_of};
use crate::support::nginx::Nginx;
use crate::support::registry::client_with_hash;
use crate::support::sibling::{self, USER};
use crate::support::{Home, Program, Signer};

/// Each authentication method, and a client that is registered for this method only.
const METHODS: [(&str, &str); 2] =
    [("client_secret_basic", "basic-only"), ("client_secret_post", "post-only")];

/// Authlib gets, introspects and revokes a token; PyJWT verifies it.
#[test]
fn authlib_and_pyjwt_get_verify_introspect_and_revoke() {
    const SCRIPT: &str = r#"
import sys
import jwt
from authlib.integrations.requests_client import OAuth2Session

issuer, method, client, secret = sys.argv[1:]
session = OAuth2Session(client, secret, token_endpoint_auth_method=method,
                        revocation_endpoint_auth_method=method, scope="read")
token = session.fetch_token(issuer + "/connect/token", grant_type="client_credentials")["access_token"]
keys = jwt.PyJWKClient(issuer + "/.well-known/openid-configuration/jwks")
key = keys.get_signing_key_from_jwt(token).key
claims = jwt.decode(token, key, algorithms=["RS256"], issuer=issuer, audience=issuer)
print(claims["client_id"], claims["scope"])

def is_active():
    answer = session.introspect_token(issuer + "/connect/introspect", token=token)
    return answer.json()["active"]

print(is_active())
print(session.revoke_token(issuer + "/connect/revocation", token=token).status_code)
print(is_active())
"#;
    let server = Program::shared();
    for (method, client) in METHODS {
        let arguments = [SCRIPT, &server.issuer, method, client, &secret_of(client)];
        let printed = succeed(Command::new(python()).arg("-c").args(arguments));
        assert_eq!(printed, format!("{client} read\nTrue\n200\nFalse\n"), "{method}");
    }
}

/// Versions 4 and 5 of Java's Apache HttpClient label forms and parts as ISO-8859-1. The server
/// must accept this label.
#[test]
fn apache_http_client_gets_tokens() {
    let server = Program::start(sibling::home(), &[]);
    let base = format!("http://{}", server.address);
    for (program, libraries, answers) in [
        ("HttpClient4", &["httpclient", "httpcore", "commons-logging", "commons-codec"][..], 5),
        ("HttpClient5", &["httpclient5", "httpcore5", "httpcore5-h2", "slf4j-api", "slf4j-nop"], 6),
    ] {
        let classes: Vec<_> =
            libraries.iter().map(|library| format!("/usr/share/java/{library}.jar")).collect();
        let mut java = Command::new("java");
        java.args(["-Xshare:auto", "-XX:TieredStopAtLevel=1", "--class-path", &classes.join(":")]);
        java.arg(source(&format!("{program}.java"))).args([&base, USER.0, USER.1]);
        assert_eq!(succeed(&mut java), "200\n".repeat(answers), "{program}");
    }
}

/// golang-jwt writes `aud` as an array, even if there is one audience. The server must accept this.
#[test]
fn golang_jwt_authenticates() {
    let home = Home::new();
    let program = home.path("assertion");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program).arg(source("assertion.go"));
    // Go uses only the packages that Debian installs, and downloads nothing.
    go.env("GOPATH", "/usr/share/gocode").env("GO111MODULE", "off").env("GOFLAGS", "");
    succeed(go.env("GOCACHE", home.path("cache")).env("CGO_ENABLED", "0"));
    let key = home.path("key.pem");
    home.write("jwks.json", &succeed(Command::new(&program).arg(&key)));
    let add = ["client", "add", "--id", "go", "--scope", "read", "--method", "private_key_jwt"];
    run(home.command(&add).args(["--jwks", "jwks.json"])).assert_fine();
    home.write_uses();
    let server = Program::start(home, &[]);
    let mut ask = Command::new(&program);
    assert_eq!(succeed(ask.arg(&key).args(["go", &server.issuer])), "200\n".repeat(3));
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// The `oauth2` crate revokes tokens only over TLS, so the requests go through nginx.
#[test]
fn the_oauth2_crate_gets_tokens_through_nginx() {
    let home = Home::new();
    let socket = home.path("socket");
    let _server = Program::start(home, &["--listen", &format!("unix:{}", socket.display())]);
    let nginx = Nginx::before(&socket);
    let url = |path: &str| format!("https://localhost:{}{path}", nginx.port);
    let http = |request: HttpRequest| exchange(&nginx, &request);
    for (auth_type, (_, id)) in
        [AuthType::BasicAuth, AuthType::RequestBody].into_iter().zip(METHODS)
    {
        let client = BasicClient::new(ClientId::new(id.to_owned()))
            .set_client_secret(ClientSecret::new(secret_of(id)))
            .set_auth_type(auth_type)
            .set_token_uri(TokenUrl::new(url("/connect/token")).unwrap())
            .set_introspection_url(IntrospectionUrl::new(url("/connect/introspect")).unwrap())
            .set_revocation_url(RevocationUrl::new(url("/connect/revocation")).unwrap());
        let asked = client.exchange_client_credentials().add_scope(Scope::new("write".to_owned()));
        let answer = asked.request(&http).unwrap();
        assert_eq!(answer.scopes(), Some(&vec![Scope::new("write".to_owned())]));
        assert_eq!(answer.expires_in().unwrap().as_secs(), 3600);
        let token = answer.access_token();

        let told = client.introspect(token).request(&http).unwrap();
        assert!(told.active());
        assert_eq!(told.client_id(), Some(&ClientId::new(id.to_owned())));
        assert_eq!(told.sub(), Some(id));
        let revocable = StandardRevocableToken::AccessToken(token.clone());
        client.revoke_token(revocable).unwrap().request(&http).unwrap();
        assert!(!client.introspect(token).request(&http).unwrap().active());

        let wrong = client.set_client_secret(ClientSecret::new("wrong".to_owned()));
        let refused = wrong.exchange_client_credentials().request(&http).unwrap_err();
        assert!(refused.to_string().contains("returned error"), "{refused}");
    }
}

/// Sends the `oauth2` crate's request with curl, which trusts only nginx's certificate.
fn exchange(nginx: &Nginx, request: &HttpRequest) -> Result<HttpResponse, io::Error> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--include", "--http1.1", "--data-binary", "@-"]);
    curl.arg("--cacert").arg(nginx.certificate()).arg("--request").arg(request.method().as_str());
    for (name, value) in request.headers() {
        curl.arg("--header").arg(format!("{name}: {}", value.to_str().unwrap()));
    }
    let curl = curl.arg(request.uri().to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut curl = curl.spawn()?;
    curl.stdin.take().unwrap().write_all(request.body())?;
    let output = curl.wait_with_output()?;
    assert!(output.status.success(), "curl: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let mut response = HttpResponse::new(body.as_bytes().to_vec());
    *response.status_mut() = StatusCode::from_bytes(status.as_bytes()).unwrap();
    for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
        let name = oauth2::http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        response.headers_mut().append(name, value.parse().unwrap());
    }
    Ok(response)
}

/// curl and Python's HTTP clients send `base64(id:secret)` without form-encoding the id and the
/// secret.
#[test]
fn raw_basic_pairs_of_curl_and_python_are_accepted() {
    const PAIRS: [(&str, &str); 3] = [
        ("plus", "q1+w2/e3=r4+t5/y6=u7+i8/o9=p0+a1="),
        ("triplet", "a-secret-that-holds-%41%42%43-in-the-middle"),
        ("with+plus", "a-secret-that-is-100%-made-of-characters"),
    ];
    const SCRIPT: &str = r#"
import sys
import aiohttp, asyncio, httpx, requests

url, client, secret = sys.argv[1:]
form = {"grant_type": "client_credentials"}
answers = [
    requests.post(url, data=form, auth=(client, secret)).json(),
    httpx.post(url, data=form, auth=(client, secret)).json(),
]

async def ask():
    async with aiohttp.ClientSession(auth=aiohttp.BasicAuth(client, secret)) as session:
        async with session.post(url, data=form) as answer:
            return await answer.json()

answers.append(asyncio.run(ask()))
print(*[answer.get("token_type", answer) for answer in answers])
"#;
    let home = Home::new();
    home.register(&PAIRS.map(|(id, secret)| client_with_hash(id, &hash_of(secret))));
    let server = Program::start(home, &[]);
    let url = format!("http://{}/connect/token", server.address);
    for (id, secret) in PAIRS {
        let user = format!("{id}:{secret}");
        let asked = Command::new("curl")
            .args(["--silent", "--user", &user, "-d", "grant_type=client_credentials", &url])
            .output()
            .unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
        assert_eq!(answer["token_type"], "Bearer", "{user}: {answer}");
        let printed = succeed(Command::new(python()).args(["-c", SCRIPT, &url, id, secret]));
        assert_eq!(printed, "Bearer Bearer Bearer\n", "{user}");
    }
}

/// Authlib signs client assertions that are valid for an hour. The server must accept them.
#[test]
fn authlib_authenticates() {
    let signer = Signer::rs256();
    let home = Home::new();
    home.write("jwks.json", &signer.jwks().to_string());
    let add = ["client", "add", "--id", "c", "--scope", "read", "--method", "private_key_jwt"];
    run(home.command(&add).args(["--jwks", "jwks.json"])).assert_fine();
    home.write_uses();
    let server = Program::start(home, &[]);
    let url = format!("{}/connect/token", server.issuer);
    let script = r#"
import sys
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT

url, key = sys.argv[1:]
session = OAuth2Session("c", key, token_endpoint_auth_method="private_key_jwt")
session.register_client_auth_method(PrivateKeyJWT(url))
for _ in range(2):
    print(session.fetch_token(url, grant_type="client_credentials")["scope"])
"#;
    let printed = succeed(Command::new(python()).args(["-c", script, &url, &signer.pem()]));
    assert_eq!(printed, "read\nread\n");
    assert_eq!(server.issued(), 2);
}
