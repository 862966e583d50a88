//! Readers that stop reading: a full pipe or FIFO must delay no token, no start and no shutdown.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use grantd::clock::Clock;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::command::{run, run_with_input};
use crate::support::home::set_mode;
use crate::support::program::send_signal;
use crate::support::{
    Connection, DEMO, ENCODINGS, Encoding, GUARD, Home, Program, Request, wait_until,
};

/// A server whose log the test reads only up to the line "serving".
struct Unread {
    child: Child,
    log: BufReader<Box<dyn Read>>,
    address: SocketAddr,
    admin: SocketAddr,
    _home: Home,
}

impl Unread {
    fn start(home: Home, arguments: &[&str]) -> Self {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let mut command = home.command(&serve);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stderr: Box<dyn Read> = Box::new(child.stderr.take().unwrap());
        let mut log = BufReader::new(stderr);
        let (address, admin) = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended");
            let line: Value = serde_json::from_str(&line).unwrap();
            let address = |name: &str| line[name].as_str().unwrap().parse().unwrap();
            if line["message"] == "serving" {
                break (address("address"), address("admin"));
            }
        };
        Self { child, log, address, admin, _home: home }
    }

    fn terminate_and_wait(&mut self) {
        send_signal(&self.child, Signal::TERM).unwrap();
        let begin = Clock::system().instant();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < GUARD, "SIGTERM has not ended it");
            std::thread::yield_now();
        };
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends at least `number` requests that are refused. Each adds one line of some hundred bytes to
/// the log, and another line to the audit file if the server has one.
fn make_lines(address: SocketAddr, number: usize) {
    const AT_ONCE: usize = 50;
    let id = "x".repeat(64);
    let wrong = [("client_id", "demo-client"), ("grant_type", "x"), ("client_secret", "wrong")];
    let request = Request::token(Encoding::Urlencoded, &wrong).header("X-Request-Id", id);
    let bytes = request.to_bytes().repeat(AT_ONCE);
    let mut connection = Connection::open(address);
    for _ in 0..number.div_ceil(AT_ONCE) {
        connection.send(&bytes);
        (0..AT_ONCE).for_each(|_| assert_ne!(connection.read_answer().status, 200));
    }
}

#[track_caller]
fn make_lines_until(address: SocketAddr, is_so: impl Fn() -> bool) {
    // 100 rounds make about 60 MB of lines. No queue of the server holds that much.
    assert!(
        (0..100).any(|_| {
            make_lines(address, 2_000);
            is_so()
        }),
        "no line was lost"
    );
}

#[track_caller]
fn assert_serves(address: SocketAddr) {
    for encoding in ENCODINGS {
        assert_eq!(Request::token(encoding, &DEMO).send(address).status, 200);
    }
}

fn lost(admin: SocketAddr, metric: &str) -> u64 {
    let metrics = Request::get("/metrics").send(admin);
    let mut lines = metrics.text().lines();
    lines.find_map(|line| line.strip_prefix(metric)?.trim().parse().ok()).unwrap_or(0)
}

pub(crate) fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Opens a FIFO to read it, without waiting for a writer.
fn open_to_read(path: &Path) -> File {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap()
}

#[test]
fn an_unread_standard_error_stops_neither_tokens_nor_shutdown() {
    let mut server = Unread::start(Home::new(), &[]);
    // The log lines of these requests do not fit into the pipe.
    make_lines(server.address, 1_000);
    assert_serves(server.address);
    // The log lines of these requests do not fit into the server's queue in memory.
    let lost = || lost(server.admin, "grantd_log_lines_lost_total ");
    make_lines_until(server.address, || lost() > 0);
    assert_serves(server.address);
    server.terminate_and_wait();
    // Each line in the pipe is complete, except the last line.
    let mut rest = String::new();
    server.log.read_to_string(&mut rest).unwrap();
    let lines: Vec<_> = rest.lines().collect();
    assert!(lines.len() > 10);
    for line in &lines[..lines.len() - 1] {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn an_unread_output_with_the_audit_does_not_stop_shutdown() {
    let home = Home::new();
    home.write("grantd.toml", "audit = \"/dev/stdout\"\n");
    let mut server = Unread::start(home, &["--config", "grantd.toml"]);
    make_lines(server.address, 1_000);
    make_lines_until(server.address, || lost(server.admin, "grantd_audit_lines_lost_total ") > 0);
    assert_serves(server.address);
    server.terminate_and_wait();
}

#[test]
fn an_unread_standard_error_and_an_unfinished_client_do_not_stop_shutdown() {
    let home = Home::new();
    home.write("grantd.toml", "[limits]\ndrain_seconds = 0\n");
    let mut server = Unread::start(home, &["--config", "grantd.toml"]);
    make_lines(server.address, 1_000);
    let mut unfinished = Connection::open(server.address);
    unfinished.send(&Request::token(Encoding::Urlencoded, &DEMO).to_bytes()[..40]);
    server.terminate_and_wait();
}

#[test]
fn an_audit_fifo_without_a_reader_delays_neither_start_nor_shutdown() {
    let home = Home::new();
    make_fifo(&home.path("audit"));
    home.write("grantd.toml", "audit = \"audit\"\n");
    let mut server = Program::start(home, &["--config", "grantd.toml"]);
    let warning = "no process reads this FIFO: audit lines are lost until one does";
    server.log.wait_for(|line| line["message"] == warning && line["level"] == "WARN");
    assert_serves(server.address);
    wait_until(|| server.metric("grantd_audit_lines_lost_total ") >= 2);
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn an_audit_fifo_is_written_once_it_has_a_reader() {
    let home = Home::new();
    let fifo = home.path("audit");
    make_fifo(&fifo);
    home.write("grantd.toml", "audit = \"audit\"\n");
    let server = Program::start(home, &["--config", "grantd.toml"]);
    assert_serves(server.address);
    wait_until(|| server.metric("grantd_audit_lines_lost_total ") >= 2);
    // The reader opens the FIFO, closes it, and opens it again.
    for visit in 0..3 {
        let mut reader = open_to_read(&fifo);
        let mut text = String::new();
        wait_until_read(&mut reader, &mut text, |text| {
            let id = format!("visit-{visit}");
            let request = Request::token(Encoding::Urlencoded, &DEMO).header("X-Request-Id", &*id);
            assert_eq!(server.ask(&request).status, 200);
            text.contains(&id)
        });
        assert!(text.starts_with("{\"time\":"), "{text}");
        drop(reader);
        let before = server.metric("grantd_audit_lines_lost_total ");
        wait_until(|| {
            assert_serves(server.address);
            server.metric("grantd_audit_lines_lost_total ") > before
        });
    }
}

/// Reads from `reader` into `text` until `is_so(text)` returns true.
#[track_caller]
fn wait_until_read(reader: &mut File, text: &mut String, is_so: impl Fn(&str) -> bool) {
    let begin = Clock::system().instant();
    while !is_so(text) {
        assert!(begin.elapsed() < GUARD, "it has not come to that: {text}");
        let mut chunk = [0; 65_536];
        // The read fails while there are no bytes, and returns 0 while there is no writer.
        let length = reader.read(&mut chunk).unwrap_or(0);
        text.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
    }
}

#[test]
fn an_unread_audit_fifo_stops_neither_tokens_nor_shutdown() {
    let home = Home::new();
    let fifo = home.path("audit");
    make_fifo(&fifo);
    home.write("grantd.toml", "audit = \"audit\"\n[log]\nlevel = \"error\"\n");
    let mut reader = open_to_read(&fifo);
    // The command line sets the level to info, because `Program::start` waits for the line
    // "serving", which has this level.
    let mut server = Program::start(home, &["--config", "grantd.toml", "--log-level", "info"]);
    make_lines(server.address, 1_000);
    assert_serves(server.address);
    make_lines_until(server.address, || server.metric("grantd_audit_lines_lost_total ") > 0);
    assert_serves(server.address);
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    let mut text = Vec::new();
    // The file ends here, because no writer has the FIFO open any more.
    reader.read_to_end(&mut text).unwrap();
    assert!(text.starts_with(b"{\"time\":"));
}

#[test]
fn a_start_that_waits_for_a_file_can_be_terminated() {
    // The registry is a pipe to which the test writes nothing.
    let home = Home::new();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut command = home.command(&serve);
    command.args(["--clients", "/dev/stdin"]).stdin(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // Waits for the thread that writes the log. The server starts this thread before it reads the
    // registry.
    let threads = format!("/proc/{}/task", child.id());
    wait_until(|| fs::read_dir(&threads).is_ok_and(|threads| threads.count() > 1));
    send_signal(&child, Signal::TERM).unwrap();
    let begin = Clock::system().instant();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > GUARD {
            child.kill().unwrap();
            panic!("SIGTERM has not ended it");
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_reload_that_waits_for_a_file_does_not_stop_shutdown() {
    let home = Home::new();
    let (registry, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&fs::read(home.clients()).unwrap()).unwrap();
    drop(writer);
    let mut server = Program::start_with_input(home, registry, &["--clients", "/dev/stdin"]);
    // Until this file is closed, a reader of the pipe waits for more.
    let pipe = format!("/proc/{}/fd/0", server.id());
    let _writer = OpenOptions::new().write(true).open(pipe).unwrap();
    server.hang_up();
    server.log.wait_for(|line| line["message"] == "reading again");
    assert_serves(server.address);
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}

/// The files that a server reads, each with the arguments that name it.
const FILES: [(&str, &[&str]); 3] = [
    ("clients.json", &[]),
    ("grantd.toml", &["--config", "grantd.toml"]),
    ("token", &["--config", "token.toml"]),
];

#[test]
fn a_fifo_in_place_of_a_file_is_refused_at_the_start_and_by_check() {
    for (file, arguments) in FILES {
        let home = Home::new();
        home.write("token.toml", "admin_token_file = \"token\"\n");
        let _ = fs::remove_file(home.path(file));
        make_fifo(&home.path(file));
        set_mode(&home.path(file), 0o600);
        let listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        for command in ["serve", "check"] {
            let mut command = home.command(&[command]);
            run(command.args(listen).args(arguments))
                .assert_error(1, &[&format!("{file}: is not a regular file")]);
        }
    }
}

#[test]
fn a_fifo_in_the_state_directory_keeps_no_start_and_no_check_waiting() {
    for (file, is_needed) in
        [("decoy.key", true), ("lifetimes", true), ("revocations", true), ("uses", false)]
    {
        let home = Home::new();
        fs::create_dir(home.path("state")).unwrap();
        make_fifo(&home.path("state").join(file));
        let checked = run(home.command(&["check"]));
        checked.assert_error(1, &[&format!("state/{file}"), "is not a regular file"]);
        if is_needed {
            let listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
            let ended = run(home.command(&["serve"]).args(listen));
            ended.assert_error(1, &[&format!("state/{file}"), "is not a regular file"]);
        } else {
            // The record of uses begins anew.
            assert_serves(Program::start(home, &[]).address);
        }
    }
}

#[test]
fn a_fifo_in_place_of_a_file_is_refused_by_a_reload() {
    for (file, arguments) in FILES {
        let home = Home::new();
        home.write("grantd.toml", "jwks_max_age = 60\n");
        home.write("token.toml", "admin_token_file = \"token\"\n");
        set_mode(&home.write("token", "0123456789abcdef0123456789abcdef"), 0o600);
        let good = fs::read(home.path(file)).unwrap();
        let server = Program::start(home, arguments);
        let readiness = || server.readiness().1;
        let path = server.home.path(file);
        fs::remove_file(&path).unwrap();
        make_fifo(&path);
        set_mode(&path, 0o600);
        let setting = if file == "token" { "admin_token_file: " } else { "" };
        let says = format!("degraded: {setting}{file}: is not a regular file");
        wait_until(|| readiness().starts_with(&says));
        assert_serves(server.address);
        fs::remove_file(&path).unwrap();
        fs::write(&path, good).unwrap();
        set_mode(&path, 0o600);
        wait_until(|| readiness() == "ok\n");
    }
}

#[test]
fn a_command_reads_files_from_its_input() {
    let home = Home::new();
    let check = ["check", "--config", "/dev/fd/0"];
    run_with_input(home.command(&check), "jwks_max_age = 60\n").assert_fine();
    run_with_input(home.command(&check), "nonsense = 1\n").assert_error(1, &["nonsense"]);
    run(home.command(&["check", "--config", "/dev/null"])).assert_fine();
}
