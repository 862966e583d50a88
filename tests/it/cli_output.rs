//! Output of commands to closed pipes, to a full disk, and to terminals.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::command::run;
use crate::support::home::{hash_of, secret_of};
use crate::support::{Home, Program};

/// Runs the command. Its standard output is a pipe whose reading end is closed. Returns the exit
/// code and the text on standard error.
fn with_closed_pipe(command: &mut Command) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
    let output = output.spawn().unwrap().wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_closed_pipe_is_no_error() {
    let server = Program::shared();
    let home = Home::new();
    let url = format!("http://{}", server.address);
    let admin = server.admin.to_string();
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["client", "add", "--help"],
        &["client", "list"],
        &["client", "show", "--id", "demo-client"],
        &["key", "list"],
        &["key", "generate"],
        &["check"],
        &["completions", "bash"],
        &["man"],
        &["health", "--admin", &admin],
        &["token", "--url", &url, "--client-id", "demo-client"],
    ] {
        let mut command = home.command(arguments);
        command.env("GRANTD_CLIENT_SECRET", crate::support::DEMO[1].1);
        assert_eq!(with_closed_pipe(&mut command), (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn a_command_that_cannot_print_its_result_changes_nothing_or_says_what_it_did() {
    let server = Program::shared();
    let home = Home::new();
    let url = format!("http://{}", server.address);
    home.write("lines", "{\"client_id\":\"imported\",\"scopes\":[\"read\"]}");
    let before = fs::read(home.clients()).unwrap();
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let run_full = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env("GRANTD_CLIENT_SECRET", crate::support::DEMO[1].1);
        let ended = command.stdin(Stdio::null()).stdout(full()).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("cannot write to standard output: "), "{arguments:?}: {said}");
        said
    };
    let add = ["client", "add", "--id", "new", "--scope", "read"];
    for arguments in [
        &add[..],
        &["client", "rotate-secret", "--id", "demo-client"],
        &["client", "rotate-secret", "--id", "demo-client", "--expire-old", "0"],
        &["client", "import", "lines"],
    ] {
        assert!(run_full(arguments).contains("clients.json is unchanged"), "{arguments:?}");
        assert_eq!(fs::read(home.clients()).unwrap(), before, "{arguments:?}");
        let (code, said) = with_closed_pipe(&mut home.command(arguments));
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(said.contains("clients.json is unchanged"), "{said}");
        assert_eq!(fs::read(home.clients()).unwrap(), before, "{arguments:?}");
    }
    let left: Vec<_> = fs::read_dir(home.clients().parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");

    let said = run_full(&["key", "generate"]);
    let file = said.split("the key is in ").nth(1).expect("where it is").trim();
    assert!(home.path(file).exists(), "{said}");
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["client", "list"],
        &["client", "show", "--id", "demo-client"],
        &["key", "list"],
        &["check"],
        &["completions", "zsh"],
        &["man", "key"],
        &["token", "--url", &url, "--client-id", "demo-client"],
    ] {
        run_full(arguments);
    }
}

/// Opens a pseudo-terminal. Returns the user's end and the program's end.
fn terminal() -> (File, File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let program = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (File::from(person), program)
}

#[test]
fn a_secret_is_read_from_a_terminal_without_echo() {
    let server = Program::shared();
    let url = format!("http://{}", server.address);
    let home = Home::new();
    let demo = crate::support::DEMO[1].1.to_owned();
    for (arguments, secret, prompt) in [
        (&["token", "--url", &url, "--client-id", "demo-client"][..], demo, "Client secret: "),
        (
            &["client", "add", "--id", "typed", "--scope", "r", "--secret-stdin"],
            secret_of("typed"),
            "Secret of the new client: ",
        ),
        (
            &["client", "rotate-secret", "--id", "demo-client", "--secret-stdin"],
            secret_of("rotated"),
            "New secret of the client: ",
        ),
    ] {
        let (mut person, program) = terminal();
        let modes = || rustix::termios::tcgetattr(program.as_fd()).unwrap().local_modes;
        let before = modes();
        let mut child = home
            .command(arguments)
            .stdin(program.try_clone().unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut asked = vec![0; prompt.len()];
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_exact(&mut asked).unwrap();
        assert_eq!(String::from_utf8(asked).unwrap(), prompt);
        // The command has turned echo off in the terminal's modes.
        assert!(!modes().contains(rustix::termios::LocalModes::ECHO));
        person.write_all(format!("{secret}\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(
            !said.contains(&secret) && !String::from_utf8_lossy(&output.stdout).contains(&secret)
        );
        assert_eq!(modes(), before, "the terminal is as it was");
        // If the terminal had echoed the secret, the reader would receive the secret before this
        // line.
        (&program).write_all(b"end\n").unwrap();
        let mut shown = String::new();
        BufReader::new(person).read_line(&mut shown).unwrap();
        assert!(shown.starts_with("end"), "{arguments:?} showed {shown:?}");
    }
    let registry = fs::read_to_string(home.clients()).unwrap();
    for client in ["typed", "rotated"] {
        assert!(registry.contains(&hash_of(&secret_of(client))), "{client}");
    }
}

#[test]
fn no_color_turns_colors_off() {
    let home = Home::new();
    for arguments in [
        &["--help"][..],
        &["serve", "--nonsense"],
        // This command starts a server, which writes a colored log.
        &[
            "serve",
            "--log-format",
            "human",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ],
    ] {
        let shown = |variables: &[(&str, &str)]| {
            let (person, program) = terminal();
            let mut command = home.command(arguments);
            let mut child = command
                .env("TERM", "xterm")
                .envs(variables.iter().copied())
                .stdin(Stdio::null())
                .stdout(program.try_clone().unwrap())
                .stderr(program)
                .spawn()
                .unwrap();
            drop(command);
            let mut lines = BufReader::new(person).lines().map_while(Result::ok);
            // A server does not end by itself. The test therefore reads one line and then kills the
            // process.
            let first: Vec<_> = lines.by_ref().take(1).collect();
            let _ = child.kill();
            child.wait().unwrap();
            first.join("\n")
        };
        assert!(shown(&[]).contains('\u{1b}') || arguments == ["--help"], "{arguments:?}");
        assert!(!shown(&[("NO_COLOR", "1")]).contains('\u{1b}'), "{arguments:?}");
    }
}

#[test]
fn a_missing_directory_of_keys_is_an_error_and_an_empty_one_a_warning() {
    let home = Home::without_key();
    for command in [&["key", "list"][..], &["key", "retire"]] {
        let says = ["grantd: nowhere: does not exist: pass the server's directory", "--config"];
        run(home.command(command).args(["--keys", "nowhere"])).assert_error(1, &says);
        let says = ["grantd: clients.json: is not a directory"];
        run(home.command(command).args(["--keys", "clients.json"])).assert_error(1, &says);
    }
    let empty = run(home.command(&["key", "list"]));
    assert_eq!((empty.code, &*empty.stdout), (Some(0), ""));
    assert!(empty.stderr.contains("grantd: keys: holds no key"), "{}", empty.stderr);
    run(home.command(&["key", "generate"])).assert_fine();
    let key = run(home.command(&["key", "list"])).json();
    assert_eq!(key["state"], "signing");
}
