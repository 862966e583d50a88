//! A start without the state directory or without the keys that an earlier start has used.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use grantd::clock::Clock;

use crate::faulty_files::readiness;
use crate::support::command::run;
use crate::support::home::signing_key;
use crate::support::registry::{client_json, registry_of};
use crate::support::{Home, Program};

const HOUR: u64 = 3600;

/// A home whose key was published `age` seconds ago. The longest token lifetime is an hour.
fn home_with_key(age: u64) -> Home {
    let home = Home::without_key();
    home.write("clients.json", &registry_of(&[client_json("a", &serde_json::json!({}))]));
    let published = Clock::unix_micros() / 1_000_000 - age;
    let (name, pem) = signing_key();
    home.write_key(name, &format!("Published-At: {published}\nSigns-From: {published}\n{pem}"));
    home
}

/// Sets the modification time of a file to `age` seconds ago.
fn make_older(file: &Path, age: u64) {
    let file = File::options().write(true).open(file).unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_micros(Clock::unix_micros());
    file.set_modified(now - Duration::from_secs(age)).unwrap();
}

fn checked(home: &Home) -> String {
    let ended = run(home.command(&["check"]));
    ended.assert_fine().to_owned()
}

#[test]
fn a_first_start_is_not_degraded() {
    let server = Program::start(Home::without_key(), &[]);
    assert_eq!(readiness(&server), "ok\n");
    let server = Program::start(server.into_home(), &[]);
    assert_eq!(readiness(&server), "ok\n");
}

#[test]
fn a_start_without_the_state_directory_beside_older_keys_is_degraded_until_tokens_have_expired() {
    let says = "state: the state directory is from ";
    let home = home_with_key(2 * HOUR);
    assert!(checked(&home).contains(&format!("warning: {says}")));
    let server = Program::start(home, &[]);
    server.log.wait_for(|line| {
        line["level"] == "WARN" && line["message"].as_str().is_some_and(|it| it.starts_with(says))
    });
    assert!(readiness(&server).starts_with(&format!("degraded: {says}")));
    // The next start is degraded, too. It is not when the longest token lifetime has passed.
    let home = server.into_home();
    let server = Program::start(home, &[]);
    assert!(readiness(&server).contains("tokens were revoked before, they are valid again"));
    let home = server.into_home();
    make_older(&home.path("state/decoy.key"), HOUR);
    let server = Program::start(home, &[]);
    assert_eq!(readiness(&server), "ok\n");
    assert!(!checked(&server.home).contains(says));
}

#[test]
fn no_key_is_made_beside_the_state_of_an_earlier_start_unless_asked_for() {
    let home = Program::start(Home::without_key(), &[]).into_home();
    let mut files = fs::read_dir(home.keys()).unwrap().map(|entry| entry.unwrap().path());
    let key = files.find(|file| file.extension().is_some_and(|it| it == "pem")).unwrap();
    let away = home.path("away.pem");
    fs::rename(&key, &away).unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let says = ["keys: holds no key, but state/decoy.key shows", "mount or restore its keys"];
    // `check` stands first: it ends even if it does not fail.
    for command in [&["check"][..], &serve] {
        run(home.command(command)).assert_error(1, &says);
    }
    assert!(fs::read_dir(home.keys()).unwrap().all(|entry| entry.unwrap().path() != key));
    // The keys come late, as with a mount.
    fs::rename(&away, &key).unwrap();
    let home = Program::start(home, &[]).into_home();
    // A lost key is replaced by a command. Tokens of the old one may still be around for an hour.
    fs::remove_file(&key).unwrap();
    make_older(&home.path("state/decoy.key"), 1000);
    run(home.command(&["key", "generate"])).assert_fine();
    let server = Program::start(home, &[]);
    assert!(readiness(&server).starts_with("degraded: keys: every key is newer than the state"));
    // A key that was replaced by a rotation is no loss.
    let home = Program::start(Home::without_key(), &[]).into_home();
    make_older(&home.path("state/decoy.key"), 1000);
    run(home.command(&["key", "rotate", "--now"])).assert_fine();
    let server = Program::start(home, &[]);
    assert_eq!(readiness(&server), "ok\n");
}
