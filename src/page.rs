//! The page for developers who use the server, and the documents beside it. The files of the page
//! are compiled into the program. What depends on the settings is made once for each snapshot.

mod collection;
mod demo;
mod html;
pub mod openapi;
mod reading;
mod reference;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::config::{PageDocument, PageSwitch};
use crate::dialect::Answer;
use crate::endpoint::metadata::etag_of;
use crate::page::html::escape;
use crate::snapshot::Snapshot;

/// The documents of one snapshot, made when the first of them is asked for.
#[derive(Debug, Default)]
pub struct Pages(Mutex<Option<Arc<Made>>>);

#[derive(Debug)]
struct Made {
    generation: u64,
    page: File,
    scripts: [File; 4],
    reference: File,
    style: File,
    openapi: File,
    collection: File,
    icon: File,
}

#[derive(Debug)]
struct File {
    body: Bytes,
    media_type: &'static str,
    etag: String,
}

impl File {
    fn new(media_type: &'static str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self { etag: etag_of(&body), media_type, body }
    }
}

impl Made {
    fn of(snapshot: &Snapshot) -> Self {
        let openapi = openapi::document(snapshot);
        Self {
            generation: snapshot.generation,
            page: File::new(HTML, demo::offered(PAGE, snapshot)),
            scripts: SCRIPTS.map(|script| File::new("text/javascript; charset=utf-8", script)),
            reference: File::new(HTML, reference::html(&openapi)),
            style: File::new("text/css; charset=utf-8", STYLE),
            collection: File::new(JSON, collection::postman(&openapi).to_string()),
            openapi: File::new(JSON, openapi.to_string()),
            icon: File::new("image/x-icon", ICON),
        }
    }

    fn file(&self, document: PageDocument) -> &File {
        match document {
            PageDocument::Page => &self.page,
            PageDocument::Script => &self.scripts[0],
            PageDocument::OperationsScript => &self.scripts[1],
            PageDocument::SnippetsScript => &self.scripts[2],
            PageDocument::TokenScript => &self.scripts[3],
            PageDocument::Reference => &self.reference,
            PageDocument::Style => &self.style,
            PageDocument::Openapi => &self.openapi,
            PageDocument::Collection => &self.collection,
            PageDocument::Icon => &self.icon,
        }
    }
}

impl Pages {
    /// Answers a request for `document`. `has_current_copy` says whether the client has the version
    /// with the given entity tag; the answer is then 304.
    pub fn answer(
        &self,
        document: PageDocument,
        snapshot: &Snapshot,
        has_current_copy: impl FnOnce(&str) -> bool,
    ) -> Answer {
        let made = self.made(snapshot);
        let File { body, media_type, etag } = made.file(document);
        let mut answer = if has_current_copy(etag) {
            Answer::empty(304)
        } else {
            Answer { body: body.clone(), ..Answer::empty(200) }
        };
        answer.push_header("content-type", *media_type);
        answer.push_header("etag", etag.clone());
        answer.push_header("cache-control", "no-cache");
        push_policy(&mut answer);
        answer
    }

    fn made(&self, snapshot: &Snapshot) -> Arc<Made> {
        let mut made = self.0.lock();
        match &*made {
            Some(made) if made.generation == snapshot.generation => Arc::clone(made),
            _ => Arc::clone(made.insert(Arc::new(Made::of(snapshot)))),
        }
    }
}

/// Returns the page for a browser that was sent to an unknown path. `path` is relative to the
/// issuer. `None` if the path belongs to programs, or if the page is off.
pub fn not_found(path: &str, snapshot: &Snapshot) -> Option<Answer> {
    let is_below = |parent: &&str| {
        path.strip_prefix(*parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let switch = snapshot.config.live.page.enabled;
    let is_for_programs = OF_PROGRAMS.iter().any(is_below);
    if is_for_programs || switch == PageSwitch::Off {
        return None;
    }
    let has_page = PageDocument::at("/", switch, snapshot.allows_demo_secrets).is_some();
    let links = if has_page { NOT_FOUND_LINKS } else { "" };
    let base = escape(snapshot.issuer.path());
    let body = NOT_FOUND.replace("{links}", links).replace("{base}", &base);
    let mut answer = Answer { body: body.into(), ..Answer::empty(404) };
    answer.push_header("content-type", HTML);
    answer.push_header("cache-control", "no-store");
    // A cache that keeps the answer all the same must not give it to a program.
    answer.push_header("vary", "Sec-Fetch-Dest");
    push_policy(&mut answer);
    Some(answer)
}

/// Adds the header fields by which a browser keeps other sites and foreign content out of the page.
fn push_policy(answer: &mut Answer) {
    answer.push_header("content-security-policy", POLICY);
    answer.push_header("x-content-type-options", "nosniff");
    answer.push_header("referrer-policy", "no-referrer");
    answer.push_header("cross-origin-opener-policy", "same-origin");
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const PAGE: &str = include_str!("page/page.html");
const NOT_FOUND: &str = include_str!("page/not_found.html");
const NOT_FOUND_LINKS: &str = r#"<nav aria-label="Documents">
    <a href="{base}/">Get a token</a>
    <a href="{base}/docs">Reference</a>
  </nav>"#;
const SCRIPTS: [&str; 4] = [
    include_str!("page/page.js"),
    include_str!("page/operations.js"),
    include_str!("page/snippets.js"),
    include_str!("page/token.js"),
];
const STYLE: &str = concat!(include_str!("page/page.css"), include_str!("page/reference.css"));
const ICON: &[u8] = include_bytes!("page/favicon.ico");

/// Below these paths, unknown paths are answered as to a program, even if a browser asks.
const OF_PROGRAMS: [&str; 4] = ["/connect", "/v1", "/v2", "/.well-known"];
