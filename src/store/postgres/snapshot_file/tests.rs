//! Tests of the file as a whole. They drive the writer without its thread.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::clock::{Clock, ManualClock};
use crate::random::Random;
use crate::state::revocations::RevocationKey;
use crate::state::revocations::revoked::{Revoked, Row};
use crate::store::postgres::seal::MasterKeys;
use crate::store::postgres::snapshot_file::items::{Item, Source};
use crate::store::postgres::snapshot_file::load::load;
use crate::store::postgres::snapshot_file::queue::{Message, Queue};
use crate::store::postgres::snapshot_file::writer::Writer;
use crate::store::postgres::timelines::Timeline;
use crate::time::UnixTime;

const ONE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const TWO: &str = "/wECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const START: u64 = 1_800_000_000;

fn keys(lines: &str) -> Arc<MasterKeys> {
    Arc::new(MasterKeys::parse(Path::new("master.key"), lines, &Random::system()).unwrap())
}

fn source() -> Source {
    Source {
        system: "7001".to_owned(),
        epoch: "epoch".to_owned(),
        since: UnixTime(START),
        database: "grantd".to_owned(),
        hosts: vec!["db:5432".to_owned(), "other:5433".to_owned()],
        timelines: vec![Timeline { system: "7002".to_owned(), number: u32::MAX }],
    }
}

fn entry(id: &str, lifetime: u32) -> String {
    format!(
        r#"{{"client_id": "{id}", "auth_methods": ["private_key_jwt"], "token_lifetime": {lifetime},
        "jwks": {{"keys": [{{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}]}}}}"#
    )
}

fn row(number: u8, expires_at: u64) -> Row {
    let key = RevocationKey::of_bytes(&[number; 16]).unwrap();
    Row { key, expires_at: UnixTime(expires_at), owner: Some([number; 8]) }
}

fn part(items: &[Item<'_>]) -> Message {
    let mut out = Vec::new();
    items.iter().for_each(|item| item.encode(&mut out));
    Message::Part(out)
}

/// The contents that a server finds at its start.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// The token lifetime of each client.
    clients: BTreeMap<String, u32>,
    keys: Vec<String>,
    revoked: usize,
    cut_off: u64,
    seen: u64,
}

fn find(path: &Path, keys: &Arc<MasterKeys>) -> Result<Found, String> {
    let revoked = Revoked::default();
    let loaded = load(path, &source(), keys, &revoked).map_err(|fault| fault.to_string())?;
    assert_eq!(loaded.source, source());
    assert!(loaded.faulty.is_empty() && loaded.decoy_key == b"decoy");
    let clients = loaded.clients.iter();
    Ok(Found {
        clients: clients.map(|one| (one.id.to_string(), one.token_lifetime)).collect(),
        keys: loaded.keys.into_iter().map(|key| key.id).collect(),
        revoked: revoked.len(),
        cut_off: revoked.cut_off([9; 8]).0,
        seen: loaded.seen.0,
    })
}

/// A writer, what it is told, and its time.
struct Bench {
    directory: TempDir,
    writer: Writer,
    queue: Arc<Queue>,
    time: ManualClock,
}

impl Bench {
    fn new() -> Self {
        Self::beside(TempDir::new().unwrap())
    }

    fn with_base() -> Self {
        let mut bench = Self::new();
        bench.base();
        bench
    }

    fn changed() -> Self {
        let mut bench = Self::with_base();
        bench.change();
        bench
    }

    fn beside(directory: TempDir) -> Self {
        let (clock, time) = Clock::manual(START);
        let queue = Arc::new(Queue::new(Duration::ZERO));
        let path = directory.path().join("snapshot");
        let writer = Writer::new(path, keys(ONE), clock, Arc::clone(&queue));
        Self { directory, writer, queue, time }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("snapshot")
    }

    fn tell(&mut self, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            assert!(self.queue.push(message));
        }
        self.writer.turn();
    }

    /// Lets the time pass in which changes are written.
    fn pass(&mut self, seconds: u64) {
        self.time.advance(seconds);
        self.queue.push(Message::Part(Vec::new()));
        self.writer.turn();
    }

    fn base(&mut self) {
        let [a, b] = ["a", "b"].map(|id| entry(id, 60));
        let first =
            Row { key: RevocationKey::SigningInput([1; 32]), owner: None, ..row(1, START + 60) };
        self.tell([
            Message::Begin(source()),
            part(&[Item::DecoyKey(b"decoy"), Item::Revoked(first)]),
            part(&[Item::Keys(vec![("k1", b"sealed")]), Item::Client("a", &a)]),
            part(&[Item::Client("b", &b)]),
            Message::EndBase(UnixTime(START)),
        ]);
    }

    /// Appends three records.
    fn change(&mut self) {
        let (a, c) = (entry("a", 120), entry("c", 60));
        self.tell([part(&[Item::Client("a", &a), Item::Removed("b")]), seen(1)]);
        self.pass(1);
        self.tell([
            part(&[Item::Client("c", &c), Item::Revoked(row(2, START + 60))]),
            part(&[Item::CutOff([9; 8], UnixTime(START + 99))]),
            seen(2),
        ]);
        self.pass(1);
        self.tell([part(&[Item::Keys(vec![("k1", b"sealed"), ("k2", b"sealed")])]), seen(3)]);
        self.pass(1);
    }

    fn find(&self) -> Result<Found, String> {
        find(&self.path(), &keys(ONE))
    }
}

fn seen(after: u64) -> Message {
    Message::Seen(UnixTime(START + after))
}

fn clients(of: &[(&str, u32)]) -> BTreeMap<String, u32> {
    of.iter().map(|(id, lifetime)| ((*id).to_owned(), *lifetime)).collect()
}

/// The contents after the base and after each of the changes.
fn versions() -> [Found; 4] {
    let base = || Found {
        clients: clients(&[("a", 60), ("b", 60)]),
        keys: vec!["k1".to_owned()],
        revoked: 1,
        cut_off: 0,
        seen: START,
    };
    let first = || Found { clients: clients(&[("a", 120)]), seen: START + 1, ..base() };
    let second = || Found {
        clients: clients(&[("a", 120), ("c", 60)]),
        revoked: 2,
        cut_off: START + 99,
        seen: START + 2,
        ..first()
    };
    let third = Found { keys: vec!["k1".into(), "k2".into()], seen: START + 3, ..second() };
    [base(), first(), second(), third]
}

/// The places where records begin, and the end of the file.
fn boundaries(file: &[u8]) -> Vec<usize> {
    let mut places = vec![32];
    while let Some(length) = file.get(places[places.len() - 1]..).and_then(|it| it.first_chunk()) {
        places.push(places[places.len() - 1] + 8 + u32::from_be_bytes(*length) as usize);
    }
    assert_eq!(places.last(), Some(&file.len()));
    places
}

#[test]
fn what_was_appended_is_read() {
    let mut bench = Bench::new();
    assert!(bench.find().unwrap_err().contains("snapshot: cannot be read"));
    bench.base();
    assert_eq!(bench.find().unwrap(), versions()[0]);
    bench.change();
    assert_eq!(bench.find().unwrap(), versions()[3]);
    // The time alone is written twice a minute, while the store answers.
    let path = bench.path();
    let length = || fs::metadata(&path).unwrap().len();
    let before = length();
    bench.time.advance(40);
    bench.queue.push(seen(40));
    bench.writer.turn();
    assert_eq!(bench.find().unwrap().seen, START + 40);
    let after = length();
    assert!(before < after && after < before + 200);
    bench.pass(400);
    assert_eq!(length(), after, "the store is away");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(bench.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let file = fs::read(bench.path()).unwrap();
    for plain in ["client_id", "sealed", "decoy", "grantd\"", "epoch"] {
        assert!(!file.windows(plain.len()).any(|bytes| bytes == plain.as_bytes()), "{plain}");
    }
}

#[test]
fn a_file_that_ends_early_is_what_it_was_or_refused() {
    let mut bench = Bench::with_base();
    let base = fs::metadata(bench.path()).unwrap().len();
    bench.change();
    let file = fs::read(bench.path()).unwrap();
    let places = boundaries(&file);
    let copy = bench.directory.path().join("copy");
    for end in 0..file.len() {
        let whole = places.iter().filter(|place| base < **place as u64 && **place <= end).count();
        // The second kind of end is what a machine leaves that has lost power.
        for padding in [0, 5, 100] {
            fs::write(&copy, [&file[..end], &vec![0; padding]].concat()).unwrap();
            match find(&copy, &keys(ONE)) {
                Ok(found) => assert!(end as u64 >= base && found == versions()[whole], "{end}"),
                Err(_) => assert!((end as u64) < base, "{end} {padding}"),
            }
        }
    }
}

#[test]
fn bytes_at_the_end_that_are_no_record_are_counted() {
    let bench = Bench::with_base();
    let file = fs::read(bench.path()).unwrap();
    for (more, cut) in [(&[][..], 0), (&[1, 2, 3], 3), (&[0; 9], 9)] {
        fs::write(bench.path(), [&file, more].concat()).unwrap();
        let loaded = load(&bench.path(), &source(), &keys(ONE), &Revoked::default()).unwrap();
        assert_eq!(loaded.cut, cut);
    }
}

/// A sparse file takes no room on the disk.
#[test]
fn a_record_that_would_fill_the_memory_is_refused() {
    let bench = Bench::with_base();
    let mut file = fs::read(bench.path()).unwrap();
    let length: u32 = 0xf000_0000;
    file.extend(length.to_be_bytes());
    file.extend((!length).to_be_bytes());
    fs::write(bench.path(), &file).unwrap();
    fs::File::options().write(true).open(bench.path()).unwrap().set_len(5 << 30).unwrap();
    let fault = bench.find().unwrap_err();
    assert!(fault.contains("has 4026531840 bytes: was changed"), "{fault}");
}

#[test]
fn a_changed_byte_is_found() {
    let bench = Bench::changed();
    let mut file = fs::read(bench.path()).unwrap();
    let places = boundaries(&file);
    let copy = bench.directory.path().join("copy");
    // The last record counts as one that was not written to its end.
    let last = places[places.len() - 2];
    for at in 0..file.len() {
        for bit in [0, 7] {
            file[at] ^= 1 << bit;
            fs::write(&copy, &file).unwrap();
            file[at] ^= 1 << bit;
            match find(&copy, &keys(ONE)) {
                Ok(found) => assert!(at >= last + 8 && found == versions()[2], "{at}"),
                Err(fault) => assert!(at < last + 8 && fault.contains("copy: "), "{at} {fault}"),
            }
        }
    }
}

#[test]
fn no_record_is_left_out_doubled_moved_or_of_another_file() {
    let [bench, other] = [(); 2].map(|()| Bench::changed());
    let [file, other] = [&bench, &other].map(|bench| fs::read(bench.path()).unwrap());
    let places = boundaries(&file);
    let records: Vec<_> = places.windows(2).map(|ends| &file[ends[0]..ends[1]]).collect();
    let of_other: Vec<_> =
        boundaries(&other).windows(2).map(|it| other[it[0]..it[1]].to_vec()).collect();
    let copy = bench.directory.path().join("copy");
    let find_of = |start: &[u8], records: &[&[u8]]| {
        fs::write(&copy, [start, &records.concat()].concat()).unwrap();
        find(&copy, &keys(ONE))
    };
    let count = records.len();
    assert_eq!(find_of(&file[..32], &records).unwrap(), versions()[3]);
    find_of(&other[..32], &records).unwrap_err();
    for one in 0..count {
        let mut without = records.clone();
        without.remove(one);
        let mut doubled = records.clone();
        doubled.insert(one, records[one]);
        let mut replaced = records.clone();
        replaced[one] = &of_other[one];
        let mut swapped = records.clone();
        swapped.swap(one, (one + 1) % count);
        for (changed, is_last) in [
            (without, one + 2 >= count),
            (doubled, one + 1 == count),
            (replaced, one + 1 == count),
            (swapped, false),
        ] {
            // Only the last record may be missing.
            let found = find_of(&file[..32], &changed);
            let is_earlier = found.as_ref().is_ok_and(|found| versions()[1..].contains(found));
            assert!(found.is_err() || (is_last && is_earlier), "{one} {found:?}");
        }
    }
}

#[test]
fn another_master_key_or_store_is_refused_with_what_to_do() {
    let bench = Bench::with_base();
    let fault = find(&bench.path(), &keys(TWO)).unwrap_err();
    for part in [&keys(ONE).ids()[0], &keys(TWO).ids()[0], "store.master_key_file"] {
        assert!(fault.contains(part), "{fault}");
    }
    assert!(find(&bench.path(), &keys(&format!("{TWO}\n{ONE}"))).is_ok());
    for source in [
        Source { database: "other".to_owned(), ..source() },
        Source { hosts: vec!["other:5432".to_owned()], ..source() },
    ] {
        let loaded = load(&bench.path(), &source, &keys(ONE), &Revoked::default());
        let fault = loaded.err().unwrap().to_string();
        for part in ["another store", "grantd on db:5432", "other", "store.url"] {
            assert!(fault.contains(part), "{fault}");
        }
    }
    fs::write(bench.path(), "grantd snapshot\x02................").unwrap();
    assert!(bench.find().unwrap_err().contains("is not a snapshot"));
}

#[test]
fn a_long_file_is_written_anew_while_changes_are_appended() {
    let mut bench = Bench::with_base();
    let base = fs::read(bench.path()).unwrap();
    bench.change();
    bench.tell([part(&[Item::Revoked(row(3, START - 4000)), Item::Removed("c")])]);
    let long = entry("c", 300).replace(' ', &" ".repeat(3000));
    let mut changes = 0;
    // More than 1 MiB of changes of one client.
    while fs::read(bench.path()).unwrap().starts_with(&base) {
        changes += 1;
        assert!(changes < 300, "it was never written anew");
        let others = entry("d", changes);
        bench.tell([
            part(&[Item::Client("c", &long), Item::Client("d", &others)]),
            seen(changes.into()),
        ]);
        bench.pass(1);
        for _ in 0..10 {
            bench.pass(0);
        }
    }
    let found = bench.find().unwrap();
    let [.., third] = versions();
    let all = clients(&[("a", 120), ("c", 300), ("d", changes)]);
    let seen_at = START + u64::from(changes);
    assert_eq!(found, Found { clients: all.clone(), seen: seen_at, ..third });
    assert!(fs::metadata(bench.path()).unwrap().len() < 500_000);
    // It goes on in the new file.
    bench.tell([part(&[Item::Removed("a")]), seen(1000)]);
    bench.pass(1);
    let without_a = all.into_iter().filter(|(id, _)| id != "a").collect();
    assert_eq!(bench.find().unwrap(), Found { clients: without_a, seen: START + 1000, ..found });
}

#[test]
fn a_burst_of_changes_is_written_at_once() {
    let mut bench = Bench::with_base();
    let padded = entry("c", 300).replace(' ', &" ".repeat(40_000));
    // 100 MiB of changes, between which no time passes.
    for _ in 0..150 {
        bench.tell([part(&[Item::Client("c", &padded)])]);
    }
    assert_eq!(bench.queue.problem(), None);
    bench.tell([seen(1)]);
    bench.pass(1);
    assert_eq!(bench.find().unwrap().clients["c"], 300);
}

#[test]
fn a_file_that_was_removed_is_written_again() {
    let mut bench = Bench::changed();
    fs::remove_file(bench.path()).unwrap();
    bench.time.advance(31);
    for _ in 0..20 {
        bench.queue.push(seen(31));
        bench.writer.turn();
    }
    let [.., third] = versions();
    assert_eq!(bench.find().unwrap(), Found { seen: START + 31, ..third });
}

#[test]
fn one_process_writes_and_another_takes_over() {
    let mut first = Bench::with_base();
    let mut second = Bench::beside(TempDir::new_in(first.directory.path()).unwrap());
    let (clock, time) = Clock::manual(START);
    second.time = time;
    second.writer = Writer::new(first.path(), keys(ONE), clock, Arc::clone(&second.queue));
    second.base();
    let before = fs::read(first.path()).unwrap();
    second.change();
    assert_eq!(fs::read(first.path()).unwrap(), before);
    assert!(!second.queue.is_base_needed() && second.queue.problem().is_none());
    second.pass(61);
    assert!(!second.queue.is_base_needed());
    first.change();
    assert_eq!(first.find().unwrap(), versions()[3]);

    let Bench { directory, writer, .. } = first;
    drop(writer);
    second.pass(61);
    assert!(second.queue.is_base_needed());
    second.base();
    assert_eq!(find(&directory.path().join("snapshot"), &keys(ONE)).unwrap(), versions()[0]);
}

#[cfg(unix)]
#[test]
fn a_link_or_pipe_in_its_place_is_refused_and_left_alone() {
    let mut bench = Bench::new();
    let target = bench.directory.path().join("target");
    fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, bench.path()).unwrap();
    bench.base();
    bench.change();
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert!(bench.queue.problem().unwrap().contains("symbolic link"));
    assert!(bench.find().unwrap_err().contains("symbolic link"));
    fs::remove_file(bench.path()).unwrap();
    // It asks for a base, later and later.
    bench.pass(60);
    assert!(bench.queue.is_base_needed());
    bench.base();
    assert_eq!(
        (bench.find().unwrap(), bench.queue.problem()),
        (versions().into_iter().next().unwrap(), None)
    );
}

#[test]
fn what_does_not_arrive_makes_a_base_necessary() {
    let mut bench = Bench::with_base();
    // More waits than the queue holds, and nothing takes it.
    let lost = || Message::Part(vec![b'e'; 9 << 20]);
    assert!(bench.queue.push(lost()) && !bench.queue.push(seen(1)));
    bench.change();
    assert_eq!(bench.find().unwrap(), versions()[0], "nothing was appended after what was lost");
    assert!(bench.queue.problem().unwrap().contains("does not keep up"));
    bench.pass(60);
    assert!(bench.queue.is_base_needed());
    bench.base();
    bench.change();
    assert_eq!(bench.find().unwrap(), versions()[3]);
}
