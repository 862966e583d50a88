//! File access: locks, files that root makes for the service's user, and registries that other
//! users can write. Most of these tests need two users, so they fail if they do not run as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::command::run;
use crate::support::home::{grantd, set_mode};
use crate::support::program::as_user;
use crate::support::registry::registry;
use crate::support::{DEMO, ENCODINGS, Home, Program, Request, Token, wait_until};

/// The id of the service's user.
pub(crate) const SERVICE: u32 = 64_001;
/// The id of another user, who has no rights to the service's files.
const OTHER: u32 = 64_002;

/// A home in which the service's user owns everything.
pub(crate) fn home_of_the_service() -> Home {
    let home = Home::new();
    give(&home.path(""), SERVICE);
    home
}

#[track_caller]
pub(crate) fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).expect("this test needs two users: run it as root");
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), user));
    }
}

/// Returns the owner's id, the group's id and the permission bits of `path`.
pub(crate) fn access(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (metadata.uid(), metadata.gid(), metadata.permissions().mode() & 0o777)
}

fn ids(home: &Home) -> Vec<String> {
    let text = fs::read_to_string(home.clients()).unwrap();
    let registry: Value = serde_json::from_str(&text).unwrap();
    let clients = registry["clients"].as_array().unwrap().iter();
    clients.map(|client| client["client_id"].as_str().unwrap().to_owned()).collect()
}

/// Adds clients to one registry concurrently, through each of the paths in `names`. Asserts that
/// every client is in the registry at the end.
#[track_caller]
fn add_by_names(home: &Home, names: &[&str]) {
    const EACH: usize = 20;
    std::thread::scope(|scope| {
        for (index, name) in names.iter().enumerate() {
            scope.spawn(move || {
                for number in 0..EACH {
                    let id = format!("by-{index}-{number}");
                    let arguments = ["client", "add", "--scope", "a", "--id", &id, "--clients"];
                    run(home.command(&arguments).arg(name)).assert_fine();
                }
            });
        }
    });
    let ids = ids(home);
    let added = ids.iter().filter(|id| id.starts_with("by-")).count();
    assert_eq!(added, names.len() * EACH, "{ids:?}");
}

#[test]
fn no_client_is_lost_when_a_registry_is_edited_under_two_names() {
    let home = Home::new();
    home.write("clients.json", "{\"clients\":[]}");
    fs::create_dir(home.path("elsewhere")).unwrap();
    symlink("../clients.json", home.path("elsewhere/link.json")).unwrap();
    symlink(home.path("elsewhere/link.json"), home.path("link-to-link.json")).unwrap();
    symlink(".", home.path("directory")).unwrap();
    let names =
        ["clients.json", "elsewhere/link.json", "link-to-link.json", "directory/clients.json"];
    add_by_names(&home, &names);
    assert!(fs::symlink_metadata(home.path("link-to-link.json")).unwrap().is_symlink());
}

#[test]
fn no_client_is_lost_when_a_dangling_link_names_the_registry() {
    let home = Home::new();
    fs::remove_file(home.clients()).unwrap();
    symlink("clients.json", home.path("link.json")).unwrap();
    add_by_names(&home, &["link.json", "clients.json"]);
    assert!(fs::symlink_metadata(home.path("link.json")).unwrap().is_symlink());
}

#[test]
fn key_commands_share_one_lock_under_every_name_of_the_directory() {
    let home = Home::without_key();
    symlink("keys", home.path("linked")).unwrap();
    let made = std::thread::scope(|scope| {
        let making = ["keys", "linked", "keys/../linked/", "linked/."].map(|name| {
            let home = &home;
            scope.spawn(move || {
                let made = run(home.command(&["key", "generate", "--keys", name]));
                serde_json::from_str::<Value>(made.assert_fine()).unwrap()
            })
        });
        making.map(|making| making.join().unwrap())
    });
    let is_first = |key: &&Value| key["published_at"] == key["signs_from"];
    assert_eq!(made.iter().filter(is_first).count(), 1, "{made:?}");
}

#[test]
fn a_registry_with_a_hard_link_is_not_edited() {
    let home = Home::new();
    fs::hard_link(home.clients(), home.path("other.json")).unwrap();
    let before = fs::read(home.clients()).unwrap();
    for arguments in [
        &["client", "add", "--id", "x", "--scope", "a"][..],
        &["client", "disable", "--id", "demo-client"],
        &["client", "rotate-secret", "--id", "demo-client"],
    ] {
        for name in ["clients.json", "other.json"] {
            let ended = run(home.command(arguments).args(["--clients", name]));
            ended.assert_error(1, &[&format!("{name}: has another name (a hard link)"), "ln -s"]);
        }
    }
    assert_eq!(fs::read(home.clients()).unwrap(), before);
    run(home.command(&["client", "list"])).assert_fine();
}

#[test]
fn a_world_writable_registry_is_refused() {
    let home = Home::new();
    let says = ["clients.json: can be written by everyone on this machine", "chmod o-w"];
    for mode in [0o666, 0o602, 0o646, 0o777] {
        set_mode(&home.clients(), mode);
        let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        for arguments in [
            &serve[..],
            &["check"],
            &["client", "list"],
            &["client", "add", "--id", "x", "--scope", "a"],
            &["key", "rotate"],
        ] {
            run(home.command(arguments)).assert_error(1, &says);
        }
    }
    // A registry that its group can write is accepted.
    set_mode(&home.clients(), 0o664);
    run(home.command(&["check"])).assert_fine();
    // A key file that the registry names must not be writable by everyone.
    let keys = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    home.write("jwks.json", keys);
    let client = json!({ "client_id": "signer", "auth_methods": ["private_key_jwt"],
                         "jwks": "jwks.json", "scopes": ["a"] });
    home.register(&[client]);
    run(home.command(&["check"])).assert_fine();
    set_mode(&home.path("jwks.json"), 0o666);
    run(home.command(&["check"]))
        .assert_error(1, &["jwks: names a file that can be written by everyone"]);
}

#[test]
fn a_reload_refuses_a_world_writable_registry() {
    let server = Program::start(Home::new(), &[]);
    let readiness = || Request::get("/readyz").send(server.admin);
    set_mode(&server.home.clients(), 0o666);
    server.hang_up();
    wait_until(|| readiness().text().starts_with("degraded: clients.json: can be written by "));
    assert_eq!(readiness().status, 200);
    set_mode(&server.home.clients(), 0o600);
    server.hang_up();
    wait_until(|| readiness().text() == "ok\n");
}

#[test]
fn a_lock_has_the_access_of_the_file_that_it_guards() {
    let home = home_of_the_service();
    // Who can only read a file cannot lock it.
    for (mode, lock_mode) in [(0o644, 0o600), (0o640, 0o600), (0o600, 0o600), (0o660, 0o660)] {
        set_mode(&home.clients(), mode);
        for user in [0, SERVICE] {
            let add = ["client", "add", "--scope", "a", "--id", &format!("c-{mode:o}-{user}")];
            run(as_user(user, home.command(&add))).assert_fine();
            let lock = home.path("clients.json.lock");
            assert_eq!(access(&lock), (SERVICE, SERVICE, lock_mode), "{mode:o} by {user}");
            assert_eq!(access(&home.clients()), (SERVICE, SERVICE, mode));
        }
    }
    run(home.command(&["key", "generate"])).assert_fine();
    let (owner, group, mode) = access(&home.keys().join(".lock"));
    assert_eq!((owner, group, mode & 0o007), (SERVICE, SERVICE, 0));
    // The server creates the lock file of the record of uses.
    let server = Program::start_as(SERVICE, home, &[]);
    let (owner, _, mode) = access(&server.home.path("state/uses.lock"));
    assert_eq!((owner, mode & 0o007), (SERVICE, 0));
}

#[test]
fn another_user_cannot_take_a_lock() {
    let home = home_of_the_service();
    // Older versions created the lock file with mode 0644, so another user could open it and take
    // the lock. The command below corrects the mode.
    set_mode(&home.path(""), 0o755);
    set_mode(&home.clients(), 0o644);
    let lock = home.write("clients.json.lock", "");
    set_mode(&lock, 0o644);
    run(home.command(&["client", "enable", "--id", "demo-client"])).assert_fine();
    let flock = |user: u32| {
        let mut command = Command::new("flock");
        command.arg("--nonblock").arg(&lock).arg("true");
        as_user(user, command).output().expect("flock runs")
    };
    assert!(flock(SERVICE).status.success());
    let refused = flock(OTHER);
    let says = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && says.contains("Permission denied"), "{says}");
    run(home.command(&["client", "disable", "--id", "demo-client"])).assert_fine();
    // A group that can only read the file cannot take its lock either.
    chown(home.clients(), Some(SERVICE), Some(OTHER)).unwrap();
    set_mode(&home.clients(), 0o640);
    run(home.command(&["client", "enable", "--id", "demo-client"])).assert_fine();
    assert!(flock(SERVICE).status.success() && !flock(OTHER).status.success());
    set_mode(&home.clients(), 0o660);
    run(home.command(&["client", "enable", "--id", "demo-client"])).assert_fine();
    assert!(flock(OTHER).status.success());
}

#[test]
fn a_symlink_in_place_of_a_lock_is_refused() {
    let home = home_of_the_service();
    let victim = home.write("victim", "text");
    let before = access(&victim);
    for (lock, arguments) in [
        ("clients.json.lock", &["client", "enable", "--id", "demo-client"][..]),
        ("keys/.lock", &["key", "generate"]),
    ] {
        symlink(&victim, home.path(lock)).unwrap();
        let ended = run(home.command(arguments));
        ended.assert_error(1, &["cannot be locked"]);
        assert_eq!(access(&victim), before);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "text");
    }
}

#[test]
fn a_replaced_lock_neither_blocks_nor_admits_two_commands() {
    let home = home_of_the_service();
    home.write("clients.json", "{\"clients\":[]}");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // This thread sets the lock file again and again to mode 0644, which older versions used.
        // Each command corrects the mode.
        let loosen = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let lock = home.path("clients.json.lock");
                if lock.exists() {
                    // Setting the mode fails if a command replaces the lock file at the same
                    // moment.
                    let _ = fs::set_permissions(&lock, fs::Permissions::from_mode(0o644));
                }
                std::thread::yield_now();
            }
        });
        add_by_names(&home, &["clients.json", "./clients.json"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        loosen.join().unwrap();
    });
}

#[test]
fn files_made_by_root_belong_to_the_services_user() {
    let home = home_of_the_service();
    fs::remove_dir_all(home.keys()).unwrap();
    fs::remove_file(home.clients()).unwrap();
    run(home.command(&["client", "add", "--id", "a", "--scope", "a"])).assert_fine();
    run(home.command(&["key", "generate"])).assert_fine();
    run(home.command(&["key", "rotate"])).assert_fine();
    let deep = ["key", "generate", "--keys", "new/directories/keys"];
    run(home.command(&deep)).assert_fine();
    let mut looked_at = 0;
    let mut directories = vec![home.path("")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let (owner, group, mode) = access(&path);
            assert_eq!((owner, group, mode & 0o077), (SERVICE, SERVICE, 0), "{}", path.display());
            looked_at += 1;
            directories.extend(path.is_dir().then_some(path));
        }
    }
    assert!(looked_at >= 10, "{looked_at}");
    // The service's user can use the files that root made.
    home.write("clients.json", &registry());
    let server = Program::start_as(SERVICE, home, &[]);
    for encoding in ENCODINGS {
        Token::verified(&server.ask(&Request::token(encoding, &DEMO)), server.address);
    }
    run(server.home.command(&["key", "generate"])).assert_fine();
    server.log.wait_for(|line| line["message"] == "reloaded");
    assert_eq!(Request::get("/readyz").send(server.admin).text(), "ok\n");
}

#[test]
fn server_and_check_name_a_key_that_the_service_cannot_read() {
    let server = Program::start_as(SERVICE, home_of_the_service(), &[]);
    let home = &server.home;
    let made = run(home.command(&["key", "generate"])).json();
    let name = format!("keys/{}.pem", made["kid"].as_str().unwrap());
    // The key file now belongs to root, as if root had copied it.
    chown(home.path(&name), Some(0), Some(0)).unwrap();
    let readiness = || Request::get("/readyz").send(server.admin);
    let says = format!("degraded: {name}: cannot be read: Permission denied");
    wait_until(|| readiness().text().starts_with(&says));
    assert_eq!(readiness().status, 200);
    let checked = run(home.command(&["check"]));
    let owner = format!("chown {SERVICE}:{SERVICE}");
    checked.assert_error(1, &[&format!("{name}: cannot be read by the user {SERVICE}"), &owner]);
    assert_eq!(checked.stderr.lines().count(), 1, "{checked:?}");

    chown(home.path(&name), Some(SERVICE), Some(SERVICE)).unwrap();
    run(home.command(&["check"])).assert_fine();
    wait_until(|| readiness().text() == "ok\n");
}

#[test]
fn check_names_every_file_that_the_service_cannot_access() {
    let home = home_of_the_service();
    let config = "admin_token_file = \"token\"\naudit = \"audit.jsonl\"\n";
    for (name, text) in [("grantd.toml", config), ("token", "0123456789abcdef0123456789abcdef")] {
        set_mode(&home.write(name, text), 0o600);
    }
    fs::create_dir(home.path("state")).unwrap();
    home.write("state/revocations", "");
    home.write("audit.jsonl", "");
    set_mode(&home.clients(), 0o600);
    let check = || run(home.command(&["check", "--config", "grantd.toml"]));
    let key = fs::read_dir(home.keys()).unwrap().next().unwrap().unwrap().file_name();
    let key = format!("keys/{}", key.to_str().unwrap());
    let files = [
        "grantd.toml",
        "clients.json",
        "token",
        &*key,
        "state",
        "state/revocations",
        "audit.jsonl",
    ];
    give(&home.path(""), SERVICE);
    check().assert_fine();
    for file in files {
        let mode = if file == "state" { 0o700 } else { 0o600 };
        set_mode(&home.path(file), mode);
        chown(home.path(file), Some(0), Some(0)).unwrap();
        check().assert_error(1, &[&format!("grantd: {file}: cannot be ")]);
        // Root may own these files if the service's group can read them. The service's user must
        // own the other files.
        if ["grantd.toml", "clients.json", &*key].contains(&file) {
            chown(home.path(file), Some(0), Some(SERVICE)).unwrap();
            set_mode(&home.path(file), 0o640);
            check().assert_fine();
        }
        give(&home.path(file), SERVICE);
    }
    // If `check` does not run as root, it tests only whether its own user can use the files.
    let as_service = as_user(SERVICE, home.command(&["check", "--config", "grantd.toml"]));
    run(as_service).assert_fine();
}

#[test]
fn files_made_by_root_in_its_own_directory_keep_their_owner() {
    let directory = tempfile::TempDir::new().unwrap();
    let mut command = grantd(directory.path());
    run(command.args(["key", "generate"])).assert_fine();
    let uid = fs::metadata(directory.path()).unwrap().uid();
    assert_eq!(access(&directory.path().join("keys")).0, uid);
}
