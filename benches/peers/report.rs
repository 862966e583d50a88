//! Prints the results as a Markdown table.

use std::fmt;

use crate::both_cores;
use crate::contestants::{AUTO, BATCH, Contestant, INTROSPECT, OIDC_PROVIDER, REUSE, VALIDATE};
use crate::support::spread::Spread;

/// The minimum ratio of the server's rate to that of batch signing alone.
const BATCH_GOAL: f64 = 0.85;
/// The minimum ratio of the server's rate with token reuse to that of the empty hyper service.
const REUSE_GOAL: f64 = 0.6;
/// The minimum ratio of the rate of answers about a cached token to that of the empty hyper
/// service.
const STATUS_GOAL: f64 = 0.2;
/// The maximum ratio of two times: the median latency of an idle server, and the time that the
/// faster library takes for one signature.
const LATENCY_GOAL: f64 = 1.15;
/// The minimum ratio of the server's rate on both cores to the expected rate. The expected rate is
/// that of batch signing without a server, times the share of processor time that the load
/// generator leaves.
const BOTH_CORES_GOAL: f64 = 0.8;

/// When ring signs alone, it must get at least this share of the core's time. If the share is
/// smaller, other processes used the core.
const SHARE_GOAL: f64 = 0.9;

/// One measurement of a contestant, and the means of the measurements just before and after it.
pub(crate) struct Sample {
    /// Answers or signatures per second.
    pub(crate) rate: f64,
    /// Signatures per second of ring alone: the mean of the measurements just before and just after
    /// the measurement of the contestant.
    pub(crate) ring: f64,
    /// The rate of the contestant's reference, if there is one: the mean of the measurements just
    /// before and just after the measurement of the contestant.
    pub(crate) beside: Option<f64>,
}

impl Sample {
    fn ratio(&self) -> f64 {
        self.rate / self.ring
    }
}

pub(crate) struct Row {
    pub(crate) contestant: Contestant,
    /// One sample for each round.
    pub(crate) samples: Vec<Sample>,
}

impl Row {
    /// Returns the answers or signatures per second.
    pub(crate) fn rate(&self) -> Spread {
        Spread::of(self.samples.iter().map(|sample| sample.rate))
    }

    /// Returns the rates relative to ring alone.
    pub(crate) fn to_ring(&self) -> Spread {
        Spread::of(self.samples.iter().map(Sample::ratio))
    }

    /// Returns the rates relative to the contestant's reference; `None` if there is no reference.
    fn to_beside(&self) -> Option<Spread> {
        let ratios: Option<Vec<f64>> =
            self.samples.iter().map(|sample| Some(sample.rate / sample.beside?)).collect();
        Some(Spread::of(ratios?))
    }

    fn to(&self, other: &Self) -> Spread {
        let pairs = self.samples.iter().zip(&other.samples);
        Spread::of(pairs.map(|(own, other)| own.ratio() / other.ratio()))
    }

    /// Returns the name and the version.
    pub(crate) fn label(&self) -> String {
        let Contestant { name, version, .. } = &self.contestant;
        if version.is_empty() { (*name).to_owned() } else { format!("{name} ({version})") }
    }
}

pub(crate) struct Report {
    pub(crate) rounds: usize,
    pub(crate) rows: Vec<Row>,
    /// The rate over one connection, computed as the inverse of the median latency: one sample for
    /// each round.
    pub(crate) latencies: Vec<Sample>,
    /// One sample on both cores for each round; none if this processor cannot sign in batches.
    pub(crate) on_both: Vec<both_cores::Sample>,
    /// The share of the core's time that ring got, for each measurement of ring alone.
    pub(crate) shares: Vec<f64>,
}

impl Report {
    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.contestant.name == name)
    }

    /// Returns the median latency of an answer as a multiple of the time that the faster library
    /// takes for one signature.
    fn latency(&self) -> Spread {
        let quicker = |sample: &Sample| sample.ring.max(sample.beside.unwrap_or_default());
        Spread::of(self.latencies.iter().map(|sample| quicker(sample) / sample.rate))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(oidc_provider) = self.row(OIDC_PROVIDER) else { return Err(fmt::Error) };
        writeln!(f, "{}\n", conditions(self.rounds))?;
        writeln!(f, "| | a second | to ring alone | to oidc-provider |\n|---|---|---|---|")?;
        for row in &self.rows {
            let (rate, to_ring) = (row.rate().median, row.to_ring());
            let other = row.to(oidc_provider);
            writeln!(f, "| {} | {rate:.0} | {to_ring:.2} | {other:.2} |", row.label())?;
        }

        writeln!(f)?;
        for (name, goal) in [
            (AUTO, BATCH_GOAL),
            (REUSE, REUSE_GOAL),
            (VALIDATE, STATUS_GOAL),
            (INTROSPECT, STATUS_GOAL),
        ] {
            let Some(row) = self.row(name) else { continue };
            if let (Some(other), Some(ratio)) = (row.contestant.beside, row.to_beside()) {
                writeln!(f, "{name} / {other}: {ratio:.2}; goal: {goal} or more")?;
            }
        }
        let median = Spread::of(self.latencies.iter().map(|sample| 1e6 / sample.rate));
        writeln!(
            f,
            "{AUTO}, one connection: half of the answers within {median:.0} µs, which is \
             {:.2} signatures of the quicker library; goal: {LATENCY_GOAL} or less",
            self.latency(),
        )?;
        if !self.on_both.is_empty() {
            let of =
                |value: fn(&both_cores::Sample) -> f64| Spread::of(self.on_both.iter().map(value));
            writeln!(
                f,
                "{AUTO} on both cores: {:.0} a second; wrk took {:.3} of them, and of {BATCH} on \
                 what is left this is {:.2}; goal: {BOTH_CORES_GOAL} or more",
                of(|sample| sample.rate),
                of(|sample| sample.load_share),
                of(|sample| sample.rate / sample.raw / (1.0 - sample.load_share)),
            )?;
        }
        let share = Spread::of(self.shares.iter().copied());
        writeln!(f, "ring alone had {share:.2} of its core; goal: {SHARE_GOAL} or more")?;
        if share.median < SHARE_GOAL {
            writeln!(f, "Other processes used that core, so no figure here means anything.")?;
        }
        Ok(())
    }
}

/// Describes the key size, the processor, the load and the number of rounds.
pub(crate) fn conditions(rounds: usize) -> String {
    format!(
        "RSA-2048, RS256, one core for each ({}), wrk with 32 connections on another; \
         median (min–max) of {rounds} rounds",
        processor()
    )
}

/// The processor's model name.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let name = lines.find(|(field, _)| field.trim() == "model name");
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
