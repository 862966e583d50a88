//! The file of the [`DecoyKey`]. The key determines how much work the server does before it refuses
//! an unknown client id. The key is kept across restarts. A new key would change this work for some
//! unknown ids, but not for registered ids. An attacker who saw the change would learn that these
//! ids are unknown.
//!
//! ```text
//! grantd-decoy-key-1 kGGv6zFBu5FLUEcBWPGsQ9wQ2dQ4nbH1qf4mTnE0l4b
//! ```

use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tracing::warn;
use zeroize::Zeroizing;

use crate::fault::{Fault, text};
use crate::fs::whole_file;
use crate::oauth::decoy::DecoyKey;
use crate::random::Random;

/// Reads the key from the state directory `directory`. If the directory holds no key, generates one
/// and writes it. If the new key cannot be written, logs a warning and returns the key. In this
/// case, the key is lost when the process ends.
///
/// # Errors
///
/// A [`Fault`] if the file cannot be read or does not hold a key, or if the operating system has no
/// random bytes for a new key.
pub fn open(directory: &Path, random: &Random) -> Result<DecoyKey, Fault> {
    let path = path_in(directory);
    if let Some(key) = read(&path)? {
        return Ok(key);
    }
    let mut bytes = Bytes::default();
    random
        .fill(&mut *bytes)
        .map_err(|_| Fault::new(&path, "the operating system has no random bytes"))?;
    let text = Zeroizing::new(format!("{PREFIX}{}\n", URL_SAFE_NO_PAD.encode(*bytes)));
    match create(directory, &path, text.as_bytes()) {
        Ok(()) => Ok(DecoyKey::new(&bytes)),
        // Another process that started at the same time has written the file.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Ok(read(&path)?.unwrap_or_else(|| DecoyKey::new(&bytes)))
        }
        Err(error) => {
            let path = path.display();
            warn!(%path, %error, "cannot be written: a restart changes the cost of unknown ids");
            Ok(DecoyKey::new(&bytes))
        }
    }
}

/// Checks that the key's file in `directory`, if it exists, holds a key. Writes nothing.
///
/// # Errors
///
/// A [`Fault`] if the file cannot be read or does not hold a key.
pub fn check(directory: &Path) -> Result<(), Fault> {
    read(&path_in(directory)).map(drop)
}

fn create(directory: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    whole_file::create_directory(directory)?;
    whole_file::create(path, text)
}

/// Reads the key from the file `path`. `None` if the file does not exist.
fn read(path: &Path) -> Result<Option<DecoyKey>, Fault> {
    let Some(file) = text::open_if_exists(path)? else {
        // No key can be made in place of a link, so each start would have another one.
        return if path.is_symlink() {
            Err(Fault::cannot("read", path, &ErrorKind::NotFound.into()))
        } else {
            Ok(None)
        };
    };
    let text = io::read_to_string(file.take(MAX_BYTES)).map(Zeroizing::new);
    let text = text.map_err(|error| Fault::cannot("read", path, &error))?;
    parse(&text).map(Some).ok_or_else(|| {
        Fault::new(path, "does not hold a decoy key; delete it, and the next start generates one")
    })
}

fn parse(text: &str) -> Option<DecoyKey> {
    let encoded = text.trim_end().strip_prefix(PREFIX)?;
    let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).ok()?);
    decoded.as_slice().try_into().ok().map(DecoyKey::new)
}

fn path_in(directory: &Path) -> PathBuf {
    directory.join("decoy.key")
}

type Bytes = Zeroizing<[u8; DecoyKey::BYTES]>;

const PREFIX: &str = "grantd-decoy-key-1 ";
/// More than a file with a key has.
const MAX_BYTES: u64 = 256;
