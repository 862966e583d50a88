//! TLS of a cluster: an authority of its own, and a certificate for [`NAME`].

use std::fs;
use std::path::Path;
use std::process::Command;

use super::template::ACCESS;
use super::{NAME, give_to_owner};
use crate::support::command::succeed;

/// The authority's certificate, in the cluster's directory.
pub(super) const AUTHORITY: &str = "authority.crt";

/// Makes the certificates in `data` and lets nobody log in over TCP without TLS.
pub(super) fn require_tls(data: &Path) {
    let make = |name: &str, more: &[&str]| {
        let [certificate, key] = ["crt", "key"].map(|kind| format!("{name}.{kind}"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-nodes", "-days", "2", "-out", &certificate]);
        openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", &key]);
        openssl.args(["-subj", &format!("/CN={name}")]).args(more);
        succeed(openssl.current_dir(data));
    };
    make("authority", &[]);
    let name = format!("subjectAltName=DNS:{NAME}");
    let leaf = ["-addext", &name, "-addext", "basicConstraints=critical,CA:false"];
    make("server", &[&leaf[..], &["-CA", AUTHORITY, "-CAkey", "authority.key"]].concat());
    for name in [AUTHORITY, "authority.key", "server.crt", "server.key"] {
        give_to_owner(&data.join(name));
    }
    fs::write(data.join("pg_hba.conf"), ACCESS.replace("\nhost ", "\nhostssl ")).unwrap();
}
