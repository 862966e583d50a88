//! OAuth libraries that people use, as they come from their registries.

use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use grantd::clock::Clock;
use oauth2::basic::BasicClient;
use oauth2::http::StatusCode;
use oauth2::{
    AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, IntrospectionUrl, RevocationUrl,
    Scope, StandardRevocableToken, TokenIntrospectionResponse, TokenResponse, TokenUrl,
};

use crate::readme::{python, succeed};
use crate::support::command::run;
use crate::support::home::secret_of;
use crate::support::nginx::Nginx;
use crate::support::sibling::{self, USER};
use crate::support::{Home, Program, wait_until};

/// Of each method of authentication, the client that may use no other.
const METHODS: [(&str, &str); 2] =
    [("client_secret_basic", "basic-only"), ("client_secret_post", "post-only")];

/// Authlib asks for the token, about it, and revokes it; PyJWT verifies it.
#[test]
fn authlib_and_pyjwt() {
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

/// Java's most used client, in both of its generations, labels forms and parts as ISO-8859-1.
#[test]
fn apache_http_client() {
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

/// golang-jwt writes `aud` as an array, even of one.
#[test]
fn golang_jwt_authenticates() {
    let home = Home::new();
    let program = home.path("assertion");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program).arg(source("assertion.go"));
    // Debian's libraries, and nothing from the network.
    go.env("GOPATH", "/usr/share/gocode").env("GO111MODULE", "off").env("GOFLAGS", "");
    succeed(go.env("GOCACHE", home.path("cache")).env("CGO_ENABLED", "0"));
    let key = home.path("key.pem");
    home.write("jwks.json", &succeed(Command::new(&program).arg(&key)));
    let add = ["client", "add", "--id", "go", "--scope", "read", "--method", "private_key_jwt"];
    run(home.command(&add).args(["--jwks", "jwks.json"])).assert_fine();
    let server = Program::start(home, &[]);
    let mut ask = Command::new(&program);
    // What was signed in the second of the start may be from before it.
    let started = Clock::system().unix_seconds();
    wait_until(|| Clock::system().unix_seconds() > started);
    assert_eq!(succeed(ask.arg(&key).args(["go", &server.issuer])), "200\n".repeat(3));
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// The `oauth2` crate revokes over TLS only, so nginx is in front.
#[test]
fn the_oauth2_crate_behind_nginx() {
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

/// What the crate wants sent, sent by curl, which trusts the proxy's certificate and no other.
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
