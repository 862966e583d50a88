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
//! hand and has been signing for ever. A third line, `Immediate: yes`, says that the keys before it
//! have leaked: a running server does not wait until verifiers have this one.

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

/// The keys that a server starts with.
#[derive(Debug)]
pub struct First {
    /// At least one.
    pub keys: Vec<SigningKey>,
    /// Whether this call has made it.
    pub is_made: bool,
}

/// Makes the first key of `bits` bits at `now` (Unix seconds), unless there are keys by the time
/// that the directory is locked: of servers that start at once, one makes it and all have it.
///
/// # Errors
///
/// The [`Fault`]s; no file is left behind then.
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
    let others: Vec<_> = keys.iter().map(SigningKey::times).collect();
    let times = retention.publish_beside(&others, now);
    let made = make(directory, bits, times)
        .and_then(|key| write(directory, &key).map(|()| key))
        .map_err(|fault| vec![fault])?;
    let retirement = retention.retire_at(times.signs_from);
    Ok(Rotated { made, signing: signing.key_id().to_owned(), retirement })
}

/// A new key, and the files of those that it replaces.
#[derive(Debug)]
pub struct Replaced {
    /// Signs as soon as a server has read it.
    pub made: SigningKey,
    /// Where the others are kept, out of use.
    pub retired: Vec<PathBuf>,
}

/// Makes a key that signs at `now` (Unix seconds) and, once it is on disk, takes all others out of
/// `directory`, whether they can be read or not, but for the one with the `kid` `keep`: they have
/// leaked.
///
/// # Errors
///
/// The [`Fault`]s, among them that there is no key to replace, and that there is none to keep. No
/// file is left behind then, unless one of the others could not be taken out.
pub fn replace(
    directory: &Path,
    bits: u16,
    keep: Option<&str>,
    now: u64,
) -> Result<Replaced, Vec<Fault>> {
    let fault = |problem: String| vec![Fault::new(directory, problem)];
    let files = || pem_files(directory).map_err(|fault| vec![fault]);
    // A name that was mistyped makes no directory.
    if files()?.is_empty() {
        return Err(fault("holds no key to replace: `grantd key generate` makes one".to_owned()));
    }
    let _lock = lock(directory)?;
    let with_key = files()?.into_iter().map(|file| (load_file(&file).ok(), file));
    let is_kept = |key: &SigningKey| Some(key.key_id()) == keep;
    let (kept, out): (Vec<_>, Vec<_>) =
        with_key.partition(|(key, _)| key.as_ref().is_some_and(is_kept));
    if let (Some(keep), []) = (keep, &kept[..]) {
        return Err(fault(format!(
            "holds no key {keep} that can be read; `grantd key list` shows those that are there"
        )));
    }
    // After the kept one, should that begin in this second.
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
                    "cannot be renamed, and is still in use beside the new key {}: {error}",
                    made.key_id()
                );
                faults.push(Fault::new(&file, problem));
            }
        }
    }
    if faults.is_empty() { Ok(Replaced { made, retired }) } else { Err(faults) }
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
        let to = retired_file(directory, &key_id);
        whole_file::rename(&file, &to)
            .map_err(|error| vec![Fault::new(&file, format!("cannot be renamed: {error}"))])?;
        retired.push(Retired { key_id, state, file: to });
    }
    Ok(retired)
}

/// Where a key is kept that is out of use.
fn retired_file(directory: &Path, key_id: &str) -> PathBuf {
    directory.join(format!("{key_id}.pem.retired"))
}

/// Puts the key into `directory` that is made with the times it has there.
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
        let problem = format!("holds the key {} already", key.key_id());
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
    let immediate =
        if key.is_immediate() { format!("{IMMEDIATE}: {YES}\n") } else { String::new() };
    let text = Zeroizing::new(format!(
        "{PUBLISHED_AT}: {published_at}\n{SIGNS_FROM}: {signs_from}\n{immediate}{}",
        *pem
    ));
    whole_file::create(&file, text.as_bytes())
        .map_err(|error| Fault::new(&file, format!("cannot be written: {error}")))
}

/// Every key with its file, and nobody else edits until the lock is dropped.
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
    let key = parse(file, &text, times)?;
    Ok(if is_immediate(file, &text)? { key.immediately() } else { key })
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
    let Some((place, value)) = field(text, name) else { return Ok(0) };
    let not_a_time = |_| Fault::new(file, "must be Unix seconds").at(place).in_field(name);
    value.parse().map_err(not_a_time)
}

fn is_immediate(file: &Path, text: &str) -> Result<bool, Fault> {
    match field(text, IMMEDIATE) {
        None => Ok(false),
        Some((_, YES)) => Ok(true),
        Some((place, _)) => {
            Err(Fault::new(file, "must be yes, or not there").at(place).in_field(IMMEDIATE))
        }
    }
}

/// The value under `name` in front of the key, with its place.
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
