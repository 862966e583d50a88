//! The fields of a client as flags of `add` and `update`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Arg, Args, Command};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cli::error::CliError;
use crate::cli::times::{parse_seconds, parse_time};
use crate::config::parse_switch;
use crate::fault::Fault;
use crate::form::repeated_name::RepeatedName;
use crate::oauth::client::AuthMethod;
use crate::registry::client_file::{OPTIONAL_FIELDS, check_entry, read_key_set};
use crate::time::UnixTime;

// This struct is serialized to the fields of a registry entry. A flag that has the same name and
// value as its registry field therefore needs no further code. `given` adds the flags that are
// marked `serde(skip)`. These lines are not a doc comment, because clap would show a doc comment as
// the help text of the command.
#[derive(Args, Debug, Serialize)]
pub(super) struct FieldArgs {
    /// Scopes the client may request, separated by spaces; may be repeated. A request without a
    /// scope gets all of them, unless --default-scope or --no-default-scope is given.
    #[serde(skip)]
    #[arg(long = "scope", value_name = "SCOPES")]
    scopes: Vec<String>,
    /// Register no scope: the client gets no tokens.
    #[serde(skip)]
    #[arg(long, conflicts_with_all = ["scopes", "default_scopes"])]
    no_scope: bool,
    /// Scopes the client gets if it requests none, separated by spaces; may be repeated
    /// [default: all scopes that it may request].
    #[serde(skip)]
    #[arg(long = "default-scope", value_name = "SCOPES")]
    default_scopes: Vec<String>,
    /// Refuse requests of the client that name no scope.
    #[serde(skip)]
    #[arg(long, conflicts_with = "default_scopes")]
    no_default_scope: bool,
    /// Audience of the client's tokens; may be repeated [default: the issuer].
    #[arg(long = "audience", value_name = "AUDIENCE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audience: Vec<String>,
    /// Lifetime of the client's tokens: seconds, or as in 15m, 24h, 90d [default of a new client:
    /// 3600].
    #[arg(long = "lifetime", value_name = "DURATION", value_parser = parse_seconds)]
    token_lifetime: Option<u32>,
    /// Static claim in the client's tokens: NAME=TEXT, or NAME:=JSON; may be repeated.
    #[serde(skip)]
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = parse_claim)]
    claims: Vec<(String, Value)>,
    /// Method by which the client may authenticate: client_secret_basic, client_secret_post,
    /// private_key_jwt, tls_client_auth or self_signed_tls_client_auth; may be repeated [default of
    /// a new client: the first two].
    #[serde(skip)]
    #[arg(long = "method", value_name = "METHOD")]
    pub(super) auth_methods: Vec<AuthMethod>,
    /// File with the client's public keys as a JWK Set, which is copied into the registry.
    #[serde(skip)]
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// Algorithm with which the client must sign its assertions: RS256, PS256, ES256 or EdDSA
    /// [default: any].
    #[arg(long, value_name = "ALG")]
    token_endpoint_auth_signing_alg: Option<String>,
    /// Subject of the client's certificate, for tls_client_auth (RFC 8705, section 2.1.2).
    #[arg(long, value_name = "DN")]
    tls_client_auth_subject_dn: Option<String>,
    /// DNS name in the client's certificate, for tls_client_auth. Give only one of the five
    /// --tls-client-auth flags.
    #[arg(long, value_name = "NAME")]
    tls_client_auth_san_dns: Option<String>,
    /// URI in the client's certificate, for tls_client_auth. Give only one of the five
    /// --tls-client-auth flags.
    #[arg(long, value_name = "URI")]
    tls_client_auth_san_uri: Option<String>,
    /// IP address in the client's certificate, for tls_client_auth. Give only one of the five
    /// --tls-client-auth flags.
    #[arg(long, value_name = "ADDRESS")]
    tls_client_auth_san_ip: Option<String>,
    /// E-mail address in the client's certificate, for tls_client_auth. Give only one of the five
    /// --tls-client-auth flags.
    #[arg(long, value_name = "ADDRESS")]
    tls_client_auth_san_email: Option<String>,
    /// Bind each token of the client to the certificate with which the client requests the token.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = parse_switch)]
    tls_client_certificate_bound_access_tokens: Option<bool>,
    /// Bind each token of the client to the key of the DPoP proof in the token request.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = parse_switch)]
    dpop_bound_access_tokens: Option<bool>,
    /// Audience whose tokens the client may introspect, besides its own tokens; may be repeated.
    #[arg(long, value_name = "AUDIENCE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    introspects: Vec<String>,
    /// Revoke the client's tokens that were issued before this time: Unix seconds, or as in
    /// 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    not_before: Option<UnixTime>,
    /// Profile of the client's tokens: at+jwt or vision [default: the profile of the route].
    #[arg(long, value_name = "PROFILE")]
    token_profile: Option<String>,
    /// Content type of the client's requests to vision and firstvision: application/json or
    /// application/octet-stream.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Time for which a token of the client is reused for equal requests: seconds, or as in 15m.
    #[arg(long, value_name = "DURATION", value_parser = parse_seconds)]
    token_reuse: Option<u32>,
    /// Report in each response to the client how long each step took (Server-Timing).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = parse_switch)]
    server_timing: Option<bool>,
    /// Rate limit for the client's token requests, as in 100/1m.
    #[arg(long, value_name = "REQUESTS/DURATION", value_parser = parse_rate)]
    rate_limit: Option<Value>,
    /// Whether the client may authenticate at all.
    #[arg(long, value_name = "BOOL", value_parser = parse_switch)]
    enabled: Option<bool>,
}

impl FieldArgs {
    /// Whether the flags say that the client gets no tokens, or introspects those of others.
    pub(super) fn are_for_no_token(&self) -> bool {
        self.no_scope || !self.introspects.is_empty()
    }

    /// Returns the registry fields that the flags set, by their names in the registry. `claims` are
    /// the claims that the client already has. The claims of the flags are added to these.
    pub(super) fn given(
        &self,
        mut claims: Map<String, Value>,
    ) -> Result<Map<String, Value>, CliError> {
        let mut fields = serde_json::to_value(self)?;
        let scopes = if self.no_scope { Some(Vec::new()) } else { words("--scope", &self.scopes)? };
        let default_scopes = if self.no_scope || self.no_default_scope {
            Some(Vec::new())
        } else {
            words("--default-scope", &self.default_scopes)?.or_else(|| scopes.clone())
        };
        fields["scopes"] = json!(scopes);
        fields["default_scopes"] = json!(default_scopes);
        if !self.auth_methods.is_empty() {
            let methods = self.auth_methods.iter().map(|method| method.as_str());
            fields["auth_methods"] = methods.collect();
        }
        if let Some(file) = &self.jwks {
            let (text, _) = read_key_set(file)?;
            fields["jwks"] = serde_json::from_str(&text)?;
        }
        let mut names = BTreeSet::new();
        if let Some((name, _)) = self.claims.iter().find(|(name, _)| !names.insert(name)) {
            return Err(CliError(format!("--claim: gives {name} twice")));
        }
        if !self.claims.is_empty() {
            claims.extend(self.claims.iter().cloned());
            fields["claims"] = Value::Object(claims);
        }
        let given = OPTIONAL_FIELDS.iter().filter_map(|name| {
            let value = fields.get_mut(name)?.take();
            (!value.is_null()).then(|| ((*name).to_owned(), value))
        });
        Ok(given.collect())
    }
}

/// Checks an entry. A fault in a `given` field names the flag that set the field.
pub(super) fn check(
    file: &Path,
    entry: &str,
    given: &Map<String, Value>,
) -> Result<(), Vec<Fault>> {
    check_entry(file, 1, entry).map(drop).map_err(|faults| {
        let in_flags = |fault: Fault| {
            let field = fault.field.as_deref().unwrap_or_default();
            let name = field.split(['.', '[']).next().unwrap_or_default();
            if fault.file != file {
                fault
            } else if let Some(problem) = lifetime_problem(name, entry, given) {
                Fault::new(Path::new(flag_of("token_lifetime").as_str()), problem)
            } else if name == "client_id" || given.contains_key(name) {
                Fault::new(Path::new(flag_of(name).as_str()), fault.problem)
            } else {
                // A field of the registry entry conflicts with a given field. Drop the line and
                // column, which count from the start of the entry and not of the file.
                Fault { line: None, column: None, ..fault }
            }
        };
        faults.into_iter().map(in_flags).collect()
    })
}

/// Returns the problem if a `given` lifetime is shorter than the token reuse that the client has,
/// which makes the fault in `field`.
fn lifetime_problem(field: &str, entry: &str, given: &Map<String, Value>) -> Option<String> {
    if field != "token_reuse" || given.contains_key(field) {
        return None;
    }
    let lifetime = given.get("token_lifetime")?.as_u64()?;
    let entry: Value = serde_json::from_str(entry).ok()?;
    let reuse = entry[field].as_u64().filter(|reuse| *reuse > lifetime)?;
    Some(format!(
        "{lifetime} s is less than the client's token_reuse of {reuse} s: pass --token-reuse with \
         at most {lifetime}, or --unset token_reuse"
    ))
}

/// Returns the flag that sets `field`, as in `--scope`.
fn flag_of(field: &str) -> String {
    let flags = FieldArgs::augment_args(Command::new(""));
    let flag = flags.get_arguments().find(|flag| flag.get_id() == field).and_then(Arg::get_long);
    format!("--{}", flag.unwrap_or("id"))
}

/// Returns the fields that `update --unset` can remove from an entry. `secrets` is not among them,
/// because other commands change the secrets.
pub(super) fn removable() -> impl Iterator<Item = &'static str> {
    OPTIONAL_FIELDS.iter().copied().filter(|name| *name != "secrets")
}

/// Returns the words in all `values`; `None` if the flag was not given.
fn words(flag: &str, values: &[String]) -> Result<Option<Vec<String>>, CliError> {
    let words: Vec<_> = values.iter().flat_map(|value| value.split_ascii_whitespace()).collect();
    if words.is_empty() && !values.is_empty() {
        let name = &flag[2..];
        return Err(CliError(format!("{flag}: is empty; leave it out, or give --no-{name}")));
    }
    let words = words.into_iter().map(str::to_owned).collect();
    Ok((!values.is_empty()).then_some(words))
}

fn parse_claim(argument: &str) -> Result<(String, Value), &'static str> {
    let (name, value) = argument.split_once('=').ok_or("a claim is written NAME=VALUE")?;
    let (name, value) = match name.strip_suffix(':') {
        Some(name) => {
            let problem = "what follows := must be JSON, as in NAME:=[1,2]";
            let RepeatedName(repeated) = serde_json::from_str(value).map_err(|_| problem)?;
            if repeated.is_some() {
                return Err("what follows := must not repeat a name in one object");
            }
            (name, serde_json::from_str(value).map_err(|_| problem)?)
        }
        None => (name, value.into()),
    };
    if name.is_empty() {
        return Err("a claim has a name");
    }
    Ok((name.to_owned(), value))
}

fn parse_rate(argument: &str) -> Result<Value, &'static str> {
    let problem = "must be requests and a duration, as in 100/1m";
    let (requests, duration) = argument.split_once('/').ok_or(problem)?;
    let requests: u32 = requests.parse().map_err(|_| problem)?;
    Ok(json!({ "requests": requests, "seconds": parse_seconds(duration)? }))
}
