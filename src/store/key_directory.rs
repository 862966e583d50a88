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

use crate::fault::{Fault, Position, text};
use crate::jose::key_life::{KeyState, KeyTimes, Retention, Retirement};
use crate::jose::key_set::{KeySet, SigningKey};
use crate::jose::pem;
use crate::store::whole_file::{self, Lock};

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
    Ok(load_files(directory)?.into_iter().map(|(_, key)| key).collect())
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
    add(directory, retention, now, |times| make(directory, bits, times))
}

/// Puts a key that was made elsewhere into `directory`, with the times of one that is made at `now`
/// (Unix seconds). `text` is what stood in `source`: a PKCS#8 document in PEM.
///
/// # Errors
///
/// The [`Fault`]s, of `source` as [`load`] would find them; no file is left behind then.
pub fn import(
    directory: &Path,
    source: &Path,
    text: &str,
    retention: &Retention,
    now: u64,
) -> Result<SigningKey, Vec<Fault>> {
    // Before a directory is made for it.
    parse(source, text, KeyTimes { published_at: now, signs_from: now })
        .map_err(|fault| vec![fault])?;
    add(directory, retention, now, |times| parse(source, text, times))
}

/// A new key, and what becomes of the old one.
#[derive(Debug)]
pub struct Rotated {
    /// Published now, and signing later.
    pub made: SigningKey,
    /// The `kid` of the key that signs until then.
    pub signing: String,
    /// The end of that key.
    pub retirement: Retirement,
}

/// Makes a key as [`generate`] does that takes over from the one that signs at `now` (Unix
/// seconds).
///
/// # Errors
///
/// The [`Fault`]s, among them that there is no key to take over from, and that another one is about
/// to; no file is left behind then.
pub fn rotate(
    directory: &Path,
    bits: u16,
    retention: &Retention,
    now: u64,
) -> Result<Rotated, Vec<Fault>> {
    // A name that was mistyped makes no directory.
    let fault = |problem: String| vec![Fault::new(directory, problem)];
    let none = "holds no key to take over from: `grantd key generate` makes the first";
    if load(directory)?.is_empty() {
        return Err(fault(none.to_owned()));
    }
    let (_lock, files) = load_to_edit(directory)?;
    let keys = KeySet::new(files.into_iter().map(|(_, key)| key).collect(), *retention);
    if let Some((key, _)) = keys.states(now).find(|(_, state)| *state == KeyState::Published) {
        let (kid, from) = (key.key_id(), key.times().signs_from);
        return Err(fault(format!(
            "{kid} is published and waiting: it signs from {from} on, in {} seconds; rotate after \
             that",
            from - now
        )));
    }
    let signing = keys.signing_key(now).ok_or_else(|| fault(none.to_owned()))?;
    let times = retention.publish_at(now);
    let made = make(directory, bits, times)
        .and_then(|key| write(directory, &key).map(|()| key))
        .map_err(|fault| vec![fault])?;
    let retirement = retention.retire_at(times.signs_from);
    Ok(Rotated { made, signing: signing.key_id().to_owned(), retirement })
}

/// A key that was taken out of its directory.
#[derive(Debug)]
pub struct Retired {
    /// Its `kid`.
    pub key_id: String,
    /// Where it stood.
    pub state: KeyState,
    /// Where it is kept, out of use.
    pub file: PathBuf,
}

/// Takes the keys out of `directory` that are gone at `now` (Unix seconds), and the one with this
/// `kid` whatever its state. Each is kept as `<kid>.pem.retired`, which is not loaded any more.
///
/// # Errors
///
/// The [`Fault`]s, among them that there is no such key, and that no key that signs would be left;
/// no key is taken out then.
pub fn retire(
    directory: &Path,
    key_id: Option<&str>,
    retention: &Retention,
    now: u64,
) -> Result<Vec<Retired>, Vec<Fault>> {
    let fault = |problem: String| vec![Fault::new(directory, problem)];
    let known = load(directory)?;
    if let Some(key_id) = key_id
        && !known.iter().any(|key| key.key_id() == key_id)
    {
        let problem =
            format!("holds no key {key_id}; `grantd key list` shows those that are there");
        return Err(fault(problem));
    }
    if known.is_empty() {
        return Ok(Vec::new());
    }
    let (_lock, files) = load_to_edit(directory)?;
    let all: Vec<_> = files.iter().map(|(_, key)| key.times()).collect();
    let with_state = files.into_iter().map(|(file, key)| {
        let state = key.times().state(&all, retention, now);
        (file, key, state)
    });
    let is_named = |key: &SigningKey| Some(key.key_id()) == key_id;
    let (mut out, left): (Vec<_>, Vec<_>) =
        with_state.partition(|(_, key, state)| *state == KeyState::Gone || is_named(key));
    if !out.is_empty() && !left.iter().any(|(_, key, _)| key.times().signs_from <= now) {
        let next = left.iter().map(|(_, key, _)| key.times().signs_from).min();
        return Err(fault(match next {
            Some(from) => format!(
                "no key that signs would be left: the next one signs from {from} on, in {} \
                 seconds; retire this one then",
                from - now
            ),
            None => "no key that signs would be left: run `grantd key rotate`, and retire this \
                     one when the new one signs"
                .to_owned(),
        }));
    }
    // The named one last: without it, a key that it has succeeded would be less old.
    out.sort_by_key(|(_, key, _)| is_named(key));
    let mut retired = Vec::new();
    for (file, key, state) in out {
        let key_id = key.key_id().to_owned();
        let to = directory.join(format!("{key_id}.pem.retired"));
        whole_file::rename(&file, &to)
            .map_err(|error| vec![Fault::new(&file, format!("cannot be renamed: {error}"))])?;
        retired.push(Retired { key_id, state, file: to });
    }
    Ok(retired)
}

/// Puts the key into `directory` that is made with the times it has there.
fn add(
    directory: &Path,
    retention: &Retention,
    now: u64,
    make: impl FnOnce(KeyTimes) -> Result<SigningKey, Fault>,
) -> Result<SigningKey, Vec<Fault>> {
    whole_file::create_directory(directory)
        .map_err(|error| vec![Fault::new(directory, format!("cannot be created: {error}"))])?;
    let (_lock, files) = load_to_edit(directory)?;
    let times = if files.is_empty() {
        KeyTimes { published_at: now, signs_from: now }
    } else {
        retention.publish_at(now)
    };
    let key = make(times).map_err(|fault| vec![fault])?;
    if let Some((file, key)) = files.iter().find(|(_, known)| known.key_id() == key.key_id()) {
        let problem = format!("holds the key {} already", key.key_id());
        return Err(vec![Fault::new(file, problem)]);
    }
    write(directory, &key).map_err(|fault| vec![fault])?;
    Ok(key)
}

fn make(directory: &Path, bits: u16, times: KeyTimes) -> Result<SigningKey, Fault> {
    let size = match bits {
        2048 => KeySize::Rsa2048,
        3072 => KeySize::Rsa3072,
        4096 => KeySize::Rsa4096,
        _ => return Err(Fault::new(directory, "an RSA key has 2048, 3072 or 4096 bits")),
    };
    let fault = |problem: &str| Fault::new(directory, problem);
    let pair = KeyPair::generate(size).map_err(|_| fault("no key could be made"))?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| fault("the key could not be encoded"))?;
    SigningKey::from_pkcs8(der.as_ref(), times)
        .map_err(|error| fault(&format!("the new key is {error}")))
}

fn write(directory: &Path, key: &SigningKey) -> Result<(), Fault> {
    let pem = SecretDocument::try_from(key.document())
        .and_then(|document| document.to_pem(PEM_LABEL, LineEnding::LF))
        .map_err(|_| Fault::new(directory, "the key could not be encoded"))?;
    let file = directory.join(format!("{}.pem", key.key_id()));
    let KeyTimes { published_at, signs_from } = key.times();
    let text = Zeroizing::new(format!(
        "{PUBLISHED_AT}: {published_at}\n{SIGNS_FROM}: {signs_from}\n{}",
        *pem
    ));
    whole_file::create(&file, text.as_bytes())
        .map_err(|error| Fault::new(&file, format!("cannot be written: {error}")))
}

/// Every key with its file, and nobody else edits until the lock is dropped.
fn load_to_edit(directory: &Path) -> Result<(Lock, KeyFiles), Vec<Fault>> {
    let lock = whole_file::lock_directory(directory)
        .map_err(|error| vec![Fault::new(directory, format!("cannot be locked: {error}"))])?;
    Ok((lock, load_files(directory)?))
}

/// Each key with its file.
type KeyFiles = Vec<(PathBuf, SigningKey)>;

fn load_files(directory: &Path) -> Result<KeyFiles, Vec<Fault>> {
    let mut keys = KeyFiles::new();
    let mut faults = Vec::new();
    for file in pem_files(directory).map_err(|fault| vec![fault])? {
        match load_file(&file) {
            Ok(key) if keys.iter().any(|(_, known)| known.key_id() == key.key_id()) => {
                faults.push(Fault::new(&file, "holds a key that another file holds too"));
            }
            Ok(key) => keys.push((file, key)),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(keys) } else { Err(faults) }
}

fn pem_files(directory: &Path) -> Result<Vec<PathBuf>, Fault> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Fault::cannot("read", directory, &error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Fault::cannot("read", directory, &error))?;
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
    let text = read(file)?;
    let times = KeyTimes {
        published_at: time(file, &text, PUBLISHED_AT)?,
        signs_from: time(file, &text, SIGNS_FROM)?,
    };
    parse(file, &text, times)
}

/// The text of a file that holds a key, if it is its owner's alone.
///
/// # Errors
///
/// The [`Fault`].
pub fn read(file: &Path) -> Result<Zeroizing<String>, Fault> {
    let metadata = std::fs::metadata(file).map_err(|error| Fault::cannot("read", file, &error))?;
    if whole_file::is_world_readable(&metadata.permissions()) {
        let problem = format!(
            "can be read by everyone on this machine; make a new key if they should not have, or \
             {}",
            whole_file::HIDE_IT
        );
        return Err(Fault::new(file, problem));
    }
    text::read(file).map(Zeroizing::new)
}

fn parse(file: &Path, text: &str, times: KeyTimes) -> Result<SigningKey, Fault> {
    let document = pem::private_key(text).map_err(|problem| Fault::new(file, problem))?;
    SigningKey::from_pkcs8(&document, times)
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
            let value = value.trim_start();
            let column = line.chars().count() - value.chars().count() + 1;
            let place = Position { line: index + 1, column };
            return value
                .trim_end()
                .parse()
                .map_err(|_| Fault::new(file, "must be Unix seconds").at(place).in_field(name));
        }
    }
    Ok(0)
}

const PUBLISHED_AT: &str = "Published-At";
const SIGNS_FROM: &str = "Signs-From";
const PEM_LABEL: &str = "PRIVATE KEY";
