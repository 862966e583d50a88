//! The public keys that a client registers instead of a secret.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::document::{offset_in, require_closed};
use super::entry::{Field, KeyFile, Reader, repeated_name};
use crate::fault::text::{self, json_problem};
use crate::fault::{Fault, Position};
use crate::fs::file_watch::Stamp;
use crate::jose::jwk_set::{self, SetProblem};
use crate::jose::public_key::{KeyProblem, PublicKey};
use crate::oauth::client::{AuthMethod, Client};

impl<'t> Reader<'t> {
    /// Reads the field `jwks` of the client `id`: a JWK Set, or the path of a file that holds a JWK
    /// Set. The path is relative to the directory of the registry.
    pub(super) fn public_keys(&mut self, field: Field<'t>, id: &str) -> Vec<PublicKey> {
        if !field.raw.get().starts_with('"') {
            if let Some(problem) = repeated_name(field.raw.get()) {
                self.fault(field, problem);
            }
            return match jwk_set::parse(field.raw.get()) {
                Ok(set) => set.keys,
                Err(SetProblem { part, index, problem }) => {
                    let key = index.map(|index| format!(".keys[{index}]")).unwrap_or_default();
                    let place = self.position_at(offset_in(self.text, part));
                    let fault = Fault::new(self.file, problem).at(place);
                    self.faults.push(fault.in_field(format!("{field}{key}")));
                    Vec::new()
                }
            };
        }
        let place = self.position_of(field.raw);
        let Some(name) = self.value::<String>(field, "a JWK Set or a path") else {
            return Vec::new();
        };
        let file = beside(self.file, &name);
        // Take the stamp before the file is read.
        let stamp = Stamp::of_file(file.clone());
        let key_file = self.key_file.insert(KeyFile { path: file.clone(), stamp, fault: None });
        let fault = match read_client_keys(&file) {
            Ok(keys) => return keys,
            // Do not quote the path: the value may be a secret in the wrong field.
            Err(fault) if fault.line.is_none() => {
                Fault::new(self.file, format!("names a file that {}", fault.problem))
                    .at(place)
                    .in_field(field.to_string())
            }
            Err(fault) => {
                let key = fault.field.as_deref().map(|key| format!(".{key}")).unwrap_or_default();
                fault.in_field(format!("{field}{key}"))
            }
        };
        match self.on_key_fault.kept_keys(id, &file) {
            Some(keys) => {
                key_file.fault = Some(fault);
                keys
            }
            None => {
                self.faults.push(fault);
                Vec::new()
            }
        }
    }

    /// Reports a fault for each of the client's authentication methods for which a field is
    /// missing. This field is `jwks` or the subject of a certificate. `has_jwks` says whether the
    /// field `jwks` is present. An invalid `jwks` counts as present, because its fault has been
    /// reported already.
    pub(super) fn check_needs(&mut self, field: Field<'t>, client: &Client, has_jwks: bool) {
        let has_subject = client.certificate_subject.is_some();
        for (method, is_there, needs) in [
            (AuthMethod::PrivateKeyJwt, has_jwks, "the client's `jwks`"),
            (AuthMethod::SelfSignedTlsClientAuth, has_jwks, "the client's `jwks`"),
            (AuthMethod::TlsClientAuth, has_subject, "one of the fields `tls_client_auth_…`"),
        ] {
            if client.auth_methods.contains(method) && !is_there {
                let method = method.as_str();
                self.fault(field, format!("holds {method}, which needs {needs}"));
            }
        }
    }
}

/// Returns the path of the file that a registry calls `name`.
fn beside(registry: &Path, name: &str) -> PathBuf {
    registry.parent().unwrap_or_else(|| Path::new("")).join(name)
}

/// Reads the file of a client's keys, which must be a regular file that not everyone can write.
///
/// # Errors
///
/// A [`Fault`] if the keys cannot be read from the file.
pub fn read_client_keys(file: &Path) -> Result<Vec<PublicKey>, Fault> {
    // Reading a pipe could block for ever.
    if std::fs::metadata(file).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Fault::new(file, "is not a regular file"));
    }
    require_closed(file)?;
    Ok(read_key_set(file)?.1)
}

/// Reads a file that holds a JWK Set. Returns the text of the file and the keys in it.
///
/// # Errors
///
/// A [`Fault`] if the file cannot be read or does not hold a JWK Set. A fault in the text has its
/// line and column.
pub fn read_key_set(file: &Path) -> Result<(String, Vec<PublicKey>), Fault> {
    let text = text::read(file)?;
    if let Err(error) = serde_json::from_str::<IgnoredAny>(&text) {
        let place = Position::of_json(&text, &error);
        return Err(Fault::new(file, json_problem(&error)).at(place));
    }
    if let Some(problem) = repeated_name(&text) {
        return Err(Fault::new(file, problem));
    }
    let set = jwk_set::parse(&text).map_err(|SetProblem { part, index, problem }| {
        let fault = Fault::new(file, problem).at(Position::of(&text, offset_in(&text, part)));
        match index {
            Some(index) => fault.in_field(format!("keys[{index}]")),
            None => fault,
        }
    })?;
    let keys = set.keys;
    Ok((text, keys))
}

/// Whether the `jwks` of a registry entry is the path of a file.
pub fn names_key_file(entry: &str) -> bool {
    jwks_of(entry).is_some_and(|jwks| jwks.starts_with('"'))
}

/// Returns the field `jwks` of a registry entry.
fn jwks_of(entry: &str) -> Option<&str> {
    #[derive(Deserialize)]
    struct Entry<'t> {
        #[serde(borrow)]
        jwks: Option<&'t RawValue>,
    }
    Some(serde_json::from_str::<Entry<'_>>(entry).ok()?.jwks?.get())
}

/// Returns the keys of a client's JWK Set that are skipped, because they cannot verify the client's
/// assertions. For each of them, returns the index of the key in the set, and the reason. `entry`
/// is the client's entry in the registry `file`.
pub fn skipped_keys(file: &Path, entry: &str) -> Vec<(usize, KeyProblem)> {
    let Some(jwks) = jwks_of(entry) else { return Vec::new() };
    let set = match serde_json::from_str::<String>(jwks) {
        Ok(name) => text::read(&beside(file, &name)).unwrap_or_default(),
        Err(_) => jwks.to_owned(),
    };
    let skipped = jwk_set::parse(&set).map(|set| set.skipped).unwrap_or_default();
    skipped.into_iter().filter_map(|key| Some((key.index?, key.problem))).collect()
}
