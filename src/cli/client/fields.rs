//! The fields of a client as flags: what `add` and `update` set.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cli::CliError;
use crate::cli::times::{parse_seconds, parse_time};
use crate::config::parse_switch;
use crate::fault::Fault;
use crate::oauth::client::{AuthMethod, Client};
use crate::store::client_file::{check_entry, read_key_set};

#[derive(Args, Debug)]
pub(super) struct FieldArgs {
    /// Scopes it may ask for, separated by spaces; may be repeated. It gets all of them if it asks
    /// for none, unless --default-scope says otherwise.
    #[arg(long = "scope", value_name = "SCOPES")]
    scopes: Vec<String>,
    /// Register no scope: it is not meant to get tokens.
    #[arg(long, conflicts_with_all = ["scopes", "default_scopes"])]
    pub(super) no_scope: bool,
    /// A scope it gets if it asks for none; may be repeated [default: all that it may ask for].
    #[arg(long = "default-scope", value_name = "SCOPES")]
    default_scopes: Vec<String>,
    /// Give it nothing if it asks for no scope: it has to ask.
    #[arg(long, conflicts_with = "default_scopes")]
    no_default_scope: bool,
    /// Who its tokens are for; may be repeated [default: the issuer].
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Vec<String>,
    /// How long its tokens live: seconds, or as in 15m, 24h, 90d [of a new client: 3600].
    #[arg(long, value_name = "DURATION", value_parser = parse_seconds)]
    lifetime: Option<u32>,
    /// A static claim in its tokens, as text, or with := as JSON; may be repeated.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = parse_claim)]
    claims: Vec<(String, Value)>,
    /// How it may authenticate; may be repeated [of a new client: client_secret_basic,
    /// client_secret_post].
    #[arg(long = "method", value_name = "METHOD")]
    pub(super) methods: Vec<AuthMethod>,
    /// A JWK Set with the public keys that it signs with; it is copied into the registry.
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// The one algorithm of its assertions: RS256, PS256, ES256 or EdDSA [default: any].
    #[arg(long, value_name = "ALG")]
    token_endpoint_auth_signing_alg: Option<String>,
    /// The subject of its certificates, for tls_client_auth (RFC 8705, section 2.1.2).
    #[arg(long, value_name = "DN")]
    tls_client_auth_subject_dn: Option<String>,
    /// The DNS name in its certificates; use this or the subject, not both.
    #[arg(long, value_name = "NAME")]
    tls_client_auth_san_dns: Option<String>,
    /// The URI in its certificates; use this or the subject, not both.
    #[arg(long, value_name = "URI")]
    tls_client_auth_san_uri: Option<String>,
    /// The IP address in its certificates; use this or the subject, not both.
    #[arg(long, value_name = "ADDRESS")]
    tls_client_auth_san_ip: Option<String>,
    /// The e-mail address in its certificates; use this or the subject, not both.
    #[arg(long, value_name = "ADDRESS")]
    tls_client_auth_san_email: Option<String>,
    /// Bind its tokens to the certificate with which it asks for them.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = parse_switch)]
    tls_client_certificate_bound_access_tokens: Option<bool>,
    /// Bind its tokens to a key that it proves to have (DPoP).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = parse_switch)]
    dpop_bound_access_tokens: Option<bool>,
    /// An audience whose tokens it may ask about, beside its own; may be repeated.
    #[arg(long, value_name = "AUDIENCE")]
    pub(super) introspects: Vec<String>,
    /// Its tokens issued before this are revoked: Unix seconds, or as in 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    not_before: Option<u64>,
    /// The profile of its tokens: at+jwt or vision [default: that of the route it asks].
    #[arg(long, value_name = "PROFILE")]
    token_profile: Option<String>,
    /// The type it sends to vision and firstvision: application/json or application/octet-stream.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// How long one of its tokens may be handed out again: seconds, or as in 15m.
    #[arg(long, value_name = "DURATION", value_parser = parse_seconds)]
    token_reuse: Option<u32>,
    /// Tell it in its answers how long each part took.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = parse_switch)]
    server_timing: Option<bool>,
    /// How often it may ask, as in 100/1m.
    #[arg(long, value_name = "REQUESTS/DURATION", value_parser = parse_rate)]
    rate_limit: Option<(u32, u32)>,
    /// Whether it may authenticate at all.
    #[arg(long, value_name = "BOOL", value_parser = parse_switch)]
    enabled: Option<bool>,
}

impl FieldArgs {
    /// The fields that were given, by their names in the registry. `claims` are those that the
    /// client has.
    pub(super) fn given(
        &self,
        mut claims: Map<String, Value>,
    ) -> Result<Map<String, Value>, CliError> {
        let scopes = words("--scope", &self.scopes)?;
        let default_scopes = words("--default-scope", &self.default_scopes)?;
        let jwks = match &self.jwks {
            Some(file) => {
                let (text, _) = read_key_set(file)?;
                // It was read without a fault.
                Some(serde_json::from_str(&text).map_err(|error| CliError(error.to_string()))?)
            }
            None => None,
        };
        claims.extend(self.claims.iter().cloned());
        let list = |values: &[String]| (!values.is_empty()).then(|| json!(values));
        let no_scopes: [String; 0] = [];
        let scopes = if self.no_scope { Some(json!(no_scopes)) } else { list(&scopes) };
        let default_scopes = if self.no_default_scope || self.no_scope {
            Some(json!(no_scopes))
        } else {
            list(&default_scopes).or_else(|| scopes.clone())
        };
        let methods: Vec<_> = self.methods.iter().map(|method| method.as_str()).collect();
        let text = |value: &Option<String>| value.as_deref().map(Value::from);
        let fields = [
            ("enabled", self.enabled.map(Value::from)),
            ("auth_methods", (!methods.is_empty()).then(|| json!(methods))),
            ("jwks", jwks),
            ("token_endpoint_auth_signing_alg", text(&self.token_endpoint_auth_signing_alg)),
            ("tls_client_auth_subject_dn", text(&self.tls_client_auth_subject_dn)),
            ("tls_client_auth_san_dns", text(&self.tls_client_auth_san_dns)),
            ("tls_client_auth_san_uri", text(&self.tls_client_auth_san_uri)),
            ("tls_client_auth_san_ip", text(&self.tls_client_auth_san_ip)),
            ("tls_client_auth_san_email", text(&self.tls_client_auth_san_email)),
            (
                "tls_client_certificate_bound_access_tokens",
                self.tls_client_certificate_bound_access_tokens.map(Value::from),
            ),
            ("dpop_bound_access_tokens", self.dpop_bound_access_tokens.map(Value::from)),
            ("scopes", scopes),
            ("default_scopes", default_scopes),
            ("audience", list(&self.audiences)),
            ("introspects", list(&self.introspects)),
            ("not_before", self.not_before.map(Value::from)),
            ("token_lifetime", self.lifetime.map(Value::from)),
            ("token_profile", text(&self.token_profile)),
            ("content_type", text(&self.content_type)),
            (
                "rate_limit",
                self.rate_limit
                    .map(|(requests, seconds)| json!({ "requests": requests, "seconds": seconds })),
            ),
            ("token_reuse", self.token_reuse.map(Value::from)),
            ("server_timing", self.server_timing.map(Value::from)),
            ("claims", (!self.claims.is_empty()).then(|| Value::Object(claims))),
        ];
        let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Ok(given.collect())
    }
}

/// The entry as a client, or what is wrong with the flags that made it so.
pub(super) fn check(
    file: &Path,
    entry: &str,
    given: &Map<String, Value>,
) -> Result<Client, Vec<Fault>> {
    check_entry(file, 1, entry).map_err(|faults| {
        let in_flags = |fault: Fault| {
            let field = fault.field.as_deref().unwrap_or_default();
            let name = field.split(['.', '[']).next().unwrap_or_default();
            if fault.file != file {
                fault
            } else if name == "client_id" || given.contains_key(name) {
                Fault::new(Path::new(flag_of(name).as_str()), fault.problem)
            } else {
                // It stands in the registry, and does not go with what was given.
                Fault { line: None, column: None, ..fault }
            }
        };
        faults.into_iter().map(in_flags).collect()
    })
}

/// The flag that sets a field.
fn flag_of(field: &str) -> String {
    let name = match field {
        "client_id" => "id",
        "auth_methods" => "method",
        "scopes" => "scope",
        "default_scopes" => "default-scope",
        "token_lifetime" => "lifetime",
        "claims" => "claim",
        other => return format!("--{}", other.replace('_', "-")),
    };
    format!("--{name}")
}

/// Every field that `update --unset` can take out of an entry.
pub(super) const OPTIONAL: [&str; 23] = [
    "enabled",
    "auth_methods",
    "jwks",
    "token_endpoint_auth_signing_alg",
    "tls_client_auth_subject_dn",
    "tls_client_auth_san_dns",
    "tls_client_auth_san_uri",
    "tls_client_auth_san_ip",
    "tls_client_auth_san_email",
    "tls_client_certificate_bound_access_tokens",
    "dpop_bound_access_tokens",
    "scopes",
    "default_scopes",
    "audience",
    "introspects",
    "not_before",
    "token_lifetime",
    "token_profile",
    "content_type",
    "rate_limit",
    "token_reuse",
    "server_timing",
    "claims",
];

fn words(flag: &str, values: &[String]) -> Result<Vec<String>, CliError> {
    let words: Vec<_> = values.iter().flat_map(|value| value.split_ascii_whitespace()).collect();
    if words.is_empty() && !values.is_empty() {
        return Err(CliError(format!(
            "{flag}: is empty; leave it out, or give --no-{}",
            &flag[2..]
        )));
    }
    Ok(words.into_iter().map(str::to_owned).collect())
}

fn parse_claim(argument: &str) -> Result<(String, Value), String> {
    let (name, value) = argument.split_once('=').ok_or("a claim is written NAME=VALUE")?;
    let (name, value) = match name.strip_suffix(':') {
        Some(name) => {
            let problem = "what follows := must be JSON, as in NAME:=[1,2]";
            (name, serde_json::from_str(value).map_err(|_| problem)?)
        }
        None => (name, value.into()),
    };
    if name.is_empty() {
        return Err("a claim has a name".to_owned());
    }
    Ok((name.to_owned(), value))
}

fn parse_rate(argument: &str) -> Result<(u32, u32), String> {
    let problem = || "must be requests and a duration, as in 100/1m".to_owned();
    let (requests, duration) = argument.split_once('/').ok_or_else(problem)?;
    Ok((requests.parse().map_err(|_| problem())?, parse_seconds(duration)?))
}
