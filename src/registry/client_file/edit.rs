//! Adds clients to the text of a registry, and changes one client in it. The rest of the text is
//! kept, and a change is laid out like the text around it.

mod items;

use std::borrow::Cow;
use std::path::Path;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::document::{Document, document_fault};
use super::parse_without_key_files;
use crate::fault::Fault;
pub use crate::registry::client_file::document::id_of;
use crate::registry::client_file::edit::items::{Edit, Items, range_of};
use crate::time::UnixTime;

/// A secret's entry in the registry.
#[derive(Debug, Serialize)]
pub struct NewSecret {
    /// The label, which is unique among the client's secrets.
    pub label: String,
    /// The hash of the secret, in the registry's text format.
    pub hash: String,
}

/// Returns the text of a registry with `entry` added after its last client. The text of the old
/// entries is not changed. `text` is `None` if the file does not exist yet.
///
/// # Errors
///
/// Every fault of `text`. If `text` has no faults, every fault of the new text.
pub fn append(file: &Path, text: Option<&str>, entry: &Value) -> Result<String, Vec<Fault>> {
    append_entries(file, text, &[format!("{entry:#}").replace('\n', "\n    ")])
}

/// Returns the text of a registry with `entries` added after its last client. The text of the new
/// entries and of the old entries is not changed. `text` is `None` if the file does not exist yet.
///
/// # Errors
///
/// Every fault of `text`. If `text` has no faults, every fault of the new text.
pub fn append_entries(
    file: &Path,
    text: Option<&str>,
    entries: &[impl AsRef<str>],
) -> Result<String, Vec<Fault>> {
    let text = text.unwrap_or("{\n  \"clients\": []\n}\n");
    let list = clients_in(file, text)?;
    let (before, after) = text.split_at(range_of(text, list).end - 1);
    let before = before.trim_end();
    let added: usize = entries.iter().map(|entry| entry.as_ref().len() + ",\n    ".len()).sum();
    let mut changed = String::with_capacity(text.len() + added + "\n  ".len());
    changed.push_str(before);
    let mut comma = if before.ends_with('[') { "" } else { "," };
    for entry in entries {
        changed.extend([comma, "\n    ", entry.as_ref()]);
        comma = ",";
    }
    changed.extend(["\n  ", after]);
    parse_without_key_files(file, &changed)?;
    Ok(changed)
}

/// The text of a registry, in which one client is to be changed.
///
/// Each change returns the new text. It returns every fault of the old text or, if that has none, of
/// the new one. It is a fault if there is no such client.
pub struct ClientText<'t> {
    /// The name of the registry.
    pub file: &'t Path,
    /// The text of the registry.
    pub text: &'t str,
    /// The client to change.
    pub client_id: &'t str,
}

/// The new text of a registry, or every fault.
type Changed = Result<String, Vec<Fault>>;

impl<'t> ClientText<'t> {
    /// Enables or disables the client.
    pub fn set_enabled(&self, enabled: bool) -> Changed {
        self.change(|entry| Ok([entry.set("enabled", &enabled.to_string())]))
    }

    /// Removes the client.
    pub fn remove(&self) -> Changed {
        let (clients, index, _) = self.find()?;
        self.apply([clients.without(index)])
    }

    /// Adds `secret` to the client. If `old_until` is given, the client's other secrets expire at
    /// that time, unless they expire earlier.
    pub fn add_secret(&self, secret: &NewSecret, old_until: Option<UnixTime>) -> Changed {
        let [label, hash] = [&secret.label, &secret.hash].map(|text| json!(text));
        let new = format!("{{ \"label\": {label}, \"hash\": {hash} }}");
        self.change(|entry| {
            let mut edits = vec![entry.add_to("secrets", &new)?];
            if let Some(until) = old_until {
                for secret in entry.objects_in("secrets")? {
                    edits.extend(expire(&secret, until)?);
                }
            }
            Ok(edits)
        })
    }

    /// Sets the expiry of the secret `label` to `until`, unless it expires earlier. It is a fault if
    /// the client has no such secret.
    pub fn expire_secret(&self, label: &str, until: UnixTime) -> Changed {
        let mut is_there = false;
        let changed = self.change(|entry| {
            for secret in entry.objects_in("secrets")? {
                let name =
                    secret.member("label").map(serde_json::from_str::<String>).transpose()?;
                if name.is_some_and(|name| name == label) {
                    is_there = true;
                    return expire(&secret, until);
                }
            }
            Ok(None)
        })?;
        if is_there {
            Ok(changed)
        } else {
            let problem = "the client has no secret of this label; see `grantd client show`";
            Err(vec![Fault::new(self.file, problem)])
        }
    }

    /// Replaces the client's entry by the one that `change` returns for it. If `change` returns
    /// faults, returns these.
    pub fn update(&self, change: impl FnOnce(&str) -> Changed) -> Changed {
        let (.., entry) = self.find()?;
        self.apply([(range_of(self.text, entry), change(entry)?)])
    }

    fn change<E: IntoIterator<Item = Edit>>(
        &self,
        edits: impl FnOnce(&Items<'t>) -> Result<E, serde_json::Error>,
    ) -> Changed {
        let (.., entry) = self.find()?;
        let in_document = in_document(self.file, self.text);
        let entry = Items::of_object(self.text, entry).map_err(&in_document)?;
        self.apply(edits(&entry).map_err(in_document)?)
    }

    fn apply(&self, edits: impl IntoIterator<Item = Edit>) -> Changed {
        let changed = applied(self.text, edits);
        parse_without_key_files(self.file, &changed)?;
        Ok(changed)
    }

    /// Returns the entries of all clients, and the index and the text of this client's.
    fn find(&self) -> Result<(Items<'t>, usize, &'t str), Vec<Fault>> {
        let clients = clients_in(self.file, self.text)?;
        let clients = Items::of_list(self.text, clients);
        let clients = clients.map_err(in_document(self.file, self.text))?;
        let is_it =
            |(_, entry): &(usize, &str)| id_of(entry).is_some_and(|id| id == self.client_id);
        let found = clients.values().enumerate().find(is_it);
        let (index, entry) = found.ok_or_else(|| no_such_client(self.file))?;
        Ok((clients, index, entry))
    }
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
        let edit = Items::of_object(&entry, &entry)?.without_member(name);
        entry = applied(&entry, edit);
    }
    for (name, value) in set {
        let edit = Items::of_object(&entry, &entry)?.set(name, &value.to_string());
        entry = applied(&entry, [edit]);
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
    let secret = members.member("client_secret").map(serde_json::from_str).transpose()?;
    let entry = match members.without_member("client_secret") {
        Some(edit) => Cow::Owned(applied(entry, [edit])),
        None => Cow::Borrowed(entry),
    };
    Ok(Plain { entry, secret })
}

/// Returns `entry` with `secret` added after the client's other secrets.
///
/// # Errors
///
/// serde_json's error if `entry` is not an object.
pub fn with_secret(entry: &str, secret: &NewSecret) -> Result<String, serde_json::Error> {
    let members = Items::of_object(entry, entry.trim())?;
    Ok(applied(entry, [members.add_to("secrets", &serde_json::to_string(secret)?)?]))
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
fn applied(text: &str, edits: impl IntoIterator<Item = Edit>) -> String {
    let mut edits: Vec<_> = edits.into_iter().collect();
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

/// Returns the list of the clients in `text`, which must be a registry.
fn clients_in<'t>(file: &Path, text: &'t str) -> Result<&'t str, Vec<Fault>> {
    parse_without_key_files(file, text)?;
    let document = Items::of_object(text, text.trim()).map_err(in_document(file, text))?;
    Ok(document.member("clients").unwrap_or_default())
}

/// Returns a function that makes faults of an error in `text`.
fn in_document(file: &Path, text: &str) -> impl Fn(serde_json::Error) -> Vec<Fault> {
    move |error| vec![document_fault(file, text, &error)]
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

    fn of_client<'t>(text: &'t str, client_id: &'t str) -> ClientText<'t> {
        ClientText { file: Path::new("clients.json"), text, client_id }
    }

    fn secret(label: &str) -> NewSecret {
        let hash = "$sha256$ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0".to_owned();
        NewSecret { label: label.to_owned(), hash }
    }

    #[test]
    fn what_is_new_is_laid_out_as_its_neighbours_are() {
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
            assert_eq!(of_client(before, "a").set_enabled(false).unwrap(), after);
        }
    }

    #[test]
    fn a_client_goes_with_one_comma() {
        let text = "{\"clients\": [ {\"client_id\":\"a\"},\n\n {\"client_id\":\"b\"} , {\"client_id\":\"c\"}\n] }";
        for (id, after) in [
            ("a", "{\"clients\": [ {\"client_id\":\"b\"} , {\"client_id\":\"c\"}\n] }"),
            ("b", "{\"clients\": [ {\"client_id\":\"a\"},\n\n {\"client_id\":\"c\"}\n] }"),
            ("c", "{\"clients\": [ {\"client_id\":\"a\"},\n\n {\"client_id\":\"b\"}\n] }"),
        ] {
            assert_eq!(of_client(text, id).remove().unwrap(), after);
        }
        let one = "{\"clients\": [ {\"client_id\":\"a\"}\n] }";
        assert_eq!(of_client(one, "a").remove().unwrap(), "{\"clients\": [ \n] }");
        let fault = of_client(one, "b").remove().unwrap_err()[0].to_string();
        assert_eq!(fault, "clients.json: has no such client; see `grantd client list`");
    }

    #[test]
    fn secrets_are_added_and_ended() {
        let hash = secret("").hash;
        let new = format!("{{ \"label\": \"new\", \"hash\": \"{hash}\" }}");
        let old = |more: &str| format!("{{\"label\":\"old\",\"hash\":\"{hash}\"{more}}}");
        let of = |secrets: &str| format!("{{\"clients\":[{{\"client_id\":\"a\"{secrets}}}]}}");
        let list = |secrets: &str| of(&format!(",\"secrets\":[{secrets}]"));
        let plain = old("");
        let until = |end: &str| old(&format!(",\"expires_at\":{end}"));
        for (before, end, after) in [
            (of(""), None, of(&format!(",\"secrets\": [{new}]"))),
            (list(" "), None, list(&new)),
            (list(&format!("\n {plain}\n")), None, list(&format!("\n {plain},\n {new}\n"))),
            (list(&plain), Some(9), list(&format!("{},{new}", until(" 9")))),
            (list(&until("10")), Some(9), list(&format!("{},{new}", until("9")))),
            (list(&until("8")), Some(9), list(&format!("{},{new}", until("8")))),
        ] {
            let added = of_client(&before, "a").add_secret(&secret("new"), end.map(UnixTime));
            assert_eq!(added.unwrap(), after);
        }
        let text = list(&plain);
        let client = of_client(&text, "a");
        assert_eq!(client.expire_secret("old", UnixTime(7)).unwrap(), list(&until(" 7")));
        assert!(client.expire_secret("other", UnixTime(7)).is_err());
        assert!(client.add_secret(&secret("old"), None).is_err(), "two of one label");
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
