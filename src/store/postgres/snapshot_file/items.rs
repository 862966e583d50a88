//! The contents of the records.
//!
//! The first record is the [`Source`]. Each other record is a sequence of items. The items up to
//! [`Item::End`] are the base, which holds each client once. Those behind it are changes of the
//! base, of which the last one of a client counts.

use crate::config::StoreUrl;
use crate::state::revocations::RevocationKey;
use crate::state::revocations::revoked::Row;
use crate::state::shares::ClientTag;
use crate::store::postgres::timelines::Timeline;
use crate::time::UnixTime;

/// The store from which a snapshot was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The identifier of the database's system, which its replicas share.
    pub system: String,
    /// The epoch of the store, and when it began.
    pub epoch: String,
    pub since: UnixTime,
    /// The name of the database in the URL.
    pub database: String,
    /// The hosts in the URL.
    pub hosts: Vec<String>,
    /// The highest timelines that the server has seen, of this and of other systems.
    pub timelines: Vec<Timeline>,
}

impl Source {
    /// Returns the source that `url` names, of which the rest is not known.
    pub fn of(url: &StoreUrl) -> Self {
        let database = url.database().or_else(|| url.user()).unwrap_or_default().to_owned();
        let hosts = url.hosts().iter().map(ToString::to_string).collect();
        Self { database, hosts, ..Self::default() }
    }

    /// Whether the URL of `other` may name the same database. While the database is away, no more
    /// is known of it.
    pub(super) fn may_be(&self, other: &Self) -> bool {
        self.database == other.database && self.hosts.iter().any(|host| other.hosts.contains(host))
    }

    /// Whether `earlier` is an earlier state of this store, which answers.
    pub(super) fn follows(&self, earlier: &Self) -> bool {
        self.epoch != earlier.epoch && self.is_store_of(earlier)
    }

    /// Whether `earlier` is a state of this store, which answers.
    pub(super) fn is_store_of(&self, earlier: &Self) -> bool {
        self.system == earlier.system || earlier.may_be(self)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for text in [&self.system, &self.epoch, &self.database] {
            put(&mut out, text.as_bytes());
        }
        out.extend(self.since.0.to_be_bytes());
        put_count(&mut out, self.hosts.len());
        self.hosts.iter().for_each(|host| put(&mut out, host.as_bytes()));
        put_count(&mut out, self.timelines.len());
        for Timeline { system, number } in &self.timelines {
            put(&mut out, system.as_bytes());
            out.extend(number.to_be_bytes());
        }
        out
    }

    pub(super) fn decode(plain: &[u8]) -> Option<Self> {
        let rest = &mut &*plain;
        let [system, epoch, database] = [text(rest)?, text(rest)?, text(rest)?].map(str::to_owned);
        let since = time(rest)?;
        let (mut hosts, mut timelines) = (Vec::new(), Vec::new());
        for _ in 0..number(rest)? {
            hosts.push(text(rest)?.to_owned());
        }
        for _ in 0..number(rest)? {
            let system = text(rest)?.to_owned();
            timelines.push(Timeline { system, number: number(rest)? });
        }
        Some(Self { system, epoch, since, database, hosts, timelines })
    }
}

/// One item. It has no `Debug`, because an entry of a client holds hashes of secrets.
#[derive(Clone, PartialEq, Eq)]
pub enum Item<'a> {
    /// A client and its entry in the registry.
    Client(&'a str, &'a str),
    /// A client that was removed.
    Removed(&'a str),
    /// All signing keys: the `kid` and the sealed document of each.
    Keys(Vec<(&'a str, &'a [u8])>),
    /// A revoked token.
    Revoked(Row),
    /// The time up to which all tokens of a client are revoked.
    CutOff(ClientTag, UnixTime),
    /// The sealed decoy key.
    DecoyKey(&'a [u8]),
    /// At this time, everything before was what the store held.
    Seen(UnixTime),
    /// The end of the base.
    End,
}

impl<'a> Item<'a> {
    /// Appends the item to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Client(id, entry) => put_all(out, b'c', &[id.as_bytes(), entry.as_bytes()]),
            Self::Removed(id) => put_all(out, b'x', &[id.as_bytes()]),
            Self::Keys(keys) => {
                let mut all = Vec::new();
                for (id, document) in keys {
                    put(&mut all, id.as_bytes());
                    put(&mut all, document);
                }
                put_all(out, b'k', &[&all]);
            }
            Self::Revoked(Row { key, expires_at, owner }) => {
                let owner = owner.as_ref().map_or(&[][..], |owner| owner);
                put_all(out, b'r', &[key.as_bytes(), owner]);
                out.extend(expires_at.0.to_be_bytes());
            }
            Self::CutOff(client, until) => {
                out.push(b'o');
                out.extend(client);
                out.extend(until.0.to_be_bytes());
            }
            Self::DecoyKey(sealed) => put_all(out, b'd', &[sealed]),
            Self::Seen(time) => {
                out.push(b't');
                out.extend(time.0.to_be_bytes());
            }
            Self::End => out.push(b'e'),
        }
    }

    fn decode(rest: &mut &'a [u8]) -> Option<Self> {
        let (tag, after) = rest.split_first()?;
        *rest = after;
        Some(match tag {
            b'c' => Self::Client(text(rest)?, text(rest)?),
            b'x' => Self::Removed(text(rest)?),
            b'k' => {
                let (mut all, mut keys) = (bytes(rest)?, Vec::new());
                while !all.is_empty() {
                    keys.push((text(&mut all)?, bytes(&mut all)?));
                }
                Self::Keys(keys)
            }
            b'r' => Self::Revoked(Row {
                key: RevocationKey::of_bytes(bytes(rest)?)?,
                owner: bytes(rest)?.try_into().ok(),
                expires_at: time(rest)?,
            }),
            b'o' => Self::CutOff(chunk(rest)?, time(rest)?),
            b'd' => Self::DecoyKey(bytes(rest)?),
            b't' => Self::Seen(time(rest)?),
            b'e' => Self::End,
            _ => return None,
        })
    }
}

/// Returns the items of a record; an item of a later release is `None`, and the last one.
pub(super) fn items(record: &[u8]) -> impl Iterator<Item = Option<Item<'_>>> {
    let mut rest = record;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let item = Item::decode(&mut rest);
        if item.is_none() {
            rest = &[];
        }
        Some(item)
    })
}

fn put_all(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    out.push(tag);
    parts.iter().for_each(|part| put(out, part));
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend(bytes);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    // A message of the database is far shorter.
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    out.extend(count.to_be_bytes());
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(bytes(rest)?).ok()
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    chunk(rest).map(u32::from_be_bytes)
}

fn time(rest: &mut &[u8]) -> Option<UnixTime> {
    chunk(rest).map(u64::from_be_bytes).map(UnixTime)
}

fn chunk<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (chunk, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_may_be_the_one_that_a_url_names() {
        let of = |url| Source::of(&StoreUrl::parse(url).unwrap());
        let source = of("postgres://a:1,b:2/d");
        assert!(source.may_be(&of("postgres://x,b:2/d")));
        assert!(!source.may_be(&of("postgres://b/d")) && !source.may_be(&of("postgres://b:2/e")));
    }

    #[test]
    fn what_a_later_release_has_added_ends_a_record() {
        assert!(items(b"e?e").eq([Some(Item::End), None]));
    }
}
