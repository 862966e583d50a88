//! The directory of signing keys: one `<kid>.pem` a key.
//!
//! Such a file is an ordinary PKCS#8 document in PEM (RFC 7468) that any tool reads; the key's two
//! times stand in front of it, where RFC 7468 section 2 allows explanatory text:
//!
//! ```text
//! Published-At: 1790000000
//! Signs-From: 1790000600
//! -----BEGIN PRIVATE KEY-----
//! ```
//!
//! So key and times are one file, and one rename makes both. A key without times was put there by
//! hand and has been signing for ever.

use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use pkcs8::der::SecretDocument;
use pkcs8::der::pem::LineEnding;
use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::jose::key_life::{KeyTimes, Retention};
use crate::jose::key_set::SigningKey;
use crate::store::whole_file;

/// Sizes of RSA keys that can be made, in bits.
pub const KEY_SIZES: [u16; 3] = [2048, 3072, 4096];

/// Reads every key in `directory`, in the order of their file names. A directory that does not
/// exist holds none.
///
/// # Errors
///
/// Every fault: a file that cannot be read, that others can read, or that is not an RSA key of 2048
/// to 4096 bits.
pub fn load(directory: &Path) -> Result<Vec<SigningKey>, Vec<Fault>> {
    let mut keys: Vec<SigningKey> = Vec::new();
    let mut faults = Vec::new();
    for file in pem_files(directory).map_err(|fault| vec![fault])? {
        match load_file(&file) {
            Ok(key) if keys.iter().any(|known| known.key_id() == key.key_id()) => {
                faults.push(Fault::new(&file, "holds a key that another file holds too"));
            }
            Ok(key) => keys.push(key),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(keys) } else { Err(faults) }
}

/// Makes an RSA key of `bits` bits at `now` (Unix seconds) and puts it into `directory`, which is
/// created if need be. The first key signs at once; one beside others is published first.
///
/// # Errors
///
/// The [`Fault`]; no file is left behind then.
pub fn generate(
    directory: &Path,
    bits: u16,
    retention: &Retention,
    now: u64,
) -> Result<SigningKey, Vec<Fault>> {
    let is_first = load(directory)?.is_empty();
    let times = if is_first {
        KeyTimes { published_at: now, signs_from: now }
    } else {
        retention.publish_at(now)
    };
    store(directory, bits, times).map_err(|fault| vec![fault])
}

fn store(directory: &Path, bits: u16, times: KeyTimes) -> Result<SigningKey, Fault> {
    let size = match bits {
        2048 => KeySize::Rsa2048,
        3072 => KeySize::Rsa3072,
        4096 => KeySize::Rsa4096,
        _ => return Err(Fault::new(directory, "an RSA key has 2048, 3072 or 4096 bits")),
    };
    let fault = |problem: &str| Fault::new(directory, problem);
    let pair = KeyPair::generate(size).map_err(|_| fault("no key could be made"))?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| fault("the key could not be encoded"))?;
    let key = SigningKey::from_pkcs8(der.as_ref(), times)
        .map_err(|error| fault(&format!("the new key is {error}")))?;
    let pem = SecretDocument::try_from(der.as_ref())
        .and_then(|document| document.to_pem(PEM_LABEL, LineEnding::LF))
        .map_err(|_| fault("the key could not be encoded"))?;

    whole_file::create_directory(directory)
        .map_err(|error| fault(&format!("cannot be created: {error}")))?;
    let file = directory.join(format!("{}.pem", key.key_id()));
    let KeyTimes { published_at, signs_from } = times;
    let text = Zeroizing::new(format!(
        "{PUBLISHED_AT}: {published_at}\n{SIGNS_FROM}: {signs_from}\n{}",
        *pem
    ));
    whole_file::create(&file, text.as_bytes())
        .map_err(|error| Fault::new(&file, format!("cannot be written: {error}")))?;
    Ok(key)
}

fn pem_files(directory: &Path) -> Result<Vec<PathBuf>, Fault> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Fault::new(directory, format!("cannot be read: {error}"))),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry =
            entry.map_err(|error| Fault::new(directory, format!("cannot be read: {error}")))?;
        let file = entry.path();
        // Editors and mounts leave hidden files behind.
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && file.extension().is_some_and(|extension| extension == "pem") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn load_file(file: &Path) -> Result<SigningKey, Fault> {
    let unreadable = |error: std::io::Error| Fault::new(file, format!("cannot be read: {error}"));
    let metadata = std::fs::metadata(file).map_err(unreadable)?;
    if whole_file::is_world_readable(&metadata.permissions()) {
        let problem = "can be read by everyone on this machine; make a new key if they should not \
                       have, or run chmod 600 on it";
        return Err(Fault::new(file, problem));
    }
    let text = Zeroizing::new(std::fs::read_to_string(file).map_err(unreadable)?);
    let times = KeyTimes {
        published_at: time(file, &text, PUBLISHED_AT)?,
        signs_from: time(file, &text, SIGNS_FROM)?,
    };
    let begin = text.find("-----BEGIN ").ok_or_else(|| Fault::new(file, NOT_PKCS8))?;
    let (label, document) =
        SecretDocument::from_pem(&text[begin..]).map_err(|_| Fault::new(file, NOT_PKCS8))?;
    if label != PEM_LABEL {
        return Err(Fault::new(file, NOT_PKCS8));
    }
    SigningKey::from_pkcs8(document.as_bytes(), times)
        .map_err(|error| Fault::new(file, format!("is {error}")))
}

/// The time under `name` in front of the key, or 0.
fn time(file: &Path, text: &str, name: &str) -> Result<u64, Fault> {
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("-----BEGIN ") {
            break;
        }
        if let Some((key, value)) = line.split_once(':')
            && key == name
        {
            return value.trim().parse().map_err(|_| {
                Fault::new(file, "must be Unix seconds").at_line(index + 1).in_field(name)
            });
        }
    }
    Ok(0)
}

const PUBLISHED_AT: &str = "Published-At";
const SIGNS_FROM: &str = "Signs-From";
const PEM_LABEL: &str = "PRIVATE KEY";
const NOT_PKCS8: &str = "is not an unencrypted PKCS#8 private key in PEM; convert it with \
                         `openssl pkcs8 -topk8 -nocrypt`";
