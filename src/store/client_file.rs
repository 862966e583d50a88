//! `clients.json`: the client registry as a file.
//!
//! Reading finds every fault, each with its line and field and never with a value, since the value
//! may be a secret in the wrong place. Adding a client changes nothing else in the text.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::config::line_of;
use crate::fault::Fault;
use crate::issuer::RESERVED_CLAIMS;
use crate::oauth::client::{
    AuthMethod, AuthMethods, Client, ContentType, RateLimit, Registry, TokenProfile, is_vschar,
};
use crate::oauth::client_secret::{ClientSecret, SecretHash};
use crate::oauth::scope::ScopeSet;

/// Reads the registry from `file`.
///
/// # Errors
///
/// Every fault in it.
pub fn load(file: &Path) -> Result<Registry, Vec<Fault>> {
    parse(file, &read(file).map_err(|fault| vec![fault])?)
}

/// Reads the text of `file`.
///
/// # Errors
///
/// The [`Fault`].
pub fn read(file: &Path) -> Result<String, Fault> {
    std::fs::read_to_string(file).map_err(|error| {
        Fault::new(file, format!("cannot be read: {error}; `grantd client add` makes one"))
    })
}

/// Reads the registry from `text`, which stands in `file`.
///
/// # Errors
///
/// Every fault in it.
pub fn parse(file: &Path, text: &str) -> Result<Registry, Vec<Fault>> {
    let document: Document<'_> =
        serde_json::from_str(text).map_err(|error| vec![document_fault(file, &error)])?;
    let mut reader = Reader { file, text, faults: Vec::new() };
    let mut registry = Registry::with_capacity(document.clients.len());
    for (index, raw) in document.clients.iter().copied().enumerate() {
        let Some(client) = reader.client(index, raw) else { continue };
        if !registry.insert(client) {
            reader.fault(raw, Place { index, field: "client_id" }, "is registered twice");
        }
    }
    if reader.faults.is_empty() { Ok(registry) } else { Err(reader.faults) }
}

/// The entry of one client as it stands in the file, with its fields in their order.
///
/// # Errors
///
/// The file's first fault.
pub fn entries(file: &Path, text: &str) -> Result<Vec<Map<String, Value>>, Fault> {
    #[derive(Deserialize)]
    struct Entries {
        clients: Vec<Map<String, Value>>,
    }
    let entries: Entries =
        serde_json::from_str(text).map_err(|error| document_fault(file, &error))?;
    Ok(entries.clients)
}

/// A new client as it is written into the file.
#[derive(Debug, Serialize)]
pub struct NewClient {
    /// See [`Client::id`].
    pub client_id: String,
    /// See [`Client::enabled`].
    pub enabled: bool,
    /// Its first secret.
    pub secrets: Vec<NewSecret>,
    /// See [`Client::auth_methods`].
    pub auth_methods: Vec<&'static str>,
    /// See [`Client::scopes`].
    pub scopes: Vec<String>,
    /// See [`Client::default_scopes`].
    pub default_scopes: Vec<String>,
    /// See [`Client::audience`].
    pub audience: Vec<String>,
    /// See [`Client::token_lifetime`].
    pub token_lifetime: u32,
    /// Static claims.
    pub claims: Map<String, Value>,
}

/// A secret as it is written into the file.
#[derive(Debug, Serialize)]
pub struct NewSecret {
    /// See [`ClientSecret::label`].
    pub label: String,
    /// The stored form of its hash.
    pub hash: String,
}

/// The text of a registry with `client` behind all others; every other byte stays. `None`: a file
/// that does not exist yet.
///
/// # Errors
///
/// Every fault of the text as it was, and of the text as it would be.
pub fn append(file: &Path, text: Option<&str>, client: &NewClient) -> Result<String, Vec<Fault>> {
    #[derive(Deserialize)]
    struct Outline<'a> {
        #[serde(borrow)]
        clients: &'a RawValue,
    }

    let text = text.unwrap_or("{\n  \"clients\": []\n}\n");
    parse(file, text)?;
    let outline: Outline<'_> =
        serde_json::from_str(text).map_err(|error| vec![document_fault(file, &error)])?;

    let entry = serde_json::to_string_pretty(client)
        .map_err(|error| vec![Fault::new(file, error.to_string())])?
        .replace('\n', "\n    ");
    let list = outline.clients.get();
    let list_end = offset_in(text, list) + list.len() - 1;
    let (before, after) = text.split_at(list_end);
    let before = before.trim_end();
    let comma = if before.ends_with('[') { "" } else { "," };
    let changed = format!("{before}{comma}\n    {entry}\n  {after}");
    parse(file, &changed)?;
    Ok(changed)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    #[serde(borrow)]
    clients: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientEntry<'a> {
    #[serde(borrow)]
    client_id: &'a RawValue,
    #[serde(borrow)]
    enabled: Option<&'a RawValue>,
    #[serde(borrow)]
    secrets: Option<&'a RawValue>,
    #[serde(borrow)]
    auth_methods: Option<&'a RawValue>,
    #[serde(borrow)]
    scopes: Option<&'a RawValue>,
    #[serde(borrow)]
    default_scopes: Option<&'a RawValue>,
    #[serde(borrow)]
    audience: Option<&'a RawValue>,
    #[serde(borrow)]
    token_lifetime: Option<&'a RawValue>,
    #[serde(borrow)]
    token_profile: Option<&'a RawValue>,
    #[serde(borrow)]
    content_type: Option<&'a RawValue>,
    #[serde(borrow)]
    rate_limit: Option<&'a RawValue>,
    #[serde(borrow)]
    claims: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateLimitEntry {
    requests: u32,
    seconds: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretEntry<'a> {
    label: String,
    #[serde(borrow)]
    hash: &'a RawValue,
    not_before: Option<u64>,
    expires_at: Option<u64>,
}

/// A field of the client at `index`, to be written out only if it is at fault.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    field: &'static str,
}

struct Reader<'t> {
    file: &'t Path,
    text: &'t str,
    faults: Vec<Fault>,
}

impl<'t> Reader<'t> {
    fn client(&mut self, index: usize, raw: &'t RawValue) -> Option<Client> {
        let faults_before = self.faults.len();
        let entry: ClientEntry<'_> = match serde_json::from_str(raw.get()) {
            Ok(entry) => entry,
            Err(error) => {
                let line = line_of(self.text, offset_in(self.text, raw.get())) + error.line() - 1;
                let fault = Fault::new(self.file, structure_problem(&error));
                self.faults.push(fault.at_line(line).in_field(format!("clients[{index}]")));
                return None;
            }
        };
        let at = |field| Place { index, field };

        let id: String = self.value(Some(entry.client_id), at("client_id"), "a string")?;
        if id.is_empty() || !is_vschar(&id) {
            let problem = "must be one or more printable ASCII characters";
            self.fault(entry.client_id, at("client_id"), problem);
        }
        let enabled = self.value(entry.enabled, at("enabled"), "true or false").unwrap_or(true);
        let secrets = self.secrets(entry.secrets, at("secrets"));
        let auth_methods = self.auth_methods(entry.auth_methods, at("auth_methods"));
        let scopes = self.scopes(entry.scopes, at("scopes")).unwrap_or_default();
        let default_scopes = self.scopes(entry.default_scopes, at("default_scopes"));
        if let (Some(raw), Some(default)) = (entry.default_scopes, &default_scopes)
            && !scopes.contains_all(default)
        {
            self.fault(raw, at("default_scopes"), "names a scope that is not in `scopes`");
        }
        let audience: Vec<Box<str>> =
            self.value(entry.audience, at("audience"), "a list of strings").unwrap_or_default();
        if let Some(raw) = entry.audience
            && audience.iter().any(|audience| audience.is_empty())
        {
            self.fault(raw, at("audience"), "must not hold an empty string");
        }
        let token_lifetime = self
            .value(entry.token_lifetime, at("token_lifetime"), LIFETIME)
            .unwrap_or(DEFAULT_LIFETIME);
        if let Some(raw) = entry.token_lifetime
            && !(1..=MAX_LIFETIME).contains(&token_lifetime)
        {
            self.fault(raw, at("token_lifetime"), format!("must be {LIFETIME}"));
        }
        let token_profile = self.token_profile(entry.token_profile, at("token_profile"));
        let content_type = self.content_type(entry.content_type, at("content_type"));
        let rate_limit = self.rate_limit(entry.rate_limit, at("rate_limit"));
        let extra_claims = self.claims(entry.claims, at("claims"));

        (self.faults.len() == faults_before).then(|| Client {
            id: id.into(),
            enabled,
            secrets: secrets.into(),
            auth_methods,
            scopes,
            default_scopes,
            audience: audience.into(),
            token_lifetime,
            token_profile,
            content_type,
            rate_limit,
            extra_claims: extra_claims.into(),
        })
    }

    fn secrets(&mut self, raw: Option<&'t RawValue>, at: Place) -> Vec<ClientSecret> {
        let entries: Vec<SecretEntry<'t>> = self
            .value(raw, at, "a list of {label, hash, not_before?, expires_at?}")
            .unwrap_or_default();
        let mut secrets: Vec<ClientSecret> = Vec::with_capacity(entries.len());
        for entry in entries {
            let stored: Option<String> = self.value(Some(entry.hash), at, "$sha256$<base64url>");
            let Some(hash) = stored.as_deref().and_then(SecretHash::parse) else {
                let problem = "holds a hash that is not $sha256$<base64url>";
                self.fault(entry.hash, at, problem);
                continue;
            };
            if secrets.iter().any(|secret| *secret.label == *entry.label) {
                self.fault(entry.hash, at, "has two secrets of the same label");
            }
            secrets.push(ClientSecret {
                label: entry.label.into(),
                hash,
                not_before: entry.not_before,
                expires_at: entry.expires_at,
            });
        }
        secrets
    }

    fn auth_methods(&mut self, raw: Option<&'t RawValue>, at: Place) -> AuthMethods {
        let Some(raw) = raw else { return AuthMethods::from_iter(AuthMethod::ALL) };
        let names: Vec<String> = self.value(Some(raw), at, "a list of strings").unwrap_or_default();
        let mut methods = Vec::new();
        for name in names {
            match name.parse() {
                Ok(method) => methods.push(method),
                Err(unknown) => self.fault(raw, at, format!("names what is {unknown}")),
            }
        }
        AuthMethods::from_iter(methods)
    }

    fn scopes(&mut self, raw: Option<&'t RawValue>, at: Place) -> Option<ScopeSet> {
        let raw = raw?;
        let tokens: Vec<String> = self.value(Some(raw), at, "a list of strings")?;
        let scopes = ScopeSet::from_tokens(&tokens);
        if scopes.is_none() {
            self.fault(raw, at, "must hold scope tokens (RFC 6749, section 3.3), each once");
        }
        scopes
    }

    fn token_profile(&mut self, raw: Option<&'t RawValue>, at: Place) -> Option<TokenProfile> {
        let name: String = self.value(raw, at, "a string")?;
        name.parse()
            .map_err(|expected| {
                if let Some(raw) = raw {
                    self.fault(raw, at, format!("must be {expected}"));
                }
            })
            .ok()
    }

    fn rate_limit(&mut self, raw: Option<&'t RawValue>, at: Place) -> Option<RateLimit> {
        let expected = "{\"requests\": N, \"seconds\": M}, each at least 1";
        let RateLimitEntry { requests, seconds } = self.value(raw, at, expected)?;
        let limit = RateLimit::new(requests, seconds);
        if let (None, Some(raw)) = (&limit, raw) {
            self.fault(raw, at, format!("must be {expected}"));
        }
        limit
    }

    fn content_type(&mut self, raw: Option<&'t RawValue>, at: Place) -> ContentType {
        let Some(raw) = raw else { return ContentType::default() };
        let name: String = self.value(Some(raw), at, "a string").unwrap_or_default();
        let content_type = ContentType::of(&name);
        if content_type == ContentType::Other {
            self.fault(raw, at, "must be \"application/json\" or \"application/octet-stream\"");
        }
        content_type
    }

    /// The members with a leading comma each, as a token's payload continues with them.
    fn claims(&mut self, raw: Option<&'t RawValue>, at: Place) -> String {
        let Some(raw) = raw else { return String::new() };
        let claims: Map<String, Value> = self.value(Some(raw), at, "an object").unwrap_or_default();
        if claims.keys().any(|name| RESERVED_CLAIMS.contains(&name.as_str())) {
            let problem = format!("must not set a claim of the token itself: {RESERVED_CLAIMS:?}");
            self.fault(raw, at, problem);
        }
        if claims.is_empty() {
            return String::new();
        }
        let members = Value::Object(claims).to_string();
        format!(",{}", &members[1..members.len() - 1])
    }

    /// Reads one field. A fault says what it must be; what it is may be a secret.
    fn value<T: Deserialize<'t>>(
        &mut self,
        raw: Option<&'t RawValue>,
        at: Place,
        expected: &str,
    ) -> Option<T> {
        let raw = raw?;
        serde_json::from_str(raw.get())
            .map_err(|_| self.fault(raw, at, format!("must be {expected}")))
            .ok()
    }

    fn fault(&mut self, raw: &RawValue, at: Place, problem: impl Into<String>) {
        let line = line_of(self.text, offset_in(self.text, raw.get()));
        let field = format!("clients[{}].{}", at.index, at.field);
        self.faults.push(Fault::new(self.file, problem).at_line(line).in_field(field));
    }
}

fn document_fault(file: &Path, error: &serde_json::Error) -> Fault {
    Fault::new(file, structure_problem(error)).at_line(error.line().max(1))
}

/// serde_json's own words where they hold names only; its type errors quote the value.
fn structure_problem(error: &serde_json::Error) -> String {
    if !error.is_data() {
        return "is not valid JSON here".to_owned();
    }
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
    if ["unknown field", "missing field", "duplicate field"].iter().any(|m| message.starts_with(m))
    {
        message.to_owned()
    } else {
        "must be {\"clients\": [{…}, …]}".to_owned()
    }
}

/// Where `part`, a slice of `text`, begins in it.
fn offset_in(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

const DEFAULT_LIFETIME: u32 = 3600;
const MAX_LIFETIME: u32 = 31_536_000;
const LIFETIME: &str = "a number of seconds from 1 to 31536000";

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let faults = parse(Path::new("clients.json"), text).err().unwrap_or_default();
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fault_has_its_line_and_field_and_no_value() {
        let text = r#"{"clients": [
  {"client_id": "a", "scopes": ["x y"],
   "token_lifetime": "hunter2"},
  {"client_id": "b",
   "secrets": [{"label": "1",
                "hash": "hunter2"}],
   "default_scopes": ["s"], "auth_methods": ["hunter2"], "audience": [""],
   "claims": {"sub": "hunter2"}},
  {"client_id": "c", "enabled": 1, "hunter": 2},
  {"client_id": "d"}, {"client_id": "d"}, {"client_id": ""}
]}"#;
        let found = faults(text);
        let expected = [
            "clients.json:2: clients[0].scopes: must hold scope tokens",
            "clients.json:3: clients[0].token_lifetime: must be a number of seconds",
            "clients.json:6: clients[1].secrets: holds a hash that is not",
            "clients.json:7: clients[1].auth_methods: names what is not a known",
            "clients.json:7: clients[1].default_scopes: names a scope that is not in",
            "clients.json:7: clients[1].audience: must not hold an empty",
            "clients.json:8: clients[1].claims: must not set a claim",
            "clients.json:9: clients[2]: unknown field `hunter`",
            "clients.json:10: clients[4].client_id: is registered twice",
            "clients.json:10: clients[5].client_id: must be one or more printable",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found} is not {expected}");
            assert!(!found.contains("hunter2"), "{found}");
        }
    }

    #[test]
    fn a_broken_document_is_one_fault() {
        for (text, expected) in [
            ("", "clients.json:1: is not valid JSON here"),
            (
                "{\"clients\": [\n{\"client_id\": \"a\",}]}",
                "clients.json:2: is not valid JSON here",
            ),
            ("[\"hunter2\"]", "clients.json:1: must be {\"clients\": [{…}, …]}"),
            ("{\"clients\": [], \"x\": 1}", "clients.json:1: unknown field `x`"),
            ("{}", "clients.json:1: missing field `clients`"),
            ("{\"clients\": [\"hunter2\"]}", "clients.json:1: clients[0]: must be"),
        ] {
            let found = faults(text);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(expected), "{} is not {expected}", found[0]);
        }
    }

    #[test]
    fn append_changes_nothing_else() {
        let client = |id: &str| NewClient {
            client_id: id.to_owned(),
            enabled: true,
            secrets: Vec::new(),
            auth_methods: vec!["client_secret_post"],
            scopes: vec!["s".to_owned()],
            default_scopes: vec!["s".to_owned()],
            audience: Vec::new(),
            token_lifetime: 60,
            claims: Map::new(),
        };
        let file = Path::new("clients.json");
        let one = append(file, None, &client("one")).unwrap();
        assert!(one.starts_with("{\n  \"clients\": [\n    {\n      \"client_id\": \"one\","));
        assert!(one.ends_with("\n    }\n  ]\n}\n"));

        let odd = "{ \"clients\":[ {\"client_id\":\"a\"} ]  }";
        let two = append(file, Some(odd), &client("b")).unwrap();
        assert!(two.starts_with("{ \"clients\":[ {\"client_id\":\"a\"},\n    {\n"));
        assert!(two.ends_with("\n  ]  }"));
        assert_eq!(parse(file, &two).unwrap().len(), 2);
        assert!(append(file, Some(&two), &client("b")).is_err());
    }
}
