//! `grantd token`: asks a running server for a token, as a client does.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Map, Value, json};

use crate::cli::http_client::{Answer, Request, Target, send};
use crate::cli::{CliError, print, secret};
use crate::endpoint::metadata::{JWKS_PATH, TOKEN_PATH};

/// The secret is read from `GRANTD_CLIENT_SECRET`, or else from standard input; on a terminal, it is
/// asked for and not shown.
#[derive(Args, Debug)]
pub(super) struct TokenArgs {
    /// The server, as http://host:port or unix:/path; or the whole URL of its token endpoint.
    #[arg(long, value_name = "URL")]
    url: String,
    /// The client_id.
    #[arg(long, value_name = "ID")]
    client_id: String,
    /// Scopes, separated by spaces [default: the client's own].
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
    /// Verify the token with the server's published keys and show what is in it.
    #[arg(long)]
    decode: bool,
}

pub(super) fn run(args: &TokenArgs) -> Result<(), CliError> {
    let (target, path) = Target::of_url(&args.url)?;
    let path = if path == "/" { TOKEN_PATH } else { &path };
    let secret = secret::from_environment_or_stdin(SECRET_VARIABLE, "Client secret: ")?;
    let answer = send(&target, Request::post(path, form(args, &secret)), PATIENCE)?;
    let token =
        token_of(&answer).map_err(|problem| CliError(format!("{target}: {path}: {problem}")))?;
    if !args.decode {
        return print(token);
    }
    let prefix = path.strip_suffix(TOKEN_PATH).unwrap_or_default();
    let keys = send(&target, Request::get(&format!("{prefix}{JWKS_PATH}")), PATIENCE)?;
    let decoded = decoded(&token, &keys)
        .map_err(|problem| CliError(format!("{target}: {prefix}{JWKS_PATH}: {problem}")))?;
    print(format_args!("{decoded:#}"))
}

fn form(args: &TokenArgs, secret: &str) -> String {
    let mut fields = vec![
        ("grant_type", "client_credentials"),
        ("client_id", &args.client_id),
        ("client_secret", secret),
    ];
    fields.extend(args.scope.as_deref().map(|scope| ("scope", scope)));
    // Text can always be written.
    serde_urlencoded::to_string(fields).unwrap_or_default()
}

/// The token, or in the server's words why there is none.
fn token_of(answer: &Answer) -> Result<String, String> {
    let body: Map<String, Value> = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    match (answer.status, text("access_token"), text("error")) {
        (200, Some(token), _) => Ok(token.to_owned()),
        (status, _, Some(error)) => {
            let description = text("error_description").unwrap_or_default();
            Err(format!("refused with {status} {error}: {description}"))
        }
        (status, ..) => Err(format!("answered {status}, and no token: is this a token endpoint?")),
    }
}

/// Header and claims of a token that one of these keys has signed.
fn decoded(token: &str, keys: &Answer) -> Result<Value, String> {
    let keys: JwkSet = serde_json::from_slice(&keys.body)
        .map_err(|_| format!("answered {} and no key set", keys.status))?;
    // What is in it is for the reader to judge; only who has signed it is checked here.
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let claims = keys
        .keys
        .iter()
        .filter_map(|key| DecodingKey::from_jwk(key).ok())
        .find_map(|key| decode::<Map<String, Value>>(token, &key, &validation).ok())
        .ok_or("none of the published keys has signed this token")?
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
const PATIENCE: Duration = Duration::from_secs(30);
