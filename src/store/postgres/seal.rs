//! Sealing: private keys in the database are encrypted, so that a dump of it signs nothing.
//!
//! A sealed value is one byte of version, 8 bytes that identify the master key, 12 random bytes and
//! the ciphertext of AES-256-GCM with its tag. What the value is for and its name are authenticated
//! with it, so a value cannot be moved to the place of another one.

use std::env;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

use crate::config::StoreSettings;
use crate::fault::Fault;
use crate::random::{NoEntropy, Random};
use crate::store::postgres::failure::{clean, literal};
use crate::store::postgres::password::read_private;

/// The master keys. The first seals, all of them open. They have no `Debug`, so no log can hold them.
pub struct MasterKeys {
    keys: Vec<MasterKey>,
    /// Sealing needs random bytes.
    pub(super) random: Random,
}

struct MasterKey {
    id: KeyId,
    key: LessSafeKey,
}

/// Identifies a master key: the first bytes of a hash of it.
type KeyId = [u8; 8];

/// The purpose of a sealed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The document of a signing key; its name is the `kid`.
    SigningKey,
    /// A secret that all servers share.
    Secret,
    /// The copy of the store in the state directory.
    Snapshot,
}

impl Purpose {
    /// The advice for a value with this name that cannot be opened.
    fn remedy(self, name: &str) -> String {
        match self {
            Self::SigningKey => "restore its row from a backup".to_owned(),
            Self::Secret => {
                let restart = if name == DECOY_KEY { ", and restart all servers" } else { "" };
                format!(
                    "restore its row from a backup, or remove it as the owner: DELETE FROM \
                     grantd.secret WHERE name = {}{restart}",
                    literal(name)
                )
            }
            Self::Snapshot => {
                "delete the file: `serve` writes it anew when it has read the database".to_owned()
            }
        }
    }

    fn label(self) -> &'static [u8] {
        match self {
            Self::SigningKey => b"grantd signing key",
            Self::Secret => b"grantd secret",
            Self::Snapshot => b"grantd snapshot",
        }
    }
}

impl MasterKeys {
    /// Reads the master keys from `master_key_file`, or from the environment variable
    /// `GRANTD_MASTER_KEY`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if there is none, or if the file can be read by every user or has a faulty line.
    pub fn load(settings: &StoreSettings, random: &Random) -> Result<Self, Fault> {
        let variable = env::var(VARIABLE).map(Zeroizing::new).ok().filter(|key| !key.is_empty());
        match (&settings.master_key_file, variable) {
            (Some(_), Some(_)) => Err(Fault::new(
                Path::new(VARIABLE),
                "is set, and so is store.master_key_file: unset one of them",
            )),
            (Some(file), None) => {
                let advice = "; if another user may have read it, put a new key on its first line \
                              and run `grantd store rekey`; ";
                Self::parse(file, &read_private(file, advice)?, random)
            }
            (None, Some(key)) => Self::parse(Path::new(VARIABLE), &key, random),
            (None, None) => Err(Fault::new(
                Path::new("store.master_key_file"),
                format!(
                    "is not set, and private keys are sealed: name the file with the master key, \
                     or set {VARIABLE}; {HOW_TO_MAKE}"
                ),
            )),
        }
    }

    /// Reads the lines of `text`, which was read from `source`.
    pub(super) fn parse(source: &Path, text: &str, random: &Random) -> Result<Self, Fault> {
        let mut keys: Vec<MasterKey> = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fault = |problem: &str| Fault::new(source, problem).at_line(number);
            let bytes = STANDARD.decode(line).map(Zeroizing::new).ok();
            let bytes = bytes.filter(|bytes| bytes.len() == KEY_BYTES).ok_or_else(|| {
                fault(&format!("must be {KEY_BYTES} bytes in base64; {HOW_TO_MAKE}"))
            })?;
            let id = id_of(&bytes);
            if keys.iter().any(|key| key.id == id) {
                return Err(fault("holds a key for the second time"));
            }
            let key = UnboundKey::new(&AES_256_GCM, &bytes)
                .map_err(|_| fault("holds a key that cannot be used"))?;
            keys.push(MasterKey { id, key: LessSafeKey::new(key) });
        }
        if keys.is_empty() {
            return Err(Fault::new(source, format!("holds no key; {HOW_TO_MAKE}")));
        }
        Ok(Self { keys, random: random.clone() })
    }

    /// The ids of the keys, the first of which seals.
    pub fn ids(&self) -> Vec<String> {
        self.keys.iter().map(|key| hex(&key.id)).collect()
    }

    /// Seals `plain` with the first key.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`] if the operating system has no random bytes.
    pub fn seal(&self, purpose: Purpose, name: &str, plain: &[u8]) -> Result<Vec<u8>, NoEntropy> {
        self.seal_again(purpose, name, plain, &[])
    }

    /// Seals `plain` with the key with which `before` was sealed, which every server has; with the first
    /// key if there is no such key.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`] if the operating system has no random bytes.
    pub fn seal_again(
        &self,
        purpose: Purpose,
        name: &str,
        plain: &[u8],
        before: &[u8],
    ) -> Result<Vec<u8>, NoEntropy> {
        let former = parts(before).and_then(|(id, ..)| self.keys.iter().find(|key| key.id == id));
        let MasterKey { id, key } = former.or_else(|| self.keys.first()).ok_or(NoEntropy)?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce)?;
        // Room for the whole, so that no copy of the plain text is left behind.
        let mut text = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
        text.extend_from_slice(plain);
        let aad = Aad::from(authenticated(id, purpose, name));
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text)
            .map_err(|_| NoEntropy)?;
        Ok([&[FORMAT], &id[..], &nonce, &text].concat())
    }

    /// Opens what [`Self::seal`] has sealed for the same purpose and name. `store` is shown in the
    /// fault.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if none of the keys has sealed it, or if it was changed since.
    pub fn open(
        &self,
        store: &Path,
        purpose: Purpose,
        name: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let fault = |problem: &str| Fault::new(store, format!("{}: {problem}", clean(name)));
        let Some((id, nonce, text)) = parts(sealed) else {
            return Err(fault(&format!(
                "is not sealed as this release seals: use the release that wrote it, or {}",
                purpose.remedy(name)
            )));
        };
        let Some(MasterKey { key, .. }) = self.keys.iter().find(|key| key.id == id) else {
            return Err(fault(&format!(
                "is sealed with the master key {}, and those that are set are {}: add its line to \
                 store.master_key_file, or restore it from a copy; without it, the value is lost: {}",
                hex(&id),
                self.ids().join(", "),
                purpose.remedy(name)
            )));
        };
        let aad = Aad::from(authenticated(&id, purpose, name));
        let mut text = Zeroizing::new(text.to_vec());
        let plain = key
            .open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut text)
            .map_err(|_| {
                fault(&format!(
                    "was changed since it was sealed, or belongs elsewhere: {}",
                    purpose.remedy(name)
                ))
            })?
            .len();
        text.truncate(plain);
        Ok(text)
    }

    /// Whether `sealed` was sealed with the first key.
    pub fn is_of_first(&self, sealed: &[u8]) -> bool {
        let first = self.keys.first().map(|key| key.id);
        parts(sealed).is_some_and(|(id, ..)| Some(id) == first)
    }

    /// The id of the master key with which `sealed` was sealed; `None` if it is not sealed.
    pub fn id_in(sealed: &[u8]) -> Option<String> {
        parts(sealed).map(|(id, ..)| hex(&id))
    }
}

fn id_of(key: &[u8]) -> KeyId {
    let mut hash = Context::new(&SHA256);
    hash.update(b"grantd master key\0");
    hash.update(key);
    let hash = hash.finish();
    std::array::from_fn(|index| hash.as_ref()[index])
}

/// Returns what is authenticated beside the ciphertext. No purpose has a zero byte.
fn authenticated(id: &KeyId, purpose: Purpose, name: &str) -> Vec<u8> {
    [&[FORMAT], &id[..], purpose.label(), b"\0", name.as_bytes()].concat()
}

/// Splits a sealed value into the id of its key, its nonce and its ciphertext.
fn parts(sealed: &[u8]) -> Option<(KeyId, [u8; NONCE_LEN], &[u8])> {
    let (version, rest) = sealed.split_first()?;
    let (id, rest) = rest.split_first_chunk()?;
    let (nonce, text) = rest.split_first_chunk()?;
    (*version == FORMAT).then_some((*id, *nonce, text))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of the sealed decoy key.
pub(super) const DECOY_KEY: &str = "decoy key";
const VARIABLE: &str = "GRANTD_MASTER_KEY";
const KEY_BYTES: usize = 32;
const FORMAT: u8 = 1;
const HOW_TO_MAKE: &str = "`openssl rand -base64 32` makes one";

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const TWO: &str = "/wECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn keys(lines: &[&str]) -> MasterKeys {
        let random = Random::counting(1);
        MasterKeys::parse(Path::new("master.key"), &lines.join("\n"), &random).unwrap()
    }

    fn open(
        keys: &MasterKeys,
        purpose: Purpose,
        name: &str,
        sealed: &[u8],
    ) -> Result<Vec<u8>, String> {
        let opened = keys.open(Path::new("store"), purpose, name, sealed);
        opened.map(|plain| plain.to_vec()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let (old, both) = (keys(&[ONE]), keys(&["# new", TWO, "", ONE]));
        let sealed = old.seal(Purpose::SigningKey, "kid", b"secret").unwrap();
        assert!(!sealed.windows(6).any(|bytes| bytes == b"secret"));
        assert_eq!(open(&both, Purpose::SigningKey, "kid", &sealed).as_deref(), Ok(&b"secret"[..]));
        assert!(old.is_of_first(&sealed) && !both.is_of_first(&sealed));
        let again = both.seal(Purpose::SigningKey, "kid", b"secret").unwrap();
        let as_before = both.seal_again(Purpose::SigningKey, "kid", b"x", &sealed).unwrap();
        assert_eq!(MasterKeys::id_in(&as_before), MasterKeys::id_in(&sealed));
        assert!(both.is_of_first(&again));
        let refused = open(&old, Purpose::SigningKey, "kid", &again).unwrap_err();
        assert!(refused.contains(&both.ids()[0]) && refused.contains(&old.ids()[0]), "{refused}");
        assert_eq!(MasterKeys::id_in(&again), Some(both.ids()[0].clone()));
    }

    #[test]
    fn a_changed_or_moved_value_does_not_open() {
        let keys = keys(&[ONE]);
        let sealed = keys.seal(Purpose::Secret, "a", b"x").unwrap();
        assert!(open(&keys, Purpose::Secret, "b", &sealed).is_err());
        assert!(open(&keys, Purpose::Snapshot, "a", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&keys, Purpose::Secret, "a", &changed).is_err(), "byte {at}");
            assert!(open(&keys, Purpose::Secret, "a", &sealed[..at]).is_err(), "length {at}");
        }
    }

    #[test]
    fn a_faulty_line_is_named_and_not_quoted() {
        let short = &ONE[..40];
        for (text, says) in [
            ("", "holds no key"),
            ("# only a comment", "holds no key"),
            ("\nhunter2", "master.key:2: must be 32 bytes"),
            (short, "master.key:1: must be 32 bytes"),
            (&format!("{ONE}\n{ONE}"), "master.key:2: holds a key for the second time"),
        ] {
            let parsed = MasterKeys::parse(Path::new("master.key"), text, &Random::counting(1));
            let said = parsed.err().unwrap().to_string();
            assert!(said.contains(says) && !said.contains("hunter2"), "{said}");
        }
    }
}
