use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::jose::thumbprint::sha256;
use crate::state::revocations::key::decode;

const NOW: UnixTime = UnixTime(1_790_000_000);

fn key(number: u64) -> RevocationKey {
    let bytes = sha256(&number.to_le_bytes());
    if number.is_multiple_of(2) {
        RevocationKey::SigningInput(bytes)
    } else {
        RevocationKey::TokenId(bytes[..16].try_into().unwrap())
    }
}

fn open(directory: &TempDir, limit: usize, clock: &Clock) -> Revocations {
    Revocations::open(directory.path(), limit, clock.clone(), None).unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Revokes the tokens with these numbers concurrently, each of another client.
fn revoke(
    revocations: &Revocations,
    numbers: std::ops::Range<u64>,
    expires_at: UnixTime,
) -> Vec<Result<(), Cause>> {
    let revoked = numbers.map(|number| async move {
        revocations.revoke(&format!("c{number}"), key(number), expires_at).await
    });
    runtime().block_on(join_all(revoked))
}

/// Revokes the tokens of one client with these numbers in turn. Each expires a second after the one
/// before.
fn revoke_as(client: &str, revocations: &Revocations, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let revoked = revocations.revoke(client, key(number), NOW + number);
        assert_eq!(runtime().block_on(revoked), Ok(()), "{number}");
    }
}

fn is_revoked(revocations: &Revocations, number: u64) -> bool {
    revocations.contains(&key(number), "x", UnixTime(u64::MAX))
}

/// The number of lines in the file that revoke a token.
fn lines(directory: &TempDir) -> usize {
    let text = std::fs::read_to_string(directory.path().join("revocations")).unwrap();
    text.lines().filter(|line| !line.contains(" sha256:Z3JhbnRkO")).count()
}

#[test]
fn a_key_is_the_jti_or_the_hash_of_the_signing_input() {
    let id = RevocationKey::of(b"a.b.c", Some("kGGv6zFBu5FLUEcBWPGsQw"));
    assert!(matches!(id, RevocationKey::TokenId([0x90, 0x61, ..])));
    // No `jti`, a `jti` that is too short, non-canonical base64url, and invalid characters.
    for jti in [None, Some("x"), Some("kGGv6zFBu5FLUEcBWPGsQx"), Some("not/base64url")] {
        assert_eq!(RevocationKey::of(b"a.b.c", jti), RevocationKey::SigningInput(sha256(b"a.b")));
    }
}

#[test]
fn concurrent_revocations_are_written_once_each_and_read_again() {
    let directory = TempDir::new().unwrap();
    let (clock, _) = Clock::manual(NOW.0);
    let revocations = open(&directory, 10_000, &clock);
    let numbers = || (0..500).chain(0..500).chain(250..750);
    let revoked = numbers().map(|number| revocations.revoke("c", key(number), NOW + 60));
    let results = runtime().block_on(join_all(revoked));
    assert!(results.iter().all(Result::is_ok));
    assert_eq!((revocations.len(), lines(&directory)), (750, 750));
    drop(revocations);
    let revocations = open(&directory, 10_000, &clock);
    assert_eq!(revocations.len(), 750);
    assert!((0..750).all(|number| is_revoked(&revocations, number)));
    assert!(!is_revoked(&revocations, 750));
}

#[test]
fn the_file_is_rewritten_when_most_rows_have_expired() {
    let directory = TempDir::new().unwrap();
    let (clock, manual) = Clock::manual(NOW.0);
    let revocations = open(&directory, 100_000, &clock);
    assert!(revoke(&revocations, 0..3000, NOW + 60).iter().all(Result::is_ok));
    assert!(revoke(&revocations, 3000..3010, NOW + 9000).iter().all(Result::is_ok));
    assert_eq!(lines(&directory), 3010);
    // A row is kept for an hour after its token has expired, in case the clock is set back.
    manual.set((NOW + 60 + 3599).0);
    assert!(revoke(&revocations, 3010..7100, NOW + 9000).iter().all(Result::is_ok));
    assert!(is_revoked(&revocations, 0));
    manual.set((NOW + 60 + 3600).0);
    // Write more lines than the rewrite threshold, which depends on the earlier batches.
    let enough = file::lines_for(7100) as u64 / 2 + 1;
    assert!(revoke(&revocations, 7100..enough, NOW + 9000).iter().all(Result::is_ok));
    assert!(revoke(&revocations, enough..enough + 1, NOW + 9000).iter().all(Result::is_ok));
    assert_eq!(revocations.len() as u64, enough + 1 - 3000);
    assert!(!is_revoked(&revocations, 0));
    drop(revocations);
    // Opening drops expired rows from memory, and the first write drops them from the file.
    manual.set((NOW + 9000 + 3600).0);
    let revocations = open(&directory, 10_000, &clock);
    assert!(revocations.is_empty());
    assert!(revoke(&revocations, 0..1, NOW + 20_000)[0].is_ok());
    assert_eq!((revocations.len(), lines(&directory)), (1, 1));
}

#[test]
fn rows_that_one_process_has_dropped_are_not_written_again_by_another() {
    let directory = TempDir::new().unwrap();
    let (clock, manual) = Clock::manual(NOW.0);
    let [one, other] = [open(&directory, 10_000, &clock), open(&directory, 10_000, &clock)];
    assert!(revoke(&one, 0..1500, NOW + 60).iter().all(Result::is_ok));
    manual.set((NOW + 60 + 3600).0);
    for number in 2000..2006 {
        let process = if number % 2 == 0 { &other } else { &one };
        assert_eq!(revoke(process, number..number + 1, NOW + 9000), [Ok(())]);
    }
    assert_eq!(lines(&directory), 6);
}

#[test]
fn a_full_set_accepts_more_when_a_row_has_expired() {
    let directory = TempDir::new().unwrap();
    let (clock, manual) = Clock::manual(NOW.0);
    let revocations = open(&directory, 3, &clock);
    let results = revoke(&revocations, 0..5, NOW + 60);
    let taken = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!((taken, revocations.len()), (3, 3));
    assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(Cause::RevocationsFull))));
    manual.set((NOW + 60 + 3599).0);
    assert_eq!(revoke(&revocations, 5..6, NOW + 9000), [Err(Cause::RevocationsFull)]);
    manual.set((NOW + 60 + 3600).0);
    assert_eq!(revoke(&revocations, 6..7, NOW + 9000), [Ok(())]);
    assert_eq!(revocations.len(), 1);
    // All rows of the file are kept, even if their number exceeds the limit.
    assert!(revoke(&revocations, 7..9, NOW + 9000).iter().all(Result::is_ok));
    drop(revocations);
    let revocations = open(&directory, 1, &clock);
    assert_eq!(revocations.len(), 3);
    assert_eq!(revoke(&revocations, 20..21, NOW + 9000), [Err(Cause::RevocationsFull)]);
}

#[test]
fn a_client_that_holds_its_share_gets_a_cut_off_in_place_of_half_of_its_rows() {
    let directory = TempDir::new().unwrap();
    let (clock, _) = Clock::manual(NOW.0);
    let one = open(&directory, 114, &clock);
    // The last 14 rows are left to clients that hold none.
    revoke_as("a", &one, 0..50);
    assert_eq!((one.len(), one.cut_offs(), one.is_cut_off("a", NOW)), (50, 0, false));
    revoke_as("a", &one, 50..51);
    // Of 50 rows, 25 became the cut-off.
    assert_eq!((one.len(), one.cut_offs()), (26, 1));
    let check = |revocations: &Revocations| {
        assert!((0..51).all(|number| revocations.contains(&key(number), "a", NOW + number)));
        for (client, expires_at, is_cut_off) in
            [("a", NOW, true), ("a", NOW + 24, true), ("a", NOW + 25, false), ("z", NOW, false)]
        {
            assert_eq!(revocations.is_cut_off(client, expires_at), is_cut_off);
            let unknown = key(99_999);
            assert_eq!(revocations.contains(&unknown, client, expires_at), is_cut_off);
        }
    };
    check(&one);
    // A revocation that a cut-off covers needs no row.
    revoke_as("a", &one, 5..6);
    assert_eq!(one.len(), 26);
    // Another client has as many rows as are free.
    revoke_as("b", &one, 100..137);
    assert_eq!((one.len(), one.cut_offs()), (63, 1));
    let two = open(&directory, 114, &clock);
    check(&two);
    // The owners are known after a restart: the next row of a client that holds its share makes
    // another cut-off.
    assert_eq!(two.len(), 63);
    revoke_as("b", &two, 137..138);
    assert_eq!((two.len(), two.cut_offs()), (63 - 19 + 1, 1));
    check(&two);
    drop((one, two));
    check(&open(&directory, 114, &clock));
}

#[test]
fn clients_that_fill_the_set_together_bring_no_other_client_to_a_cut_off() {
    let directory = TempDir::new().unwrap();
    let (clock, _) = Clock::manual(NOW.0);
    let revocations = open(&directory, 4096, &clock);
    for client in 0..20_u64 {
        let free = 4096 - revocations.len() as u64;
        let id = format!("c{client}");
        let numbers = (10_000 * client..).take(usize::try_from(free / 2).unwrap());
        let rows = numbers.map(|number| revocations.revoke(&id, key(number), NOW + 60));
        assert!(runtime().block_on(join_all(rows)).iter().all(Result::is_ok));
    }
    revoke_as("few", &revocations, 300_000..300_016);
    assert!(!revocations.is_cut_off("few", NOW));
}

#[test]
fn the_last_release_keeps_every_line_and_this_one_reads_its_lines() {
    // A line of the last release: a time, and a `jti` or a hash.
    let is_of_last_release = |line: &str| {
        let (time, key) = line.split_once(' ')?;
        time.parse::<u64>().ok()?;
        match key.split_once(':')? {
            ("jti", id) => decode::<16>(id).map(drop),
            ("sha256", hash) => decode::<32>(hash).map(drop),
            _ => None,
        }
    };
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("revocations");
    let (clock, _) = Clock::manual(NOW.0);
    let revocations = open(&directory, 10, &clock);
    revoke_as("a", &revocations, 0..8);
    drop(revocations);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.lines().all(|line| is_of_last_release(line).is_some()), "{text}");
    // It may rewrite the file in another order, and appends rows without an owner.
    let mut lines: Vec<_> = text.lines().collect();
    lines.reverse();
    let own = "1790000060 jti:kGGv6zFBu5FLUEcBWPGsQw";
    std::fs::write(&path, format!("{}\n{own}\n", lines.join("\n"))).unwrap();
    let revocations = open(&directory, 10, &clock);
    assert!((0..8).all(|number| revocations.contains(&key(number), "a", NOW + number)));
    assert!(revocations.contains(&RevocationKey::of(b"", Some(&own[15..])), "b", NOW + 60));
    let held = revocations.len();
    revoke_as("a", &revocations, 20..21);
    assert!(revocations.len() <= held, "the rows of the client are still its own");
}

#[test]
fn an_emptied_file_gets_the_rows_that_are_in_force_with_the_next_revocation() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("revocations");
    let (clock, _) = Clock::manual(NOW.0);
    let revocations = open(&directory, 100, &clock);
    assert!(revoke(&revocations, 0..5, NOW + 60).iter().all(Result::is_ok));
    std::fs::write(&path, "").unwrap();
    assert_eq!(revoke(&revocations, 5..6, NOW + 60), [Ok(())]);
    drop(revocations);
    let revocations = open(&directory, 100, &clock);
    assert!((0..6).all(|number| is_revoked(&revocations, number)));
}

#[test]
fn what_the_last_release_revokes_is_in_force_although_it_holds_the_lock() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("revocations");
    let (clock, _) = Clock::manual(NOW.0);
    let of_last_release = crate::fs::whole_file::lock(&path).unwrap();
    let revocations = open(&directory, 100, &clock);
    std::fs::write(&path, "1790000060 jti:kGGv6zFBu5FLUEcBWPGsQw\n").unwrap();
    let key = RevocationKey::of(b"", Some("kGGv6zFBu5FLUEcBWPGsQw"));
    // Revocations wait for the lock all the time, and fail.
    let refused = runtime().block_on(revocations.revoke("c", self::key(1), NOW + 60));
    assert_eq!(refused, Err(Cause::RevocationNotWritten));
    assert!(revocations.contains(&key, "d", NOW + 60));
    drop(of_last_release);
    // Its lock file stays. No revocation makes or removes it.
    let lock = directory.path().join("revocations.lock");
    assert!(lock.exists());
    assert_eq!(revoke(&revocations, 2..3, NOW + 60), [Ok(())]);
    assert!(lock.exists());
    std::fs::remove_file(&lock).unwrap();
    assert_eq!(revoke(&revocations, 3..4, NOW + 60), [Ok(())]);
    assert!(!lock.exists());
}
