//! `GET /explain/{request-id}`, traces and timings.

use serde_json::json;

use crate::support::{DEMO, ENCODINGS, Encoding, Home, Program, Request, request_of};

#[test]
fn a_refusal_is_explained_by_its_request_id() {
    let server = Program::start(Home::new(), &[]);
    for encoding in ENCODINGS {
        let refused = server.ask(&Request::token(encoding, &request_of("demo-client", "x", &[])));
        refused.assert_refused(400, "invalid_client");
        let id = refused.header("x-request-id").unwrap();
        let answer = Request::get(&format!("/explain/{id}")).send(server.admin);
        let kind = answer.header("content-type");
        assert_eq!((answer.status, kind), (200, Some("application/json")));
        let mut told = answer.json();
        let at = told["refusals"][0]["at"].take();
        assert!(at.as_u64().unwrap() > 1_700_000_000);
        assert_eq!(
            told,
            json!({ "request_id": id, "refusals": [{
                "request_id": id, "at": null, "route": "token", "status": 400,
                "cause": "wrong_secret", "explanation": "The secret is not one of the client's.",
                "client": "demo-client",
            }] })
        );
        // The public listener does not serve `/explain`.
        let public = Request::get(&format!("/explain/{id}")).send(server.address);
        assert_eq!(public.status, 404);
        assert!(!public.text().contains("not one of the client's"));
    }
}

#[test]
fn all_refusals_of_one_request_id_are_listed_and_no_others() {
    let server = Program::start(Home::new(), &[]);
    let mine = |request: Request| server.ask(&request.header("X-Request-Id", "mine.1"));
    mine(Request::token(Encoding::Urlencoded, &[("client_id", "unknown")]));
    assert_eq!(mine(Request::token(Encoding::Urlencoded, &DEMO)).status, 200);
    mine(Request::get("/nowhere"));
    let told = Request::get("/explain/mine.1").send(server.admin).json();
    let causes: Vec<_> =
        told["refusals"].as_array().unwrap().iter().map(|it| it["cause"].clone()).collect();
    assert_eq!(causes, ["grant_type_missing", "not_found"]);
    let unknown = Request::get("/explain/other").send(server.admin);
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json(), json!({ "error": "no recent refusal has this request id" }));
}

#[test]
fn the_trace_id_is_logged() {
    let server = Program::shared();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let good = format!("00-{trace}-b7ad6b7169203331-01");
    for (fields, logged) in [
        (vec![good.clone()], json!(trace)),
        (vec![good.clone(), good], json!(null)),
        (vec![format!("00-{trace}-0000000000000000-01")], json!(null)),
        (vec!["nonsense".to_owned()], json!(null)),
    ] {
        let request = Request::token(Encoding::Multipart, &DEMO);
        let with_field = |request: Request, field| request.header("traceparent", field);
        let answer = server.ask(&fields.into_iter().fold(request, with_field));
        assert_eq!(answer.status, 200);
        let line = server.log.of_request(answer.header("x-request-id").unwrap());
        assert_eq!(line["trace_id"], logged);
    }
}

#[test]
fn each_phase_of_a_token_is_timed_and_wasteful_tokens_are_counted() {
    let server = Program::start(Home::new(), &[]);
    let form = Request::token(Encoding::Urlencoded, &DEMO);
    for _ in 0..3 {
        assert_eq!(server.ask(&form).status, 200);
    }
    for phase in ["parse", "auth", "queue", "sign"] {
        let count = format!("grantd_phase_seconds_count{{phase=\"{phase}\"}}");
        assert_eq!(server.metric(&count), 3, "{phase}");
    }
    let wasted = "grantd_wasteful_tokens_total{client=\"demo-client\"}";
    assert_eq!(server.metric(wasted), 2);
}
