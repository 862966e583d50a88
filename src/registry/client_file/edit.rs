//! Changes one client in the text of a registry. The rest of the text is kept, and new text is laid
//! out like the text around it.

mod items;

use std::borrow::Cow;
use std::path::Path;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::document::{Document, document_fault, offset_in};
use super::parse_without_key_files;
use crate::fault::Fault;
pub use crate::registry::client_file::document::id_of;
use crate::registry::client_file::edit::items::{Edit, Items};
use crate::time::UnixTime;

/// A secret's entry in the registry.
#[derive(Debug, Serialize)]
pub struct NewSecret {
    /// The label, which is unique among the client's secrets.
    pub label: String,
    /// The hash of the secret, in the registry's text format.
    pub hash: String,
}

/// Returns the text of the registry with the client `client_id` enabled or disabled.
///
/// # Errors
///
/// Every fault of `text`. If `text` has no faults, every fault of the new text. It is a fault if
/// there is no such client.
pub fn set_enabled(
    file: &Path,
    text: &str,
    client_id: &str,
    enabled: bool,
) -> Result<String, Vec<Fault>> {
    change(file, text, client_id, |entry| {
        Ok(vec![entry.set("enabled", if enabled { "true" } else { "false" })])
    })
}

/// Returns the text of the registry without the client `client_id`.
///
/// # Errors
///
/// Every fault of `text`. If `text` has no faults, every fault of the new text. It is a fault if
/// there is no such client.
pub fn remove(file: &Path, text: &str, client_id: &str) -> Result<String, Vec<Fault>> {
    let (clients, index) = find(file, text, client_id)?;
    apply(file, text, vec![clients.without(index)])
}

/// Returns the text of the registry with `secret` added to the client `client_id`. If `old_until`
/// is given, the client's other secrets expire at that time, unless they expire earlier.
///
/// # Errors
///
/// Every fault of `text`. If `text` has no faults, every fault of the new text. It is a fault if
/// there is no such client.
pub fn add_secret(
    file: &Path,
    text: &str,
    client_id: &str,
    secret: &NewSecret,
    old_until: Option<UnixTime>,
) -> Result<String, Vec<Fault>> {
    let internal = |error: serde_json::Error| vec![Fault::new(file, error.to_string())];
    let [label, hash] = [&secret.label, &secret.hash].map(serde_json::to_string);
    let new = format!(
        "{{ \"label\": {}, \"hash\": {} }}",
        label.map_err(internal)?,
        hash.map_err(internal)?
    );
    change(file, text, client_id, |entry| {
        let Some(list) = entry.member("secrets") else {
            return Ok(vec![entry.set("secrets", &format!("[{new}]"))]);
        };
        let list = Items::of_list(text, list)?;
        let mut edits = vec![list.with(&new)];
        if let Some(until) = old_until {
            for index in 0..list.items.len() {
                edits.extend(expire(&Items::of_object(text, list.at(index))?, until)?);
            }
        }
        Ok(edits)
    })
}

/// Sets the expiry of the secret `label` of the client `client_id` to `until`, and returns the new
/// text of the registry. If the secret already expires at `until` or earlier, returns the old text.
///
/// # Errors
///
/// Every fault of `text`. If `text` has no faults, every fault of the new text. It is a fault if
/// there is no such client or secret.
pub fn expire_secret(
    file: &Path,
    text: &str,
    client_id: &str,
    label: &str,
    until: UnixTime,
) -> Result<String, Vec<Fault>> {
    let mut is_there = false;
    let changed = change(file, text, client_id, |entry| {
        let Some(list) = entry.member("secrets") else { return Ok(Vec::new()) };
        let list = Items::of_list(text, list)?;
        for index in 0..list.items.len() {
            let secret = Items::of_object(text, list.at(index))?;
            let name = secret.member("label").map(serde_json::from_str::<String>).transpose()?;
            if name.is_some_and(|name| name == label) {
                is_there = true;
                return Ok(expire(&secret, until)?.into_iter().collect());
            }
        }
        Ok(Vec::new())
    })?;
    if is_there {
        Ok(changed)
    } else {
        let problem = "the client has no secret of this label; see `grantd client show`";
        Err(vec![Fault::new(file, problem)])
    }
}

/// Returns the text of the registry with the entry of the client `client_id` replaced. `change` is
/// called with the old entry and returns the new entry.
///
/// # Errors
///
/// Every fault of `text`. If `text` has no faults, every fault that `change` returns. If `change`
/// succeeds, every fault of the new text. It is a fault if there is no such client.
pub fn update(
    file: &Path,
    text: &str,
    client_id: &str,
    change: impl FnOnce(&str) -> Result<String, Vec<Fault>>,
) -> Result<String, Vec<Fault>> {
    let (clients, index) = find(file, text, client_id)?;
    let entry = clients.at(index);
    let begin = offset_in(text, entry);
    apply(file, text, vec![(begin..begin + entry.len(), change(entry)?)])
}

/// Returns `entry` with the fields of `set` added or replaced, and without the fields named in
/// `unset`.
///
/// # Errors
///
/// serde_json's error if `entry` is not an object.
pub fn with_fields(
    entry: &str,
    set: &Map<String, Value>,
    unset: &[&str],
) -> Result<String, serde_json::Error> {
    let mut entry = entry.to_owned();
    for name in unset {
        let members = Items::of_object(&entry, &entry)?;
        if let Some(index) = members.names.iter().position(|known| known == name) {
            let edit = members.without(index);
            entry = applied(&entry, vec![edit]);
        }
    }
    for (name, value) in set {
        let edit = Items::of_object(&entry, &entry)?.set(name, &value.to_string());
        entry = applied(&entry, vec![edit]);
    }
    Ok(entry)
}

/// An entry to be imported, separated from its plaintext secret.
pub struct Plain<'t> {
    /// The entry without its member `client_secret`.
    pub entry: Cow<'t, str>,
    /// The value of `client_secret`. `None` if the entry had no such member.
    pub secret: Option<String>,
}

/// Takes the plaintext secret `client_secret` out of an entry.
///
/// # Errors
///
/// serde_json's error if `entry` is not an object or `client_secret` is not a string.
pub fn take_client_secret(entry: &str) -> Result<Plain<'_>, serde_json::Error> {
    let members = Items::of_object(entry, entry.trim())?;
    let Some(index) = members.names.iter().position(|name| name == "client_secret") else {
        return Ok(Plain { entry: Cow::Borrowed(entry), secret: None });
    };
    let secret = members.member("client_secret").map(serde_json::from_str).transpose()?;
    Ok(Plain { entry: Cow::Owned(applied(entry, vec![members.without(index)])), secret })
}

/// Returns `entry` with `secret` added after the client's other secrets.
///
/// # Errors
///
/// serde_json's error if `entry` is not an object.
pub fn with_secret(entry: &str, secret: &NewSecret) -> Result<String, serde_json::Error> {
    let members = Items::of_object(entry, entry.trim())?;
    let new = serde_json::to_string(secret)?;
    let edit = match members.member("secrets") {
        Some(list) => Items::of_list(entry, list)?.with(&new),
        None => members.set("secrets", &format!("[{new}]")),
    };
    Ok(applied(entry, vec![edit]))
}

/// Returns the edit that sets a secret's expiry to `until`. `None` if the secret already expires at
/// `until` or earlier.
fn expire(secret: &Items<'_>, until: UnixTime) -> Result<Option<Edit>, serde_json::Error> {
    let ends =
        secret.member("expires_at").map(serde_json::from_str::<Option<UnixTime>>).transpose()?;
    let ends_before = ends.flatten().is_some_and(|end| end <= until);
    Ok((!ends_before).then(|| secret.set("expires_at", &until.to_string())))
}

/// Returns `text` with all `edits` applied. The edits may be in any order but must not overlap.
fn applied(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut changed = String::with_capacity(text.len() + 256);
    let mut done = 0;
    for (range, new) in edits {
        changed.push_str(&text[done..range.start]);
        changed.push_str(&new);
        done = range.end;
    }
    changed.push_str(&text[done..]);
    changed
}

fn apply(file: &Path, text: &str, edits: Vec<Edit>) -> Result<String, Vec<Fault>> {
    let changed = applied(text, edits);
    parse_without_key_files(file, &changed)?;
    Ok(changed)
}

fn change<'t>(
    file: &Path,
    text: &'t str,
    client_id: &str,
    edits: impl FnOnce(&Items<'t>) -> Result<Vec<Edit>, serde_json::Error>,
) -> Result<String, Vec<Fault>> {
    let (clients, index) = find(file, text, client_id)?;
    let fault = |error: serde_json::Error| vec![document_fault(file, text, &error)];
    let entry = Items::of_object(text, clients.at(index)).map_err(fault)?;
    apply(file, text, edits(&entry).map_err(fault)?)
}

/// Returns the entries of all clients, and the index of the entry with this `client_id`.
fn find<'t>(file: &Path, text: &'t str, id: &str) -> Result<(Items<'t>, usize), Vec<Fault>> {
    parse_without_key_files(file, text)?;
    let fault = |error: serde_json::Error| vec![document_fault(file, text, &error)];
    let document = Items::of_object(text, text.trim()).map_err(fault)?;
    let clients =
        Items::of_list(text, document.member("clients").unwrap_or("[]")).map_err(fault)?;
    let is_it = |index: &usize| id_of(clients.at(*index)).is_some_and(|found| found == id);
    let index = (0..clients.items.len()).find(is_it);
    let index = index.ok_or_else(|| vec![no_such_client(file)])?;
    Ok((clients, index))
}

/// Returns the fault for a client id that is not in the registry `file`.
pub fn no_such_client(file: &Path) -> Fault {
    Fault::new(file, "has no such client; see `grantd client list`")
}

/// Returns the entry of each client in the text of a registry.
///
/// # Errors
///
/// serde_json's error if `text` is not a registry.
pub fn entries(text: &str) -> Result<impl Iterator<Item = &str>, serde_json::Error> {
    let document: Document<'_> = serde_json::from_str(text)?;
    Ok(document.clients.into_iter().map(RawValue::get))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "clients.json";

    fn secret(label: &str) -> NewSecret {
        let hash = "$sha256$ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0".to_owned();
        NewSecret { label: label.to_owned(), hash }
    }

    #[test]
    fn what_is_new_is_laid_out_as_its_neighbours_are() {
        let file = Path::new(FILE);
        for (before, after) in [
            (
                r#"{"clients":[{"client_id":"a"}]}"#,
                r#"{"clients":[{"client_id":"a","enabled": false}]}"#,
            ),
            (
                "{\"clients\": [\n  {\n    \"client_id\": \"a\",\n    \"scopes\": []\n  }\n]}\n",
                "{\"clients\": [\n  {\n    \"client_id\": \"a\",\n    \"scopes\": [],\n    \"enabled\": false\n  }\n]}\n",
            ),
            (
                "{\"clients\":[{ \"enabled\" :\ttrue , \"client_id\" : \"a\" }]}",
                "{\"clients\":[{ \"enabled\" :\tfalse , \"client_id\" : \"a\" }]}",
            ),
        ] {
            assert_eq!(set_enabled(file, before, "a", false).unwrap(), after);
        }
    }

    #[test]
    fn a_client_goes_with_one_comma() {
        let file = Path::new(FILE);
        let text = "{\"clients\": [ {\"client_id\":\"a\"},\n\n {\"client_id\":\"b\"} , {\"client_id\":\"c\"}\n] }";
        for (id, after) in [
            ("a", "{\"clients\": [ {\"client_id\":\"b\"} , {\"client_id\":\"c\"}\n] }"),
            ("b", "{\"clients\": [ {\"client_id\":\"a\"},\n\n {\"client_id\":\"c\"}\n] }"),
            ("c", "{\"clients\": [ {\"client_id\":\"a\"},\n\n {\"client_id\":\"b\"}\n] }"),
        ] {
            assert_eq!(remove(file, text, id).unwrap(), after);
        }
        let one = "{\"clients\": [ {\"client_id\":\"a\"}\n] }";
        assert_eq!(remove(file, one, "a").unwrap(), "{\"clients\": [ \n] }");
        let fault = remove(file, one, "b").unwrap_err()[0].to_string();
        assert_eq!(fault, "clients.json: has no such client; see `grantd client list`");
    }

    #[test]
    fn secrets_are_added_and_ended() {
        let file = Path::new(FILE);
        let hash = secret("").hash;
        let new = format!("{{ \"label\": \"new\", \"hash\": \"{hash}\" }}");
        let old = |more: &str| format!("{{\"label\":\"old\",\"hash\":\"{hash}\"{more}}}");
        let of = |secrets: &str| format!("{{\"clients\":[{{\"client_id\":\"a\"{secrets}}}]}}");
        for (before, until, after) in [
            (of(""), None, of(&format!(",\"secrets\": [{new}]"))),
            (of(",\"secrets\":[ ]"), None, of(&format!(",\"secrets\":[{new}]"))),
            (
                of(&format!(",\"secrets\":[\n {}\n]", old(""))),
                None,
                of(&format!(",\"secrets\":[\n {},\n {new}\n]", old(""))),
            ),
            (
                of(&format!(",\"secrets\":[{}]", old(""))),
                Some(9),
                of(&format!(",\"secrets\":[{},{new}]", old(",\"expires_at\": 9"))),
            ),
            (
                of(&format!(",\"secrets\":[{}]", old(",\"expires_at\":10"))),
                Some(9),
                of(&format!(",\"secrets\":[{},{new}]", old(",\"expires_at\":9"))),
            ),
            (
                of(&format!(",\"secrets\":[{}]", old(",\"expires_at\":8"))),
                Some(9),
                of(&format!(",\"secrets\":[{},{new}]", old(",\"expires_at\":8"))),
            ),
        ] {
            assert_eq!(
                add_secret(file, &before, "a", &secret("new"), until.map(UnixTime)).unwrap(),
                after
            );
        }
        let text = of(&format!(",\"secrets\":[{}]", old("")));
        let ended = expire_secret(file, &text, "a", "old", UnixTime(7)).unwrap();
        assert_eq!(ended, of(&format!(",\"secrets\":[{}]", old(",\"expires_at\": 7"))));
        assert!(expire_secret(file, &text, "a", "other", UnixTime(7)).is_err());
        assert!(add_secret(file, &text, "a", &secret("old"), None).is_err(), "two of one label");
    }

    #[test]
    fn a_secret_in_clear_is_taken_out_of_an_entry() {
        for (entry, without) in [
            (r#"{"client_secret":"s\"s","client_id":"a"}"#, r#"{"client_id":"a"}"#),
            (r#"{"client_id":"a", "client_secret":"s\"s"}"#, r#"{"client_id":"a"}"#),
            (
                r#"{"client_id":"a","client_secret":"s\"s", "x":[{}]}"#,
                r#"{"client_id":"a","x":[{}]}"#,
            ),
        ] {
            let plain = take_client_secret(entry).unwrap();
            assert_eq!((&*plain.entry, plain.secret.as_deref()), (without, Some("s\"s")));
        }
        let entry = " {\"client_id\":\"a\"}";
        let plain = take_client_secret(entry).unwrap();
        assert_eq!((&*plain.entry, plain.secret), (entry, None));
        let with = with_secret(entry, &secret("first")).unwrap();
        assert!(with.starts_with(" {\"client_id\":\"a\",\"secrets\": [{\"label\":\"first\""));
        assert!(take_client_secret("[1]").is_err());
        assert!(take_client_secret("{\"client_secret\": 5}").is_err());
    }
}
