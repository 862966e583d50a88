//! The directory of signing keys, with one file `<kid>.pem` per key.
//!
//! A file is a PKCS#8 document in PEM (RFC 7468) that any tool can read. The key's two times
//! precede it, where RFC 7468 section 2 allows explanatory text:
//!
//! ```text
//! Published-At: 1790000000
//! Signs-From: 1790000600
//! -----BEGIN PRIVATE KEY-----
//! ```
//!
//! The times are Unix seconds; RFC 3339 is read too.
//!
//! One rename puts both the key and its times in place. A key without times was added by hand
//! and counts as signing since 1970. A third line, `Immediate: yes`, means that the older keys have
//! leaked: a running server then does not wait until verifiers have the new key.

use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use pkcs8::der::SecretDocument;
use pkcs8::der::pem::LineEnding;
use zeroize::Zeroizing;

use crate::clock::{parse_rfc3339, seconds_and_date};
use crate::fault::{Fault, Position, text};
use crate::jose::key_life::{KeyState, KeyTimes, Retention, Retirement};
use crate::jose::key_set::{KeySet, SigningKey};
use crate::jose::pem;
use crate::store::whole_file::{self, Lock};

/// The sizes of RSA keys that can be generated, in bits.
pub const KEY_SIZES: [u16; 3] = [2048, 3072, 4096];

/// Reads all keys in `directory`, in the order of their file names. Returns no
/// keys if the directory does not exist.
///
/// # Errors
///
/// The faults of all files: a file is unreadable or world-readable, or does not hold an RSA key of
/// 2048 to 4096 bits.
pub fn load(directory: &Path) -> Result<Vec<SigningKey>, Vec<Fault>> {
    Ok(load_files(directory)?.into_iter().map(|(_, key)| key).collect())
}

/// Generates an RSA key of `bits` bits at `now` (Unix seconds) in `directory`, which is created if
/// necessary. The first key signs at once; a later one is published first.
///
/// # Errors
///
/// The [`Fault`]s. No file is left behind then.
pub fn generate(
    directory: &Path,
    bits: u16,
    retention: &Retention,
    now: u64,
) -> Result<SigningKey, Vec<Fault>> {
    add(directory, retention, now, |times| make(directory, bits, times))
}

/// Adds an existing key to `directory`, with the times of a key generated at `now` (Unix seconds).
/// `text` is the PKCS#8 document in PEM that was read from `source`.
///
/// # Errors
///
/// The [`Fault`]s. Those of the key name `source`. No file is left behind then.
pub fn import(
    directory: &Path,
    source: &Path,
    text: &str,
    retention: &Retention,
    now: u64,
) -> Result<SigningKey, Vec<Fault>> {
    // Check the key before the directory is created.
    parse(source, text, KeyTimes { published_at: now, signs_from: now })
        .map_err(|fault| vec![fault])?;
    add(directory, retention, now, |times| parse(source, text, times))
}

/// The keys of a starting server.
#[derive(Debug)]
pub struct First {
    /// At least one.
    pub keys: Vec<SigningKey>,
    /// Whether this call has generated the key.
    pub is_made: bool,
}

/// Returns the keys of `directory` or, if it holds none, generates one of `bits` bits at `now`
/// (Unix seconds). Works under the directory's lock, so that of several starting servers one
/// generates the key and all use it.
///
/// # Errors
///
/// The [`Fault`]s. No file is left behind then.
pub fn first(directory: &Path, bits: u16, now: u64) -> Result<First, Vec<Fault>> {
    create_directory(directory)?;
    let (_lock, files) = load_to_edit(directory)?;
    if !files.is_empty() {
        let keys = files.into_iter().map(|(_, key)| key).collect();
        return Ok(First { keys, is_made: false });
    }
    let made = make(directory, bits, KeyTimes { published_at: now, signs_from: now })
        .and_then(|key| write(directory, &key).map(|()| key));
    Ok(First { keys: vec![made.map_err(|fault| vec![fault])?], is_made: true })
}

/// The result of [`rotate`].
#[derive(Debug)]
pub struct Rotated {
    /// The new key, which is published now and signs later.
    pub made: SigningKey,
    /// The `kid` of the key that signs until then, the old key.
    pub signing: String,
    /// The end of the old key.
    pub retirement: Retirement,
}

/// Generates a key as [`generate`] does, to succeed the key that signs at `now` (Unix seconds).
///
/// # Errors
///
/// The [`Fault`]s. It is a fault if no key signs or another successor is already published. No file
/// is left behind then.
pub fn rotate(
    directory: &Path,
    bits: u16,
    retention: &Retention,
    now: u64,
) -> Result<Rotated, Vec<Fault>> {
    // Before locking: a missing directory cannot be locked, and counts as one without keys.
    let fault = |problem: String| vec![Fault::new(directory, problem)];
    let none = "holds no key to succeed: `grantd key generate` generates the first one";
    if load(directory)?.is_empty() {
        return Err(fault(none.to_owned()));
    }
    let (_lock, files) = load_to_edit(directory)?;
    let keys = KeySet::new(files.into_iter().map(|(_, key)| key).collect(), *retention);
    if let Some((key, _)) = keys.states(now).find(|(_, state)| *state == KeyState::Published) {
        let (kid, from) = (key.key_id(), key.times().signs_from);
        return Err(fault(format!(
            "{kid} is already published and signs from {}, in {} seconds; rotate after \
             that",
            seconds_and_date(from),
            from - now
        )));
    }
    let signing = keys.signing_key(now).ok_or_else(|| fault(none.to_owned()))?;
    let others: Vec<_> = keys.iter().map(SigningKey::times).collect();
    let times = retention.publish_beside(&others, now);
    let made = make(directory, bits, times)
        .and_then(|key| write(directory, &key).map(|()| key))
        .map_err(|fault| vec![fault])?;
    let retirement = retention.retire_at(times.signs_from);
    Ok(Rotated { made, signing: signing.key_id().to_owned(), retirement })
}

/// The result of [`replace`].
#[derive(Debug)]
pub struct Replaced {
    /// The new key, which signs as soon as a server has read it.
    pub made: SigningKey,
    /// The files of the other keys, renamed so that they are not loaded.
    pub retired: Vec<PathBuf>,
}

/// Replaces leaked keys: generates a key that signs at `now` (Unix seconds) and, once it is on
/// disk, retires all others in `directory`, readable or not, except the one with the `kid` `keep`.
///
/// # Errors
///
/// The [`Fault`]s. It is a fault if there is no key to replace or no key to keep. No file is left
/// behind then, unless an old key could not be renamed.
pub fn replace(
    directory: &Path,
    bits: u16,
    keep: Option<&str>,
    now: u64,
) -> Result<Replaced, Vec<Fault>> {
    let fault = |problem: String| vec![Fault::new(directory, problem)];
    let files = || pem_files(directory).map_err(|fault| vec![fault]);
    // Before locking: a missing directory cannot be locked, and counts as one without keys.
    if files()?.is_empty() {
        return Err(fault(
            "holds no key to replace: `grantd key generate` generates one".to_owned(),
        ));
    }
    let _lock = lock(directory)?;
    let with_key = files()?.into_iter().map(|file| (load_file(&file).ok(), file));
    let is_kept = |key: &SigningKey| Some(key.key_id()) == keep;
    let (kept, out): (Vec<_>, Vec<_>) =
        with_key.partition(|(key, _)| key.as_ref().is_some_and(is_kept));
    if let (Some(keep), []) = (keep, &kept[..]) {
        return Err(fault(format!(
            "holds no readable key {keep}; `grantd key list` shows the keys"
        )));
    }
    // The new key must start after the kept one, which may start in this second.
    let times = kept.iter().flat_map(|(key, _)| key).map(|key| key.times().signs_from);
    let due = times.filter(|from| *from <= now).max();
    let signs_from = due.map_or(now, |due| now.max(due.saturating_add(1)));
    let made = make(directory, bits, KeyTimes { published_at: now, signs_from })
        .map(SigningKey::immediately)
        .and_then(|key| write(directory, &key).map(|()| key))
        .map_err(|fault| vec![fault])?;
    let (mut retired, mut faults) = (Vec::new(), Vec::new());
    for (key, file) in out {
        let to = match &key {
            Some(key) => retired_file(directory, key.key_id()),
            None => {
                let mut name = file.clone().into_os_string();
                name.push(".retired");
                name.into()
            }
        };
        match whole_file::rename(&file, &to) {
            Ok(()) => retired.push(to),
            Err(error) => {
                let problem = format!(
                    "cannot be renamed and stays in use, with the new key {}: {error}",
                    made.key_id()
                );
                faults.push(Fault::new(&file, problem));
            }
        }
    }
    if faults.is_empty() { Ok(Replaced { made, retired }) } else { Err(faults) }
}

/// A retired key.
#[derive(Debug)]
pub struct Retired {
    /// Its `kid`.
    pub key_id: String,
    /// Its state before.
    pub state: KeyState,
    /// Its file, renamed so that it is not loaded.
    pub file: PathBuf,
}

/// Retires the keys in `directory` that are gone at `now` (Unix seconds), and the key with the
/// `kid` `key_id` in any state. Their files are renamed to `<kid>.pem.retired`, which is not
/// loaded.
///
/// # Errors
///
/// The [`Fault`]s. It is a fault if there is no such key, or no signing key would be left. No key
/// is retired then.
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
        let problem = format!("holds no key {key_id}; `grantd key list` shows the keys");
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
                "no signing key would be left: the next one signs from {}, in {} seconds; \
                 retire this one then",
                seconds_and_date(from),
                from - now
            ),
            None => "no signing key would be left: run `grantd key rotate`, and retire this one \
                     when the new one signs"
                .to_owned(),
        }));
    }
    // Rename the named key last. If this is interrupted, its predecessors must still count as gone.
    out.sort_by_key(|(_, key, _)| is_named(key));
    let mut retired = Vec::new();
    for (file, key, state) in out {
        let key_id = key.key_id().to_owned();
        let to = retired_file(directory, &key_id);
        whole_file::rename(&file, &to)
            .map_err(|error| vec![Fault::new(&file, format!("cannot be renamed: {error}"))])?;
        retired.push(Retired { key_id, state, file: to });
    }
    Ok(retired)
}

/// The file name of a retired key.
fn retired_file(directory: &Path, key_id: &str) -> PathBuf {
    directory.join(format!("{key_id}.pem.retired"))
}

/// Adds to `directory` the key that `make` returns for the times of a new key.
fn add(
    directory: &Path,
    retention: &Retention,
    now: u64,
    make: impl FnOnce(KeyTimes) -> Result<SigningKey, Fault>,
) -> Result<SigningKey, Vec<Fault>> {
    create_directory(directory)?;
    let (_lock, files) = load_to_edit(directory)?;
    let times = if files.is_empty() {
        KeyTimes { published_at: now, signs_from: now }
    } else {
        let others: Vec<_> = files.iter().map(|(_, key)| key.times()).collect();
        retention.publish_beside(&others, now)
    };
    let key = make(times).map_err(|fault| vec![fault])?;
    if let Some((file, key)) = files.iter().find(|(_, known)| known.key_id() == key.key_id()) {
        let problem = format!("already holds the key {}", key.key_id());
        return Err(vec![Fault::new(file, problem)]);
    }
    write(directory, &key).map_err(|fault| vec![fault])?;
    Ok(key)
}

fn create_directory(directory: &Path) -> Result<(), Vec<Fault>> {
    whole_file::create_directory(directory)
        .map_err(|error| vec![Fault::new(directory, format!("cannot be created: {error}"))])
}

fn make(directory: &Path, bits: u16, times: KeyTimes) -> Result<SigningKey, Fault> {
    let size = match bits {
        2048 => KeySize::Rsa2048,
        3072 => KeySize::Rsa3072,
        4096 => KeySize::Rsa4096,
        _ => return Err(Fault::new(directory, "an RSA key has 2048, 3072 or 4096 bits")),
    };
    let fault = |problem: &str| Fault::new(directory, problem);
    let pair = KeyPair::generate(size).map_err(|_| fault("no key could be generated"))?;
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
    let immediate =
        if key.is_immediate() { format!("{IMMEDIATE}: {YES}\n") } else { String::new() };
    let text = Zeroizing::new(format!(
        "{PUBLISHED_AT}: {published_at}\n{SIGNS_FROM}: {signs_from}\n{immediate}{}",
        *pem
    ));
    whole_file::create(&file, text.as_bytes())
        .map_err(|error| Fault::new(&file, format!("cannot be written: {error}")))
}

/// Locks the directory and reads its keys.
fn load_to_edit(directory: &Path) -> Result<(Lock, KeyFiles), Vec<Fault>> {
    Ok((lock(directory)?, load_files(directory)?))
}

fn lock(directory: &Path) -> Result<Lock, Vec<Fault>> {
    whole_file::lock_directory(directory)
        .map_err(|error| vec![Fault::new(directory, format!("cannot be locked: {error}"))])
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
        // Skip hidden files, which editors and mounts leave behind.
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
    let key = parse(file, &text, times)?;
    Ok(if is_immediate(file, &text)? { key.immediately() } else { key })
}

/// Reads a key file, which must not be world-readable.
///
/// # Errors
///
/// The [`Fault`] if it cannot be read or is world-readable.
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

fn parse(file: &Path, text: &str, times: KeyTimes) -> Result<SigningKey, Fault> {
    let document = pem::private_key(text).map_err(|problem| Fault::new(file, problem))?;
    SigningKey::from_pkcs8(&document, times)
        .map_err(|error| Fault::new(file, format!("is {error}")))
}

/// Returns the time in the header `name`; 0 if there is none.
fn time(file: &Path, text: &str, name: &str) -> Result<u64, Fault> {
    let Some((place, value)) = field(text, name) else { return Ok(0) };
    value.parse().ok().or_else(|| parse_rfc3339(value)).ok_or_else(|| {
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

/// Returns the value of the header `name` before the key, with its position.
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
