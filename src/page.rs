//! The page for developers who use the server, and the documents beside it. The files of the page
//! are compiled into the program. What describes the routes is made from the program's own tables.

mod collection;
mod demo;
mod html;
pub mod openapi;
mod policy;
mod reading;
mod reference;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::config::{Config, IssuerUrl, PageDocument, PageSwitch};
use crate::dialect::Answer;
use crate::dialect::route::is_below;
use crate::endpoint::metadata::etag_of;
use crate::page::html::escape;
pub use crate::page::policy::push_policy;
use crate::snapshot::Snapshot;

/// Answers requests for the page and its documents. Keeps the documents that take some milliseconds
/// to make.
#[derive(Debug, Default)]
pub struct Pages(Mutex<Option<Arc<Described>>>);

/// The documents that describe the routes, for one configuration and issuer.
#[derive(Debug)]
struct Described {
    config: Config,
    issuer: IssuerUrl,
    openapi: File,
    reference: File,
    collection: File,
}

impl Described {
    fn of(snapshot: &Snapshot) -> Self {
        let openapi = openapi::document(snapshot);
        Self {
            config: snapshot.config.clone(),
            issuer: snapshot.issuer.clone(),
            reference: File::new(HTML, reference::html(&openapi)),
            collection: File::new(JSON, collection::postman(&openapi).to_string()),
            openapi: File::new(JSON, openapi.to_string()),
        }
    }
}

#[derive(Clone, Debug)]
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

impl Pages {
    /// Answers a request for `document`. `has_current_copy` says whether the client has the version
    /// with the given entity tag; the answer is then 304. The answer is a redirect if the document is
    /// at another path.
    pub fn answer(
        &self,
        document: PageDocument,
        snapshot: &Snapshot,
        has_current_copy: impl FnOnce(&str) -> bool,
    ) -> Answer {
        let Some(File { body, media_type, etag }) = self.file(document, snapshot) else {
            return to_reference();
        };
        let mut answer = if has_current_copy(&etag) {
            Answer::empty(304)
        } else {
            Answer { body, ..Answer::empty(200) }
        };
        answer.push_header("content-type", media_type);
        answer.push_header("etag", etag);
        answer.push_header("cache-control", "no-cache");
        push_policy(&mut answer);
        answer
    }

    /// Returns the file of `document`; `None` if it is at another path.
    fn file(&self, document: PageDocument, snapshot: &Snapshot) -> Option<File> {
        let script = |text: &'static str| File::new("text/javascript; charset=utf-8", text);
        Some(match document {
            PageDocument::Page => File::new(HTML, demo::offered(PAGE, snapshot)),
            PageDocument::Script => script(include_str!("page/page.js")),
            PageDocument::OperationsScript => script(include_str!("page/operations.js")),
            PageDocument::SnippetsScript => script(include_str!("page/snippets.js")),
            PageDocument::TokenScript => script(include_str!("page/token.js")),
            PageDocument::Style => File::new("text/css; charset=utf-8", STYLE),
            PageDocument::Icon => File::new("image/x-icon", ICON),
            PageDocument::Reference => self.described(snapshot).reference.clone(),
            PageDocument::ReferenceWithSlash => return None,
            PageDocument::Openapi => self.described(snapshot).openapi.clone(),
            PageDocument::Collection => self.described(snapshot).collection.clone(),
        })
    }

    fn described(&self, snapshot: &Snapshot) -> Arc<Described> {
        let mut kept = self.0.lock();
        let is_current =
            |it: &Described| it.config == snapshot.config && it.issuer == snapshot.issuer;
        match &*kept {
            Some(described) if is_current(described) => Arc::clone(described),
            _ => Arc::clone(kept.insert(Arc::new(Described::of(snapshot)))),
        }
    }
}

/// Leads from `/docs/` to `/docs`. The target is relative, since the server does not know below which
/// path a proxy serves it.
fn to_reference() -> Answer {
    let mut answer = Answer::empty(308);
    answer.push_header("location", "../docs");
    answer.push_header("cache-control", "no-cache");
    push_policy(&mut answer);
    answer
}

/// Whether `path`, which is relative to the issuer, belongs to the page, whether or not a document is
/// there. Always false if the page is off.
pub fn owns(path: &str, snapshot: &Snapshot) -> bool {
    snapshot.config.live.page.enabled != PageSwitch::Off
        && (path.starts_with("/docs/")
            || PageDocument::ALL.iter().any(|document| document.path() == path))
}

/// Returns the page for a browser that was sent to an unknown path. `path` is relative to the
/// issuer. `None` if the path belongs to programs, or if the page is off.
/// `offers_page` says whether [`PageSwitch::Auto`] shows the page to this request.
pub fn not_found(
    path: &str,
    snapshot: &Snapshot,
    offers_page: impl FnOnce() -> bool,
) -> Option<Answer> {
    let switch = snapshot.config.live.page.enabled;
    let is_for_programs = OF_PROGRAMS.iter().any(|parent| is_below(path, parent));
    if is_for_programs || switch == PageSwitch::Off {
        return None;
    }
    let has_page = PageDocument::at("/", switch, offers_page).is_some();
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

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const PAGE: &str = include_str!("page/page.html");
const NOT_FOUND: &str = include_str!("page/not_found.html");
const NOT_FOUND_LINKS: &str = r#"<nav aria-label="Documents">
    <a href="{base}/">Get a token</a>
    <a href="{base}/docs">Reference</a>
  </nav>"#;
const STYLE: &str = concat!(include_str!("page/page.css"), include_str!("page/reference.css"));
const ICON: &[u8] = include_bytes!("page/favicon.ico");

/// Below these paths, unknown paths are answered as to a program, even if a browser asks.
const OF_PROGRAMS: [&str; 4] = ["/connect", "/v1", "/v2", "/.well-known"];
