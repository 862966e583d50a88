//! The file of a signing key.
//!
//! A file holds a PKCS#8 document in PEM (RFC 7468) that any tool can read. The two times of the
//! key stand before the document, where RFC 7468, section 2, allows explanatory text:
//!
//! ```text
//! Published-At: 1790000000
//! Signs-From: 1790000600
//! -----BEGIN PRIVATE KEY-----
//! ```
//!
//! The program writes the times in Unix seconds. It can read times in Unix seconds and in the
//! format of RFC 3339.
//!
//! The key and its times are in one file, so that a single rename adds both. If a file has no
//! times, an operator has added it by hand. Both times of its key then count as 0, that is, 1970. A
//! third line, `Immediate: yes`, means that older keys have leaked: a running server then signs
//! with this key at once, and does not wait until verifiers have fetched it.

use std::path::Path;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use pkcs8::der::SecretDocument;
use pkcs8::der::pem::LineEnding;
use zeroize::Zeroizing;

use crate::fault::{Fault, Position, text};
use crate::fs::whole_file;
use crate::jose::pem;
use crate::keys::life::KeyTimes;
use crate::keys::signing_key::SigningKey;
use crate::signing::private_key::PrivateKey;
use crate::time::UnixTime;

/// A key that is not in the directory yet, with the document that its file will hold.
pub(super) struct NewKey {
    private_key: PrivateKey,
    document: SecretDocument,
}

impl NewKey {
    /// Generates a key of `bits` bits. A fault names `directory`.
    pub(super) fn generate(directory: &Path, bits: u16) -> Result<Self, Fault> {
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            _ => return Err(Fault::new(directory, "an RSA key has 2048, 3072 or 4096 bits")),
        };
        let fault = |problem: &str| Fault::new(directory, problem);
        let pair = KeyPair::generate(size).map_err(|_| fault("no key could be generated"))?;
        let not_encoded = "the key could not be encoded";
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| fault(not_encoded))?;
        let document = SecretDocument::try_from(der.as_ref()).map_err(|_| fault(not_encoded))?;
        let private_key = PrivateKey::from_pkcs8(document.as_bytes())
            .map_err(|error| fault(&format!("the new key is {error}")))?;
        Ok(Self { private_key, document })
    }

    /// Reads a key from `text`, the content of `file`.
    pub(super) fn parse(file: &Path, text: &str) -> Result<Self, Fault> {
        let document = pem::private_key(text).map_err(|problem| Fault::new(file, problem))?;
        let private_key = PrivateKey::from_pkcs8(document.as_bytes())
            .map_err(|error| Fault::new(file, format!("is {error}")))?;
        Ok(Self { private_key, document })
    }

    /// The `kid` that the key will have.
    pub(super) fn key_id(&self) -> &str {
        &self.private_key.thumbprint
    }

    /// Returns the key with these times, and the text of its file. `None` if the key cannot be
    /// encoded.
    pub(super) fn into_document(
        self,
        times: KeyTimes,
        is_immediate: bool,
    ) -> Option<(SigningKey, Zeroizing<String>)> {
        let pem = self.document.to_pem(PEM_LABEL, LineEnding::LF).ok()?;
        let key = SigningKey { is_immediate, ..SigningKey::new(self.private_key, times) };
        let KeyTimes { published_at, signs_from } = times;
        let immediate = if is_immediate { format!("{IMMEDIATE}: {YES}\n") } else { String::new() };
        let text = Zeroizing::new(format!(
            "{PUBLISHED_AT}: {published_at}\n{SIGNS_FROM}: {signs_from}\n{immediate}{}",
            *pem
        ));
        Some((key, text))
    }
}

/// Reads a key and its times from `file`.
pub(super) fn load(file: &Path) -> Result<SigningKey, Fault> {
    // Reading a pipe could block for ever.
    if std::fs::metadata(file).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Fault::new(file, "is not a regular file"));
    }
    parse(file, &read(file)?)
}

/// Reads a key and its times from `text`, the document that is called `file` in faults.
pub(crate) fn parse(file: &Path, text: &str) -> Result<SigningKey, Fault> {
    let times = KeyTimes {
        published_at: time(file, text, PUBLISHED_AT)?,
        signs_from: time(file, text, SIGNS_FROM)?,
    };
    let key = SigningKey::new(NewKey::parse(file, text)?.private_key, times);
    Ok(SigningKey { is_immediate: is_immediate(file, text)?, ..key })
}

/// Returns the key of `text` and the text with these times. `text` is the document that is called
/// `file` in faults.
pub(crate) fn with_times(
    file: &Path,
    text: &str,
    times: KeyTimes,
) -> Result<(SigningKey, Zeroizing<String>), Fault> {
    let is_immediate = is_immediate(file, text)?;
    let encoded = NewKey::parse(file, text)?.into_document(times, is_immediate);
    encoded.ok_or_else(|| Fault::new(file, "holds a key that could not be encoded"))
}

/// Reads the text of a key file, which must not be world-readable.
///
/// # Errors
///
/// A [`Fault`] if the file cannot be read or is world-readable.
pub fn read(file: &Path) -> Result<Zeroizing<String>, Fault> {
    let metadata = std::fs::metadata(file).map_err(|error| Fault::cannot("read", file, &error))?;
    if whole_file::is_world_readable(&metadata.permissions()) {
        let problem = format!(
            "can be read by everyone on this machine; if another user may have read it, replace \
             the key, otherwise {}",
            whole_file::HIDE_IT
        );
        return Err(Fault::new(file, problem));
    }
    text::read(file).map(Zeroizing::new)
}

/// Returns the time in the header `name`. Returns 0 if the file has no such header.
fn time(file: &Path, text: &str, name: &str) -> Result<UnixTime, Fault> {
    let Some((place, value)) = field(text, name) else { return Ok(UnixTime(0)) };
    value.parse().ok().map(UnixTime).or_else(|| UnixTime::parse_rfc3339(value)).ok_or_else(|| {
        let problem = "must be Unix seconds, or a time of RFC 3339 as in 2027-01-31T12:00:00Z";
        Fault::new(file, problem).at(place).in_field(name)
    })
}

fn is_immediate(file: &Path, text: &str) -> Result<bool, Fault> {
    match field(text, IMMEDIATE) {
        None => Ok(false),
        Some((_, YES)) => Ok(true),
        Some((place, _)) => {
            Err(Fault::new(file, "must be yes or absent").at(place).in_field(IMMEDIATE))
        }
    }
}

/// Returns the position and the value of the header `name`. The headers are the lines before the
/// PEM document.
fn field<'t>(text: &'t str, name: &str) -> Option<(Position, &'t str)> {
    let lines = (1..).zip(text.lines()).take_while(|(_, line)| !line.starts_with("-----BEGIN "));
    let mut fields = lines.filter_map(|(number, line)| Some((number, line, line.split_once(':')?)));
    let (line, whole, (_, value)) = fields.find(|(.., (key, _))| *key == name)?;
    let value = value.trim_start();
    let column = whole.chars().count() - value.chars().count() + 1;
    Some((Position { line, column }, value.trim_end()))
}

const PUBLISHED_AT: &str = "Published-At";
const SIGNS_FROM: &str = "Signs-From";
const IMMEDIATE: &str = "Immediate";
const YES: &str = "yes";
const PEM_LABEL: &str = "PRIVATE KEY";
