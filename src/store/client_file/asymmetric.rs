//! What a client registers to prove itself without a secret: its public keys.

use std::path::Path;

use serde_json::value::RawValue;

use super::entry::{Place, Reader};
use super::{offset_in, read_closed};
use crate::config::line_of;
use crate::fault::Fault;
use crate::jose::public_key::{self, PublicKey, SetProblem};
use crate::oauth::client::{AuthMethod, AuthMethods};

impl<'t> Reader<'t> {
    /// `jwks`: a JWK Set, or the path of a file that holds one, from where the registry is.
    pub(super) fn public_keys(&mut self, raw: Option<&'t RawValue>, at: Place) -> Vec<PublicKey> {
        let Some(raw) = raw else { return Vec::new() };
        if !raw.get().starts_with('"') {
            return public_key::parse_set(raw.get()).unwrap_or_else(|problem| {
                let line = line_of(self.text, offset_in(self.text, problem.part));
                self.key_fault(self.file, line, at, &problem);
                Vec::new()
            });
        }
        let Some(name) = self.value::<String>(Some(raw), at, "a JWK Set or a path") else {
            return Vec::new();
        };
        let file = self.file.parent().unwrap_or_else(|| Path::new("")).join(name);
        let text = match read_closed(&file) {
            Ok(Some(text)) => text,
            Ok(None) => {
                self.fault(raw, at, "names a file that everyone may write: run chmod o-w on it");
                return Vec::new();
            }
            Err(error) => {
                // The path is not shown: it may be a secret in the wrong place.
                self.fault(raw, at, format!("names a file that cannot be read: {error}"));
                return Vec::new();
            }
        };
        public_key::parse_set(&text).unwrap_or_else(|problem| {
            let line = line_of(&text, offset_in(&text, problem.part));
            self.key_fault(&file, line, at, &problem);
            Vec::new()
        })
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

    fn key_fault(&mut self, file: &Path, line: usize, at: Place, problem: &SetProblem<'_>) {
        let key = problem.index.map(|index| format!(".keys[{index}]")).unwrap_or_default();
        let field = format!("{at}{key}");
        self.faults.push(Fault::new(file, problem.problem).at_line(line).in_field(field));
    }
}
