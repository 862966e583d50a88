//! The real binary as a child process, on ports that the system chooses.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, Weak};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;

use crate::support::home::secret_of;
use crate::support::sibling::USER;
use crate::support::{DEMO, GUARD, Home, Request, Response, wait_until};

/// A running server.
pub(crate) struct Program {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) issuer: String,
    pub(crate) log: Arc<Log>,
    pub(crate) home: Home,
    child: Running,
}

/// A child process that is killed on drop.
struct Running {
    child: Child,
    log: Arc<Log>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The program may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let log = self.log.to_the_end();
            assert_is_fit_to_be_seen(&log);
            #[cfg(feature = "page")]
            assert_refusals_are_described(&log);
        }
    }
}

/// Asserts that `text` contains no secret of the registry, no hash and no token. A JWT begins with
/// `eyJhbGciOi`, because its header is base64url of JSON that begins with `{"alg":"`.
pub(crate) fn assert_is_fit_to_be_seen(text: &str) {
    let of_tests = secret_of("");
    for canary in [DEMO[1].1, USER.1, &of_tests, "eyJhbGciOi", "$sha256$"] {
        assert!(!text.contains(canary), "{canary} is in {text}");
    }
}

/// Asserts that the OpenAPI document has each refusal in this log at its route.
#[cfg(feature = "page")]
fn assert_refusals_are_described(log: &str) {
    let mut seen = std::collections::BTreeSet::new();
    for line in log.lines().filter(|line| line.contains(r#""target":"grantd::request""#)) {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let (route, cause) = (line["route"].as_str(), line["cause"].as_str());
        if let (Some(route), Some(cause)) = (route, cause.filter(|cause| !cause.is_empty())) {
            seen.insert((route.to_owned(), cause.to_owned()));
        }
    }
    for (route, cause) in seen {
        assert!(
            grantd::internal::page::is_known(&route, &cause),
            "the OpenAPI document lacks {cause} at {route}"
        );
    }
}

impl Program {
    /// Starts a server in `home` and waits until it serves.
    pub(crate) fn start(home: Home, arguments: &[&str]) -> Self {
        Self::start_with(home, arguments, &[])
    }

    /// Starts a server in `home` with these environment variables, and waits until it serves.
    pub(crate) fn start_with(home: Home, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let command = home.command(&[]);
        Self::start_command(home, command, Stdio::null(), arguments, variables)
    }

    /// Starts a server that inherits an open socket, as if a service manager had started it.
    pub(crate) fn start_on(home: Home, socket: OwnedFd, arguments: &[&str]) -> Self {
        let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
        let shell = within_shell(&home, script);
        Self::start_command(home, shell, socket.into(), arguments, &[])
    }

    /// Starts a server with this standard input.
    pub(crate) fn start_with_input(
        home: Home,
        input: impl Into<Stdio>,
        arguments: &[&str],
    ) -> Self {
        let command = home.command(&[]);
        Self::start_command(home, command, input.into(), arguments, &[])
    }

    /// Starts a server that cannot write more than some hundred bytes to a file, as if the disk
    /// were full.
    pub(crate) fn start_without_room(home: Home, arguments: &[&str]) -> Self {
        Self::start_limited(home, "trap '' XFSZ; ulimit -f 1", arguments)
    }

    /// Starts a server under a resource limit that the shell command `limit` sets.
    pub(crate) fn start_limited(home: Home, limit: &str, arguments: &[&str]) -> Self {
        let shell = within_shell(&home, &format!("{limit}; exec \"$0\" \"$@\""));
        Self::start_command(home, shell, Stdio::null(), arguments, &[])
    }

    /// Starts a server in `home` by `command`, which another program may run.
    pub(crate) fn start_by(home: Home, command: Command, arguments: &[&str]) -> Self {
        Self::start_command(home, command, Stdio::null(), arguments, &[])
    }

    /// Starts a server that runs as this user. The user should own the files in `home`.
    pub(crate) fn start_as(user: u32, home: Home, arguments: &[&str]) -> Self {
        let command = as_user(user, home.command(&[]));
        Self::start_command(home, command, Stdio::null(), arguments, &[])
    }

    fn start_command(
        home: Home,
        mut command: Command,
        stdin: Stdio,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        command.arg("serve");
        // Beside a Unix socket, a server has a TCP port, too; its admin listener is one.
        let has_port = |flag| {
            let mut pairs = arguments.windows(2);
            pairs.any(|pair| pair[0] == flag && !pair[1].starts_with("unix:"))
        };
        for listen in ["--listen", "--admin-listen"] {
            if !(has_port(listen) || listen == "--admin-listen" && arguments.contains(&listen)) {
                command.args([listen, "127.0.0.1:0"]);
            }
        }
        command.args(arguments);
        if !arguments.contains(&"--workers") {
            command.args(["--workers", "2"]);
        }
        let mut child = command
            .envs(variables.iter().copied())
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = Log::of(child.stderr.take().expect("a pipe"));
        let line = log.wait_for(|line| line["message"] == "serving");
        let text = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("{line}")).to_owned();
        // A Unix socket has no IP address, so 0.0.0.0:0 is used in its place.
        let address = |name: &str| {
            let address = text(name);
            let unix = address.starts_with("unix:").then(|| SocketAddr::from(([0; 4], 0)));
            unix.unwrap_or_else(|| address.parse().expect("an address"))
        };
        let (address, admin) = (address("address"), address("admin"));
        let issuer = text("issuer");
        let child = Running { child, log: Arc::clone(&log) };
        Self { address, admin, issuer, log, home, child }
    }

    /// Starts a server with this configuration file.
    pub(crate) fn configured(toml: &str) -> Self {
        let home = Home::new();
        home.write("grantd.toml", toml);
        Self::start(home, &["--config", "grantd.toml"])
    }

    /// Returns the server shared by all tests that do not change its state. The server ends when
    /// the last of these tests drops it.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Program>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let program = Arc::new(Self::start(Home::new(), &[]));
            *shared = Arc::downgrade(&program);
            program
        })
    }

    pub(crate) fn ask(&self, request: &Request) -> Response {
        request.send(self.address)
    }

    /// Returns the status and the text of `/readyz`.
    pub(crate) fn readiness(&self) -> (u16, String) {
        let answer = Request::get("/readyz").send(self.admin);
        (answer.status, answer.text().to_owned())
    }

    /// Returns the text of `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        let response = Request::get("/metrics").send(self.admin);
        assert_eq!(response.status, 200);
        response.text().to_owned()
    }

    /// Returns the value of one series in [`Program::metrics`]; 0 if the series does not exist yet.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        self.metrics()
            .lines()
            .find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Returns the number of tokens that the server has issued.
    pub(crate) fn issued(&self) -> u64 {
        self.metric(r#"grantd_requests_total{cause="",outcome="issued",route="token"}"#)
    }

    /// Kills the server, as kill -9 does, and returns its home.
    pub(crate) fn into_home(self) -> Home {
        let Self { home, .. } = self;
        home
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGHUP, which makes the server reload its files.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Returns the id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.child.id()
    }

    /// Returns the server's resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.size_kib("VmRSS:")
    }

    /// Returns the largest size so far.
    pub(crate) fn most_resident_kib(&self) -> u64 {
        self.size_kib("VmHWM:")
    }

    fn size_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("its size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Returns the names of the server's threads, which the kernel truncates to 15 bytes.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn threads(&self) -> Vec<String> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.id()));
        let threads = threads.expect("a running process").map(|thread| thread.unwrap().path());
        // A thread may have ended since the directory was read.
        threads.filter_map(|thread| std::fs::read_to_string(thread.join("comm")).ok()).collect()
    }

    /// Sets the limit of open files of the running server.
    pub(crate) fn limit_files(&self, limit: u64) {
        let pid = Some(Pid::from_child(&self.child.child));
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        prlimit(pid, Resource::Nofile, limit).expect("a running process");
    }

    /// Returns the soft and the hard limit that `/proc` shows under `name`.
    pub(crate) fn limits(&self, name: &str) -> [String; 2] {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.id()));
        let limits = limits.expect("a running process");
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("the limit");
        let mut values = line.split_whitespace().map(str::to_owned);
        [(); 2].map(|()| values.next().expect("a limit"))
    }

    /// Sends SIGABRT, the default action of which is a core dump.
    pub(crate) fn abort(&self) {
        self.signal(Signal::ABORT);
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Stops the server (SIGSTOP) until [`Program::go_on`] is called. Returns when all of its
    /// threads have stopped.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let is_stopped = |thread: std::io::Result<std::fs::DirEntry>| {
            let status = std::fs::read_to_string(thread.unwrap().path().join("status"));
            status.is_ok_and(|status| status.contains("State:\tT"))
        };
        let tasks = format!("/proc/{}/task", self.id());
        wait_until(|| std::fs::read_dir(&tasks).expect("a running process").all(is_stopped));
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        send_signal(&self.child.child, signal).expect("a running process");
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.child.wait().expect("the program's own child")
    }
}

/// Sends a signal to a child process that has not been waited for.
pub(crate) fn send_signal(child: &Child, signal: Signal) -> std::io::Result<()> {
    Ok(kill_process(Pid::from_child(child), signal)?)
}

/// Makes the command run as the user and the group with the number `user`. Only root can run such a
/// command.
pub(crate) fn as_user(user: u32, mut command: Command) -> Command {
    command.uid(user).gid(user);
    command
}

/// Returns a shell that runs `script` in `home`. The script must end with `exec "$0" "$@"`, which
/// starts the program.
fn within_shell(home: &Home, script: &str) -> Command {
    let command = home.command(&[]);
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(script).arg(command.get_program()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(command.get_current_dir().expect("a home"));
    shell
}

/// The log of a program. A thread reads it, so that the pipe never fills.
pub(crate) struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn of(stderr: impl Read + Send + 'static) -> Arc<Self> {
        let log = Arc::new(Self { lines: Mutex::default(), changed: Condvar::new() });
        let reader = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                reader.lines.lock().unwrap().lines.push(line);
                reader.changed.notify_all();
            }
            reader.lines.lock().unwrap().ended = true;
            reader.changed.notify_all();
        });
        log
    }

    /// Waits for the first line that `is_it` accepts.
    pub(crate) fn wait_for(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        let found = |lines: &Lines| {
            lines
                .lines
                .iter()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(&is_it)
        };
        let lines = self.lines.lock().unwrap();
        let (lines, _) = self
            .changed
            .wait_timeout_while(lines, GUARD, |lines| !lines.ended && found(lines).is_none())
            .unwrap();
        found(&lines).unwrap_or_else(|| panic!("no such line in {:#?}", lines.lines))
    }

    /// Returns the number of lines so far that `is_it` accepts.
    pub(crate) fn count(&self, is_it: impl Fn(&Value) -> bool) -> usize {
        let lines = self.lines.lock().unwrap();
        let parsed = lines.lines.iter().filter_map(|line| serde_json::from_str(line).ok());
        parsed.filter(is_it).count()
    }

    /// Returns the lines so far.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines.lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for the line about the request with this id.
    pub(crate) fn of_request(&self, id: &str) -> Value {
        self.wait_for(|line| line["request_id"] == id)
    }

    /// Waits until the program has ended, and returns the whole log.
    pub(crate) fn to_the_end(&self) -> String {
        let lines = self.lines.lock().unwrap();
        let (lines, timeout) =
            self.changed.wait_timeout_while(lines, GUARD, |lines| !lines.ended).unwrap();
        assert!(!timeout.timed_out(), "the program goes on");
        lines.lines.join("\n")
    }
}
