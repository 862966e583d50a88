//! The files of the state directory: what stands in their place, and who can read and write them.
//! Most of these tests need two users, so they fail if they do not run as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use grantd::clock::Clock;
use serde_json::json;

use crate::file_access::{SERVICE, access, give, home_of_the_service};
use crate::support::command::run;
use crate::support::home::set_mode;
use crate::support::program::as_user;
use crate::support::status::{
    self, ISSUER, SAME_ISSUER, assert_revoked, is_active, revoke, token_of,
};
use crate::support::{DEMO, Encoding, Home, Program, Request, Signer, wait_until};
use crate::waiting_files::make_fifo;

/// Asserts that `is_so` returns true over several looks of the server at its files.
#[track_caller]
fn assert_stays(is_so: &dyn Fn() -> bool) {
    for _ in 0..20 {
        assert!(is_so());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_symlink_in_place_of_a_file_of_the_state_directory_is_refused() {
    let home = Home::new();
    // The last line is incomplete: it would be cut off.
    let victim = home.write("victim", "text\ntext");
    fs::create_dir(home.path("state")).unwrap();
    let before = access(&victim);
    let says = "is a symbolic link, which is not followed: remove it";
    for file in ["uses", "revocations"] {
        let link = home.path("state").join(file);
        symlink(&victim, &link).unwrap();
        for command in ["serve", "check"] {
            let local = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
            let ended = run(home.command(&[command]).args(local));
            ended.assert_error(1, &[&format!("state/{file}: cannot be read: "), says]);
        }
        assert!(link.is_symlink());
        fs::remove_file(link).unwrap();
    }
    for lock in ["uses.lock", "revocations.turn.lock"] {
        let lock = home.path("state").join(lock);
        let _ = fs::remove_file(&lock);
        symlink(&victim, lock).unwrap();
    }
    symlink("made", home.path("state/revocations.turn")).unwrap();
    let server = Program::start(home, &[]);
    for lock in ["uses.lock", "revocations.turn.lock"] {
        server.log.wait_for(|line| {
            let error = line["error"].as_str().unwrap_or_default();
            error.contains(&format!("state/{lock} {says}"))
        });
    }
    assert_eq!(
        (access(&victim), fs::read_to_string(&victim).unwrap().as_str()),
        (before, "text\ntext")
    );
    assert!(!server.home.path("state/made.lock").exists());
}

#[test]
fn the_state_directory_may_be_a_symlink() {
    let home = status::home();
    fs::create_dir(home.path("elsewhere")).unwrap();
    symlink("elsewhere", home.path("state")).unwrap();
    let server = Program::start(home, &SAME_ISSUER);
    let token = token_of(server.address, "timed");
    assert_revoked(&revoke(server.address, "timed", &token));
    for file in ["uses", "revocations", "revocations.turn.lock"] {
        assert!(server.home.path("elsewhere").join(file).is_file(), "{file}");
    }
}

#[test]
fn the_server_is_degraded_while_it_cannot_read_its_revocations() {
    let home = status::home();
    give(&home.path(""), SERVICE);
    let server = Program::start_as(SERVICE, home, &[]);
    let token = token_of(server.address, "timed");
    assert_revoked(&revoke(server.address, "timed", &token));
    let [state, file, aside] =
        ["state", "state/revocations", "aside"].map(|it| server.home.path(it));
    let readiness = || server.readiness().1;
    let says = "a restart fails";
    let denied = "degraded: state/revocations: cannot be read: Permission denied";
    for path in [&file, &state] {
        let mode = fs::metadata(path).unwrap().mode();
        set_mode(path, 0);
        wait_until(|| readiness().starts_with(denied) && readiness().contains(says));
        set_mode(path, mode);
        wait_until(|| readiness() == "ok\n");
    }
    fs::rename(&file, &aside).unwrap();
    fs::create_dir(&file).unwrap();
    wait_until(|| readiness().contains("state/revocations is not a regular file; restore"));
    fs::remove_dir(&file).unwrap();
    wait_until(|| readiness() == "ok\n");
    fs::write(&file, "nonsense\n").unwrap();
    let invalid = "degraded: state/revocations:1: is not a valid revocation record; restore";
    wait_until(|| readiness().starts_with(invalid));
    fs::rename(&aside, &file).unwrap();
    wait_until(|| readiness() == "ok\n");
    assert!(!is_active(server.address, "timed", &token));
}

#[test]
fn the_server_is_degraded_while_it_cannot_write_revocations() {
    let home = status::home();
    give(&home.path(""), SERVICE);
    let server = Program::start_as(SERVICE, home, &SAME_ISSUER);
    let tokens = [(); 3].map(|()| token_of(server.address, "timed"));
    assert_revoked(&revoke(server.address, "timed", &tokens[0]));
    let [state, file] = ["state", "state/revocations"].map(|it| server.home.path(it));
    let readiness = |server: &Program| server.readiness().1;
    let denied = "degraded: state/revocations: cannot be written: Permission denied";
    let is_denied = |server: &Program| {
        readiness(server).starts_with(denied) && readiness(server).contains("refused")
    };
    set_mode(&file, 0o400);
    wait_until(|| is_denied(&server));
    assert_stays(&|| is_denied(&server));
    // A process that starts now has never had the file open to write.
    let mut server = server;
    server.terminate();
    assert!(server.wait().success());
    let server = Program::start_as(SERVICE, server.into_home(), &SAME_ISSUER);
    assert!(is_denied(&server), "{}", readiness(&server));
    revoke(server.address, "timed", &tokens[1]).assert_refused(503, "temporarily_unavailable");
    assert!(is_active(server.address, "timed", &tokens[1]));
    assert_stays(&|| is_denied(&server));
    set_mode(&file, 0o600);
    wait_until(|| readiness(&server) == "ok\n");
    assert_revoked(&revoke(server.address, "timed", &tokens[1]));
    assert!(!is_active(server.address, "timed", &tokens[1]));
    // Without the file, the next revocation makes it.
    fs::remove_file(&file).unwrap();
    set_mode(&state, 0o500);
    wait_until(|| is_denied(&server));
    assert_stays(&|| is_denied(&server));
    set_mode(&state, 0o700);
    wait_until(|| readiness(&server) == "ok\n");
    assert_revoked(&revoke(server.address, "timed", &tokens[2]));
    assert!(tokens.iter().all(|token| !is_active(server.address, "timed", token)));
}

#[test]
fn a_record_of_uses_that_becomes_writable_takes_the_next_use() {
    let signer = Signer::es256();
    let home = Home::new();
    let client = json!({ "client_id": "signs", "auth_methods": ["private_key_jwt"],
                         "jwks": signer.jwks(), "scopes": ["read"] });
    home.register(&[client]);
    home.write_uses();
    give(&home.path(""), SERVICE);
    set_mode(&home.path("state/uses"), 0o400);
    let server = Program::start_as(SERVICE, home, &["--issuer", ISSUER]);
    let readiness = || server.readiness().1;
    wait_until(|| readiness().starts_with("degraded: state/uses: cannot be written: "));
    set_mode(&server.home.path("state/uses"), 0o600);
    wait_until(|| readiness() == "ok\n");
    let now = Clock::system().unix_seconds();
    let claims = json!({ "iss": "signs", "sub": "signs", "aud": ISSUER, "jti": "one",
                         "iat": now, "exp": now + 60 });
    let assertion = signer.sign(&json!({ "alg": signer.algorithm }), &claims);
    let parameters = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", &*assertion),
        ("scope", "read"),
    ];
    let request = Request::token(Encoding::Urlencoded, &parameters);
    assert_eq!(server.ask(&request).status, 200);
}

#[test]
fn the_server_is_degraded_while_it_cannot_record_uses() {
    let home = status::home();
    home.write_uses();
    give(&home.path(""), SERVICE);
    let server = Program::start_as(SERVICE, home, &[]);
    let [file, aside] = ["state/uses", "aside"].map(|it| server.home.path(it));
    let readiness = || server.readiness().1;
    assert_eq!(readiness(), "ok\n");
    let mode = fs::metadata(&file).unwrap().mode();
    let denied = "degraded: state/uses: cannot be written: Permission denied";
    for wrong in [0o400, 0] {
        set_mode(&file, wrong);
        wait_until(|| readiness().starts_with(denied) && readiness().contains("are refused"));
        assert_stays(&|| readiness().starts_with(denied));
        set_mode(&file, mode);
        wait_until(|| readiness() == "ok\n");
    }
    fs::rename(&file, &aside).unwrap();
    fs::create_dir(&file).unwrap();
    wait_until(|| readiness().contains("state/uses is not a regular file"));
    fs::remove_dir(&file).unwrap();
    fs::rename(&aside, &file).unwrap();
    wait_until(|| readiness() == "ok\n");
}

#[test]
fn the_locks_of_state_files_that_a_group_can_read_are_closed_to_it() {
    let home = Home::new();
    home.write_uses();
    give(&home.path(""), SERVICE);
    let mut home = Some(home);
    for (mode, lock_mode) in [(0o640, 0o600), (0o660, 0o660), (0o644, 0o600)] {
        let at = home.take().unwrap();
        set_mode(&at.path("state/uses"), mode);
        set_mode(&at.path("state"), 0o755);
        let mut server = Program::start_as(SERVICE, at, &[]);
        let lock_of = |name: &str| access(&server.home.path("state").join(name));
        assert_eq!(lock_of("uses.lock"), (SERVICE, SERVICE, lock_mode), "{mode:o}");
        assert_eq!(lock_of("revocations.turn.lock"), (SERVICE, SERVICE, 0o600));
        server.terminate();
        assert!(server.wait().success());
        home = Some(server.into_home());
    }
}

#[test]
fn a_state_directory_that_everyone_can_write_is_warned_of() {
    let home = Home::new();
    let server = Program::start(home, &[]);
    let home = server.into_home();
    let warning = |path: &str| format!("{path}: can be written by everyone on this machine, who");
    let checked = || run(home.command(&["check"])).assert_fine().to_owned();
    assert!(!checked().contains("everyone"));
    for (path, mode) in [("state/uses", 0o600), ("state", 0o700)] {
        set_mode(&home.path(path), mode | 0o002);
        assert!(checked().contains(&format!("warning: {}", warning(path))), "{}", checked());
        set_mode(&home.path(path), mode);
    }
    set_mode(&home.path("state"), 0o777);
    let server = Program::start(home, &[]);
    server.log.wait_for(|line| {
        line["level"] == "WARN"
            && line["message"].as_str().is_some_and(|text| text.starts_with(&warning("state")))
    });
}

/// The files of the state directory that are locked, each with its lock file.
const LOCKS: [(&str, &str); 4] = [
    ("uses", "uses.lock"),
    ("revocations", "revocations.turn.lock"),
    ("revocations", "revocations.lock"),
    ("lifetimes", "lifetimes.lock"),
];

type Make = fn(&Path);

#[test]
fn check_and_serve_name_a_lock_file_that_is_none() {
    let make_directory = |path: &Path| fs::create_dir(path).unwrap();
    let make_link = |path: &Path| symlink("../clients.json", path).unwrap();
    let make_socket = |path: &Path| drop(UnixListener::bind(path).unwrap());
    let kinds: [(Make, &str); 4] = [
        (make_fifo, "is not a regular file"),
        (make_directory, "is not a regular file"),
        (make_socket, "is not a regular file"),
        (make_link, "is a symbolic link, which is not followed: remove it"),
    ];
    for (make, says) in kinds {
        for (file, lock) in LOCKS {
            let home = Home::new();
            fs::create_dir(home.path("state")).unwrap();
            make(&home.path("state").join(lock));
            let begins = format!("grantd: state/{file}: cannot be locked: ");
            run(home.command(&["check"])).assert_error(1, &[&begins, says]);
            let server = Program::start(home, &[]);
            server.log.wait_for(|line| {
                let told = format!("{} {}", line["error"], line["message"]);
                line["level"] == "WARN" && told.contains(says)
            });
            assert_eq!(server.ask(&Request::token(Encoding::Urlencoded, &DEMO)).status, 200);
            let readiness = server.readiness().1;
            assert!(readiness.starts_with(&format!("degraded: state/{file}: ")), "{readiness}");
            assert!(readiness.contains(&format!("state/{lock} {says}")), "{readiness}");
        }
    }
}

#[test]
fn a_huge_file_in_the_state_directory_is_refused_without_being_read() {
    const HUGE: u64 = 1 << 40;
    for (file, says) in [
        ("revocations", "state/revocations: cannot be read: it has a line of more than"),
        ("uses", "state/uses: cannot be read: it has a line of more than"),
        ("lifetimes", "state/lifetimes: does not hold token lifetimes"),
        ("decoy.key", "state/decoy.key: does not hold a decoy key"),
    ] {
        let home = Home::new();
        fs::create_dir(home.path("state")).unwrap();
        let sparse = fs::File::create(home.path("state").join(file)).unwrap();
        sparse.set_len(HUGE).unwrap();
        let local = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        run(home.command(&["check"]).args(local)).assert_error(1, &[says]);
        if file == "uses" {
            // The record begins anew.
            let server = Program::start(home, &[]);
            assert!(server.home.path("state/uses.unreadable").exists());
        } else {
            run(home.command(&["serve"]).args(local)).assert_error(1, &[says]);
        }
    }
}

#[test]
fn check_and_serve_name_the_same_fault_of_a_state_file() {
    let server = Program::start_as(SERVICE, home_of_the_service(), &[]);
    let home = server.into_home();
    home.write("state/revocations", "");
    give(&home.path(""), SERVICE);
    let check = || run(as_user(SERVICE, home.command(&["check"])));
    check().assert_fine();
    for file in ["uses", "revocations"] {
        let says = format!("state/{file}: cannot be written: Permission denied");
        set_mode(&home.path("state").join(file), 0o400);
        check().assert_error(1, &[&says]);
        set_mode(&home.path("state").join(file), 0o600);
        let lock = if file == "uses" { "uses.lock" } else { "revocations.turn.lock" };
        set_mode(&home.path("state").join(lock), 0o400);
        let says = format!("state/{file}: cannot be locked: state/{lock}: Permission denied");
        check().assert_error(1, &[&says]);
        set_mode(&home.path("state").join(lock), 0o600);
    }
    for (file, make, says) in [
        ("decoy.key", "socket", "is not a regular file"),
        ("lifetimes", "socket", "is not a regular file"),
        ("revocations", "socket", "is not a regular file"),
        ("decoy.key", "link", "cannot be read: entity not found"),
    ] {
        let path = home.path("state").join(file);
        let before = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        match make {
            "socket" => drop(UnixListener::bind(&path).unwrap()),
            _ => symlink("nowhere", &path).unwrap(),
        }
        let local = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        for command in ["check", "serve"] {
            run(home.command(&[command]).args(local))
                .assert_error(1, &[&format!("state/{file}"), says]);
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, before).unwrap();
    }
}

#[test]
fn the_server_is_degraded_while_it_cannot_lock_its_state_files() {
    let home = home_of_the_service();
    home.write_uses();
    give(&home.path(""), SERVICE);
    let server = Program::start_as(SERVICE, home, &[]);
    let readiness = || server.readiness().1;
    assert_eq!(readiness(), "ok\n");
    for (file, lock) in &LOCKS[..2] {
        let lock = server.home.path("state").join(lock);
        set_mode(&lock, 0);
        let begins = format!("degraded: state/{file}: cannot be ");
        wait_until(|| {
            readiness().starts_with(&begins) && readiness().contains(".lock: Permission")
        });
        set_mode(&lock, 0o600);
        wait_until(|| readiness() == "ok\n");
    }
}
