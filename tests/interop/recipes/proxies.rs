//! Traefik and Envoy in front of an API and of grantd.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use serde_json::{Map, Value, json};

use crate::recipes::api::{Api, home_with, token_of};
use crate::recipes::{Recipe, Serving, addresses_of, local, moved, registered, run, shell};
use crate::support::command::succeed;
use crate::support::nginx::make_certificates;
use crate::support::ports::free_port;
use crate::support::{Home, Program, Request, Signer, wait_until};

/// Starts an API that answers each request with its method, path and headers as JSON. It serves until
/// the test program ends. Returns its port.
fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || echo_one(&connection));
        }
    });
    port
}

/// Answers one request. A proxy may close the connection at any time.
fn echo_one(mut connection: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let mut told = Map::from_iter([
        ("method".to_owned(), words.next()?.into()),
        ("path".to_owned(), words.next()?.into()),
    ]);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        told.insert(name.to_lowercase(), value.into());
    }
    let length = told.get("content-length").and_then(Value::as_str);
    let length = length.map_or(0, |length| length.parse().unwrap());
    reader.take(length).read_to_end(&mut Vec::new()).ok()?;
    let body = Value::from(told).to_string();
    let head = format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
    connection.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}").as_bytes()).ok()
}

/// Asks with curl, through TLS. Returns the status, the challenge and the body.
fn curl(home: &Home, url: &str, more: &[&str]) -> (u16, String, Value) {
    let (host, _) = url.split_once('/').unwrap();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--resolve", &format!("{host}:127.0.0.1")]);
    curl.args(["--cacert", "certificate.pem", "--write-out"]);
    curl.arg("\n%header{www-authenticate}\n%{http_code}").args(more);
    let printed = succeed(curl.arg(format!("https://{url}")).current_dir(home.path("")));
    let (rest, status) = printed.rsplit_once('\n').unwrap();
    let (body, challenge) = rest.rsplit_once('\n').unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|_| body.into());
    (status.parse().unwrap(), challenge.to_owned(), body)
}

#[test]
fn traefik_asks_grantd_about_tokens() {
    let recipe = Recipe::open("traefik.md");
    let home = Home::new();
    home.write("grantd.toml", recipe.file("grantd.toml"));
    home.write("clients.json", "{\"clients\": []}");
    make_certificates(&home.path(""));
    let mut clients = registered(&home, recipe.commands("grantd client add"));
    clients.extend(registered(&home, "grantd client add --id elsewhere --scope reports.read"));
    let machine = "grantd client add --id machine --scope reports.read --method tls_client_auth \
                   --tls-client-auth-san-dns client.example";
    run(&home, machine);
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let port = free_port();
    let api = ("127.0.0.1:9000", local(echo()).to_string());
    let addresses = [vec![(":8443", format!(":{port}")), api], addresses_of(&server)].concat();
    for name in ["traefik.yaml", "routes.yaml"] {
        server.home.write(name, &moved(recipe.file(name), &addresses));
    }
    let command = recipe.commands("traefik ");
    let _traefik = Serving::start(&server.home, command, &[], port);
    // Traefik opens the port before it reads its routes and certificates.
    let metadata = format!(
        "curl --silent --fail --output metadata --cacert certificate.pem --resolve \
         auth.example.com:{port}:127.0.0.1 https://auth.example.com:{port}/.well-known/jwks.json"
    );
    wait_until(|| shell(&server.home, &metadata).status().unwrap().success());
    let secret = format!("REPORTING_SECRET={}\n", clients[0].1);
    let check = secret + &moved(recipe.commands("curl="), &addresses);
    let told: Value = serde_json::from_str(&run(&server.home, &check)).unwrap();
    assert_eq!(
        (&told["x-client-id"], &told["x-scope"]),
        (&json!("reporting"), &json!("reports.read"))
    );

    let good = token_of(&server, &clients[0]);
    assert_asks_about_tokens(&server, port, &clients);
    assert_no_certificate_is_accepted(&server, port);

    // Without grantd, nothing reaches the API, and the errors are Traefik's own.
    server.kill();
    let url = format!("auth.example.com:{port}/v1/api/oauth/token");
    wait_until(|| curl(&server.home, &url, &["-d", "{}"]).0 == 502);
    assert_eq!(curl(&server.home, &url, &["-d", "{}"]).2, "Bad Gateway");
    assert_eq!(ask_api(&server, port, Some(&good), &[]).0, 500);
    recipe.assert_all_run();
}

/// Asks the API behind Traefik.
fn ask_api(
    server: &Program,
    port: u16,
    token: Option<&str>,
    more: &[&str],
) -> (u16, String, Value) {
    let bearer = token.map(|token| format!("Authorization: Bearer {token}"));
    let bearer = bearer.iter().flat_map(|bearer| ["-H", bearer.as_str()]);
    let arguments: Vec<_> = bearer.chain(more.iter().copied()).collect();
    curl(&server.home, &format!("api.example.com:{port}/reports/a?b=c"), &arguments)
}

/// Only tokens with the scope and the audience reach the API. The second of `clients` lacks the
/// scope, and the third one has another audience.
fn assert_asks_about_tokens(server: &Program, port: u16, clients: &[(String, String)]) {
    let token = |at: usize| token_of(server, &clients[at]);
    let forged = ["-d", "a=b", "-H", "X-Client-Id: forged", "-H", "X-Token-Expires: forged"];
    let (status, _, told) = ask_api(server, port, Some(&token(0)), &forged);
    let expected = (200, &json!("POST"), &json!("/reports/a?b=c"));
    assert_eq!((status, &told["method"], &told["path"]), expected);
    assert_eq!(told["x-client-id"], "reporting");
    assert!(told["x-token-expires"].as_str().unwrap().parse::<u64>().is_ok(), "{told}");
    let realm = "Bearer realm=\"grantd\"";
    let invalid = format!("{realm}, error=\"invalid_token\"");
    let scope = format!("{realm}, error=\"insufficient_scope\"");
    for (token, status, challenge) in [
        (None, 401, realm),
        (Some("a.b.c"), 401, &*invalid),
        (Some(&*token(2)), 401, &invalid),
        (Some(&*token(1)), 403, &scope),
    ] {
        let answer = ask_api(server, port, token, &[]);
        assert_eq!((answer.0, &*answer.1), (status, challenge), "{token:?}");
    }
    // The caller's address reaches grantd's log, and only the right path reaches the API.
    let caller = ["--interface", "127.0.0.2", "-H", "X-Request-Id: asked"];
    ask_api(server, port, Some("a"), &caller);
    let line = server.log.of_request("asked");
    assert_eq!((&line["route"], &line["address"]), (&json!("validate"), &json!("127.0.0.2")));
    assert_eq!(curl(&server.home, &format!("api.example.com:{port}/other"), &[]).0, 404);
}

const MACHINE: [&str; 4] = ["-d", "client_id=machine", "-d", "grant_type=client_credentials"];

/// Returns curl's arguments for headers that state the certificate of `machine` as Envoy does.
fn forged_headers(home: &Home) -> [String; 4] {
    let certificate = std::fs::read_to_string(home.path("client.pem")).unwrap();
    let escaped = certificate.replace('\n', "%0A").replace('+', "%2B").replace(' ', "%20");
    let certificate = format!("X-Client-Cert: {escaped}");
    ["-H".to_owned(), "X-Client-Cert-Verify: SUCCESS".to_owned(), "-H".to_owned(), certificate]
}

/// A client can neither use its certificate nor forge the headers that state one, because of the
/// line `proxies = []`.
fn assert_no_certificate_is_accepted(server: &Program, port: u16) {
    let url = format!("auth.example.com:{port}/connect/token");
    let forged = forged_headers(&server.home);
    let forged = [&MACHINE[..], &forged.each_ref().map(String::as_str)].concat();
    let shown = [&MACHINE[..], &["--cert", "client.pem", "--key", "client.key"]].concat();
    for arguments in [&forged, &shown] {
        let (status, _, told) = curl(&server.home, &url, arguments);
        assert_eq!((status, &told["error"]), (400, &json!("invalid_client")), "{told}");
    }
    let configuration = std::fs::read_to_string(server.home.path("grantd.toml")).unwrap();
    let (without, _) = configuration.split_once("[client_certificate]").unwrap();
    server.home.write("grantd.toml", without);
    server.hang_up();
    wait_until(|| curl(&server.home, &url, &forged).0 == 200);
}

#[test]
fn envoy_verifies_tokens() {
    let recipe = Recipe::open("envoy.md");
    let key = Signer::rs256();
    let home = home_with(&key);
    let clients = registered(&home, recipe.commands("grantd client add --id reporting"));
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let [port, api] = [free_port(), echo()];
    let mut addresses = addresses_of(&server);
    let grantd = format!("port_value: {}", server.address.port());
    // The recipe's time is too long for a test, whose keys change within seconds.
    let cached = ("cache_duration: 300s", "cache_duration: 1s".to_owned());
    let ports = [("port_value: 8080", grantd), ("127.0.0.1:8000", local(port).to_string())];
    addresses.extend(ports.into_iter().chain([cached]));
    for (documented, port) in [("port_value: 8000", port), ("port_value: 9000", api)] {
        addresses.push((documented, format!("port_value: {port}")));
    }
    let text = recipe.file("api.yaml");
    assert!(text.contains("cache_duration: 300s"));
    server.home.write("api.yaml", &moved(text, &addresses));
    let command = recipe.commands("envoy --config-path api.yaml");
    let _envoy = Serving::start(&server.home, command, &[], port);
    let secret = format!("REPORTING_SECRET={}\n", clients[0].1);
    let check = secret + &moved(recipe.commands("token="), &addresses);
    let told: Value = serde_json::from_str(&run(&server.home, &check)).unwrap();
    assert_eq!(
        (&told["x-client-id"], &told["x-scope"]),
        (&json!("reporting"), &json!("reports.read"))
    );

    let forged = Request::new("PUT", "/reports/a").header("Host", local(port).to_string());
    let forged = forged.header("X-Client-Id", "forged").header("X-Scope", "forged");
    let bearer = format!("Bearer {}", token_of(&server, &clients[0]));
    let told = forged.header("Authorization", bearer).send(local(port)).json();
    assert_eq!((&told["method"], &told["x-client-id"]), (&json!("PUT"), &json!("reporting")));
    assert_eq!(told["x-scope"], "reports.read");
    let address = local(port);
    let (server, key, clients) = (&server, &key, &*clients);
    Api { server, key, clients, address, path: "/reports/a", unfit: 403 }.assert_verifies();

    forwards_certificates(&recipe);
    recipe.assert_all_run();
}

/// Envoy in front of grantd forwards the client's address and its verified certificate.
fn forwards_certificates(recipe: &Recipe) {
    let home = Home::new();
    home.write("grantd.toml", recipe.file("grantd.toml"));
    home.write("clients.json", "{\"clients\": []}");
    make_certificates(&home.path(""));
    run(&home, recipe.commands("grantd client add --id machine"));
    let others = registered(&home, "grantd client add --id secret --scope a");
    let server = Program::start(home, &["--config", "grantd.toml"]);
    let port = free_port();
    let grantd = format!("port_value: {}", server.address.port());
    let ports = vec![
        (":8443", format!(":{port}")),
        ("port_value: 8443", format!("port_value: {port}")),
        ("port_value: 8080", grantd),
    ];
    server.home.write("auth.yaml", &moved(recipe.file("auth.yaml"), &ports));
    let command = recipe.commands("envoy --config-path auth.yaml");
    let _envoy = Serving::start(&server.home, command, &[], port);
    let printed =
        run(&server.home, &moved(recipe.commands("curl --fail-with-body --cacert"), &ports));
    assert!(printed.contains("\"scope\":\"reports.read\""), "{printed}");

    let url = format!("auth.example.com:{port}/connect/token");
    let forged = forged_headers(&server.home);
    let forged = [&MACHINE[..], &forged.each_ref().map(String::as_str)].concat();
    let (status, _, told) = curl(&server.home, &url, &forged);
    assert_eq!((status, &told["error"]), (400, &json!("invalid_client")), "{told}");
    let form = ["-d", "client_id=secret", "-d", "grant_type=client_credentials"];
    let secret = format!("client_secret={}", others[0].1);
    let more = ["-d", &secret, "--interface", "127.0.0.2", "-H", "X-Forwarded-For: 192.0.2.1"];
    let (status, _, told) = curl(&server.home, &url, &[&form[..], &more].concat());
    assert_eq!(status, 200, "{told}");
    let line = server.log.wait_for(|line| line["client"] == "secret");
    assert_eq!(line["address"], "127.0.0.2");
}
