//! The directory of signing keys, with one file `<kid>.pem` per key.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::fault::Fault;
use crate::fs::whole_file::{self, Lock};
use crate::keys::key_file::{self, NewKey};
use crate::keys::key_set::KeySet;
use crate::keys::life::{KeyState, KeyTimes, Retention, Retirement};
use crate::keys::signing_key::SigningKey;
use crate::time::UnixTime;

/// The sizes of RSA keys that can be generated, in bits.
pub const KEY_SIZES: [u16; 3] = [2048, 3072, 4096];

/// Reads all keys in `directory`, in the order of their file names. Returns no keys if the
/// directory does not exist.
///
/// # Errors
///
/// The faults of all files. It is a fault if a file is unreadable or world-readable, holds an
/// invalid time, does not hold an RSA key of 2048 to 4096 bits, or holds the same key as another
/// file.
pub fn load(directory: &Path) -> Result<Vec<SigningKey>, Vec<Fault>> {
    Ok(load_files(directory)?.into_iter().map(|(_, key)| key).collect())
}

/// The files of a directory of keys, each read by itself.
#[derive(Debug)]
pub struct KeyFiles {
    /// The keys, each with the path of its file, in the order of the file names.
    pub keys: Vec<(PathBuf, SigningKey)>,
    /// The faults, at most one for each file. A fault that names the directory means that the
    /// directory could not be read.
    pub faults: Vec<Fault>,
}

impl KeyFiles {
    /// Reads all key files in `directory`. There are none if the directory does not exist.
    pub fn read(directory: &Path) -> Self {
        let mut found = Self { keys: Vec::new(), faults: Vec::new() };
        let files = pem_files(directory).unwrap_or_else(|fault| {
            found.faults.push(fault);
            Vec::new()
        });
        for file in files {
            match key_file::load(&file) {
                Ok(key) if found.keys.iter().any(|(_, it)| it.key_id() == key.key_id()) => {
                    let problem = "holds a key that another file holds too";
                    found.faults.push(Fault::new(&file, problem));
                }
                Ok(key) => found.keys.push((file, key)),
                // The file was removed or retired after the directory was read.
                Err(_) if is_gone(&file) => {}
                Err(fault) => found.faults.push(fault),
            }
        }
        found
    }
}

/// Generates an RSA key of `bits` bits at `now` in `directory`, which is created if necessary. The
/// first key of a directory signs at once. A later key is published at once, and begins to sign
/// when verifiers have had time to fetch it.
///
/// # Errors
///
/// All [`Fault`]s. After a fault, no new file is left in `directory`.
pub fn generate(
    directory: &Path,
    bits: u16,
    retention: &Retention,
    now: UnixTime,
) -> Result<SigningKey, Vec<Fault>> {
    let new = NewKey::generate(directory, bits)?;
    add(directory, new, retention, now)
}

/// Adds an existing key to `directory`, with the same times as a key that is generated at `now`.
/// `text` is the PKCS#8 document in PEM that was read from `source`.
///
/// # Errors
///
/// All [`Fault`]s. A fault of the key itself names the file `source`. After a fault, no new file is
/// left in `directory`.
pub fn import(
    directory: &Path,
    source: &Path,
    text: &str,
    retention: &Retention,
    now: UnixTime,
) -> Result<SigningKey, Vec<Fault>> {
    // Read the key first: if it is invalid, the directory must not be created.
    let new = NewKey::parse(source, text)?;
    add(directory, new, retention, now)
}

/// The result of [`first`].
#[derive(Debug)]
pub struct First {
    /// All keys in the directory, each with its file; at least one.
    pub keys: Vec<(PathBuf, SigningKey)>,
    /// Whether [`first`] has generated a key. If it has not, the directory already held keys.
    pub is_made: bool,
}

/// Returns the keys in `directory`. If the directory holds no key, generates a key of `bits` bits
/// at `now`. Locks the directory: if several servers start at once, only one of them generates a
/// key, and all of them use this key.
///
/// # Errors
///
/// All [`Fault`]s. After a fault, no new file is left in `directory`.
pub fn first(directory: &Path, bits: u16, now: UnixTime) -> Result<First, Vec<Fault>> {
    create_directory(directory)?;
    let (_lock, files) = load_to_edit(directory)?;
    if !files.is_empty() {
        return Ok(First { keys: files, is_made: false });
    }
    let made = NewKey::generate(directory, bits).and_then(|new| {
        new.write(directory, KeyTimes { published_at: now, signs_from: now }, false)
    });
    let made = made.map(|key| (directory.join(format!("{}.pem", key.key_id())), key));

    Ok(First { keys: vec![made?], is_made: true })
}

/// The result of [`rotate`].
#[derive(Debug)]
pub struct Rotated {
    /// The new key, which is published at once and begins to sign at its `signs_from`.
    pub made: SigningKey,
    /// The `kid` of the old key, which signs until the new key begins to sign.
    pub signing: String,
    /// The times at which the old key stops signing and at which it leaves the key set.
    pub retirement: Retirement,
}

/// Generates an RSA key of `bits` bits, the successor of the current signing key. The new key is
/// published at once, and begins to sign when verifiers have had time to fetch it. `now` is the
/// current time.
///
/// # Errors
///
/// All [`Fault`]s. It is a fault if there is no signing key, or if another successor is already
/// published. After a fault, no new file is left in `directory`.
pub fn rotate(
    directory: &Path,
    bits: u16,
    retention: &Retention,
    now: UnixTime,
) -> Result<Rotated, Vec<Fault>> {
    let fault = |problem: String| vec![Fault::new(directory, problem)];
    let (_lock, files) = load_to_edit(directory)?;
    let keys = KeySet::new(files.into_iter().map(|(_, key)| key).collect(), *retention);
    if let Some((key, _)) = keys.states(now).find(|(_, state)| *state == KeyState::Published) {
        let (kid, from) = (key.key_id(), key.times().signs_from);
        return Err(fault(format!(
            "{kid} is already published and signs from {}, in {} seconds; rotate after \
             that",
            from.seconds_and_date(),
            from.since(now)
        )));
    }
    let signing = keys.signing_key(now).ok_or_else(|| {
        fault("holds no key to succeed: `grantd key generate` generates the first one".to_owned())
    })?;
    let others: Vec<_> = keys.iter().map(SigningKey::times).collect();
    let times = retention.publish_beside(&others, now);
    let made =
        NewKey::generate(directory, bits).and_then(|new| new.write(directory, times, false))?;
    let retirement = retention.retire_at(times.signs_from);
    Ok(Rotated { made, signing: signing.key_id().to_owned(), retirement })
}

/// The result of [`replace`].
#[derive(Debug)]
pub struct Replaced {
    /// The new key, which signs as soon as a server has read it.
    pub made: SigningKey,
    /// The new paths of the files of the retired keys. The files were renamed so that they are not
    /// loaded.
    pub retired: Vec<PathBuf>,
}

/// Replaces leaked keys. Generates a key that begins to sign at `now`. When the new key is on disk,
/// retires the old keys in `directory` except the key with the `kid` `keep`. Files that hold no
/// valid key are retired like old keys.
///
/// # Errors
///
/// All [`Fault`]s. It is a fault if there is no key to replace, or no key with the `kid` `keep`. In
/// these cases, no new file is left in `directory`. It is also a fault if the file of an old key
/// cannot be renamed. In this case, the new key and this old key stay in use.
pub fn replace(
    directory: &Path,
    bits: u16,
    keep: Option<&str>,
    now: UnixTime,
) -> Result<Replaced, Vec<Fault>> {
    let fault = |problem: String| vec![Fault::new(directory, problem)];
    let _lock = lock(directory)?;
    let files = pem_files(directory)?;
    if files.is_empty() {
        return Err(fault(
            "holds no key to replace: `grantd key generate` generates one".to_owned(),
        ));
    }
    let with_key = files.into_iter().map(|file| (key_file::load(&file).ok(), file));
    let is_kept = |key: &SigningKey| Some(key.key_id()) == keep;
    let (kept, out): (Vec<_>, Vec<_>) =
        with_key.partition(|(key, _)| key.as_ref().is_some_and(is_kept));
    if let (Some(keep), []) = (keep, &kept[..]) {
        return Err(fault(format!(
            "holds no readable key {keep}; `grantd key list` shows the keys"
        )));
    }
    // Of the keys whose `signs_from` has passed, the key with the latest `signs_from` signs. So the
    // `signs_from` of the new key must be later than the `signs_from` of the kept key. If the
    // `signs_from` of the kept key is exactly `now`, the new key begins to sign one second later.
    let times = kept.iter().flat_map(|(key, _)| key).map(|key| key.times().signs_from);
    let due = times.filter(|from| *from <= now).max();
    let signs_from = due.map_or(now, |due| now.max(due + 1));
    let made = NewKey::generate(directory, bits)
        .and_then(|new| new.write(directory, KeyTimes { published_at: now, signs_from }, true))?;
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
    /// The `kid` of the key.
    pub key_id: String,
    /// The state of the key before it was retired.
    pub state: KeyState,
    /// The new path of the key's file. The file was renamed so that it is not loaded.
    pub file: PathBuf,
}

/// Retires the keys in `directory` whose state at `now` is [`KeyState::Gone`], and the key with the
/// `kid` `key_id` in any state. The file of a retired key is renamed to `<kid>.pem.retired`, which
/// is not loaded.
///
/// # Errors
///
/// All [`Fault`]s. It is a fault if there is no key with the `kid` `key_id`, or if no signing key
/// would be left. In these cases, no key is retired. It is also a fault if a file cannot be
/// renamed. In this case, some of the other keys may already be retired.
pub fn retire(
    directory: &Path,
    key_id: Option<&str>,
    retention: &Retention,
    now: UnixTime,
) -> Result<Vec<Retired>, Vec<Fault>> {
    let fault = |problem: String| vec![Fault::new(directory, problem)];
    let (_lock, files) = load_to_edit(directory)?;
    if let Some(key_id) = key_id
        && !files.iter().any(|(_, key)| key.key_id() == key_id)
    {
        let problem = format!("holds no key {key_id}; `grantd key list` shows the keys");
        return Err(fault(problem));
    }
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
                from.seconds_and_date(),
                from.since(now)
            ),
            None => "no signing key would be left: run `grantd key rotate`, and retire this one \
                     when the new one signs"
                .to_owned(),
        }));
    }
    // Rename the file of the key `key_id` last. This key may be the successor of the gone keys, and
    // a key counts as gone only while its successor is in the directory. If the process ends before
    // all files are renamed, the remaining gone keys must still count as gone.
    out.sort_by_key(|(_, key, _)| is_named(key));
    let mut retired: Vec<Retired> = Vec::new();
    for (file, key, state) in out {
        let key_id = key.key_id().to_owned();
        let to = retired_file(directory, &key_id);
        if let Err(error) = whole_file::rename(&file, &to) {
            let mut problem = format!("cannot be renamed: {error}");
            if !retired.is_empty() {
                let ids: Vec<_> = retired.iter().map(|key| &*key.key_id).collect();
                problem = format!("{problem}; retired before this: {}", ids.join(", "));
            }
            return Err(vec![Fault::new(&file, problem)]);
        }
        retired.push(Retired { key_id, state, file: to });
    }
    Ok(retired)
}

/// Returns the path to which the file of a retired key is renamed.
fn retired_file(directory: &Path, key_id: &str) -> PathBuf {
    directory.join(format!("{key_id}.pem.retired"))
}

/// Adds `new` to `directory`, with the times of a key that is added at `now`.
fn add(
    directory: &Path,
    new: NewKey,
    retention: &Retention,
    now: UnixTime,
) -> Result<SigningKey, Vec<Fault>> {
    create_directory(directory)?;
    let (_lock, files) = load_to_edit(directory)?;
    let key_id = new.key_id();
    if let Some((file, _)) = files.iter().find(|(_, known)| known.key_id() == key_id) {
        return Err(vec![Fault::new(file, format!("already holds the key {key_id}"))]);
    }
    let times = if files.is_empty() {
        KeyTimes { published_at: now, signs_from: now }
    } else {
        let others: Vec<_> = files.iter().map(|(_, key)| key.times()).collect();
        retention.publish_beside(&others, now)
    };
    Ok(new.write(directory, times, false)?)
}

fn create_directory(directory: &Path) -> Result<(), Fault> {
    whole_file::create_directory(directory)
        .map_err(|error| Fault::new(directory, format!("cannot be created: {error}")))
}

/// Locks the directory so that files can be added and removed, and reads its keys.
fn load_to_edit(directory: &Path) -> Result<(Option<Lock>, Keys), Vec<Fault>> {
    Ok((lock(directory)?, load_files(directory)?))
}

/// `None` if the directory does not exist: it holds no keys then.
fn lock(directory: &Path) -> Result<Option<Lock>, Fault> {
    match whole_file::lock_directory(directory) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Fault::new(directory, format!("cannot be locked: {error}"))),
    }
}

/// Keys, each with the path of its file.
type Keys = Vec<(PathBuf, SigningKey)>;

fn load_files(directory: &Path) -> Result<Keys, Vec<Fault>> {
    let KeyFiles { keys, faults } = KeyFiles::read(directory);
    if faults.is_empty() { Ok(keys) } else { Err(faults) }
}

fn is_gone(file: &Path) -> bool {
    file.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn pem_files(directory: &Path) -> Result<Vec<PathBuf>, Fault> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
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
