//! Spans sent to an OpenTelemetry collector.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::net::TcpSocket;

use crate::support::canary::{CANARY, parts_of_token, refused};
use crate::support::collector::{Collector, ENDPOINT, Recorder, Span};
use crate::support::command::run;
use crate::support::home::secret_of;
use crate::support::http::find;
use crate::support::sibling::USER;
use crate::support::{
    Connection, DEMO, Encoding, Home, Program, Request, demo_without, wait_until,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const PHASES: [&str; 4] =
    ["grantd.parse_seconds", "grantd.auth_seconds", "grantd.queue_seconds", "grantd.sign_seconds"];

fn exporting(home: Home, endpoint: &str, arguments: &[&str]) -> Program {
    // The export delay is an hour, so no span is sent before the server stops, unless the buffer
    // fills.
    let variables = [(ENDPOINT, endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "3600000")];
    Program::start_with(home, arguments, &variables)
}

#[track_caller]
fn stop(mut server: Program) -> String {
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    server.log.to_the_end()
}

/// Returns the number of lost spans that the last warning reports.
#[track_caller]
fn lost_in_all(log: &str) -> u64 {
    let last = log.lines().rfind(|line| line.contains("\"WARN\"")).unwrap();
    serde_json::from_str::<Value>(last).unwrap()["lost"].as_u64().unwrap()
}

fn ask(server: &Program, id: &str, request: Request) -> u16 {
    server.ask(&request.header("X-Request-Id", id)).status
}

fn sampled(request: Request) -> Request {
    request.header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
}

fn unsampled(request: Request) -> Request {
    request.header("traceparent", format!("00-{TRACE}-{PARENT}-00"))
}

fn token() -> Request {
    Request::token(Encoding::Urlencoded, &DEMO)
}

/// Returns the span about the request with this id; panics unless there is exactly one.
#[track_caller]
fn about<'s>(spans: &'s [Span], id: &str) -> &'s Span {
    let id = format!("Str({id})");
    let mut found = spans.iter().filter(|span| span.attribute("grantd.request_id") == id);
    let span = found.next().unwrap_or_else(|| panic!("no {id} in {spans:#?}"));
    assert!(found.next().is_none(), "{id} is there twice: {spans:#?}");
    span
}

#[track_caller]
fn assert_says(span: &Span, said: &[(&str, &str)]) {
    for (name, value) in said {
        assert_eq!(span.attribute(name), *value, "{name} of {span:#?}");
    }
}

#[test]
fn a_request_is_a_span_in_its_callers_trace() {
    let collector = Collector::start();
    let home = Home::new();
    home.write("grantd.toml", "allow_demo_clients = true\ntrusted_proxies = [\"127.0.0.1\"]\n");
    let arguments = ["--config", "grantd.toml", "--workers", "1"];
    let server = exporting(home, &collector.endpoint, &arguments);
    let issued = sampled(token()).header("X-Forwarded-For", "192.0.2.7");
    assert_eq!(ask(&server, "issued", issued), 200);
    let wrong = demo_without(&["client_secret"]);
    let wrong = [wrong, vec![("client_secret", CANARY)]].concat();
    let wrong = sampled(Request::token(Encoding::Multipart, &wrong));
    assert_eq!(ask(&server, "wrong", wrong), 400);
    assert_eq!(ask(&server, "made-up", sampled(Request::new("BREW", "/coffee?milk"))), 404);
    stop(server);
    let server = exporting(Home::new(), &collector.endpoint, &[]);
    let revoke = || {
        let issued = server.ask(&unsampled(token())).json();
        let secret = demo_without(&["grant_type"]);
        let form = [secret, vec![("token", issued["access_token"].as_str().unwrap())]].concat();
        Request::new("POST", "/connect/revocation").form(Encoding::Urlencoded, &form)
    };
    assert_eq!(ask(&server, "revoked", unsampled(revoke())), 200);
    // While an earlier release runs, which holds this lock, the server cannot revoke.
    let lock = File::create(server.home.path("state/revocations.lock")).unwrap();
    lock.lock().unwrap();
    assert_eq!(ask(&server, "not-written", sampled(revoke())), 503);
    stop(server);

    let spans = collector.into_spans(4);
    for span in &spans {
        assert_eq!(span.field("Trace ID"), TRACE);
        assert_eq!(span.field("Parent ID"), PARENT);
        assert_eq!(span.field("ID").len(), 16);
        assert_eq!(span.field("Kind"), "SPAN_KIND_SERVER");
        assert!(span.time("Start time") < span.time("End time"), "{span:#?}");
        assert_eq!(span.resource["service.name"], "Str(grantd)");
        let version = format!("Str({})", env!("CARGO_PKG_VERSION"));
        assert_eq!(span.resource["service.version"], version);
        let timed = PHASES.map(|phase| span.attributes.contains_key(phase));
        assert_eq!(timed, [span.attribute("grantd.outcome") == "Str(issued)"; 4]);
        let is_failed = span.field("Status code") == "STATUS_CODE_ERROR";
        assert_eq!(is_failed, span.attribute("http.response.status_code") == "Int(503)");
        assert_eq!(is_failed, span.attributes.contains_key("error.type"));
    }
    let issued = about(&spans, "issued");
    assert_eq!(issued.field("Name"), "POST token");
    assert_says(
        issued,
        &[
            ("http.request.method", "Str(POST)"),
            ("http.route", "Str(token)"),
            ("http.response.status_code", "Int(200)"),
            ("client.address", "Str(192.0.2.7)"),
            ("network.peer.address", "Str(127.0.0.1)"),
            ("grantd.client_id", "Str(demo-client)"),
            ("grantd.cause", ""),
        ],
    );
    let took = (issued.time("End time") - issued.time("Start time")) as f64 / 1e9;
    let parts = PHASES.map(|phase| {
        let text = issued.attribute(phase).trim_start_matches("Double(").trim_end_matches(')');
        text.parse::<f64>().unwrap_or_else(|_| panic!("{issued:#?}"))
    });
    assert!(parts.iter().all(|part| *part > 0.0), "{parts:?}");
    // The span's times have a resolution of one microsecond, so the sum may be larger by that much.
    assert!(parts.iter().sum::<f64>() <= took + 1e-6, "{parts:?} in {took}");

    assert_says(
        about(&spans, "wrong"),
        &[
            ("http.response.status_code", "Int(400)"),
            ("client.address", "Str(127.0.0.1)"),
            ("grantd.outcome", "Str(refused)"),
            ("grantd.cause", "Str(wrong_secret)"),
            ("grantd.client_id", "Str(demo-client)"),
        ],
    );
    let made_up = about(&spans, "made-up");
    assert_eq!(made_up.field("Name"), "HTTP unknown");
    let said = [("http.request.method", "Str(_OTHER)"), ("grantd.cause", "Str(not_found)")];
    assert_says(made_up, &said);
    let label = "Str(revocation_not_written)";
    assert_says(about(&spans, "not-written"), &[("grantd.cause", label), ("error.type", label)]);
}

#[test]
fn unsampled_requests_have_no_span_and_requests_without_a_trace_start_one() {
    let collector = Collector::start();
    let variables = [
        // The variable for traces has the whole URL and takes precedence over the variable for all
        // signals.
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*format!("{}/v1/traces", collector.endpoint)),
        (ENDPOINT, "https://collector.example"),
        ("OTEL_SERVICE_NAME", "tokens"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=others,deployment.environment.name=test"),
    ];
    let server = Program::start_with(Home::new(), &[], &variables);
    let unsampled = token().header("traceparent", format!("00-{TRACE}-{PARENT}-00"));
    assert_eq!(ask(&server, "unsampled", unsampled), 200);
    assert_eq!(ask(&server, "sampled", sampled(token())), 200);
    assert_eq!(ask(&server, "first", token()), 200);
    assert_eq!(ask(&server, "second", token().header("traceparent", "nonsense")), 200);
    stop(server);

    let spans = collector.into_spans(3);
    assert_eq!(spans.len(), 3, "{spans:#?}");
    assert_eq!(about(&spans, "sampled").field("Trace ID"), TRACE);
    let new = ["first", "second"].map(|id| about(&spans, id));
    let traces = new.map(|span| span.field("Trace ID"));
    assert!(traces.iter().all(|trace| trace.len() == 32 && *trace != TRACE), "{traces:?}");
    assert_ne!(traces[0], traces[1]);
    assert_eq!(new.map(|span| span.field("Parent ID")), [""; 2]);
    for span in &spans {
        assert_eq!(span.resource["service.name"], "Str(tokens)");
        assert_eq!(span.resource["deployment.environment.name"], "Str(test)");
    }
}

#[test]
fn the_configured_sampler_decides_for_requests_without_a_trace() {
    let recorder = Recorder::start();
    let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_always_off");
    let variables = [(ENDPOINT, &*recorder.endpoint), sampler];
    let server = Program::start_with(Home::new(), &[], &variables);
    assert_eq!(ask(&server, "sampled", sampled(token())), 200);
    assert_eq!(ask(&server, "undecided", token()), 200);
    stop(server);
    let received = recorder.received();
    assert!(find(&received, b"sampled").is_some());
    assert!(find(&received, b"undecided").is_none());
}

#[test]
fn no_secret_and_no_token_is_exported() {
    let recorder = Recorder::start();
    let server = exporting(Home::new(), &recorder.endpoint, &[]);
    let mut hidden = vec![CANARY.to_owned(), STANDARD.encode(CANARY)];
    let mut asked = Vec::new();
    for (index, (request, cause)) in refused().into_iter().enumerate() {
        let id = format!("refused-{index:03}");
        assert!(ask(&server, &id, request) >= 400, "{cause}");
        asked.push(id);
    }
    let (user, secret) = USER;
    let basic = format!("{user}:{secret}");
    let firstvision = |target: &str| {
        let request = Request::get(target).header("Content-Type", "application/json");
        request.basic(&basic).body("{scope: [\"firstvision.accountmanagement.read\"]}")
    };
    let wrong = format!("/v1/getAccessToken?client_id={user}&client_secret={CANARY}");
    let below = format!("/v1/getAccessToken/{CANARY}");
    for (index, target) in [&wrong, &below].into_iter().enumerate() {
        let id = format!("firstvision-{index}");
        ask(&server, &id, firstvision(target));
        asked.push(id);
    }
    let by_header = Request::token(Encoding::Multipart, &[("grant_type", "client_credentials")])
        .basic(&format!("{}:{}", DEMO[0].1, DEMO[1].1));
    for (index, request) in
        [token(), by_header, firstvision("/v1/getAccessToken")].into_iter().enumerate()
    {
        let id = format!("granted-{index}");
        let answer = server.ask(&request.header("X-Request-Id", id.as_str()));
        let parts = parts_of_token(&answer);
        let token = parts.last().unwrap();
        let bearer = Request::get("/connect/validate");
        let bearer = bearer.header("Authorization", format!("Bearer {token}"));
        ask(&server, &format!("validated-{index}"), bearer);
        hidden.extend(parts);
        asked.extend([id, format!("validated-{index}")]);
    }
    stop(server);

    hidden.extend([DEMO[1].1, secret].map(str::to_owned));
    hidden.extend([&*basic, DEMO[1].1, secret].map(|text| STANDARD.encode(text)));
    hidden.extend(["expired", "disabled"].map(secret_of));
    let received = recorder.received();
    for id in &asked {
        assert!(find(&received, id.as_bytes()).is_some(), "{id} is not there");
    }
    for secret in &hidden {
        assert!(find(&received, secret.as_bytes()).is_none(), "{secret} was exported");
    }
}

/// One collector does not listen, and another accepts connections but does not answer.
#[test]
fn a_dead_collector_loses_spans_only() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let addresses = [silent.local_addr().unwrap(), deaf.local_addr().unwrap()];
    for (address, workers) in addresses.into_iter().zip(["1", "2"]) {
        let endpoint = format!("http://{address}");
        let variables = [(ENDPOINT, &*endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "1")];
        let server = Program::start_with(Home::new(), &["--workers", workers], &variables);
        for _ in 0..10 {
            assert_eq!(server.ask(&token()).status, 200);
        }
        if address.port() == deaf.local_addr().unwrap().port() {
            let line = server.log.wait_for(|line| line["level"] == "WARN");
            assert!(line["lost"].as_u64().is_some_and(|lost| (1..=10).contains(&lost)), "{line}");
            assert!(line["error"].as_str().unwrap().contains("refused"), "{line}");
            assert_eq!(server.ask(&token()).status, 200);
        }
        let asked = server.issued();
        let log = stop(server);
        // The server logs one warning while it runs and one when it stops, not one for each lost
        // batch.
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("\"WARN\"")).collect();
        assert_eq!(lost_in_all(&log), asked, "{warnings:#?}");
        assert!(warnings.len() <= 2, "{warnings:#?}");
    }
}

#[test]
fn spans_beyond_the_buffer_are_lost_and_counted() {
    const REQUESTS: usize = 3000;
    const ROOM: usize = 2048;
    const BATCH: usize = 512;
    let recorder = Recorder::start();
    let server = exporting(Home::new(), &recorder.endpoint, &[]);
    let held_up = recorder.received();
    let mut connection = Connection::open(server.address);
    let get = Request::get("/.well-known/jwks.json");
    let hundred = get.to_bytes().repeat(100);
    for _ in 0..REQUESTS / 100 {
        connection.send(&hundred);
        for _ in 0..100 {
            assert_eq!(connection.read_answer_to("GET").status, 200);
        }
    }
    drop(held_up);
    let log = stop(server);
    let received = recorder.received();
    let key = b"grantd.request_id";
    let came = received.windows(key.len()).filter(|window| window == key).count();
    assert!((ROOM..=ROOM + BATCH).contains(&came), "{came} came");
    assert_eq!(lost_in_all(&log), (REQUESTS - came) as u64, "{came} came: {log}");
}

/// Tests one worker, whose thread also runs the exporter, and two workers.
#[test]
fn a_stop_sends_the_buffered_spans() {
    for workers in ["1", "2"] {
        let recorder = Recorder::start();
        let variables = [
            (ENDPOINT, &*recorder.endpoint),
            ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=seven"),
        ];
        let server = Program::start_with(Home::new(), &["--workers", workers], &variables);
        assert_eq!(ask(&server, "the-last", token()), 200);
        assert!(recorder.received().is_empty());
        let log = stop(server);
        assert!(!log.contains("\"WARN\""), "{log}");
        let received = recorder.received();
        assert!(received.starts_with(b"POST /v1/traces HTTP/1.1\r\n"));
        for part in ["\r\nx-tenant: seven\r\n", "\r\nhost: 127.0.0.1:", "the-last"] {
            assert!(find(&received, part.as_bytes()).is_some(), "{part}");
        }
    }
}

#[test]
fn without_a_collector_nothing_is_started() {
    // The kernel truncates thread names to 15 bytes.
    let exports =
        |server: &Program| server.threads().iter().any(|name| name.starts_with("OpenTelemetry."));
    let recorder = Recorder::start();
    let server = exporting(Home::new(), &recorder.endpoint, &[]);
    wait_until(|| exports(&server));
    let server = exporting(Home::new(), "", &[]);
    assert!(!exports(&server));
}

#[test]
fn an_invalid_collector_is_a_start_error() {
    let home = Home::new();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    for endpoint in [
        "collector:4318",
        "https://collector:4318",
        "http://",
        "http://:4318",
        "http://collector:",
        "http://collector:otlp",
        "http://collector:99999",
        "http://[::1]:99999",
        "http://user:hunter2@collector:4318",
        "unix:/run/collector",
    ] {
        for variable in [ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] {
            for command in [&serve[..], &["check"]] {
                let mut command = home.command(command);
                let ended = run(command.env(variable, endpoint));
                ended.assert_error(1, &[&format!("grantd: {variable}: must be http://host")]);
                assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
            }
        }
    }
}
