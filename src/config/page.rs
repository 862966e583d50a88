//! The setting of the page for developers who use the server.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::scalar::{Scalar, scalar};
use crate::config::value::parse_switch;

/// The settings of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Page {
    /// Whether the server answers with its page. Without the Cargo feature `page`, it never does.
    pub enabled: PageSwitch,
}

/// Whether the server answers with its page, and with the documents beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PageSwitch {
    /// The OpenAPI document and the icon; the page and its reference only if the demo clients may
    /// be served, and, unless the operator has allowed them everywhere, to requests without a sign
    /// that they come from another machine or from a web page of another site.
    #[default]
    Auto,
    /// The page and all its documents.
    On,
    /// Neither the page nor a document.
    Off,
}

impl Serialize for PageSwitch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::On => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for PageSwitch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, NO_PAGE_SWITCH, |value| {
            let is_on = match value {
                Scalar::Text(word) if word.eq_ignore_ascii_case("auto") => return Ok(Self::Auto),
                Scalar::Text(word) => parse_switch(word).map_err(|_| NO_PAGE_SWITCH)?,
                Scalar::Number(_) => return Err(NO_PAGE_SWITCH),
                Scalar::Switch(is_on) => is_on,
            };
            Ok(if is_on { Self::On } else { Self::Off })
        })
    }
}

const NO_PAGE_SWITCH: &str = "must be auto, true or false";

/// The page, or a document beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageDocument {
    /// The page.
    Page,
    /// The reference.
    Reference,
    /// The path of the reference with a slash at its end, which leads to the reference.
    ReferenceWithSlash,
    /// The requests of the reference, for Postman and Insomnia.
    Collection,
    /// The style of the page, of the reference and of the page for unknown paths.
    Style,
    /// The page's script.
    Script,
    /// The part of the script that makes requests from the OpenAPI document.
    OperationsScript,
    /// The part of the script that writes a request as code.
    SnippetsScript,
    /// The part of the script that reads and verifies a token.
    TokenScript,
    /// The icon.
    Icon,
    /// The OpenAPI document.
    Openapi,
}

impl PageDocument {
    /// All documents.
    pub const ALL: [Self; 11] = [
        Self::Page,
        Self::Reference,
        Self::ReferenceWithSlash,
        Self::Collection,
        Self::Style,
        Self::Script,
        Self::OperationsScript,
        Self::SnippetsScript,
        Self::TokenScript,
        Self::Icon,
        Self::Openapi,
    ];

    /// Finds the document at `path`, which is relative to the issuer. `None` if there is none or if
    /// it is not served. `offers_page` says whether [`PageSwitch::Auto`] shows the page to this
    /// request.
    pub fn at(path: &str, switch: PageSwitch, offers_page: impl FnOnce() -> bool) -> Option<Self> {
        let document = Self::ALL.into_iter().find(|document| document.path() == path)?;
        let is_served = match switch {
            PageSwitch::Auto => document.is_always_served() || offers_page(),
            PageSwitch::On => true,
            PageSwitch::Off => false,
        };
        (is_served && cfg!(feature = "page")).then_some(document)
    }

    /// The path, relative to the issuer.
    pub fn path(self) -> &'static str {
        self.row().0
    }

    /// The label of the route in logs and metrics.
    pub fn label(self) -> &'static str {
        self.row().1
    }

    /// Whether [`PageSwitch::Auto`] serves the document to other machines too.
    fn is_always_served(self) -> bool {
        self.row().2
    }

    /// The table of all documents: the path, the label and whether the document is always served.
    fn row(self) -> (&'static str, &'static str, bool) {
        match self {
            Self::Page => ("/", "page", false),
            Self::Reference => ("/docs", "docs", false),
            Self::ReferenceWithSlash => ("/docs/", "docs", false),
            Self::Collection => ("/docs/grantd.postman_collection.json", "page_file", false),
            Self::Style => ("/docs/page.css", "page_file", true),
            Self::Script => ("/docs/page.js", "page_file", false),
            Self::OperationsScript => ("/docs/operations.js", "page_file", false),
            Self::SnippetsScript => ("/docs/snippets.js", "page_file", false),
            Self::TokenScript => ("/docs/token.js", "page_file", false),
            Self::Icon => ("/favicon.ico", "page_file", true),
            Self::Openapi => ("/openapi.json", "openapi", true),
        }
    }
}
