//! The memory of the program contains keys and secrets: it is in no core dump, and other processes
//! of the same user cannot read it.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use crate::support::program::as_user;
use crate::support::{Home, Program};

#[test]
fn a_crash_leaves_no_core_dump() {
    // The hard limit may be lower than unlimited on this machine.
    let limit = "ulimit -S -c \"$(ulimit -H -c)\"";
    let mut server = Program::start_limited(Home::new(), limit, &[]);
    assert_eq!(server.limits("Max core file size"), ["0", "0"]);
    server.abort();
    let status = server.wait();
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped());
    let files = fs::read_dir(server.home.path("")).unwrap();
    let names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("core")), "{names:?}");
}

/// The kernel gives the files in `/proc` of such a process to root, whichever user runs it.
#[test]
fn processes_of_the_same_user_cannot_read_the_memory() {
    const USER: u32 = 65_534;
    let home = Home::new();
    // Only root can start a process as another user. Otherwise, the server runs as this user.
    let user = if rustix::process::geteuid().is_root() { USER } else { 0 };
    let start = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        if user == USER { as_user(USER, command) } else { command }.spawn().unwrap()
    };
    if user == USER {
        for path in ["", "clients.json", "keys"] {
            chown(home.path(path), Some(USER), Some(USER)).unwrap();
        }
        for key in fs::read_dir(home.keys()).unwrap() {
            chown(key.unwrap().path(), Some(USER), Some(USER)).unwrap();
        }
    }
    let add = ["client", "add", "--id", "new", "--scope", "a", "--secret-stdin"];
    let token = ["token", "--url", "http://127.0.0.1:1/connect/token", "--client-id", "new"];
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    for arguments in [&serve[..], &add, &token] {
        // The commands wait for a secret on standard input.
        let mut child = start(arguments);
        let memory = format!("/proc/{}/mem", child.id());
        let is_protected = (0..5000).any(|_| {
            std::thread::sleep(Duration::from_millis(2));
            fs::metadata(&memory).is_ok_and(|memory| memory.uid() == 0)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_protected, "{arguments:?}");
    }
}
