//! The page for developers, and the documents beside it.

use serde_json::{Value, json};

use crate::support::command::run;
use crate::support::registry::client_json;
use crate::support::{DEMO, Home, Program, Request, Response};

/// The paths of the page and of its documents, each with its media type and the label of its route.
const DOCUMENTS: [(&str, &str, &str); 10] = [
    ("/", "text/html; charset=utf-8", "page"),
    ("/docs", "text/html; charset=utf-8", "docs"),
    ("/docs/grantd.postman_collection.json", "application/json", "page_file"),
    ("/docs/operations.js", "text/javascript; charset=utf-8", "page_file"),
    ("/docs/page.css", "text/css; charset=utf-8", "page_file"),
    ("/docs/page.js", "text/javascript; charset=utf-8", "page_file"),
    ("/docs/snippets.js", "text/javascript; charset=utf-8", "page_file"),
    ("/docs/token.js", "text/javascript; charset=utf-8", "page_file"),
    ("/favicon.ico", "image/x-icon", "page_file"),
    ("/openapi.json", "application/json", "openapi"),
];

/// The documents that are served where the page is not.
const PUBLIC: [&str; 3] = ["/docs/page.css", "/favicon.ico", "/openapi.json"];

/// Starts a server with this configuration and one client, which is not a demo client.
fn start(toml: &str) -> Program {
    let home = Home::new();
    home.register(&[client_json("a", &json!({}))]);
    home.write("grantd.toml", toml);
    Program::start(home, &["--config", "grantd.toml"])
}

/// Returns the documents that the server serves.
fn served(server: &Program) -> Vec<&'static str> {
    let paths = DOCUMENTS.iter().map(|(path, ..)| *path);
    paths.filter(|path| server.ask(&Request::get(path)).status == 200).collect()
}

/// A request for a page, as a browser sends it.
fn visit(path: &str) -> Request {
    Request::get(path).header("Sec-Fetch-Dest", "document").header("Accept", "text/html")
}

#[track_caller]
fn assert_policy(answer: &Response) {
    for (name, value) in [
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(answer.header("set-cookie"), None);
    assert!(answer.header("x-request-id").is_some());
}

#[test]
fn each_document_has_its_type_a_tag_and_the_policy() {
    let server = Program::shared();
    for (path, media_type, label) in DOCUMENTS {
        let answer = server.ask(&Request::get(path));
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some(media_type), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
        assert!(!answer.body.is_empty());
        assert_policy(&answer);
        let line = server.log.of_request(answer.header("x-request-id").unwrap());
        assert_eq!(line["route"], label, "{path}");
        assert_eq!(line["outcome"], "served");

        // A query changes nothing.
        let with_query = server.ask(&Request::get(&format!("{path}?client_secret=x&a")));
        assert_eq!(with_query.without_id_and_date(), answer.without_id_and_date(), "{path}");

        let etag = answer.header("etag").unwrap();
        for known in [etag.to_owned(), format!("\"other\", W/{etag}"), "*".to_owned()] {
            let again = server.ask(&Request::get(path).header("If-None-Match", known));
            assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
            assert_eq!(again.header("etag"), Some(etag));
            assert_policy(&again);
        }
        let other = server.ask(&Request::get(path).header("If-None-Match", "\"other\""));
        assert_eq!(other.without_id_and_date(), answer.without_id_and_date(), "{path}");

        let head = server.ask(&Request::new("HEAD", path));
        let (status, headers, _) = answer.without_id_and_date();
        assert_eq!(head.without_id_and_date(), (status, headers, Vec::new()), "{path}");

        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let refused = server.ask(&Request::new(method, path));
            refused.assert_refused(405, "invalid_request");
            assert_eq!(refused.header("allow"), Some("GET, HEAD"), "{method} {path}");
            assert_policy(&refused);
        }
    }
    let metrics = server.metrics();
    assert!(metrics.contains(r#"outcome="served",route="openapi""#), "{metrics}");
}

#[test]
fn the_icon_is_an_icon() {
    let icon = Program::shared().ask(&Request::get("/favicon.ico")).body;
    // The type 1 is an icon. The first of its images is a PNG at the given offset.
    assert_eq!(&icon[..4], [0, 0, 1, 0]);
    let offset = u32::from_le_bytes(icon[18..22].try_into().unwrap());
    assert!(icon[usize::try_from(offset).unwrap()..].starts_with(b"\x89PNG"));
}

#[test]
fn the_page_is_where_demo_clients_may_be_served() {
    let all: Vec<_> = DOCUMENTS.iter().map(|(path, ..)| *path).collect();
    let public = "issuer = \"https://auth.example\"\n";
    for (toml, expected) in [
        ("", &all[..]),
        (public, &PUBLIC),
        ("trusted_proxies = [\"10.0.0.1\"]\n", &PUBLIC),
        ("issuer = \"https://auth.example\"\nallow_demo_clients = true\n", &all),
        ("[page]\nenabled = \"auto\"\n", &all),
        ("[page]\nenabled = false\n", &[]),
        ("issuer = \"https://auth.example\"\n[page]\nenabled = true\n", &all),
    ] {
        assert_eq!(served(&start(toml)), expected, "{toml}");
    }
}

/// A proxy on this machine that the configuration does not declare, or a web page that lets its host
/// name lead here, must not get the page. What programs may ask is not affected.
#[test]
fn the_page_is_only_for_requests_that_are_surely_of_this_machine() {
    let all: Vec<_> = DOCUMENTS.iter().map(|(path, ..)| *path).collect();
    let of_host =
        |path: &str, host: &str| Request::get(path).without_header("Host").header("Host", host);
    let forwarded = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Host", "localhost"),
        ("X-Forwarded-Proto", "https"),
        ("X-Real-IP", "127.0.0.1"),
        ("Forwarded", "for=192.0.2.1"),
        ("Via", "1.1 proxy"),
    ];
    let asked = |server: &Program, request: &dyn Fn(&str) -> Request| -> Vec<_> {
        let is_served = |path: &&str| server.ask(&request(path)).status == 200;
        all.iter().copied().filter(is_served).collect()
    };
    let here = Program::start(Home::new(), &[]);
    let declared = start("allow_demo_clients = true\n");
    let on = start("[page]\nenabled = true\n");
    for host in ["127.0.0.1:8080", "[::1]:8080", "192.0.2.7", "localhost", "LOCALHOST:1"] {
        assert_eq!(asked(&here, &|path| of_host(path, host)), all, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example:8080", "127.0.0.1.evil.example", "grantd"]
    {
        assert_eq!(asked(&here, &|path| of_host(path, host)), PUBLIC, "{host}");
        let absolute = |path: &str| Request::get(path).with_target(&format!("http://{host}{path}"));
        assert_eq!(asked(&here, &absolute), PUBLIC, "{host}");
        for server in [&declared, &on] {
            assert_eq!(asked(server, &|path| of_host(path, host)), all, "{host}");
        }
        let page = here.ask(&of_host("/", host).header("Sec-Fetch-Dest", "document"));
        assert_eq!(page.status, 404);
        assert!(!page.text().contains("href=\"/docs\""), "{}", page.text());
        assert_policy(&page);
    }
    for (name, value) in forwarded {
        let request = |path: &str| Request::get(path).header(name, value);
        assert_eq!(asked(&here, &request), PUBLIC, "{name}");
        for server in [&declared, &on] {
            assert_eq!(asked(server, &request), all, "{name}");
        }
    }
    let [json, firstvision] = ["/v1/api/oauth/token", "/v1/getAccessToken/all"];
    let body = json!({
        "grant_type": "client_credentials",
        "scope": "all",
        "client_id": "vision-api-user",
        "client_secret": "abcdefghizklmnopponommnshfghzxxs",
    });
    for request in [
        Request::token(crate::support::Encoding::Multipart, &DEMO),
        Request::token(crate::support::Encoding::Urlencoded, &DEMO),
        Request::new("POST", json).typed_body("application/json", body.to_string()),
        Request::get(firstvision)
            .header("Content-Type", "application/json")
            .basic("vision-api-user:abcdefghizklmnopponommnshfghzxxs"),
        Request::get("/.well-known/openid-configuration"),
    ] {
        let strange = request.clone().without_header("Host").header("Host", "evil.example");
        assert_eq!(here.ask(&strange).status, 200);
        for (name, value) in forwarded {
            assert_eq!(here.ask(&request.clone().header(name, value)).status, 200, "{name}");
        }
    }
    // The operator learns that a proxy would make the demo clients public.
    here.log.wait_for(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("remove demo-client, vision-api-user")
    });
}

#[test]
fn a_slash_after_the_path_of_the_reference_leads_there() {
    let server = start("issuer = \"http://localhost/tenant\"\n");
    for path in ["/docs/", "/tenant/docs/"] {
        for method in ["GET", "HEAD"] {
            let answer = server.ask(&Request::new(method, path));
            assert_eq!((answer.status, answer.body.len()), (308, 0), "{path}");
            assert_eq!(answer.header("location"), Some("../docs"));
            assert_policy(&answer);
        }
        let refused = server.ask(&Request::new("POST", path));
        refused.assert_refused(405, "invalid_request");
        assert_policy(&refused);
    }
}

#[test]
fn a_reload_turns_the_page_on_and_off() {
    let server = start("");
    let all = served(&server);
    assert_eq!(all.len(), DOCUMENTS.len());
    let turns = [
        ("[page]\nenabled = false\n", 0),
        ("[page]\nenabled = true\n", all.len()),
        ("issuer = \"https://auth.example\"\n", PUBLIC.len()),
        ("issuer = \"http://localhost\"\n", all.len()),
    ];
    for ((toml, documents), generation) in turns.into_iter().zip(2..) {
        server.home.write("grantd.toml", toml);
        server.hang_up();
        server.log.wait_for(|line| {
            line["message"] == "reloaded" && line["generation"] == json!(generation)
        });
        assert_eq!(served(&server).len(), documents, "{toml}");
    }
}

#[test]
fn the_switch_is_auto_or_a_boolean() {
    let home = Home::new();
    for (value, says) in [
        ("\"AUTO\"", None),
        ("true", None),
        ("\"sometimes\"", Some("g.toml:1:16: page.enabled: must be auto, true or false")),
        ("1", Some("g.toml:1:16: page.enabled: must be auto, true or false")),
        ("[true]", Some("g.toml:1:16: page.enabled: must be auto, true or false")),
    ] {
        home.write("g.toml", &format!("page.enabled = {value}"));
        let checked = run(&mut home.command(&["check", "--config", "g.toml"]));
        match says {
            None => drop(checked.assert_fine()),
            Some(says) => checked.assert_error(1, &[says]),
        }
    }
    for (value, documents) in [("off", 0), ("Auto", DOCUMENTS.len()), ("1", DOCUMENTS.len())] {
        let server = Program::start_with(Home::new(), &[], &[("GRANTD_PAGE__ENABLED", value)]);
        assert_eq!(served(&server).len(), documents, "{value}");
    }
}

#[test]
fn where_the_page_is_off_its_paths_are_unknown() {
    let off = start("[page]\nenabled = false\n");
    for (path, ..) in DOCUMENTS {
        for request in [Request::get(path), visit(path), Request::new("POST", path)] {
            let answer = off.ask(&request);
            answer.assert_refused(404, "invalid_request");
            let says = answer.json()["error_description"].as_str().unwrap().to_owned();
            for documented in ["/connect/token", "/v1/api/oauth/token", "/v1/getAccessToken"] {
                assert!(says.contains(documented), "{says}");
            }
            assert_eq!(answer.header("content-security-policy"), None);
            let line = off.log.of_request(answer.header("x-request-id").unwrap());
            assert_eq!((&line["route"], &line["path"]), (&json!("unknown"), &json!(path)));
        }
    }
    assert_eq!(off.ask(&visit("/other")).header("content-type"), Some("application/json"));
}

#[test]
fn an_unknown_path_is_a_page_for_people_only() {
    let server = start(
        "issuer = \"http://localhost/tenant\"\n\
         [[route]]\npath = \"/own\"\ndialect = \"firstvision\"\n",
    );
    for path in ["/other", "/tenant/other", "/connections", "/docs/other", "/docs//", "/v11"] {
        let page = server.ask(&visit(path));
        assert_eq!(page.status, 404, "{path}");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(page.header("cache-control"), Some("no-store"));
        assert_eq!(page.header("vary"), Some("Sec-Fetch-Dest"));
        assert_policy(&page);
        let text = page.text();
        assert!(text.contains("POST /connect/token"), "{text}");
        assert!(text.contains("href=\"/tenant/docs\""), "{text}");
        assert!(!text.contains(['{', '}']), "{text}");
        let line = server.log.of_request(page.header("x-request-id").unwrap());
        assert_eq!((&line["cause"], &line["path"]), (&json!("not_found"), &json!(path)));

        let plain = server.ask(&Request::get(path));
        plain.assert_refused(404, "invalid_request");
        if path.starts_with("/docs/") {
            assert_policy(&plain);
        } else {
            assert_eq!(plain.header("content-security-policy"), None, "{path}");
        }
        for destination in ["empty", "iframe", "script", "Document"] {
            let request = Request::get(path).header("Sec-Fetch-Dest", destination);
            let answer = server.ask(&request);
            assert_eq!(answer.without_id_and_date(), plain.without_id_and_date(), "{destination}");
        }
        let twice = visit(path).header("Sec-Fetch-Dest", "document");
        assert_eq!(server.ask(&twice).without_id_and_date(), plain.without_id_and_date());
    }
    for path in [
        "/connect",
        "/connect/other",
        "/tenant/connect/other",
        "/v1/other",
        "/v1/api/other",
        "/v1/getAccessToken/a/b",
        "/v2/api/other",
        "/.well-known/other",
        "/own/a/b",
    ] {
        let (visited, asked) = (server.ask(&visit(path)), server.ask(&Request::get(path)));
        assert_eq!(visited.status, 404, "{path}");
        assert_eq!(visited.without_id_and_date(), asked.without_id_and_date(), "{path}");
    }
    // A refusal that is not about the path is the same for a browser.
    let post = visit("/").with_method("POST");
    server.ask(&post).assert_refused(405, "invalid_request");
    let without_page = start("issuer = \"https://auth.example\"\n");
    for path in ["/", "/docs", "/docs/"] {
        let refused = without_page.ask(&Request::get(path));
        refused.assert_refused(404, "invalid_request");
        assert_policy(&refused);
    }
    let text = without_page.ask(&visit("/")).text().to_owned();
    assert!(text.contains("POST /connect/token") && !text.contains("/docs\""), "{text}");
}

#[test]
fn every_document_is_also_below_the_issuers_path() {
    let server = start("issuer = \"http://localhost/a'tenant&co/\"\n");
    for (path, media_type, _) in DOCUMENTS {
        for path in [path.to_owned(), format!("/a'tenant&co{path}")] {
            let answer = server.ask(&Request::get(&path));
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.header("content-type"), Some(media_type));
        }
    }
    // The links of the page are relative, so its path ends with a slash. Elsewhere, a page leads
    // there.
    for path in ["/a'tenant&co", "/other"] {
        let lost = server.ask(&visit(path));
        assert_eq!(lost.status, 404, "{path}");
        for link in
            ["href=\"/a&#39;tenant&amp;co/\"", "href=\"/a&#39;tenant&amp;co/docs/page.css\""]
        {
            assert!(lost.text().contains(link), "{}", lost.text());
        }
    }
}

/// Returns the demo clients that the page offers.
fn offered(server: &Program) -> Value {
    let page = server.ask(&Request::get("/")).text().to_owned();
    let after = page.split("data-demo-clients=\"").nth(1).expect("the attribute");
    let attribute = after.split('"').next().unwrap();
    serde_json::from_str(&attribute.replace("&quot;", "\"")).unwrap()
}

#[test]
fn the_demo_clients_are_offered_while_they_are_served() {
    let home = Home::new();
    let server = Program::start(home, &[]);
    let ids = |offered: &Value| -> Vec<_> {
        offered.as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
    };
    let all = offered(&server);
    assert_eq!(ids(&all), ["demo-client", "vision-api-user"]);
    assert_eq!(all[0]["secret"], DEMO[1].1);

    let with_other_secret = client_json("demo-client", &json!({}));
    let disabled = json!({ "enabled": false });
    let mut shipped: Value = serde_json::from_str(include_str!("../../clients.json")).unwrap();
    let user = shipped["clients"][1].take();
    assert_eq!(user["client_id"], "vision-api-user");
    for (clients, generation, expected) in [
        (vec![with_other_secret.clone(), user.clone()], 2, &["vision-api-user"][..]),
        (vec![with_other_secret, crate::support::registry::changed(user, &disabled)], 3, &[]),
    ] {
        server.home.register(&clients);
        server.hang_up();
        server.log.wait_for(|line| {
            line["message"] == "reloaded" && line["generation"] == json!(generation)
        });
        assert_eq!(ids(&offered(&server)), expected);
    }
    // No document has a secret that is not public.
    for (path, ..) in DOCUMENTS {
        let text = String::from_utf8_lossy(&server.ask(&Request::get(path)).body).into_owned();
        let of_tests = crate::support::home::secret_of("");
        for secret in ["$sha256$", DEMO[1].1, &of_tests] {
            assert!(!text.contains(secret), "{path}");
        }
    }
}

#[test]
fn a_reload_renews_what_describes_the_routes() {
    let server = start("");
    let of = |path: &str| server.ask(&Request::get(path));
    let reload = |generation: u64| {
        server.hang_up();
        server.log.wait_for(|line| {
            line["message"] == "reloaded" && line["generation"] == json!(generation)
        });
    };
    let paths = ["/openapi.json", "/docs", "/docs/grantd.postman_collection.json"];
    let before = paths.map(of);

    // A change of the clients leaves the documents as they are.
    server.home.register(&[client_json("b", &json!({}))]);
    reload(2);
    for (path, before) in paths.iter().zip(&before) {
        assert_eq!(of(path).without_id_and_date(), before.without_id_and_date(), "{path}");
    }
    server.home.write("grantd.toml", "[[route]]\npath = \"/own\"\ndialect = \"connect\"\n");
    reload(3);
    for (path, before) in paths.iter().zip(&before) {
        let after = of(path);
        assert_ne!(after.header("etag"), before.header("etag"), "{path}");
        assert!(after.text().contains("/own"), "{path}");
    }
    server.home.write("grantd.toml", "");
    reload(4);
    assert_eq!(of("/openapi.json").header("etag"), before[0].header("etag"));
}
