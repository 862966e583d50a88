//! The page for developers who use the server, and the documents beside it. The files of the page are
//! compiled into the program. What depends on the settings is made once for each snapshot.

mod demo;
mod html;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::config::PageSwitch;
use crate::dialect::Answer;
use crate::endpoint::metadata::etag_of;
use crate::page::html::escape;
use crate::snapshot::Snapshot;

/// The paths of all documents, relative to the issuer. No configured route may have such a path.
#[cfg(test)]
pub const PATHS: [&str; 6] =
    ["/", "/docs", "/docs/page.css", "/docs/page.js", "/favicon.ico", "/openapi.json"];

/// The page, or a document beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// The page.
    Page,
    /// The page's script.
    Script,
    /// The reference.
    Reference,
    /// The style of the page, of the reference and of the page for unknown paths.
    Style,
    /// The OpenAPI document.
    Openapi,
    /// The icon.
    Icon,
}

impl Document {
    /// Finds the document at `path`, which is relative to the issuer. `None` if there is none or if
    /// it is not served.
    pub fn at(path: &str, snapshot: &Snapshot) -> Option<Self> {
        let switch = snapshot.config.live.page.enabled;
        let has_page = match switch {
            PageSwitch::Auto => snapshot.allows_demo_secrets,
            PageSwitch::On => true,
            PageSwitch::Off => return None,
        };
        match path {
            "/openapi.json" => Some(Self::Openapi),
            "/favicon.ico" => Some(Self::Icon),
            "/docs/page.css" => Some(Self::Style),
            "/" if has_page => Some(Self::Page),
            "/docs" if has_page => Some(Self::Reference),
            "/docs/page.js" if has_page => Some(Self::Script),
            _ => None,
        }
    }

    /// The label of the route in logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Reference => "docs",
            Self::Openapi => "openapi",
            Self::Icon | Self::Script | Self::Style => "page_file",
        }
    }
}

/// The documents of one snapshot, made when the first of them is asked for.
#[derive(Debug, Default)]
pub struct Pages(Mutex<Option<Arc<Made>>>);

#[derive(Debug)]
struct Made {
    generation: u64,
    page: File,
    script: File,
    reference: File,
    style: File,
    openapi: File,
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
        Self {
            generation: snapshot.generation,
            page: File::new(HTML, demo::offered(PAGE, snapshot)),
            script: File::new("text/javascript; charset=utf-8", SCRIPT),
            reference: File::new(HTML, REFERENCE),
            style: File::new("text/css; charset=utf-8", STYLE),
            openapi: File::new("application/json", openapi(snapshot).to_string()),
            icon: File::new("image/x-icon", ICON),
        }
    }

    fn file(&self, document: Document) -> &File {
        match document {
            Document::Page => &self.page,
            Document::Script => &self.script,
            Document::Reference => &self.reference,
            Document::Style => &self.style,
            Document::Openapi => &self.openapi,
            Document::Icon => &self.icon,
        }
    }
}

impl Pages {
    /// Answers a request for `document`. `has_current_copy` says whether the client has the version
    /// with the given entity tag; the answer is then 304.
    pub fn answer(
        &self,
        document: Document,
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

/// Returns the page for a browser that was sent to an unknown path. `path` is relative to the issuer.
/// `None` if the path belongs to programs, or if the page is off.
pub fn not_found(path: &str, snapshot: &Snapshot) -> Option<Answer> {
    let is_below = |parent: &&str| {
        path.strip_prefix(*parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_for_programs = OF_PROGRAMS.iter().any(is_below);
    if is_for_programs || snapshot.config.live.page.enabled == PageSwitch::Off {
        return None;
    }
    let has_page = Document::at("/", snapshot).is_some();
    let links = if has_page { NOT_FOUND_LINKS } else { "" };
    let base = escape(snapshot.issuer.path());
    let body = NOT_FOUND.replace("{links}", links).replace("{base}", &base);
    let mut answer = Answer { body: body.into(), ..Answer::empty(404) };
    answer.push_header("content-type", HTML);
    answer.push_header("cache-control", "no-store");
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

/// Returns the OpenAPI document.
fn openapi(snapshot: &Snapshot) -> Value {
    json!({
        "openapi": "3.1.0",
        "info": { "title": "grantd", "version": env!("CARGO_PKG_VERSION") },
        "servers": [{ "url": snapshot.issuer.join("") }],
        "paths": {},
    })
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
const HTML: &str = "text/html; charset=utf-8";
const PAGE: &str = include_str!("page/page.html");
const REFERENCE: &str = include_str!("page/reference.html");
const NOT_FOUND: &str = include_str!("page/not_found.html");
const NOT_FOUND_LINKS: &str =
    "<p><a href=\"{base}/\">Get a token</a> · <a href=\"{base}/docs\">Reference</a></p>";
const SCRIPT: &str = include_str!("page/page.js");
const STYLE: &str = include_str!("page/page.css");
const ICON: &[u8] = include_bytes!("page/favicon.ico");

/// Below these paths, unknown paths are answered as to a program, even if a browser asks.
const OF_PROGRAMS: [&str; 4] = ["/connect", "/v1", "/v2", "/.well-known"];
