//! Generates client secrets, reads them from standard input, and hashes them.

mod terminal;

use std::env::VarError;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::ValueEnum;
use zeroize::Zeroizing;

use crate::cli::error::CliError;
use crate::fault::{Fault, text};
use crate::oauth::client::is_vschar;
use crate::oauth::client_secret::{FastHash, SecretHash};
use crate::oauth::password_hash::{PasswordHash, Work};
use crate::random::{NoEntropy, Random};

/// The algorithm that hashes a new secret.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum HashKind {
    /// A single SHA-256, for secrets of 32 characters or more.
    Sha256,
    /// argon2id with 19 MiB of memory and 2 passes.
    Argon2id,
    /// PBKDF2 with 600000 rounds of HMAC-SHA-256.
    Pbkdf2Sha256,
}

/// Returns the hash of `secret` as the registry stores it. If `kind` is `None`, the algorithm is
/// SHA-256, or argon2id if the secret has fewer than 32 characters.
pub(super) fn hash(secret: &str, kind: Option<HashKind>) -> Result<String, CliError> {
    let is_long = secret.len() >= SecretHash::MIN_SECRET_CHARS;
    let kind = kind.unwrap_or(if is_long { HashKind::Sha256 } else { HashKind::Argon2id });
    let work = match kind {
        HashKind::Sha256 if is_long => return Ok(FastHash::of(secret).to_stored()),
        HashKind::Sha256 => {
            return Err(CliError(format!(
                "the secret has fewer than {} characters, which sha256 does not protect: omit \
                 --hash, or omit --secret-stdin to have a secret generated",
                SecretHash::MIN_SECRET_CHARS
            )));
        }
        HashKind::Argon2id => Work::ARGON2ID,
        HashKind::Pbkdf2Sha256 => Work::PBKDF2_SHA256,
    };
    let mut salt = [0; 16];
    Random::system().fill(&mut salt).map_err(no_entropy)?;
    PasswordHash::of(secret, work, salt).map(|hash| hash.as_stored().to_owned()).ok_or_else(|| {
        CliError("the secret cannot be hashed; there may be too little memory".to_owned())
    })
}

/// Generates a secret of 256 random bits.
pub(super) fn make() -> Result<Zeroizing<String>, CliError> {
    let mut bytes = Zeroizing::new([0; 32]);
    Random::system().fill(&mut *bytes).map_err(no_entropy)?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes)))
}

/// Reads a secret from the environment variable `variable` or, if that is unset or empty, from
/// standard input.
pub(super) fn from_environment_or_stdin(
    variable: &str,
    prompt: &str,
) -> Result<Zeroizing<String>, CliError> {
    match std::env::var(variable) {
        Ok(text) if !text.is_empty() => checked(&Zeroizing::new(text)),
        Ok(_) | Err(VarError::NotPresent) => return read(prompt),
        Err(VarError::NotUnicode(_)) => Err(NOT_VSCHAR),
    }
    .map_err(|problem| CliError(format!("{variable}: {problem}")))
}

/// Reads a secret from standard input, without a final line break. On a terminal, prints `prompt`
/// and reads one line without echo.
pub(super) fn read(prompt: &str) -> Result<Zeroizing<String>, CliError> {
    let unread = |error: io::Error| CliError(format!("the secret cannot be read: {error}"));
    let mut text = Zeroizing::new(String::new());
    let mut input = io::stdin().lock();
    if input.is_terminal() {
        terminal::ask(&mut input, prompt, &mut text).map_err(unread)?;
    } else {
        input.read_to_string(&mut text).map_err(unread)?;
    }
    checked(text::without_bom(&text)).map_err(|problem| CliError(format!("the secret {problem}")))
}

/// Reads a text with secrets: from standard input if `from` is `-`, otherwise by `read_file`. Also
/// returns the name of the input in faults.
pub(super) fn read_input(
    from: &Path,
    read_file: impl FnOnce(&Path) -> Result<Zeroizing<String>, Fault>,
) -> Result<(&Path, Zeroizing<String>), Fault> {
    if from != Path::new("-") {
        return Ok((from, read_file(from)?));
    }
    let name = Path::new("standard input");
    Ok((name, Zeroizing::new(text::read_from(io::stdin().lock(), name)?)))
}

/// Removes one line break at the end, which a shell adds, and checks the secret. [`check`] refuses
/// all other line breaks.
fn checked(text: &str) -> Result<Zeroizing<String>, &'static str> {
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let secret = line.unwrap_or(text);
    check(secret)?;
    Ok(Zeroizing::new(secret.to_owned()))
}

/// Checks that a secret is not empty and that clients can send it (RFC 6749, appendix A.2).
pub(super) fn check(secret: &str) -> Result<(), &'static str> {
    if secret.is_empty() {
        Err("is empty")
    } else if !is_vschar(secret) {
        Err(NOT_VSCHAR)
    } else {
        Ok(())
    }
}

const NOT_VSCHAR: &str = "must be printable ASCII characters";

fn no_entropy(NoEntropy: NoEntropy) -> CliError {
    CliError("the operating system has no random bytes".to_owned())
}
