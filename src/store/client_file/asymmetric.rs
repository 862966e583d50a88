//! What a client registers to prove itself without a secret: its public keys.

use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::entry::{Place, Reader};
use super::{offset_in, require_closed};
use crate::fault::text::{self, json_problem};
use crate::fault::{Fault, Position};
use crate::jose::jwk_set::{self, SetProblem};
use crate::jose::public_key::{KeyProblem, PublicKey};
use crate::oauth::client::{AuthMethod, AuthMethods};
use crate::store::file_watch::Stamp;

impl<'t> Reader<'t> {
    /// `jwks`: a JWK Set, or the path of a file that holds one, from where the registry is.
    pub(super) fn public_keys(&mut self, raw: Option<&'t RawValue>, at: Place) -> Vec<PublicKey> {
        let Some(raw) = raw else { return Vec::new() };
        if !raw.get().starts_with('"') {
            return match jwk_set::parse(raw.get()) {
                Ok(set) => set.keys,
                Err(problem) => {
                    let place = self.position_at(offset_in(self.text, problem.part));
                    self.key_fault(self.file, place, at, &problem);
                    Vec::new()
                }
            };
        }
        let Some(name) = self.value::<String>(Some(raw), at, "a JWK Set or a path") else {
            return Vec::new();
        };
        let file = self.file.parent().unwrap_or_else(|| Path::new("")).join(name);
        self.key_file = Some(Stamp::of_file(file.clone()));
        match require_closed(&file).and_then(|()| read_key_set(&file)) {
            Ok((_, keys)) => keys,
            // The path is not shown if it may be a secret in the wrong place.
            Err(fault) if fault.line.is_none() => {
                self.fault(raw, at, format!("names a file that {}", fault.problem));
                Vec::new()
            }
            Err(fault) => {
                let key = fault.field.as_deref().map(|key| format!(".{key}")).unwrap_or_default();
                self.faults.push(fault.in_field(format!("{at}{key}")));
                Vec::new()
            }
        }
    }

    /// Whoever may authenticate by a key or a name must have registered one.
    pub(super) fn check_needs(
        &mut self,
        raw: Option<&'t RawValue>,
        at: Place,
        methods: AuthMethods,
        has_keys: bool,
        has_subject: bool,
    ) {
        let Some(raw) = raw else { return };
        for (method, is_there, needs) in [
            (AuthMethod::PrivateKeyJwt, has_keys, "the client's `jwks`"),
            (AuthMethod::SelfSignedTlsClientAuth, has_keys, "the client's `jwks`"),
            (AuthMethod::TlsClientAuth, has_subject, "one of the fields `tls_client_auth_…`"),
        ] {
            if methods.contains(method) && !is_there {
                let method = method.as_str();
                self.fault(raw, at, format!("holds {method}, which needs {needs}"));
            }
        }
    }

    fn key_fault(&mut self, file: &Path, place: Position, at: Place, problem: &SetProblem<'_>) {
        let key = problem.index.map(|index| format!(".keys[{index}]")).unwrap_or_default();
        let field = format!("{at}{key}");
        self.faults.push(Fault::new(file, problem.problem).at(place).in_field(field));
    }
}

/// Reads a file that holds a JWK Set: its text, and the keys in it.
///
/// # Errors
///
/// The [`Fault`], with its place if it is in the text.
pub fn read_key_set(file: &Path) -> Result<(String, Vec<PublicKey>), Fault> {
    let text = text::read(file)?;
    if let Err(error) = serde_json::from_str::<IgnoredAny>(&text) {
        let place = Position::of_json(&text, &error);
        return Err(Fault::new(file, json_problem(&error)).at(place));
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

/// The keys of the client in `entry`, a part of the registry in `file`, that verify nothing here: each
/// with its number in the set, and why.
pub fn skipped_keys(file: &Path, entry: &str) -> Vec<(usize, KeyProblem)> {
    #[derive(Deserialize)]
    struct Entry<'t> {
        #[serde(borrow)]
        jwks: Option<&'t RawValue>,
    }
    let read = serde_json::from_str::<Entry<'_>>(entry);
    let Ok(Entry { jwks: Some(raw) }) = read else { return Vec::new() };
    let named: Option<String> = serde_json::from_str(raw.get()).ok();
    let set = match named {
        Some(name) => {
            let key_file = file.parent().unwrap_or_else(|| Path::new("")).join(name);
            text::read(&key_file).unwrap_or_default()
        }
        None => raw.get().to_owned(),
    };
    let skipped = jwk_set::parse(&set).map(|set| set.skipped).unwrap_or_default();
    skipped.into_iter().filter_map(|key| Some((key.index?, key.problem))).collect()
}
