//! The rows of the outbox: they name what has changed.

use std::collections::BTreeSet;

use compact_str::CompactString;

/// The changes that the rows of the outbox name.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) clients: BTreeSet<CompactString>,
    pub(super) revocations: Vec<Vec<u8>>,
    pub(super) cut_offs: Vec<Vec<u8>>,
    pub(super) has_keys: bool,
    pub(super) lifetimes: Vec<String>,
    /// Whether everything must be read anew.
    pub(super) all: bool,
    pub(super) count: u64,
}

impl Changed {
    pub(super) fn note(&mut self, kind: &str, name: &str) {
        self.count += 1;
        self.all |= self.count > MOST;
        match kind {
            // What they name is read with all the rest.
            _ if self.all => {}
            "c" => {
                self.clients.insert(name.into());
            }
            "k" => self.has_keys = true,
            "l" => self.lifetimes.push(name.to_owned()),
            "r" => self.revocations.extend(of_hex(name)),
            "o" => self.cut_offs.extend(of_hex(name)),
            "*" => self.all = true,
            // A later release may note more.
            _ => {}
        }
    }
}

/// The most changes of a poll whose rows are read one by one.
const MOST: u64 = 1_000_000;

fn of_hex(text: &str) -> Option<Vec<u8>> {
    let digit =
        |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outbox_names_what_has_changed() {
        let mut changed = Changed::default();
        for (kind, name) in [
            ("c", "b"),
            ("c", "a"),
            ("c", "b"),
            ("k", "x"),
            ("l", "c"),
            ("r", "00ff"),
            ("r", "0"),
            ("r", "zz"),
            ("o", "0102030405060708"),
            ("later", "x"),
        ] {
            changed.note(kind, name);
        }
        assert!(changed.clients.iter().map(|id| &**id).eq(["a", "b"]));
        assert_eq!(changed.revocations, [[0, 255]]);
        assert_eq!(changed.cut_offs, [[1, 2, 3, 4, 5, 6, 7, 8]]);
        assert!(changed.has_keys && !changed.all && changed.count == 10);
        assert_eq!(changed.lifetimes, ["c"]);
        changed.note("*", "client");
        assert!(changed.all);
    }

    #[test]
    fn after_many_changes_everything_is_read_anew() {
        let mut changed = Changed::default();
        for _ in 0..=MOST {
            assert!(!changed.all);
            changed.note("r", "00ff");
        }
        changed.note("r", "00ff");
        assert!(changed.all && changed.revocations.len() as u64 == MOST);
    }
}
