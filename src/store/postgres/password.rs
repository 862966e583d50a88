//! The password of the role: from the URL, `PGPASSWORD` or a file in the format of `.pgpass`.

use std::env;
use std::path::Path;

use zeroize::Zeroizing;

use crate::config::{StoreHost, StoreUrl};
use crate::fault::{Fault, text};
use crate::fs::whole_file;

/// Returns the password for `host`; `None` if there is none. It is looked up at each connection, so
/// a changed file needs no restart.
///
/// # Errors
///
/// A [`Fault`] if the file with the password cannot be read, or if every user can read it.
pub(super) fn find(
    url: &StoreUrl,
    host: &StoreHost,
    user: &str,
    database: &str,
) -> Result<Option<Zeroizing<String>>, Fault> {
    if let Some(password) = url.password() {
        return Ok(Some(Zeroizing::new(password.to_owned())));
    }
    if let Some(file) = url.password_file() {
        let text = read_private(file, ": ")?;
        let name = if host.is_unix() { "localhost" } else { &host.name };
        let wanted = [name, &host.port.to_string(), database, user];
        return Ok(text.lines().find_map(|line| of_line(line, &wanted)));
    }
    Ok(env::var(VARIABLE).ok().filter(|password| !password.is_empty()).map(Zeroizing::new))
}

/// Reads a file that not every user may read. `advice` stands in the fault before how to change that.
pub(super) fn read_private(file: &Path, advice: &str) -> Result<Zeroizing<String>, Fault> {
    let metadata = std::fs::metadata(file).map_err(|error| Fault::cannot("read", file, &error))?;
    if whole_file::is_world_readable(&metadata.permissions()) {
        let how = whole_file::HIDE_IT;
        let problem = format!("can be read by everyone on this machine{advice}{how}");
        return Err(Fault::new(file, problem));
    }
    text::read(file).map(Zeroizing::new)
}

/// Returns the password of a line `host:port:database:user:password` if the line is about `wanted`.
/// A field `*` is about everything. `\` stands before a `:` or `\` that is part of a field.
fn of_line(line: &str, wanted: &[&str; 4]) -> Option<Zeroizing<String>> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields: [Zeroizing<String>; 5] = Default::default();
    let (mut at, mut is_escaped) = (0, false);
    for c in line.chars() {
        match c {
            '\\' if !is_escaped => is_escaped = true,
            ':' if !is_escaped && at < 4 => at += 1,
            _ => {
                fields[at].push(c);
                is_escaped = false;
            }
        }
    }
    let [about @ .., password] = fields;
    let fits =
        about.iter().zip(wanted).all(|(field, wanted)| **field == "*" || **field == **wanted);
    (at == 4 && fits).then_some(password)
}

const VARIABLE: &str = "PGPASSWORD";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_password_file_is_read() {
        let wanted = ["h", "5432", "d", "u"];
        for (line, password) in [
            ("h:5432:d:u:p", Some("p")),
            ("*:*:*:*:p:q", Some("p:q")),
            (r"h:5432:d:u:p\:q\\", Some(r"p:q\")),
            ("h:5433:d:u:p", None),
            ("h:5432:d:v:p", None),
            ("#:5432:d:u:p", None),
            ("h:5432:d:u", None),
            ("", None),
        ] {
            let found = of_line(line, &wanted);
            assert_eq!(found.as_deref().map(String::as_str), password, "{line}");
        }
    }
}
