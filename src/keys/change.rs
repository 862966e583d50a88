//! Changes of the signing keys: a key is made, added, succeeded or retired.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::keys::key_file::{self, NewKey};
use crate::keys::key_set::KeySet;
use crate::keys::key_store::{KeyStore, StoredKeys};
use crate::keys::life::{KeyState, KeyTimes, Retention, Retirement};
use crate::keys::rotation::{PlannedKey, Rotation, Step, earliest_start};
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

/// Makes the next key in `store` if `rotation` says that it is due at `now`. It has the size of the
/// key that signs. Returns it; `None` if no key is due, for example because another process has just
/// made it.
///
/// # Errors
///
/// All [`Fault`]s. After a fault, no new key is left in `store`.
pub fn make_when_due(
    store: &mut dyn KeyStore,
    rotation: &Rotation,
    now: UnixTime,
) -> Result<Option<SigningKey>, Vec<Fault>> {
    let keys = load_to_edit(store)?;
    let keys = KeySet::new(keys.into_iter().map(|(_, key)| key).collect(), rotation.retention);
    let Step::Make(times) = rotation.step(&PlannedKey::all(&keys), &[], now) else {
        return Ok(None);
    };
    let bits = keys.signing_key(now.into()).map_or(KEY_SIZES[0], |key| successor_bits(key));
    let new = NewKey::generate(store.path(), bits)?;
    Ok(Some(write(store, new, times, false)?))
}

/// Generates a key of `bits` bits that has these times. Returns it and the text of its document.
///
/// # Errors
///
/// A [`Fault`] that names `store`.
pub(crate) fn new_document(
    store: &Path,
    bits: u16,
    times: KeyTimes,
) -> Result<(SigningKey, Zeroizing<String>), Fault> {
    let encoded = NewKey::generate(store, bits)?.into_document(times, false);
    encoded.ok_or_else(|| Fault::new(store, "the key could not be encoded"))
}

/// Returns the size of the successor of `key`, in bits.
pub(crate) fn successor_bits(key: &SigningKey) -> u16 {
    KEY_SIZES.into_iter().find(|bits| usize::from(*bits) == key.bits()).unwrap_or(KEY_SIZES[0])
}

/// The result of [`rotate`].
pub struct Rotated {
    /// The key that begins to sign at its `signs_from`. It is a new one, which is published at once,
    /// unless the next key was published already.
    pub made: SigningKey,
    /// When the key would have begun to sign, if it was published already.
    pub instead_of: Option<UnixTime>,
    /// The `kid` of the old key, which signs until the new key begins to sign.
    pub signing: String,
    /// The times at which the old key stops signing and at which it leaves the key set.
    pub retirement: Retirement,
}

/// Generates an RSA key, the successor of the current signing key. The new key is published at once, and
/// begins to sign when verifiers have had time to fetch it. It has `bits` bits, by default 2048. If a
/// successor is published already and could begin to sign earlier, it does so, and no key is
/// generated. `now` is the current time.
///
/// # Errors
///
/// All [`Fault`]s. It is a fault if there is no signing key, or if another successor is already
/// published and cannot begin earlier or has not `bits` bits. After a fault, no new key is left in
/// `store`.
pub fn rotate(
    store: &mut dyn KeyStore,
    bits: Option<u16>,
    retention: &Retention,
    now: UnixTime,
) -> Result<Rotated, Vec<Fault>> {
    let (names, keys): (Vec<_>, Vec<_>) = load_to_edit(store)?.into_iter().unzip();
    let keys = KeySet::new(keys, *retention);
    let signing = keys.signing_key(now.into()).ok_or_else(|| {
        fault(store, "holds no key to succeed: `grantd key generate` generates the first one")
    })?;
    let is_later = |key: &SigningKey| key.times().signs_from > signing.times().signs_from;
    let later = keys.iter().zip(&names).filter(|(key, _)| is_later(key));
    let (made, instead_of) = match later.min_by_key(|(key, _)| key.times().signs_from) {
        Some((next, name)) => {
            if let Some(bits) = bits.filter(|bits| usize::from(*bits) != next.bits()) {
                return Err(fault(store, other_size(next, bits, retention, now)));
            }
            let made = bring_forward(store, name, [signing, next], retention, now)?;
            (made, Some(next.times().signs_from))
        }
        None => {
            let others: Vec<_> = keys.iter().map(SigningKey::times).collect();
            let times = retention.publish_beside(&others, now);
            let new = NewKey::generate(store.path(), bits.unwrap_or(KEY_SIZES[0]))?;
            (write(store, new, times, false)?, None)
        }
    };
    let retirement = retention.retire_at(made.times().signs_from);
    Ok(Rotated { made, instead_of, signing: signing.key_id().to_owned(), retirement })
}

/// Says that the published key `next` has not `bits` bits, and what to do. It is not withdrawn: a server
/// that cannot read the keys may sign with it at its time.
fn other_size(next: &SigningKey, bits: u16, retention: &Retention, now: UnixTime) -> String {
    let signs_from = next.times().signs_from;
    let (kid, wait) = (next.key_id(), signs_from.since(now));
    let advice = if wait <= 4 * retention.jwks_max_age {
        "run this again when it signs".to_owned()
    } else {
        format!(
            "run `grantd key generate --bits {bits}`, whose key signs earlier, and `grantd key retire \
             {kid}` when that key signs"
        )
    };
    format!(
        "{kid} of {} bits is already published and signs from {}, in {wait} seconds; a rotation does \
         not withdraw it; {advice}",
        next.bits(),
        signs_from.seconds_and_date()
    )
}

/// Makes the published key `next`, whose document is called `name`, begin to sign as soon as every
/// key set that a verifier may use has it.
fn bring_forward(
    store: &mut dyn KeyStore,
    name: &Path,
    [signing, next]: [&SigningKey; 2],
    retention: &Retention,
    now: UnixTime,
) -> Result<SigningKey, Vec<Fault>> {
    let KeyTimes { published_at, signs_from: planned } = next.times();
    let waits = |reason: &str| {
        format!(
            "{} is already published and signs from {}, in {} seconds; {reason}",
            next.key_id(),
            planned.seconds_and_date(),
            planned.since(now)
        )
    };
    let publishers = store.publishers()?;
    let key = PlannedKey::of(next);
    let start = earliest_start(&key, &publishers, retention, now).map_err(|lacking| {
        let lacking = lacking.join(", ");
        fault(
            store,
            waits(&format!(
                "it cannot begin earlier, because these servers have not published it yet: {lacking}"
            )),
        )
    })?;
    // A key signs only if no other key has begun later.
    let start = start.max(signing.times().signs_from + 1);
    if start >= planned {
        return Err(fault(store, waits("rotate after that")));
    }
    let times = KeyTimes { published_at, signs_from: start };
    let (key, document) = key_file::with_times(name, &store.document(name)?, times)?;
    store.replace(name, &key, &document)?;
    Ok(key)
}

/// The result of [`replace`].
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
    if names.is_empty() {
        let problem = "holds no key to replace: `grantd key generate` generates one";
        return Err(fault(store, problem));
    }
    let with_key: Vec<_> =
        names.into_iter().map(|name| (store.load(&name).ok().flatten(), name)).collect();
    let is_kept = |key: &SigningKey| Some(key.key_id()) == keep;
    let (kept, out): (Vec<_>, Vec<_>) =
        with_key.into_iter().partition(|(key, _)| key.as_ref().is_some_and(is_kept));
    if let (Some(keep), []) = (keep, &kept[..]) {
        let problem = format!("holds no readable key {keep}; `grantd key list` shows the keys");
        return Err(fault(store, problem));
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
    if let Some(key_id) = key_id
        && !files.iter().any(|(_, key)| key.key_id() == key_id)
    {
        let problem = format!("holds no key {key_id}; `grantd key list` shows the keys");
        return Err(fault(store, problem));
    }
    let all: Vec<_> = files.iter().map(|(_, key)| key.times()).collect();
    let with_state = files.into_iter().map(|(file, key)| {
        let state = key.times().state(&all, retention, now.into());
        (file, key, state)
    });
    let is_named = |key: &SigningKey| Some(key.key_id()) == key_id;
    let (mut out, left): (Vec<_>, Vec<_>) =
        with_state.partition(|(_, key, state)| *state == KeyState::Gone || is_named(key));
    if !out.is_empty() && !left.iter().any(|(_, key, _)| key.times().signs_from <= now) {
        let next = left.iter().map(|(_, key, _)| key.times().signs_from).min();
        let advice = match next {
            Some(from) => format!(
                "the next one signs from {}, in {} seconds; retire this one then",
                from.seconds_and_date(),
                from.since(now)
            ),
            None => {
                "run `grantd key rotate`, and retire this one when the new one signs".to_owned()
            }
        };
        return Err(fault(store, format!("no signing key would be left: {advice}")));
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
    Ok(write(store, new, times, false)?)
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
    store.add(&key, &document)?;
    Ok(key)
}

fn fault(store: &dyn KeyStore, problem: impl Into<String>) -> Vec<Fault> {
    vec![Fault::new(store.path(), problem)]
}

/// Locks the store so that keys can be added and retired, and reads its keys.
fn load_to_edit(store: &mut dyn KeyStore) -> Result<Vec<(PathBuf, SigningKey)>, Vec<Fault>> {
    store.lock()?;
    StoredKeys::read(store).all()
}
