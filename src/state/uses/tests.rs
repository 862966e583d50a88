use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::clock::ManualClock;
use crate::fs::whole_file;
use crate::state::group_commit::Waiting;
use crate::state::uses::single_use::Key;
use crate::time::UnixTime;

const NOW: UnixTime = UnixTime(1_790_000_000);
/// A time by which what is signed is known to a record that began at [`NOW`].
const LATER: UnixTime = UnixTime(NOW.0 + 11);

/// A state directory, and processes that share it.
struct Directory {
    directory: TempDir,
    clock: Clock,
    manual: ManualClock,
    runtime: Runtime,
}

impl Directory {
    fn new() -> Self {
        let (clock, manual) = Clock::manual(NOW.0);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { directory: TempDir::new().unwrap(), clock, manual, runtime }
    }

    fn open(&self, capacity: usize) -> Uses {
        Uses::open(self.directory.path(), capacity, self.clock.clone()).unwrap()
    }

    /// Opens the directory for the first time, and sets the clock to [`LATER`].
    fn begin(capacity: usize) -> (Self, Uses) {
        let directory = Self::new();
        let uses = directory.open(capacity);
        directory.manual.set(LATER.0);
        (directory, uses)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("uses")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// Uses the assertion of the client `c` with this `jti` and expiry, signed now.
    fn spend(&self, uses: &Uses, token_id: &str, until: UnixTime) -> Result<(), UseError> {
        self.spend_as(uses, "c", token_id, until)
    }

    fn spend_as(
        &self,
        uses: &Uses,
        client_id: &str,
        token_id: &str,
        until: UnixTime,
    ) -> Result<(), UseError> {
        let signed_at = self.clock.now();
        let owner = Owner::Client;
        self.use_up(uses, SingleUse { client_id, owner, token_id, signed_at, until })
    }

    fn use_up(&self, uses: &Uses, single_use: SingleUse<'_>) -> Result<(), UseError> {
        self.runtime.block_on(uses.spend(single_use))
    }

    /// Rewrites the file as if the machine had been started again since.
    fn reboot(&self) {
        let text = self.text();
        let boot = text.split(' ').nth(1).unwrap();
        fs::write(self.path(), text.replace(boot, "another-boot")).unwrap();
    }
}

/// Ends a process as `kill -9` does: the thread goes, but does not close the file.
fn kill(directory: &Directory, uses: Uses) {
    let text = directory.text();
    drop(uses);
    fs::write(directory.path(), text).unwrap();
}

#[test]
fn an_id_can_be_used_once_per_owner() {
    let (directory, uses) = Directory::begin(100);
    assert_eq!(directory.spend(&uses, "1", LATER + 60), Ok(()));
    directory.manual.set((LATER + 59).0);
    assert_eq!(directory.spend(&uses, "1", LATER + 60), Err(UseError::Used));
    assert_eq!(directory.spend(&uses, "1", LATER + 90), Err(UseError::Used));
    assert_eq!(directory.spend(&uses, "2", LATER + 90), Ok(()));
    assert_eq!(directory.spend_as(&uses, "b", "1", LATER + 90), Ok(()));
    let proof = SingleUse {
        client_id: "c",
        owner: Owner::Key(b"c"),
        token_id: "1",
        signed_at: LATER + 59,
        until: LATER + 70,
    };
    assert_eq!(directory.use_up(&uses, proof), Ok(()));
    let of_another_client = SingleUse { client_id: "b", ..proof };
    assert_eq!(directory.use_up(&uses, of_another_client), Err(UseError::Used));
    // The boundary between owner and `jti` is part of the hash.
    assert_eq!(directory.spend_as(&uses, "c1", "", LATER + 90), Ok(()));
}

#[test]
fn all_that_wait_share_one_write() {
    let directory = Directory::new();
    let revocations = directory.directory.path().join("revocations");
    let mut record = Record::new(directory.path(), revocations, 10_000, directory.clock.clone());
    drop(record.take().unwrap());
    let before = record.writes();
    let (waiting, answers): (Vec<_>, Vec<_>) = (0..500_u64)
        .map(|number| {
            let mut key = Key::default();
            key[..8].copy_from_slice(&number.to_be_bytes());
            let entry = Entry { key, client: Default::default(), until: LATER + 60 };
            Waiting::new(Use { entry, signed_at: LATER })
        })
        .unzip();
    record.turn(waiting);
    assert!(answers.into_iter().all(|answer| answer.blocking_recv().unwrap().is_ok()));
    assert_eq!(record.writes(), before + 1);
}

#[test]
fn a_process_that_goes_on_while_another_ends_takes_the_last_line_away() {
    let (directory, old) = Directory::begin(100);
    let new = directory.open(100);
    assert_eq!(directory.spend(&old, "1", LATER + 60), Ok(()));
    assert_eq!(directory.spend(&new, "2", LATER + 60), Ok(()));
    drop(old);
    assert!(directory.text().ends_with("\nclosed\n"));
    assert_eq!(directory.spend(&new, "1", LATER + 60), Err(UseError::Used));
    assert!(directory.text().ends_with("\nclosed\n"), "nothing was used since");
    assert_eq!(directory.spend(&new, "3", LATER + 60), Ok(()));
    assert!(!directory.text().contains("closed"));
    kill(&directory, new);
    // After a crash of the machine, the record may lack uses.
    directory.reboot();
    let uses = directory.open(100);
    assert_eq!(directory.spend(&uses, "4", LATER + 60), Err(UseError::BeforeRecord));
}

#[test]
fn a_record_that_may_lack_uses_begins_anew() {
    let (directory, uses) = Directory::begin(100);
    assert_eq!(directory.spend(&uses, "1", LATER + 60), Ok(()));
    kill(&directory, uses);
    let whole = directory.text();
    for text in [
        None,
        Some(""),
        Some("grantd-uses-1 x"),
        Some("\0\0\0\0"),
        Some("grantd-uses-2 of a later release\n? ?\n"),
        Some("another boot"),
    ] {
        match text {
            None => fs::remove_file(directory.path()).unwrap(),
            Some("another boot") => {
                fs::write(directory.path(), &whole).unwrap();
                directory.reboot();
            }
            Some(text) => fs::write(directory.path(), text).unwrap(),
        }
        directory.manual.set(LATER.0);
        let uses = directory.open(100);
        for (at, result) in [(10, Err(UseError::BeforeRecord)), (11, Ok(()))] {
            directory.manual.set((LATER + at).0);
            assert_eq!(directory.spend(&uses, "2", LATER + 60), result, "{text:?} {at}");
        }
        // What was refused is refused after a restart too, and nothing more.
        drop(uses);
        let uses = directory.open(100);
        directory.manual.set((LATER + 10).0);
        assert_eq!(directory.spend(&uses, "3", LATER + 60), Err(UseError::BeforeRecord));
        directory.manual.set((LATER + 11).0);
        assert_eq!(directory.spend(&uses, "3", LATER + 60), Ok(()));
        kill(&directory, uses);
    }
}

#[test]
fn a_record_that_a_crash_of_the_machine_has_damaged_begins_anew() {
    let (directory, uses) = Directory::begin(100);
    assert_eq!(directory.spend(&uses, "1", LATER + 60), Ok(()));
    assert_eq!(directory.spend(&uses, "2", LATER + 60), Ok(()));
    kill(&directory, uses);
    let damaged = directory.text().replacen("\n17", "\n\0\0\0\0", 1);
    fs::write(directory.path(), &damaged).unwrap();
    let opened = Uses::open(directory.directory.path(), 100, directory.clock.clone());
    assert_eq!(opened.err().unwrap().line, Some(2), "not a crash of the machine");
    directory.reboot();
    let uses = directory.open(100);
    assert_eq!(directory.spend(&uses, "3", LATER + 60), Err(UseError::BeforeRecord));
    directory.manual.set((LATER + 11).0);
    assert_eq!(directory.spend(&uses, "3", LATER + 60), Ok(()));
    kill(&directory, uses);
    // A damaged record that says that it is closed is a fault.
    fs::write(directory.path(), format!("{damaged}closed\n")).unwrap();
    directory.reboot();
    let opened = Uses::open(directory.directory.path(), 100, directory.clock.clone());
    assert_eq!(opened.err().unwrap().line, Some(2));
}

#[test]
fn a_closed_record_outlives_the_machine() {
    let (directory, uses) = Directory::begin(100);
    assert_eq!(directory.spend(&uses, "1", LATER + 60), Ok(()));
    drop(uses);
    directory.reboot();
    let uses = directory.open(100);
    assert_eq!(directory.spend(&uses, "1", LATER + 60), Err(UseError::Used));
    assert_eq!(directory.spend(&uses, "2", LATER + 60), Ok(()));
    assert!(!directory.text().contains("another-boot"));
}

#[test]
fn a_torn_tail_is_cut_off_and_another_invalid_line_is_a_fault() {
    let (directory, uses) = Directory::begin(100);
    assert_eq!(directory.spend(&uses, "1", LATER + 60), Ok(()));
    kill(&directory, uses);
    let whole = directory.text();
    for torn in ["1", "1790000060 kGGv6zFBu5FLUEcBWPGsQw", "\0", "\0\0\0\0"] {
        fs::write(directory.path(), format!("{whole}{torn}")).unwrap();
        assert!(Uses::check(directory.directory.path()).is_ok());
        assert!(directory.text().ends_with(torn), "it only reads");
        let uses = directory.open(100);
        assert_eq!(directory.spend(&uses, "1", LATER + 60), Err(UseError::Used));
        assert_eq!(directory.spend(&uses, &format!("new {torn}"), LATER + 60), Ok(()));
        kill(&directory, uses);
    }
    for (bad, line) in [
        ("", 3),
        ("\0\0", 3),
        ("1790000060 kGGv6zFBu5FLUEcBWPGsQw", 3),
        ("1790000060 kGGv6zFBu5FLUEcBWPGsQw 8jHc0s9dQ2k x", 3),
        ("x kGGv6zFBu5FLUEcBWPGsQw 8jHc0s9dQ2k", 3),
    ] {
        fs::write(directory.path(), format!("{whole}{bad}\n{whole}")).unwrap();
        let opened = Uses::open(directory.directory.path(), 100, directory.clock.clone());
        assert_eq!(opened.err().unwrap().line, Some(line), "{bad}");
        let checked = Uses::check(directory.directory.path());
        assert_eq!(checked.unwrap_err().line, Some(line), "{bad}");
    }
    for first in ["", "\0\0", "1790000060 kGGv6zFBu5FLUEcBWPGsQw 8jHc0s9dQ2k"] {
        fs::write(directory.path(), format!("{first}\n{whole}")).unwrap();
        let opened = Uses::open(directory.directory.path(), 100, directory.clock.clone());
        assert_eq!(opened.err().unwrap().line, Some(1), "{first}");
    }
}

#[test]
fn a_file_that_goes_away_or_is_damaged_while_the_process_runs_allows_no_second_use() {
    let (directory, uses) = Directory::begin(100);
    assert_eq!(directory.spend(&uses, "1", LATER + 60), Ok(()));
    fs::remove_dir_all(directory.directory.path()).unwrap();
    assert_eq!(directory.spend(&uses, "1", LATER + 60), Err(UseError::Used));
    assert_eq!(directory.spend(&uses, "2", LATER + 60), Err(UseError::BeforeRecord));
    directory.manual.set((LATER + 11).0);
    assert_eq!(directory.spend(&uses, "2", LATER + 60), Ok(()));
    let whole = directory.text();
    assert_eq!(whole.lines().count(), 3, "{whole}");
    fs::write(directory.path(), format!("{whole}x\n")).unwrap();
    for _ in 0..2 {
        assert_eq!(directory.spend(&uses, "3", LATER + 60), Err(UseError::NotRecorded));
    }
    fs::write(directory.path(), &whole).unwrap();
    assert_eq!(directory.spend(&uses, "2", LATER + 60), Err(UseError::Used));
    assert_eq!(directory.spend(&uses, "3", LATER + 60), Ok(()));
    // An older copy of the file does not make this process forget.
    fs::remove_file(directory.path()).unwrap();
    fs::write(directory.path(), &whole).unwrap();
    assert_eq!(directory.spend(&uses, "3", LATER + 60), Err(UseError::Used));
}

#[test]
fn a_file_that_is_deleted_because_it_cannot_be_read_begins_anew() {
    let (directory, uses) = Directory::begin(100);
    assert_eq!(directory.spend(&uses, "1", LATER + 60), Ok(()));
    // Far more than a line has.
    let file = fs::OpenOptions::new().append(true).open(directory.path()).unwrap();
    file.set_len(1 << 40).unwrap();
    assert_eq!(directory.spend(&uses, "2", LATER + 60), Err(UseError::NotRecorded));
    fs::remove_file(directory.path()).unwrap();
    assert_eq!(directory.spend(&uses, "2", LATER + 60), Err(UseError::BeforeRecord));
    directory.manual.set(LATER.0 + 11);
    assert_eq!(directory.spend(&uses, "1", LATER + 60), Err(UseError::Used));
    assert_eq!(directory.spend(&uses, "2", LATER + 60), Ok(()));
}

#[test]
fn a_directory_in_place_of_the_file_is_set_aside() {
    let directory = Directory::new();
    fs::create_dir(directory.path()).unwrap();
    let uses = directory.open(100);
    assert!(directory.directory.path().join("uses.unreadable").is_dir());
    assert_eq!(directory.spend(&uses, "1", NOW + 60), Err(UseError::BeforeRecord));
}

#[test]
fn while_the_last_release_runs_no_record_begins() {
    let directory = Directory::new();
    let of_last_release =
        whole_file::lock(&directory.directory.path().join("revocations")).unwrap();
    let uses = directory.open(100);
    directory.manual.set(LATER.0);
    assert!(!directory.path().exists());
    drop(of_last_release);
    assert_eq!(directory.spend(&uses, "1", LATER + 60), Err(UseError::BeforeRecord));
    directory.manual.set((LATER + 11).0);
    assert_eq!(directory.spend(&uses, "1", LATER + 60), Ok(()));
}

impl Directory {
    /// Uses assertions of the client until one is refused. Returns how many were accepted.
    fn fill(&self, uses: &Uses, client: &str) -> (usize, UseError) {
        let mut used = 0;
        loop {
            match self.spend_as(uses, client, &used.to_string(), LATER + 60) {
                Ok(()) => used += 1,
                Err(error) => return (used, error),
            }
        }
    }
}

#[test]
fn clients_that_fill_the_record_together_leave_the_others_a_few_entries() {
    let (directory, uses) = Directory::begin(4096);
    for number in 0..20 {
        let (_, error) = directory.fill(&uses, &format!("c{number}"));
        assert_eq!(error, UseError::Share);
    }
    assert_eq!(directory.fill(&uses, "few"), (16, UseError::Share));
}

#[test]
fn a_client_holds_at_most_as_many_entries_as_are_free() {
    let (directory, uses) = Directory::begin(100);
    let mut shares = ["a", "b", "c", "d", "e", "f", "g"].map(|id| directory.fill(&uses, id));
    // The last 12 entries are left to clients that hold none.
    assert_eq!(shares, [44, 22, 11, 6, 3, 1, 1].map(|held| (held, UseError::Share)));
    shares = ["h", "i", "j", "k", "l", "m", "n"].map(|id| directory.fill(&uses, id));
    assert_eq!(shares, [1; 7].map(|held| (held, UseError::Share)));
    // The proofs of a client count as its assertions do.
    let proof = SingleUse {
        client_id: "a",
        owner: Owner::Key(b"k"),
        token_id: "1",
        signed_at: LATER,
        until: LATER + 11,
    };
    assert_eq!(directory.use_up(&uses, proof), Err(UseError::Share));
    // In another process too, and after a restart.
    drop(uses);
    let uses = directory.open(100);
    assert_eq!(directory.spend_as(&uses, "a", "x", LATER + 60), Err(UseError::Share));
    // No entry is free: a client that holds none is refused for another reason.
    let small = directory.open(95);
    assert_eq!(directory.spend_as(&small, "z", "x", LATER + 60), Err(UseError::Full));
    // What has expired does not count.
    directory.manual.set((LATER + 60).0);
    assert_eq!(directory.spend_as(&uses, "a", "x", LATER + 120), Ok(()));
}

#[test]
fn what_is_dropped_stays_used_whatever_the_clock_does() {
    let (directory, mut uses) = Directory::begin(20_000);
    for id in 0..2000 {
        assert_eq!(directory.spend(&uses, &id.to_string(), LATER + 60), Ok(()));
    }
    // Two hours later, the entries are dropped. Enough lines have been written for the file to be
    // rewritten without them.
    let later = LATER + 7200;
    directory.manual.set(later.0);
    for id in ["x", "y"] {
        assert_eq!(directory.spend(&uses, id, later + 60), Ok(()));
    }
    assert_eq!(directory.text().lines().count(), 3);
    for _ in 0..2 {
        directory.manual.set(LATER.0);
        assert_eq!(directory.spend(&uses, "7", LATER + 60), Err(UseError::Forgotten));
        assert_eq!(directory.spend(&uses, "x", later + 60), Err(UseError::Used));
        directory.manual.set((LATER + 1).0);
        let id = "z".repeat(directory.text().lines().count());
        assert_eq!(directory.spend(&uses, &id, LATER + 61), Ok(()));
        drop(uses);
        uses = directory.open(20_000);
    }
}

#[test]
fn only_a_file_that_stays_unreadable_is_set_aside() {
    // EMFILE, ENFILE and ENOMEM; EACCES, EIO and EISDIR.
    for (numbers, expected) in [([24, 23, 12], true), ([13, 5, 21], false)] {
        for number in numbers {
            assert_eq!(is_of_the_moment(&io::Error::from_raw_os_error(number)), expected);
        }
    }
    assert!(!is_of_the_moment(&io::Error::other("is not a regular file")));
}

#[test]
fn after_the_last_release_has_run_the_record_begins_anew() {
    let (directory, uses) = Directory::begin(100);
    let lock = directory.directory.path().join("revocations.lock");
    assert_eq!(directory.spend(&uses, "1", LATER + 60), Ok(()));
    assert!(!lock.exists());
    for runs_on in [false, true] {
        // The last release makes an empty lock file.
        fs::write(&lock, "").unwrap();
        let now = directory.clock.now();
        let again = if runs_on { None } else { Some(directory.open(100)) };
        let process = again.as_ref().unwrap_or(&uses);
        assert_eq!(directory.spend(process, "2", now + 60), Err(UseError::BeforeRecord));
        assert!(!lock.exists());
        directory.manual.set((now + 11).0);
        let id = format!("3 {runs_on}");
        assert_eq!(directory.spend(process, &id, now + 60), Ok(()));
        // Another process knows it too.
        assert_eq!(directory.spend(&uses, &id, now + 60), Err(UseError::Used));
    }
}
