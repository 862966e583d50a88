//! Sends load in an open loop: `oha` at a fixed rate.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::request::Payload;

/// `oha` is terminated this many seconds after the end of the load, even if answers are missing.
const PATIENCE_SECONDS: f64 = 30.0;

/// The target, the rate and the duration of a load.
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) payload: &'a Payload,
    /// The number of requests that may be in flight.
    pub(crate) connections: usize,
    /// Requests per second.
    pub(crate) rate: f64,
    pub(crate) seconds: f64,
}

/// One answer. All times are in seconds.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The time between the moment when the request was due and the arrival of the answer. A wait
    /// for a free connection is included.
    pub(crate) latency: f64,
    /// The part of `latency` that opening a connection took; 0 if an open connection was used.
    pub(crate) connect: f64,
    /// The time from the start of the load until the request was sent.
    pub(crate) sent: f64,
    /// The time from the start of the load until the answer began.
    pub(crate) answered: f64,
}

/// Returns the path at which `tests/run` installs `oha`. If that file is missing, returns the name
/// `oha`, which is then looked up in the search path.
pub(crate) fn program() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/load/bin/oha");
    if installed.exists() { installed } else { "oha".into() }
}

impl Load<'_> {
    /// Sends the load and returns all answers. Panics unless each request has an answer.
    ///
    /// `oha` sends due requests once per millisecond, and counts the latency from the moment when
    /// it notices that a request is due. A delay of `oha` itself is therefore not part of the
    /// latency; [`Load::sent_share`] shows such delays.
    pub(crate) fn run(&self) -> Vec<Answer> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/load");
        let count = (self.rate * self.seconds).ceil().max(1.0);
        let mut oha = Command::new("timeout");
        oha.arg((self.seconds + PATIENCE_SECONDS).to_string()).arg(program());
        oha.args(["-n", &count.to_string(), "-q", &self.rate.to_string(), "--latency-correction"]);
        oha.args(["-c", &self.connections.to_string(), "--worker-threads", "1", "--no-tui"]);
        oha.args(["-m", "POST", "-T", self.payload.content_type, "-D"]);
        oha.arg(scripts.join(self.payload.name).with_extension("body"));
        oha.args(["--output-format", "csv", &format!("http://{}/connect/token", self.address)]);
        let output = oha.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{oha:?}: {}", output.status);
        let table = String::from_utf8(output.stdout).unwrap();
        let mut lines = table.lines();
        let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
        let column = |name: &str| columns.iter().position(|it| *it == name).unwrap();
        let names = ["status", "request-duration", "DNS+dialup", "request-start", "Response-delay"];
        let [status, latency, connect, sent, delay] = names.map(column);
        let answers: Vec<Answer> = lines
            .map(|line| {
                let fields: Vec<&str> = line.split(',').collect();
                let seconds = |column: usize| fields[column].parse::<f64>().unwrap();
                Answer {
                    status: fields[status].parse().unwrap(),
                    latency: seconds(latency),
                    connect: seconds(connect),
                    sent: seconds(sent),
                    answered: seconds(sent) + seconds(delay),
                }
            })
            .collect();
        // The table has a line for each answer and none for a request without an answer.
        assert_eq!(answers.len() as f64, count, "requests without an answer");
        answers
    }

    /// Returns the achieved rate as a share of the wanted rate: 1, or less if `oha` was late or had
    /// no free connection.
    pub(crate) fn sent_share(&self, answers: &[Answer]) -> f64 {
        let last = answers.iter().map(|answer| answer.sent).fold(0.0, f64::max);
        answers.len() as f64 / self.rate / last.max(self.seconds)
    }
}
