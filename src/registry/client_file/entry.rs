//! Reads one client's entry into a [`Client`] of valid values.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::document::{Members, Object, Text, offset_in, structure_problem};
use crate::fault::{Fault, Position};
use crate::form::media_type::ContentType;
use crate::form::repeated_name::RepeatedName;
use crate::fs::file_watch::Stamp;
use crate::issuer::RESERVED_CLAIMS;
use crate::jose::public_key::PublicKey;
use crate::oauth::client::{AuthMethod, AuthMethods, Client, RateLimit, is_vschar};
use crate::oauth::client_certificate::CertificateSubject;
use crate::oauth::client_secret::{ClientSecret, SecretHash};
use crate::oauth::scope::ScopeSet;
use crate::registry::clients::Registry;
use crate::time::UnixTime;

/// Defines the type that holds the fields of an entry, and the function that reads them.
macro_rules! fields {
    (|$reader:ident, $field:ident, $client:ident| $($name:ident => $read:expr;)*) => {
        #[derive(Default)]
        struct Entry<'t> {
            client_id: Option<&'t RawValue>,
            $($name: Option<&'t RawValue>,)*
        }

        impl<'t> Entry<'t> {
            /// Returns the place for the value of the field `name`; `None` if there is no such field.
            fn slot(&mut self, name: &str) -> Option<&mut Option<&'t RawValue>> {
                match name {
                    "client_id" => Some(&mut self.client_id),
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }

        /// The optional fields of an entry, in the order in which the documentation lists them.
        pub const OPTIONAL_FIELDS: &[&str] = &[$(stringify!($name)),*];

        impl<'t> Reader<'t> {
            fn read_fields(&mut self, entry: &Entry<'t>, index: Option<usize>, client: &mut Client) {
                let ($reader, $client) = (self, client);
                $(if let Some(raw) = entry.$name {
                    let $field = Field { raw, index, name: stringify!($name) };
                    $read;
                })*
            }
        }
    };
}

// The fields are read in this order. A field whose check needs another field comes after that
// field.
fields! { |reader, field, client|
    enabled => reader.set(field, SWITCH, &mut client.enabled);
    secrets => client.secrets = reader.secrets(field);
    auth_methods => client.auth_methods = reader.auth_methods(field);
    jwks => client.keys = reader.public_keys(field, &client.id).into();
    token_endpoint_auth_signing_alg => client.assertion_algorithm = reader.named(field);
    tls_client_auth_subject_dn => reader.subject(field, client, CertificateSubject::Dn);
    tls_client_auth_san_dns => reader.subject(field, client, CertificateSubject::Dns);
    tls_client_auth_san_uri => reader.subject(field, client, CertificateSubject::Uri);
    tls_client_auth_san_ip => reader.address(field, client);
    tls_client_auth_san_email => reader.subject(field, client, CertificateSubject::Email);
    tls_client_certificate_bound_access_tokens =>
        reader.set(field, SWITCH, &mut client.has_certificate_bound_tokens);
    dpop_bound_access_tokens => reader.set(field, SWITCH, &mut client.has_dpop_bound_tokens);
    scopes => client.scopes = reader.scopes(field).unwrap_or_default();
    default_scopes => reader.default_scopes(field, client);
    audience => client.audience = reader.audiences(field);
    introspects => client.introspects = reader.audiences(field);
    not_before => reader.set(field, "a time in Unix seconds", &mut client.not_before);
    token_lifetime => reader.token_lifetime(field, client);
    token_profile => client.token_profile = reader.named(field);
    content_type => client.content_type = reader.content_type(field);
    rate_limit => client.rate_limit = reader.rate_limit(field);
    token_reuse => reader.token_reuse(field, client);
    server_timing => reader.set(field, SWITCH, &mut client.server_timing);
    claims => client.extra_claims = reader.claims(field);
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
    #[serde(borrow)]
    label: Cow<'a, str>,
    #[serde(borrow)]
    hash: &'a RawValue,
    not_before: Option<UnixTime>,
    expires_at: Option<UnixTime>,
}

/// A field of a client's entry. `index` is the index of the client in the registry; `None` for an
/// entry that is not in a registry yet. The `Display` output is the path of the field, for example
/// `clients[2].scopes`.
#[derive(Clone, Copy)]
pub(super) struct Field<'t> {
    pub(super) raw: &'t RawValue,
    pub(super) index: Option<usize>,
    pub(super) name: &'static str,
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "clients[{index}].")?;
        }
        f.write_str(self.name)
    }
}

/// How to treat a fault of the key file that an entry names.
#[derive(Clone, Copy)]
pub(super) enum OnKeyFault<'r> {
    /// The entry has this fault.
    Refuse,
    /// The client keeps the keys that it has in this registry, if it has them from the same file.
    /// Otherwise, it has no keys.
    Keep(&'r Registry, &'r KeyPaths),
    /// The file is not this command's business, because the command changes another client.
    Ignore,
}

impl<'r> OnKeyFault<'r> {
    /// Returns the registry that is to be replaced.
    pub(super) fn in_force(self) -> Option<&'r Registry> {
        match self {
            Self::Keep(registry, _) => Some(registry),
            Self::Refuse | Self::Ignore => None,
        }
    }

    /// Returns the keys that the client `id` keeps if its key file `path` has a fault; `None` if the
    /// fault is a fault of its entry.
    pub(super) fn kept_keys(self, id: &str, path: &Path) -> Option<Vec<PublicKey>> {
        match self {
            Self::Refuse => None,
            Self::Keep(registry, paths) => {
                let is_same = paths.get(id).is_some_and(|known| known == path);
                let client = registry.get(id).filter(|_| is_same);
                Some(client.map(|client| client.keys.to_vec()).unwrap_or_default())
            }
            Self::Ignore => Some(Vec::new()),
        }
    }
}

/// The paths of the key files that clients name, by `client_id`.
pub type KeyPaths = HashMap<String, PathBuf>;

/// A key file that an entry names.
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    /// The stamp of the file. It was taken before the file was read, so that a change during the
    /// reading is noticed at the next check.
    pub(super) stamp: Stamp,
    /// The fault of the file, if it is not a fault of the entry.
    pub(super) fault: Option<Fault>,
}

pub(super) struct Reader<'t> {
    pub(super) file: &'t Path,
    pub(super) text: &'t str,
    /// The line of `file` on which `text` begins.
    pub(super) first_line: usize,
    pub(super) faults: Vec<Fault>,
    /// Whether a fault of a key file that an entry names is a fault of the entry.
    pub(super) on_key_fault: OnKeyFault<'t>,
    /// The key file that the field `jwks` names in the most recently read entry.
    pub(super) key_file: Option<KeyFile>,
    /// A cache of parsed `scopes` and `default_scopes`, by their JSON text: many clients have the
    /// same scopes.
    scopes: HashMap<&'t str, ScopeSet>,
    /// A cache of parsed `auth_methods`, by their JSON text.
    auth_methods: HashMap<&'t str, AuthMethods>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(
        file: &'t Path,
        text: &'t str,
        first_line: usize,
        on_key_fault: OnKeyFault<'t>,
    ) -> Self {
        let (scopes, auth_methods) = (HashMap::new(), HashMap::new());
        let (faults, key_file) = (Vec::new(), None);
        Self { file, text, first_line, faults, on_key_fault, key_file, scopes, auth_methods }
    }

    pub(super) fn client(&mut self, index: Option<usize>, raw: &'t RawValue) -> Option<Client> {
        let faults_before = self.faults.len();
        let entry = self.entry(index, raw)?;
        let mut client = Client {
            enabled: true,
            auth_methods: AuthMethods::from_iter(AuthMethod::DEFAULT),
            token_lifetime: DEFAULT_LIFETIME,
            ..Client::default()
        };
        match entry.client_id {
            Some(raw) => {
                let id = self.id(Field { raw, index, name: "client_id" });
                client.id = id.unwrap_or_default().into();
            }
            None => self.entry_fault(index, self.position_of(raw), "missing field `client_id`"),
        }
        self.read_fields(&entry, index, &mut client);
        if let Some(raw) = entry.auth_methods {
            let field = Field { raw, index, name: "auth_methods" };
            self.check_needs(field, &client, entry.jwks.is_some());
        }
        (self.faults.len() == faults_before).then_some(client)
    }

    /// Sorts the members of an entry by field. A member that is no field, or the second of its
    /// name, is a fault.
    fn entry(&mut self, index: Option<usize>, raw: &'t RawValue) -> Option<Entry<'t>> {
        let members = match serde_json::from_str(raw.get()) {
            Ok(Members(members)) => members,
            Err(error) => {
                let place = Position::of_json(raw.get(), &error).within(self.position_of(raw));
                self.entry_fault(index, place, structure_problem(&error));
                return None;
            }
        };
        let mut entry = Entry::default();
        for (Text(name), value) in members {
            let problem = match entry.slot(&name) {
                Some(slot @ None) => {
                    *slot = Some(value);
                    continue;
                }
                Some(_) => format!("duplicate field `{name}`"),
                None => {
                    let known = OPTIONAL_FIELDS.join("`, `");
                    format!("unknown field `{name}`, expected one of `client_id`, `{known}`")
                }
            };
            let place = match name {
                Cow::Borrowed(name) => self.position_at(offset_in(self.text, name) + name.len()),
                // The name contains escapes and was copied.
                Cow::Owned(_) => self.position_of(value),
            };
            self.entry_fault(index, place, problem);
        }
        Some(entry)
    }

    fn entry_fault(&mut self, index: Option<usize>, place: Position, problem: impl Into<String>) {
        let fault = Fault::new(self.file, problem).at(place);
        self.faults.push(match index {
            Some(index) => fault.in_field(format!("clients[{index}]")),
            None => fault,
        });
    }

    fn id(&mut self, field: Field<'t>) -> Option<String> {
        let id: String = self.value(field, "a string")?;
        if id.is_empty() || !is_vschar(&id) {
            self.fault(field, "must be one or more printable ASCII characters");
        } else if has_outer_space(&id) {
            let problem = "must not begin or end with a space: it would look the same without";
            self.fault(field, problem);
        }
        Some(id)
    }

    fn secrets(&mut self, field: Field<'t>) -> Box<[ClientSecret]> {
        let entries: Vec<Object<SecretEntry<'t>>> = self
            .value(field, "a list of {label, hash, not_before?, expires_at?}")
            .unwrap_or_default();
        let mut secrets: Vec<ClientSecret> = Vec::with_capacity(entries.len());
        for Object(entry) in entries {
            let field = Field { raw: entry.hash, ..field };
            let Some(Text(stored)) = self.value(field, "a hash in a string") else { continue };
            let hash = match SecretHash::parse(&stored) {
                Ok(hash) => hash,
                Err(expected) => {
                    self.fault(field, format!("holds a hash that is not {expected}"));
                    continue;
                }
            };
            if has_outer_space(&entry.label) {
                self.fault(field, "has a label that begins or ends with a space");
            }
            if secrets.iter().any(|secret| *secret.label == *entry.label) {
                self.fault(field, "has two secrets of the same label");
            }
            secrets.push(ClientSecret {
                label: entry.label.into(),
                hash,
                not_before: entry.not_before,
                expires_at: entry.expires_at,
            });
        }
        secrets.into()
    }

    fn auth_methods(&mut self, field: Field<'t>) -> AuthMethods {
        if let Some(known) = self.auth_methods.get(field.raw.get()) {
            return *known;
        }
        let faults_before = self.faults.len();
        let names: Vec<String> = self.value(field, "a list of strings").unwrap_or_default();
        let mut methods = Vec::new();
        for name in names {
            match name.parse() {
                Ok(method) => methods.push(method),
                Err(unknown) => self.fault(field, format!("names what is {unknown}")),
            }
        }
        let methods = AuthMethods::from_iter(methods);
        if self.faults.len() == faults_before {
            self.auth_methods.insert(field.raw.get(), methods);
        }
        methods
    }

    fn scopes(&mut self, field: Field<'t>) -> Option<ScopeSet> {
        if let Some(known) = self.scopes.get(field.raw.get()) {
            return Some(known.clone());
        }
        let tokens: Vec<String> = self.value(field, "a list of strings")?;
        let scopes = ScopeSet::from_tokens(&tokens);
        match &scopes {
            Some(scopes) => {
                self.scopes.insert(field.raw.get(), scopes.clone());
            }
            None => self.fault(field, "must hold scope tokens (RFC 6749, section 3.3), each once"),
        }
        scopes
    }

    fn default_scopes(&mut self, field: Field<'t>, client: &mut Client) {
        client.default_scopes = self.scopes(field);
        if client.default_scopes.as_ref().is_some_and(|scopes| !client.scopes.contains_all(scopes))
        {
            self.fault(field, "names a scope that is not in `scopes`");
        }
    }

    fn audiences(&mut self, field: Field<'t>) -> Box<[Box<str>]> {
        let audiences: Vec<Box<str>> = self.value(field, "a list of strings").unwrap_or_default();
        if audiences.iter().any(|audience| audience.is_empty()) {
            self.fault(field, "must not hold an empty string");
        }
        if audiences.iter().any(|audience| has_outer_space(audience)) {
            self.fault(field, "must not hold a string that begins or ends with a space");
        }
        audiences.into()
    }

    /// Reads a field whose value is one of a fixed set of names, such as an algorithm.
    fn named<T: FromStr<Err = &'static str>>(&mut self, field: Field<'t>) -> Option<T> {
        let name: String = self.value(field, "a string")?;
        name.parse().map_err(|expected| self.fault(field, format!("must be {expected}"))).ok()
    }

    fn token_lifetime(&mut self, field: Field<'t>, client: &mut Client) {
        let expected = "a number of seconds from 1 to 31536000";
        if let Some(seconds) = self.seconds(field, 31_536_000, expected) {
            client.token_lifetime = seconds;
        }
    }

    fn token_reuse(&mut self, field: Field<'t>, client: &mut Client) {
        let expected = "a number of seconds from 1 to the token's lifetime";
        let seconds = self.seconds(field, client.token_lifetime, expected);
        client.token_reuse = seconds.and_then(NonZeroU32::new);
    }

    /// Reads a number of seconds from 1 to `most`.
    fn seconds(&mut self, field: Field<'t>, most: u32, expected: &str) -> Option<u32> {
        let seconds = self.value(field, expected)?;
        if !(1..=most).contains(&seconds) {
            self.fault(field, format!("must be {expected}"));
        }
        Some(seconds)
    }

    fn rate_limit(&mut self, field: Field<'t>) -> Option<RateLimit> {
        let expected = "{\"requests\": N, \"seconds\": M}, each at least 1";
        let Object(RateLimitEntry { requests, seconds }) = self.value(field, expected)?;
        let limit = RateLimit::new(requests, seconds);
        if limit.is_none() {
            self.fault(field, format!("must be {expected}"));
        }
        limit
    }

    fn content_type(&mut self, field: Field<'t>) -> ContentType {
        let name: String = self.value(field, "a string").unwrap_or_default();
        let content_type = ContentType::of(&name);
        if content_type == ContentType::Other {
            self.fault(field, "must be \"application/json\" or \"application/octet-stream\"");
        }
        content_type
    }

    /// Reads the extra claims. Returns them as JSON members, each after a comma, ready to be
    /// appended to the members of a token's payload.
    fn claims(&mut self, field: Field<'t>) -> Box<str> {
        if let Some(problem) = repeated_name(field.raw.get()) {
            self.fault(field, problem);
        }
        let claims: Map<String, Value> = self.value(field, "an object").unwrap_or_default();
        if claims.keys().any(|name| RESERVED_CLAIMS.contains(&name.as_str())) {
            let problem = format!("must not set a claim of the token itself: {RESERVED_CLAIMS:?}");
            self.fault(field, problem);
        }
        if claims.is_empty() {
            return Box::default();
        }
        let members = Value::Object(claims).to_string();
        format!(",{}", &members[1..members.len() - 1]).into()
    }

    /// Reads the value of one field. A fault names the expected value but never quotes the actual
    /// value, which may be a secret.
    pub(super) fn value<T: Deserialize<'t>>(
        &mut self,
        field: Field<'t>,
        expected: &str,
    ) -> Option<T> {
        serde_json::from_str(field.raw.get())
            .map_err(|_| self.fault(field, format!("must be {expected}")))
            .ok()
    }

    /// Reads the value of one field into `slot`. If the value is invalid, `slot` keeps its default.
    fn set<T: Deserialize<'t>>(&mut self, field: Field<'t>, expected: &str, slot: &mut T) {
        if let Some(value) = self.value(field, expected) {
            *slot = value;
        }
    }

    pub(super) fn fault(&mut self, field: Field<'t>, problem: impl Into<String>) {
        let place = self.position_of(field.raw);
        self.faults.push(Fault::new(self.file, problem).at(place).in_field(field.to_string()));
    }

    pub(super) fn position_of(&self, raw: &RawValue) -> Position {
        self.position_at(offset_in(self.text, raw.get()))
    }

    /// Returns the line and column in `file` of the byte at `offset` in `text`.
    pub(super) fn position_at(&self, offset: usize) -> Position {
        Position::of(self.text, offset).within(Position { line: self.first_line, column: 1 })
    }
}

/// Returns the problem of a JSON text in which an object repeats a name; `None` if none does.
/// Parsers of JSON differ in which of the two members they take.
pub(super) fn repeated_name(json: &str) -> Option<String> {
    let RepeatedName(name) = serde_json::from_str(json).ok()?;
    name.map(|name| format!("repeats the name {name:?} in one object"))
}

/// Whether the name begins or ends with a space. Such a name looks the same as the name without the
/// space. In a header field such as `X-Client-Id`, the two names are even equal, because outer
/// spaces are dropped (RFC 9110, section 5.5).
fn has_outer_space(name: &str) -> bool {
    name.starts_with(' ') || name.ends_with(' ')
}

const SWITCH: &str = "true or false";
const DEFAULT_LIFETIME: u32 = 3600;
