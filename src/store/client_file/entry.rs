//! One client's entry: text into a [`Client`] whose every value is right.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{offset_in, structure_problem};
use crate::fault::{Fault, Position};
use crate::issuer::RESERVED_CLAIMS;
use crate::oauth::client::{AuthMethod, AuthMethods, Client, ContentType, RateLimit, is_vschar};
use crate::oauth::client_secret::{ClientSecret, SecretHash};
use crate::oauth::reuse::Reuse;
use crate::oauth::scope::ScopeSet;
use crate::store::file_watch::Stamp;

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
    jwks: Option<&'a RawValue>,
    #[serde(borrow)]
    token_endpoint_auth_signing_alg: Option<&'a RawValue>,
    #[serde(borrow)]
    tls_client_auth_subject_dn: Option<&'a RawValue>,
    #[serde(borrow)]
    tls_client_auth_san_dns: Option<&'a RawValue>,
    #[serde(borrow)]
    tls_client_auth_san_uri: Option<&'a RawValue>,
    #[serde(borrow)]
    tls_client_auth_san_ip: Option<&'a RawValue>,
    #[serde(borrow)]
    tls_client_auth_san_email: Option<&'a RawValue>,
    #[serde(borrow)]
    tls_client_certificate_bound_access_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    dpop_bound_access_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    scopes: Option<&'a RawValue>,
    #[serde(borrow)]
    default_scopes: Option<&'a RawValue>,
    #[serde(borrow)]
    audience: Option<&'a RawValue>,
    #[serde(borrow)]
    introspects: Option<&'a RawValue>,
    #[serde(borrow)]
    not_before: Option<&'a RawValue>,
    #[serde(borrow)]
    token_lifetime: Option<&'a RawValue>,
    #[serde(borrow)]
    token_profile: Option<&'a RawValue>,
    #[serde(borrow)]
    content_type: Option<&'a RawValue>,
    #[serde(borrow)]
    rate_limit: Option<&'a RawValue>,
    #[serde(borrow)]
    token_reuse: Option<&'a RawValue>,
    #[serde(borrow)]
    server_timing: Option<&'a RawValue>,
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
    #[serde(borrow)]
    label: Cow<'a, str>,
    #[serde(borrow)]
    hash: &'a RawValue,
    not_before: Option<u64>,
    expires_at: Option<u64>,
}

/// Text that is copied only if it has to be unescaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A field of the client at `index`, if it is one of a list, to be written out only if it is at fault.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) index: Option<usize>,
    pub(super) field: &'static str,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "clients[{index}].")?;
        }
        f.write_str(self.field)
    }
}

pub(super) struct Reader<'t> {
    pub(super) file: &'t Path,
    pub(super) text: &'t str,
    /// The line of the file on which the text begins.
    pub(super) first_line: usize,
    pub(super) faults: Vec<Fault>,
    /// The file that the last client's `jwks` names, as it looked before it was read.
    pub(super) key_file: Option<Stamp>,
    /// What has been read of these fields, by their text: most clients have what others have.
    scopes: HashMap<&'t str, ScopeSet>,
    auth_methods: HashMap<&'t str, AuthMethods>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(file: &'t Path, text: &'t str, first_line: usize) -> Self {
        let (scopes, auth_methods) = (HashMap::new(), HashMap::new());
        let faults = Vec::new();
        Self { file, text, first_line, faults, key_file: None, scopes, auth_methods }
    }

    pub(super) fn client(&mut self, index: Option<usize>, raw: &'t RawValue) -> Option<Client> {
        let faults_before = self.faults.len();
        let entry: ClientEntry<'_> = match serde_json::from_str(raw.get()) {
            Ok(entry) => entry,
            Err(error) => {
                let place = Position::of_json(raw.get(), &error).within(self.position_of(raw));
                let fault = Fault::new(self.file, structure_problem(&error)).at(place);
                self.faults.push(match index {
                    Some(index) => fault.in_field(format!("clients[{index}]")),
                    None => fault,
                });
                return None;
            }
        };
        let at = |field| Place { index, field };

        let id: String = self.value(Some(entry.client_id), at("client_id"), "a string")?;
        if id.is_empty() || !is_vschar(&id) {
            let problem = "must be one or more printable ASCII characters";
            self.fault(entry.client_id, at("client_id"), problem);
        } else if has_outer_space(&id) {
            let problem = "must not begin or end with a space: it would look the same without";
            self.fault(entry.client_id, at("client_id"), problem);
        }
        let enabled = self.value(entry.enabled, at("enabled"), "true or false").unwrap_or(true);
        let secrets = self.secrets(entry.secrets, at("secrets"));
        let auth_methods = self.auth_methods(entry.auth_methods, at("auth_methods"));
        let keys = self.public_keys(entry.jwks, at("jwks"));
        let signing_alg = at("token_endpoint_auth_signing_alg");
        let assertion_algorithm = self.named(entry.token_endpoint_auth_signing_alg, signing_alg);
        let subjects = [
            entry.tls_client_auth_subject_dn,
            entry.tls_client_auth_san_dns,
            entry.tls_client_auth_san_uri,
            entry.tls_client_auth_san_ip,
            entry.tls_client_auth_san_email,
        ];
        let certificate_subject = self.certificate_subject(subjects, index);
        let (has_keys, has_subject) = (entry.jwks.is_some(), certificate_subject.is_some());
        self.check_needs(
            entry.auth_methods,
            at("auth_methods"),
            auth_methods,
            has_keys,
            has_subject,
        );
        let mut is_set = |raw, field| self.value(raw, at(field), "true or false").unwrap_or(false);
        let has_certificate_bound_tokens = is_set(
            entry.tls_client_certificate_bound_access_tokens,
            "tls_client_certificate_bound_access_tokens",
        );
        let has_dpop_bound_tokens =
            is_set(entry.dpop_bound_access_tokens, "dpop_bound_access_tokens");
        let scopes = self.scopes(entry.scopes, at("scopes")).unwrap_or_default();
        let default_scopes = self.scopes(entry.default_scopes, at("default_scopes"));
        if let (Some(raw), Some(default)) = (entry.default_scopes, &default_scopes)
            && !scopes.contains_all(default)
        {
            self.fault(raw, at("default_scopes"), "names a scope that is not in `scopes`");
        }
        let audience = self.audiences(entry.audience, at("audience"));
        let introspects = self.audiences(entry.introspects, at("introspects"));
        let not_before = self
            .value(entry.not_before, at("not_before"), "a time in Unix seconds")
            .unwrap_or_default();
        let token_lifetime = self
            .value(entry.token_lifetime, at("token_lifetime"), LIFETIME)
            .unwrap_or(DEFAULT_LIFETIME);
        if let Some(raw) = entry.token_lifetime
            && !(1..=MAX_LIFETIME).contains(&token_lifetime)
        {
            self.fault(raw, at("token_lifetime"), format!("must be {LIFETIME}"));
        }
        let token_profile = self.named(entry.token_profile, at("token_profile"));
        let content_type = self.content_type(entry.content_type, at("content_type"));
        let rate_limit = self.rate_limit(entry.rate_limit, at("rate_limit"));
        let token_reuse = self.value(entry.token_reuse, at("token_reuse"), REUSE);
        if let Some(raw) = entry.token_reuse
            && token_reuse.is_some_and(|seconds| !(1..=token_lifetime).contains(&seconds))
        {
            self.fault(raw, at("token_reuse"), format!("must be {REUSE}"));
        }
        let server_timing = self
            .value(entry.server_timing, at("server_timing"), "true or false")
            .unwrap_or_default();
        let extra_claims = self.claims(entry.claims, at("claims"));

        (self.faults.len() == faults_before).then(|| Client {
            id: id.into(),
            enabled,
            secrets: secrets.into(),
            auth_methods,
            keys: keys.into(),
            assertion_algorithm,
            certificate_subject,
            has_certificate_bound_tokens,
            has_dpop_bound_tokens,
            scopes,
            default_scopes,
            audience: audience.into(),
            introspects: introspects.into(),
            not_before,
            token_lifetime,
            token_profile,
            content_type,
            rate_limit,
            token_reuse: token_reuse.map(|seconds| Arc::new(Reuse::new(seconds, not_before))),
            server_timing,
            extra_claims: extra_claims.into(),
        })
    }

    fn secrets(&mut self, raw: Option<&'t RawValue>, at: Place) -> Vec<ClientSecret> {
        let entries: Vec<SecretEntry<'t>> = self
            .value(raw, at, "a list of {label, hash, not_before?, expires_at?}")
            .unwrap_or_default();
        let mut secrets: Vec<ClientSecret> = Vec::with_capacity(entries.len());
        for entry in entries {
            let expected = "a hash in a string";
            let Some(Text(stored)) = self.value(Some(entry.hash), at, expected) else { continue };
            let hash = match SecretHash::parse(&stored) {
                Ok(hash) => hash,
                Err(expected) => {
                    self.fault(entry.hash, at, format!("holds a hash that is not {expected}"));
                    continue;
                }
            };
            if has_outer_space(&entry.label) {
                self.fault(entry.hash, at, "has a label that begins or ends with a space");
            }
            if secrets.iter().any(|secret| *secret.label == *entry.label) {
                self.fault(entry.hash, at, "has two secrets of the same label");
            }
            secrets.push(ClientSecret {
                label: entry.label.into(),
                hash,
                not_before: entry.not_before,
                expires_at: entry.expires_at,
                used: OnceLock::new(),
            });
        }
        secrets
    }

    fn auth_methods(&mut self, raw: Option<&'t RawValue>, at: Place) -> AuthMethods {
        let Some(raw) = raw else { return AuthMethods::from_iter(AuthMethod::DEFAULT) };
        if let Some(known) = self.auth_methods.get(raw.get()) {
            return *known;
        }
        let faults_before = self.faults.len();
        let names: Vec<String> = self.value(Some(raw), at, "a list of strings").unwrap_or_default();
        let mut methods = Vec::new();
        for name in names {
            match name.parse() {
                Ok(method) => methods.push(method),
                Err(unknown) => self.fault(raw, at, format!("names what is {unknown}")),
            }
        }
        let methods = AuthMethods::from_iter(methods);
        if self.faults.len() == faults_before {
            self.auth_methods.insert(raw.get(), methods);
        }
        methods
    }

    fn scopes(&mut self, raw: Option<&'t RawValue>, at: Place) -> Option<ScopeSet> {
        let raw = raw?;
        if let Some(known) = self.scopes.get(raw.get()) {
            return Some(known.clone());
        }
        let tokens: Vec<String> = self.value(Some(raw), at, "a list of strings")?;
        let scopes = ScopeSet::from_tokens(&tokens);
        match &scopes {
            Some(scopes) => {
                self.scopes.insert(raw.get(), scopes.clone());
            }
            None => {
                self.fault(raw, at, "must hold scope tokens (RFC 6749, section 3.3), each once");
            }
        }
        scopes
    }

    fn audiences(&mut self, raw: Option<&'t RawValue>, at: Place) -> Vec<Box<str>> {
        let audiences: Vec<Box<str>> = self.value(raw, at, "a list of strings").unwrap_or_default();
        if let Some(raw) = raw {
            if audiences.iter().any(|audience| audience.is_empty()) {
                self.fault(raw, at, "must not hold an empty string");
            }
            if audiences.iter().any(|audience| has_outer_space(audience)) {
                self.fault(raw, at, "must not hold a string that begins or ends with a space");
            }
        }
        audiences
    }

    /// One of a few values that have names.
    fn named<T>(&mut self, raw: Option<&'t RawValue>, at: Place) -> Option<T>
    where
        T: FromStr<Err = &'static str>,
    {
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
    pub(super) fn value<T: Deserialize<'t>>(
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

    pub(super) fn fault(&mut self, raw: &RawValue, at: Place, problem: impl Into<String>) {
        let field = at.to_string();
        let place = self.position_of(raw);
        self.faults.push(Fault::new(self.file, problem).at(place).in_field(field));
    }

    fn position_of(&self, raw: &RawValue) -> Position {
        self.position_at(offset_in(self.text, raw.get()))
    }

    /// The place in the file of a byte offset in the text.
    pub(super) fn position_at(&self, offset: usize) -> Position {
        Position::of(self.text, offset).within(Position { line: self.first_line, column: 1 })
    }
}

/// Two names that differ by an outer space look the same, and are the same in a header field
/// (`X-Client-Id`), whose readers drop it (RFC 9110, section 5.5).
fn has_outer_space(name: &str) -> bool {
    name.starts_with(' ') || name.ends_with(' ')
}

const DEFAULT_LIFETIME: u32 = 3600;
const MAX_LIFETIME: u32 = 31_536_000;
const LIFETIME: &str = "a number of seconds from 1 to 31536000";
const REUSE: &str = "a number of seconds from 1 to the token's lifetime";
