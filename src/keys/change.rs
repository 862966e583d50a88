//! Changes of the signing keys: a key is made, added, succeeded or retired.

use std::path::{Path, PathBuf};

use crate::fault::Fault;
use crate::keys::key_file::NewKey;
use crate::keys::key_set::KeySet;
use crate::keys::key_store::{KeyStore, StoredKeys};
use crate::keys::life::{KeyState, KeyTimes, Retention, Retirement};
use crate::keys::signing_key::SigningKey;
use crate::time::UnixTime;

/// The sizes of RSA keys that can be generated, in bits.
pub const KEY_SIZES: [u16; 3] = [2048, 3072, 4096];

/// Generates an RSA key of `bits` bits at `now` in `store`, which is created if necessary. The first
/// key of a store signs at once. A later key is published at once, and begins to sign
/// when verifiers have had time to fetch it.
///
/// # Errors
///
/// All [`Fault`]s. After a fault, no new key is left in `store`.
pub fn generate(
    store: &mut dyn KeyStore,
    bits: u16,
    retention: &Retention,
    now: UnixTime,
) -> Result<SigningKey, Vec<Fault>> {
    let new = NewKey::generate(store.path(), bits)?;
    add(store, new, retention, now)
}

/// Adds an existing key to `store`, with the same times as a key that is generated at `now`.
/// `text` is the PKCS#8 document in PEM that was read from `source`.
///
/// # Errors
///
/// All [`Fault`]s. A fault of the key itself names the file `source`. After a fault, no new key
/// is left in `store`.
pub fn import(
    store: &mut dyn KeyStore,
    source: &Path,
    text: &str,
    retention: &Retention,
    now: UnixTime,
) -> Result<SigningKey, Vec<Fault>> {
    // Read the key first: if it is invalid, the store must not be created.
    let new = NewKey::parse(source, text)?;
    add(store, new, retention, now)
}

/// The result of [`first`].
#[derive(Debug)]
pub struct First {
    /// All keys in the store, each with the name of its document; at least one.
    pub keys: Vec<(PathBuf, SigningKey)>,
    /// Whether [`first`] has generated a key. If it has not, the store already held keys.
    pub is_made: bool,
}

/// Returns the keys in `store`. If it holds no key, generates a key of `bits` bits at `now`. Locks
/// the store: if several servers start at once, only one of them generates a
/// key, and all of them use this key.
///
/// # Errors
///
/// All [`Fault`]s. After a fault, no new key is left in `store`.
pub fn first(store: &mut dyn KeyStore, bits: u16, now: UnixTime) -> Result<First, Vec<Fault>> {
    store.create()?;
    let keys = load_to_edit(store)?;
    if !keys.is_empty() {
        return Ok(First { keys, is_made: false });
    }
    let new = NewKey::generate(store.path(), bits)?;
    write(store, new, KeyTimes { published_at: now, signs_from: now }, false)?;
    Ok(First { keys: StoredKeys::read(store).all()?, is_made: true })
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
/// published. After a fault, no new key is left in `store`.
pub fn rotate(
    store: &mut dyn KeyStore,
    bits: u16,
    retention: &Retention,
    now: UnixTime,
) -> Result<Rotated, Vec<Fault>> {
    let keys = load_to_edit(store)?;
    let fault = |problem: String| vec![Fault::new(store.path(), problem)];
    let keys = KeySet::new(keys.into_iter().map(|(_, key)| key).collect(), *retention);
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
    let new = NewKey::generate(store.path(), bits)?;
    let made = write(store, new, times, false)?;
    let retirement = retention.retire_at(times.signs_from);
    Ok(Rotated { made, signing: signing.key_id().to_owned(), retirement })
}

/// The result of [`replace`].
#[derive(Debug)]
pub struct Replaced {
    /// The new key, which signs as soon as a server has read it.
    pub made: SigningKey,
    /// The new names of the documents of the retired keys, which are not loaded any more.
    pub retired: Vec<PathBuf>,
}

/// Replaces leaked keys. Generates a key that begins to sign at `now`. When the new key is stored,
/// retires the old keys in `store` except the key with the `kid` `keep`. Documents that hold no
/// valid key are retired like old keys.
///
/// # Errors
///
/// All [`Fault`]s. It is a fault if there is no key to replace, or no key with the `kid` `keep`. In
/// these cases, no new key is left in `store`. It is also a fault if the file of an old key cannot be
/// renamed. In this case, the new key and this old key stay in use.
pub fn replace(
    store: &mut dyn KeyStore,
    bits: u16,
    keep: Option<&str>,
    now: UnixTime,
) -> Result<Replaced, Vec<Fault>> {
    store.lock()?;
    let names = store.names()?;
    let fault = |problem: String| vec![Fault::new(store.path(), problem)];
    if names.is_empty() {
        return Err(fault(
            "holds no key to replace: `grantd key generate` generates one".to_owned(),
        ));
    }
    let with_key: Vec<_> =
        names.into_iter().map(|name| (store.load(&name).ok().flatten(), name)).collect();
    let is_kept = |key: &SigningKey| Some(key.key_id()) == keep;
    let (kept, out): (Vec<_>, Vec<_>) =
        with_key.into_iter().partition(|(key, _)| key.as_ref().is_some_and(is_kept));
    if let (Some(keep), []) = (keep, &kept[..]) {
        let problem = format!("holds no readable key {keep}; `grantd key list` shows the keys");
        return Err(vec![Fault::new(store.path(), problem)]);
    }
    // Of the keys whose `signs_from` has passed, the key with the latest `signs_from` signs. So the
    // `signs_from` of the new key must be later than the `signs_from` of the kept key. If the
    // `signs_from` of the kept key is exactly `now`, the new key begins to sign one second later.
    let times = kept.iter().flat_map(|(key, _)| key).map(|key| key.times().signs_from);
    let due = times.filter(|from| *from <= now).max();
    let signs_from = due.map_or(now, |due| now.max(due + 1));
    let times = KeyTimes { published_at: now, signs_from };
    let new = NewKey::generate(store.path(), bits)?;
    let made = write(store, new, times, true)?;
    let (mut retired, mut faults) = (Vec::new(), Vec::new());
    for (key, name) in out {
        match store.retire(&name, key.as_ref().map(SigningKey::key_id)) {
            Ok(to) => retired.push(to),
            Err(error) => {
                let problem = format!(
                    "cannot be renamed and stays in use, with the new key {}: {error}",
                    made.key_id()
                );
                faults.push(Fault::new(&name, problem));
            }
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Replaced { made, retired })
}

/// A retired key.
#[derive(Debug)]
pub struct Retired {
    /// The `kid` of the key.
    pub key_id: String,
    /// The state of the key before it was retired.
    pub state: KeyState,
    /// The new name of the key's document, which is not loaded any more.
    pub file: PathBuf,
}

/// Retires the keys in `store` whose state at `now` is [`KeyState::Gone`], and the key with the `kid`
/// `key_id` in any state. The document of a retired key is not loaded any more.
///
/// # Errors
///
/// All [`Fault`]s. It is a fault if there is no key with the `kid` `key_id`, or if no signing key
/// would be left. In these cases, no key is retired. It is also a fault if a file cannot be
/// renamed. In this case, some of the other keys may already be retired.
pub fn retire(
    store: &mut dyn KeyStore,
    key_id: Option<&str>,
    retention: &Retention,
    now: UnixTime,
) -> Result<Vec<Retired>, Vec<Fault>> {
    let files = load_to_edit(store)?;
    let fault = |problem: String| vec![Fault::new(store.path(), problem)];
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
    // Retire the key `key_id` last. This key may be the successor of the gone keys, and a key counts
    // as gone only while its successor is in the store. If the process ends before all keys are
    // retired, the remaining gone keys must still count as gone.
    out.sort_by_key(|(_, key, _)| is_named(key));
    let mut retired: Vec<Retired> = Vec::new();
    for (file, key, state) in out {
        let key_id = key.key_id().to_owned();
        match store.retire(&file, Some(&key_id)) {
            Ok(file) => retired.push(Retired { key_id, state, file }),
            Err(error) => {
                let mut problem = format!("cannot be renamed: {error}");
                if !retired.is_empty() {
                    let ids: Vec<_> = retired.iter().map(|key| &*key.key_id).collect();
                    problem = format!("{problem}; retired before this: {}", ids.join(", "));
                }
                return Err(vec![Fault::new(&file, problem)]);
            }
        }
    }
    Ok(retired)
}

/// Adds `new` to `store`, with the times of a key that is added at `now`.
fn add(
    store: &mut dyn KeyStore,
    new: NewKey,
    retention: &Retention,
    now: UnixTime,
) -> Result<SigningKey, Vec<Fault>> {
    store.create()?;
    let files = load_to_edit(store)?;
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
    let key = write(store, new, times, false)?;
    Ok(key)
}

/// Writes the document of the new key with these times.
fn write(
    store: &mut dyn KeyStore,
    new: NewKey,
    times: KeyTimes,
    is_immediate: bool,
) -> Result<SigningKey, Fault> {
    let encoded = new.into_document(times, is_immediate);
    let (key, document) =
        encoded.ok_or_else(|| Fault::new(store.path(), "the key could not be encoded"))?;
    store.add(key.key_id(), &document)?;
    Ok(key)
}

/// Locks the store so that keys can be added and retired, and reads its keys.
fn load_to_edit(store: &mut dyn KeyStore) -> Result<Vec<(PathBuf, SigningKey)>, Vec<Fault>> {
    store.lock()?;
    StoredKeys::read(store).all()
}
