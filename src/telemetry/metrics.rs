//! The metrics of one server, in a registry of its own: nothing is global, so that the metrics of
//! two servers in one process stay apart.

use std::fmt;
use std::sync::OnceLock;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::telemetry::log_queue::LogQueue;
use crate::telemetry::pulled::{Each, Pulled};
use crate::telemetry::wasteful::Wasteful;

/// The metrics of one server.
pub struct Metrics {
    registry: Registry,
    pulled: Mutex<Vec<Pulled>>,
    requests: IntCounterVec,
    seconds: HistogramVec,
    phases: [Histogram; 4],
    /// Requests with forwarding headers from peers that are not trusted to send them.
    pub untrusted_forwarding: IntCounter,
    /// The clients that request more tokens than they need.
    pub wasteful: Wasteful,
    /// Open connections.
    pub connections: IntGauge,
    /// Connections that were closed or refused because of the limit of open connections or files.
    pub connections_shed: IntCounter,
    /// Accepted client assertions, by the form of their audience.
    pub assertion_audiences: IntCounterVec,
    /// Requests with a self-signed certificate that the proxy trusts as a certificate authority.
    pub self_signed_certificates: IntCounter,
    reloads: IntCounterVec,
    /// Connections on which the client did not send an HTTP/1 request, by kind.
    pub not_http: IntCounterVec,
    /// The queue of the log; empty if the program has installed none.
    pub log: OnceLock<LogQueue>,
}

impl Metrics {
    /// Creates and registers all metrics, at zero.
    ///
    /// # Errors
    ///
    /// If two metrics have the same name. Any test that starts a server would fail then.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name, help| registered(&registry, IntGauge::new(name, help)?);
        let counter = |name, help| registered(&registry, IntCounter::new(name, help)?);
        let counters = |name, help, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let histograms = |name, help, label, buckets: [f64; 12]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.into());
            registered(&registry, HistogramVec::new(options, &[label])?)
        };
        let phases = histograms(
            "grantd_phase_seconds",
            "Seconds that each phase of minting a token took.",
            "phase",
            PHASE_BUCKETS,
        )?;
        Ok(Self {
            requests: counters(
                "grantd_requests_total",
                "Requests by route, outcome and cause of refusal.",
                &["route", "outcome", "cause"],
            )?,
            seconds: histograms(
                "grantd_request_seconds",
                "Seconds from a request's first byte to its answer.",
                "route",
                BUCKETS,
            )?,
            phases: PHASES.map(|phase| phases.with_label_values(&[phase])),
            untrusted_forwarding: counter(
                "grantd_untrusted_forwarding_total",
                "Requests with forwarding headers from a peer that is not in trusted_proxies.",
            )?,
            wasteful: Wasteful::default(),
            connections: gauge("grantd_connections", "Open connections.")?,
            connections_shed: counter(
                "grantd_connections_shed_total",
                "Connections closed or refused because of the limit of open connections or open files.",
            )?,
            assertion_audiences: counters(
                "grantd_assertion_audiences_total",
                "Accepted client assertions by the form of their aud. With assertion_audience = \
                 \"issuer\", only the form issuer is accepted.",
                &["form"],
            )?,
            self_signed_certificates: counter(
                "grantd_self_signed_certificates_total",
                "Requests with a self-signed certificate that is in the proxy's CA file.",
            )?,
            reloads: counters(
                "grantd_reloads_total",
                "Reloads of the configuration, clients and keys, by outcome.",
                &["outcome"],
            )?,
            not_http: counters(
                "grantd_not_http_total",
                "Connections closed because the client did not send an HTTP/1 request, by kind.",
                &["kind"],
            )?,
            log: OnceLock::new(),
            registry: registry.clone(),
            pulled: Mutex::default(),
        })
    }

    /// Counts a request that was answered `seconds` after its first byte.
    pub fn count(&self, route: &str, outcome: &str, cause: &str, seconds: f64) {
        self.requests.with_label_values(&[route, outcome, cause]).inc();
        self.seconds.with_label_values(&[route]).observe(seconds);
    }

    /// Records the duration of each phase of minting a token, in seconds: parsing, authenticating
    /// and deciding, waiting for a signing thread, signing.
    pub fn count_phases(&self, seconds: [f64; 4]) {
        for (phase, seconds) in self.phases.iter().zip(seconds) {
            phase.observe(seconds);
        }
    }

    /// Registers a metric whose series `read` passes on at each scrape: a counter if its name ends with
    /// `_total`, otherwise a gauge.
    pub fn pull(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        read: impl Fn(&mut Each<'_>) + Send + Sync + 'static,
    ) {
        self.pulled.lock().push(Pulled { name, help, labels, read: Box::new(read) });
    }

    /// Counts a reload. `is_applied` says whether it replaced the snapshot, and `has_faults` whether
    /// an earlier version of some file stays in force.
    pub fn count_reload(&self, is_applied: bool, has_faults: bool) {
        let outcome = match (is_applied, has_faults) {
            (true, _) => "applied",
            (false, false) => "unchanged",
            (false, true) => "refused",
        };
        self.reloads.with_label_values(&[outcome]).inc();
    }

    /// Returns all metrics in the Prometheus text format.
    ///
    /// # Errors
    ///
    /// If a metric cannot be encoded.
    pub fn to_text(&self) -> Result<String, prometheus::Error> {
        let mut text = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        self.pulled.lock().iter().for_each(|metric| metric.write(&mut text));
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Creates a series of `counters` for each value of its label, at zero, so that the function `rate`
/// of Prometheus sees its first increase.
pub fn init<const N: usize>(counters: &IntCounterVec, labels: [&str; N]) {
    for label in labels {
        counters.with_label_values(&[label]);
    }
}

/// The version of this program, for the log and the metrics.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

const PHASES: [&str; 4] = ["parse", "auth", "queue", "sign"];

/// Registers `metric` and returns it.
fn registered<M>(registry: &Registry, metric: M) -> Result<M, prometheus::Error>
where
    M: Collector + Clone + 'static,
{
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Bucket bounds for the phases, in seconds. Parsing takes some 2 µs, a signature in a batch of
/// eight 0.1 ms, and waiting in a full queue 0.2 s.
const PHASE_BUCKETS: [f64; 12] =
    [0.000_002, 0.000_005, 0.000_02, 0.000_1, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0];

/// Bucket bounds for requests, in seconds. A metadata answer takes some 10 µs, a token on an idle
/// server 1 ms, and a token that waits in a full signing queue 0.2 s.
const BUCKETS: [f64; 12] =
    [0.000_05, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 10.0];
