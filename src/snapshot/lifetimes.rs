//! The token lifetimes that clients had before theirs were shortened, for tokens without an `iat`.
//!
//! Such a token was issued at its `exp` less the lifetime that was in force. If the client's
//! lifetime has been shortened since, a token of the longer lifetime would seem to be younger than
//! it is, and the client's `not_before` would not revoke it. So the longer lifetime counts for every
//! token that may have been issued with it.
//!
//! The file `lifetimes` in the state directory keeps this over restarts. It also holds the
//! lifetimes of the running server, so that a lifetime that is shortened while no server runs is
//! noticed at the next start. To be small, it names only the clients whose lifetime is not the most
//! common one. A client that it does not name counts as having had the common one: a new client with
//! a shorter lifetime is then treated as if its lifetime had been shortened, which revokes more and
//! never less.

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, text};
use crate::fs::whole_file;
use crate::oauth::client::Client;
use crate::registry::clients::{Difference, Registry};
use crate::time::UnixTime;

/// The lifetime that most clients have, and those that were shortened while their tokens may still
/// be used. All lifetimes are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    common: u32,
    /// The lifetimes that were shortened, by `client_id`.
    shortened: Arc<BTreeMap<String, Shortened>>,
    /// An earlier `common` lifetime that was longer. It counts for every client, because the file
    /// does not name the clients that had it.
    longer_common: Option<Shortened>,
}

/// The contents of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    version: Version,
    /// The most common lifetime of the clients.
    common: u32,
    /// The lifetimes of all clients for which it is not `common`, by `client_id`.
    others: BTreeMap<String, u32>,
    /// As in [`Lifetimes`].
    shortened: BTreeMap<String, Shortened>,
    /// As in [`Lifetimes`].
    #[serde(default)]
    longer_common: Option<Shortened>,
}

/// The version of the file's format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    #[default]
    #[serde(rename = "1")]
    One,
}

/// A lifetime that was shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortened {
    /// The longest lifetime that was in force.
    pub lifetime: u32,
    /// The latest `exp` of a token that was issued with it, and [`CLOCK_STEP`] more.
    pub until: UnixTime,
}

impl Shortened {
    fn at(now: UnixTime, lifetime: u32) -> Self {
        Self { lifetime, until: now + u64::from(lifetime) + CLOCK_STEP }
    }

    /// Whether it is kept at `now`.
    fn counts(&self, now: UnixTime) -> bool {
        now < self.until + CLOCK_STEP
    }

    fn max(self, other: Self) -> Self {
        Self { lifetime: self.lifetime.max(other.lifetime), until: self.until.max(other.until) }
    }
}

impl Lifetimes {
    /// Returns the lifetimes of `clients`, a registry that replaces the one of these lifetimes at
    /// `now` and differs from it by `differences`.
    pub fn followed_by(
        &self,
        clients: &Registry,
        differences: &[Difference<'_>],
        now: UnixTime,
    ) -> Self {
        let mut next = self.aged(clients, now);
        for difference in differences {
            let before = difference.before.map_or(self.common, |client| client.token_lifetime);
            let (client, is_shortened) = match (difference.before, difference.after) {
                (_, Some(after)) => (after, after.token_lifetime < before),
                // The client may be registered again.
                (Some(gone), None) => (gone, before != self.common),
                (None, None) => continue,
            };
            if is_shortened {
                next.shorten(&client.id, Shortened::at(now, before));
            }
        }
        next
    }

    /// Whether the file is the same for `next`, the lifetimes of a registry that differs by
    /// `differences`, as for these lifetimes.
    pub fn is_recorded_as(&self, next: &Self, differences: &[Difference<'_>]) -> bool {
        let other = |client: Option<&Client>| {
            client.map(|client| client.token_lifetime).filter(|lifetime| *lifetime != self.common)
        };
        self == next && differences.iter().all(|it| other(it.before) == other(it.after))
    }

    /// Returns these lifetimes with the most common one of `clients`, and without the shortened
    /// lifetimes that are forgotten at `now`.
    fn aged(&self, clients: &Registry, now: UnixTime) -> Self {
        let common = clients.common_lifetime();
        let counts = |before: &Shortened| before.counts(now);
        let mut shortened = Arc::clone(&self.shortened);
        if !shortened.values().all(counts) {
            Arc::make_mut(&mut shortened).retain(|_, before| counts(before));
        }
        let before = (common < self.common).then(|| Shortened::at(now, self.common));
        let longer_common = longer([self.longer_common.filter(counts), before]);
        Self { common, shortened, longer_common }
    }

    /// Returns those of these lifetimes that are not in `known`: the client, and the lifetime that was
    /// shortened. The client is empty if the lifetime counts for all.
    pub fn rows_beside(&self, known: &Self) -> Vec<(String, Shortened)> {
        let mut rows = Vec::new();
        if !Arc::ptr_eq(&self.shortened, &known.shortened) {
            let is_new =
                |(id, before): &(&String, &Shortened)| known.shortened.get(*id) != Some(*before);
            let new = self.shortened.iter().filter(is_new);
            rows.extend(new.map(|(id, before)| (id.clone(), *before)));
        }
        let common = self.longer_common.filter(|_| self.longer_common != known.longer_common);
        rows.extend(common.map(|before| (String::new(), before)));
        rows
    }

    /// Adds lifetimes that another server has noted, without those that are forgotten at `now`. Returns
    /// whether one of them was not known.
    pub fn learn(
        &mut self,
        rows: impl IntoIterator<Item = (String, Shortened)>,
        now: UnixTime,
    ) -> bool {
        let mut is_new = false;
        for (id, before) in rows.into_iter().filter(|(_, before)| before.counts(now)) {
            let known = match &*id {
                "" => self.longer_common,
                id => self.shortened.get(id).copied(),
            };
            if known.is_some_and(|known| known.max(before) == known) {
                continue;
            }
            is_new = true;
            match &*id {
                "" => self.longer_common = longer([known, Some(before)]),
                id => self.shorten(id, before),
            }
        }
        is_new
    }

    fn shorten(&mut self, id: &str, before: Shortened) {
        shorten(Arc::make_mut(&mut self.shortened), id, before);
    }

    /// Returns the longest lifetime, at least `lifetime`, with which a token of the client that
    /// expires at `exp` may have been issued. `lifetime` is the client's lifetime in force.
    pub fn longest(&self, client_id: &str, lifetime: u32, exp: UnixTime) -> u64 {
        let before = self.shortened.get(client_id).into_iter().chain(&self.longer_common);
        let before = before.filter(|before| exp <= before.until).map(|before| before.lifetime);
        before.fold(lifetime, u32::max).into()
    }

    /// The longest lifetime of all that were shortened; 0 if there is none.
    pub fn longest_of_all(&self) -> u64 {
        let all = self.shortened.values().chain(&self.longer_common);
        all.map(|before| u64::from(before.lifetime)).max().unwrap_or(0)
    }

    /// Writes the file in the state directory `directory`, unless it holds these lifetimes, and those
    /// of `clients`, already. Keeps what another process has recorded there.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the file cannot be written within a second or so. The lifetimes are then lost
    /// when the process ends.
    pub fn write(&self, clients: &Registry, directory: &Path) -> Result<(), Fault> {
        self.recorded(clients).write(directory).map_err(|error| {
            let problem = format!(
                "cannot be written: {error}: after a restart, not_before may miss tokens whose \
                 lifetime was shortened"
            );
            Fault::new(&Recorded::file(directory), problem)
        })
    }

    /// Returns the contents of the file for these lifetimes and those of `clients`.
    fn recorded(&self, clients: &Registry) -> Recorded {
        let others = clients.with_other_lifetimes(self.common);
        Recorded {
            version: Version::One,
            common: self.common,
            others: others.map(|client| (client.id.to_string(), client.token_lifetime)).collect(),
            shortened: BTreeMap::clone(&self.shortened),
            longer_common: self.longer_common,
        }
    }
}

impl Recorded {
    /// The path of the file in the state directory `directory`.
    pub fn file(directory: &Path) -> PathBuf {
        directory.join("lifetimes")
    }

    /// Reads the file in the state directory `directory`. No lifetime is known if there is no file.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the file cannot be read or does not hold lifetimes.
    pub fn read(directory: &Path) -> Result<Self, Fault> {
        let path = Self::file(directory);
        let Some(file) = text::open_if_exists(&path)? else { return Ok(Self::default()) };
        serde_json::from_reader(BufReader::new(file)).map_err(|error| {
            if let Some(kind) = error.io_error_kind() {
                return Fault::cannot("read", &path, &kind.into());
            }
            let problem = "does not hold token lifetimes; restore the file, or delete it: then \
                           not_before may miss tokens without an iat whose client's lifetime was \
                           shortened";
            Fault::new(&path, problem)
        })
    }

    /// Checks that the file in the state directory `directory` can be locked.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if its lock file cannot be opened.
    pub fn check_lock(directory: &Path) -> Result<(), Fault> {
        let path = Self::file(directory);
        let lock = whole_file::check_lock(&path);
        lock.map_err(|error| Fault::cannot("locked", &path, &error))
    }

    /// Returns the lifetimes of `clients`, which follow the recorded ones at `now`.
    pub fn followed_by(self, clients: &Registry, now: UnixTime) -> Lifetimes {
        let Self { version: Version::One, common, others: mut gone, shortened, longer_common } =
            self;
        let before = Lifetimes { common, shortened: Arc::new(shortened), longer_common };
        let mut next = before.aged(clients, now);
        for client in clients.iter() {
            let before = gone.remove(&*client.id).unwrap_or(common);
            if client.token_lifetime < before {
                next.shorten(&client.id, Shortened::at(now, before));
            }
        }
        // The clients that are no longer registered. One of them may be registered again.
        for (id, lifetime) in gone {
            next.shorten(&id, Shortened::at(now, lifetime));
        }
        next
    }

    fn write(mut self, directory: &Path) -> io::Result<()> {
        let path = Self::file(directory);
        let on_disk = Self::read(directory).map_err(io::Error::other)?;
        if on_disk == self {
            return Ok(());
        }
        whole_file::create_directory(directory)?;
        let _lock = whole_file::lock_within(&path, Duration::from_secs(1))?;
        let on_disk = Self::read(directory).map_err(io::Error::other)?;
        for (id, before) in on_disk.shortened {
            shorten(&mut self.shortened, &id, before);
        }
        self.longer_common = longer([self.longer_common, on_disk.longer_common]);
        whole_file::replace(&path, &serde_json::to_vec(&self)?)
    }
}

fn longer(lifetimes: [Option<Shortened>; 2]) -> Option<Shortened> {
    lifetimes.into_iter().flatten().reduce(Shortened::max)
}

fn shorten(all: &mut BTreeMap<String, Shortened>, id: &str, before: Shortened) {
    let known = all.entry(id.to_owned()).or_insert(before);
    *known = known.max(before);
}

/// A request that is in progress may still issue a token with a lifetime that is shortened now, and
/// the clock may be set back by up to an hour. So a shortened lifetime counts an hour longer, and is
/// kept for another hour.
const CLOCK_STEP: u64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::clients::Draft;
    use crate::registry::registered::Registered;

    const NOW: UnixTime = UnixTime(1_790_000_000);

    /// The lifetimes of a registry, and the registry.
    #[derive(Default)]
    struct InForce(Lifetimes, Registry);

    impl std::ops::Deref for InForce {
        type Target = Lifetimes;

        fn deref(&self) -> &Lifetimes {
            &self.0
        }
    }

    /// Replaces the registry by one of these clients. The result must be the same if the server is
    /// restarted in between.
    fn after(before: &InForce, clients: &[(&str, u32)], now: UnixTime) -> InForce {
        let InForce(lifetimes, registry) = before;
        let mut draft = Draft::new(clients.len(), Some(registry));
        for (id, token_lifetime) in clients {
            let client =
                Client { id: (*id).into(), token_lifetime: *token_lifetime, ..Client::default() };
            assert!(draft.insert(Registered::new(client)));
        }
        let next = draft.finish();
        let differences = next.differences(registry);
        let followed = lifetimes.followed_by(&next, &differences, now);
        let restarted = lifetimes.recorded(registry).followed_by(&next, now);
        assert_eq!(followed, restarted);
        let is_same = lifetimes.recorded(registry) == followed.recorded(&next);
        assert_eq!(lifetimes.is_recorded_as(&followed, &differences), is_same);
        InForce(followed, next)
    }

    #[test]
    fn the_longer_lifetime_counts_for_tokens_that_may_have_it() {
        let first = after(&InForce::default(), &[("a", 600), ("b", 7200), ("c", 600)], NOW);
        assert_eq!(first.longest("b", 7200, NOW), 7200);
        let second = after(&first, &[("a", 600), ("b", 900), ("c", 600)], NOW);
        let until = NOW + 7200 + CLOCK_STEP;
        assert_eq!(second.longest("b", 900, until), 7200);
        assert_eq!(second.longest("b", 900, until + 1), 900);
        assert_eq!((second.longest("a", 600, NOW), second.longest_of_all()), (600, 7200));
        // The last client of a registry is removed and registered again.
        let alone = after(&InForce::default(), &[("x", 7200)], NOW);
        let again = after(&after(&alone, &[], NOW), &[("x", 900)], NOW + 10);
        assert_eq!(
            (again.longest("x", 900, until), again.longest("x", 900, until + 1)),
            (7200, 900)
        );
        // The longest of several lifetimes counts, until the tokens of all have expired.
        let third = after(&second, &[("a", 600), ("b", 60), ("c", 600)], NOW + 7000);
        let until = NOW + 7900 + CLOCK_STEP;
        assert_eq!((third.longest("b", 60, until), third.longest("b", 60, until + 1)), (7200, 60));
        let last = after(&third, &[("a", 600), ("b", 60), ("c", 600)], until + CLOCK_STEP);
        assert_eq!(last.longest("b", 60, NOW), 60);
    }

    #[test]
    fn a_client_that_was_removed_or_has_the_common_lifetime_is_known_too() {
        let first = after(&InForce::default(), &[("a", 600), ("b", 7200), ("c", 600)], NOW);
        let without = after(&first, &[("a", 600), ("c", 600)], NOW + 10);
        let again = after(&without, &[("a", 60), ("b", 900), ("c", 600)], NOW + 20);
        assert_eq!(again.longest("b", 900, NOW + 7210), 7200);
        let until = NOW + 620 + CLOCK_STEP;
        assert_eq!((again.longest("a", 60, until), again.longest("a", 60, until + 1)), (600, 60));
    }

    #[test]
    fn the_file_keeps_what_two_processes_record() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        assert_eq!(Recorded::read(&state).unwrap(), Recorded::default());
        let first = after(&InForce::default(), &[("a", 600), ("b", 7200)], NOW);
        let one = after(&first, &[("a", 60), ("b", 7200)], NOW);
        let other = after(&first, &[("a", 600), ("b", 60)], NOW);
        one.write(&one.1, &state).unwrap();
        other.write(&other.1, &state).unwrap();
        let both = Recorded::read(&state).unwrap();
        assert_eq!(both.shortened["a"].lifetime, 600);
        assert_eq!(both.followed_by(&other.1, NOW).longest("b", 60, NOW), 7200);
        std::fs::write(state.join("lifetimes"), "{}").unwrap();
        let fault = Recorded::read(&state).unwrap_err().to_string();
        assert!(fault.contains("does not hold token lifetimes; restore the file"), "{fault}");
    }

    #[test]
    fn after_any_changes_the_lifetimes_are_those_after_a_restart() {
        let mut number: u32 = 1;
        let mut below = |end: usize| {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (number >> 16) as usize % end
        };
        let ids: Vec<_> = (0..30).map(|id| format!("client-{id}")).collect();
        let mut clients: BTreeMap<&str, u32> = BTreeMap::new();
        let (mut before, mut now) = (InForce::default(), NOW);
        for _ in 0..300 {
            for _ in 0..below(4) {
                let (id, lifetime) = (&*ids[below(30)], [0, 600, 600, 900, 60][below(5)]);
                clients.insert(id, lifetime);
                clients.retain(|_, lifetime| *lifetime > 0);
            }
            now = now + below(1000) as u64;
            before = after(&before, &clients.clone().into_iter().collect::<Vec<_>>(), now);
        }
    }
}
