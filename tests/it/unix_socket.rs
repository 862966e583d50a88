//! Listening on a Unix socket: the file at its path, and who may connect.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use crate::support::command::run;
use crate::support::{Home, Program, wait_until};

const ISSUER: [&str; 2] = ["--issuer", "http://localhost"];

/// Returns the arguments of two servers. The public listener of the first and the admin listener of
/// the second are at the Unix socket `s`.
fn listening_at_s() -> [[&'static str; 4]; 2] {
    [
        ["--listen", "unix:s", "--admin-listen", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--admin-listen", "unix:s"],
    ]
}

#[track_caller]
fn assert_refused(home: &Home, says: &str) {
    for arguments in listening_at_s() {
        let ended = run(home.command(&["serve"]).args(arguments).args(ISSUER));
        ended.assert_error(1, &[&format!("grantd: unix:s: cannot be listened on: {says}")]);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_file_that_is_not_a_socket_is_kept() {
    let home = Home::new();
    let file = home.write("s", "precious");
    assert_refused(&home, "a file is there, and no socket");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    fs::remove_file(&file).unwrap();

    symlink("clients.json", &file).unwrap();
    assert_refused(&home, "a file is there, and no socket");
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink() && home.clients().exists());
    fs::remove_file(&file).unwrap();

    // A symlink to a socket without a listener.
    drop(UnixListener::bind(home.path("left")).unwrap());
    symlink("left", &file).unwrap();
    assert_refused(&home, "a file is there, and no socket");
    assert!(home.path("left").exists());
    fs::remove_file(&file).unwrap();

    fs::create_dir(&file).unwrap();
    assert_refused(&home, "a file is there, and no socket");
    fs::remove_dir(&file).unwrap();

    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    assert_refused(&home, "a file is there, and no socket");
    assert!(file.exists());
}

#[test]
fn a_socket_in_use_is_kept() {
    let home = Home::new();
    let file = home.path("s");
    let listener = UnixListener::bind(&file).unwrap();
    assert_refused(&home, "another process listens there");
    UnixStream::connect(&file).expect("the listener is still there");
    drop(listener);
    fs::remove_file(&file).unwrap();

    // A failed connection attempt does not prove that a socket is unused: here the attempt fails
    // because the backlog of the listener is full.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(&file).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut crowd = Vec::new();
        while let Ok(connected) = tokio::net::UnixStream::connect(&file).await {
            crowd.push(connected);
            assert!(crowd.len() < 100);
        }
        assert_refused(&home, "a socket is there that may be in use: ");
        listener.accept().await.expect("the listener is still there");
    });
}

#[test]
fn a_datagram_socket_is_kept() {
    let home = Home::new();
    let _datagrams = UnixDatagram::bind(home.path("s")).unwrap();
    assert_refused(&home, "a socket is there that may be in use: ");
    assert!(fs::symlink_metadata(home.path("s")).unwrap().file_type().is_socket());
}

#[test]
fn a_stale_socket_is_replaced() {
    let mut home = Home::new();
    drop(UnixListener::bind(home.path("s")).unwrap());
    for arguments in listening_at_s() {
        let arguments = [&arguments[..], &ISSUER].concat();
        let server = if arguments[1] == "unix:s" {
            start_on_s(home, &arguments)
        } else {
            Program::start(home, &arguments[2..])
        };
        UnixStream::connect(server.home.path("s")).unwrap();
        // The killed server leaves its socket file, which the next server finds.
        home = server.into_home();
        assert!(home.path("s").exists());
    }
}

/// Starts a server that listens on TCP and on the Unix socket `s`. The support code needs the TCP
/// listener.
fn start_on_s(home: Home, arguments: &[&str]) -> Program {
    let server = Program::start(home, &["--listen", arguments[1], "--issuer", ISSUER[1]]);
    wait_until(|| server.home.path("s").exists());
    server
}

#[test]
fn the_socket_has_mode_660_or_the_configured_one() {
    let home = Home::new();
    home.write("text.toml", "socket_mode = \"0600\"\n");
    home.write("number.toml", "socket_mode = 0o666\n");
    let mut home = Some(home);
    for (config, variable, expected) in [
        ("", "", 0o660),
        ("text.toml", "", 0o600),
        ("number.toml", "", 0o666),
        ("text.toml", "0666", 0o666),
        ("", "620", 0o620),
    ] {
        let sockets = ["--listen", "unix:s", "--admin-listen", "unix:a", "--issuer", ISSUER[1]];
        // An empty variable counts as unset.
        let variables = [("GRANTD_SOCKET_MODE", variable), ("GRANTD_CONFIG", config)];
        let variables = &variables[..if config.is_empty() { 1 } else { 2 }];
        let server = Program::start_with(home.take().unwrap(), &sockets, variables);
        for socket in ["s", "a"] {
            assert_eq!(mode(&server.home.path(socket)), expected, "{variables:?}");
        }
        home = Some(server.into_home());
    }
}

#[test]
fn an_invalid_socket_mode_is_refused_with_its_place() {
    let home = Home::new();
    for (toml, says) in [
        ("socket_mode = 660\n", "a.toml:1:15: socket_mode: must be a file mode in octal"),
        ("socket_mode = \"rw\"\n", "a.toml:1:15: socket_mode: must be a file mode in octal"),
        ("socket_mode = \"1777\"\n", "a.toml:1:15: socket_mode: must be a file mode in octal"),
    ] {
        home.write("a.toml", toml);
        run(home.command(&["check", "--config", "a.toml"])).assert_error(1, &[says]);
    }
    let mut command = home.command(&["check"]);
    command.env("GRANTD_SOCKET_MODE", "66O");
    run(command).assert_error(1, &["grantd: GRANTD_SOCKET_MODE: must be a file mode in octal"]);
}
