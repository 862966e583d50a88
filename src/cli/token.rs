//! `grantd token`: requests a token from a running server, as a client does.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Map, Value, json};

use crate::cli::error::CliError;
use crate::cli::http_client::{Target, get, send};
use crate::cli::output::print;
use crate::cli::secret;
use crate::endpoint::metadata::{JWKS_PATH, TOKEN_PATH};

#[derive(Args, Debug)]
pub(super) struct TokenArgs {
    /// Server as http://host:port or unix:/path, or the full URL of its token endpoint; https:// is
    /// not supported.
    #[arg(long, value_name = "URL")]
    url: String,
    /// Client ID.
    #[arg(long, value_name = "ID")]
    client_id: String,
    /// Scopes to request, separated by spaces [default: the client's default scopes].
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
    /// Verify the token with the server's key set, and print the token's header and claims instead
    /// of the token.
    #[arg(long)]
    decode: bool,
}

pub(super) fn run(args: &TokenArgs) -> Result<(), CliError> {
    let (target, path) = Target::of_url(&args.url)?;
    let address = &target.address;
    let path = if path == "/" { TOKEN_PATH } else { &path };
    let secret = secret::from_environment_or_stdin(SECRET_VARIABLE, "Client secret: ")?;
    let request = Request::post(path)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::from(form(args, &secret)));
    let answer = send(&target, request, TIMEOUT)?;
    let token =
        token_of(&answer).map_err(|problem| CliError(format!("{address}: {path}: {problem}")))?;
    if !args.decode {
        return print(token);
    }
    let prefix = path.strip_suffix(TOKEN_PATH).unwrap_or_default();
    let keys = send(&target, get(&format!("{prefix}{JWKS_PATH}"), None), TIMEOUT)?;
    let decoded = decoded(&token, &keys)
        .map_err(|problem| CliError(format!("{address}: {prefix}{JWKS_PATH}: {problem}")))?;
    print(format_args!("{decoded:#}"))
}

fn form(args: &TokenArgs, secret: &str) -> String {
    let mut fields = vec![
        ("grant_type", "client_credentials"),
        ("client_id", &args.client_id),
        ("client_secret", secret),
    ];
    fields.extend(args.scope.as_deref().map(|scope| ("scope", scope)));
    // Encoding strings cannot fail.
    serde_urlencoded::to_string(fields).unwrap_or_default()
}

/// Returns the access token in `answer`, or an error text that contains the server's description of
/// the error.
fn token_of(answer: &Response<Bytes>) -> Result<String, String> {
    let body: Map<String, Value> = serde_json::from_slice(answer.body()).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    match (answer.status().as_u16(), text("access_token"), text("error")) {
        (200, Some(token), _) => Ok(token.to_owned()),
        (status, _, Some(error)) => {
            let description = text("error_description").unwrap_or_default();
            Err(format!("refused with {status} {error}: {description}"))
        }
        (status, ..) => {
            Err(format!("answered {status} without a token: is this a token endpoint?"))
        }
    }
}

/// Verifies the signature of `token` with the key set `keys`, and returns the token's header and
/// claims.
fn decoded(token: &str, keys: &Response<Bytes>) -> Result<Value, String> {
    let keys: JwkSet = serde_json::from_slice(keys.body())
        .map_err(|_| format!("answered {} without a key set", keys.status().as_u16()))?;
    // Check only the signature: the claims are printed, so that the user can judge them.
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let claims = keys
        .keys
        .iter()
        .filter_map(|key| DecodingKey::from_jwk(key).ok())
        .find_map(|key| decode::<Map<String, Value>>(token, &key, &validation).ok())
        .ok_or("no key of the key set verifies this token")?
        .claims;
    let header = token.split('.').next().unwrap_or_default();
    let header: Value = URL_SAFE_NO_PAD
        .decode(header)
        .ok()
        .and_then(|header| serde_json::from_slice(&header).ok())
        .ok_or("the token has no header")?;
    Ok(json!({ "header": header, "claims": claims }))
}

const SECRET_VARIABLE: &str = "GRANTD_CLIENT_SECRET";
const TIMEOUT: Duration = Duration::from_secs(30);
