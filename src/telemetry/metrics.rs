//! The metrics of one server, in a registry of its own: nothing is global, so that the metrics of
//! two servers in one process stay apart.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus::core::Collector;
use prometheus::proto::MetricType::{self, COUNTER, GAUGE};
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
    requests: IntCounterVec,
    seconds: HistogramVec,
    phases: [Histogram; 4],
    /// Requests with forwarding headers from peers that are not trusted to send them.
    pub untrusted_forwarding: IntCounter,
    /// The clients that request more tokens than they need.
    pub wasteful: Arc<Wasteful>,
    /// Open connections.
    pub connections: IntGauge,
    /// Connections that were closed or refused because of the limit of open connections or files.
    pub connections_shed: IntCounter,
    assertion_audiences: AssertionAudiences,
    /// Requests with a self-signed certificate that the proxy trusts as a certificate authority.
    pub self_signed_certificates: IntCounter,
    reloads: IntCounterVec,
    not_http: IntCounterVec,
    log: Arc<OnceLock<LogQueue>>,
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
        let help = "Seconds from a request's first byte to its answer.";
        let seconds = HistogramOpts::new("grantd_request_seconds", help);
        let seconds = HistogramVec::new(seconds.buckets(BUCKETS.to_vec()), &["route"])?;
        let help = "Seconds that each phase of minting a token took.";
        let phases = HistogramOpts::new("grantd_phase_seconds", help);
        let phases = HistogramVec::new(phases.buckets(PHASE_BUCKETS.to_vec()), &["phase"])?;
        let phases = registered(&registry, phases)?;
        let metrics = Self {
            requests: counters(
                "grantd_requests_total",
                "Requests by route, outcome and cause of refusal.",
                &["route", "outcome", "cause"],
            )?,
            seconds: registered(&registry, seconds)?,
            phases: PHASES.map(|phase| phases.with_label_values(&[phase])),
            untrusted_forwarding: counter(
                "grantd_untrusted_forwarding_total",
                "Requests with forwarding headers from a peer that is not in trusted_proxies.",
            )?,
            wasteful: Arc::default(),
            connections: gauge("grantd_connections", "Open connections.")?,
            connections_shed: counter(
                "grantd_connections_shed_total",
                "Connections closed or refused because of the limit of open connections or open files.",
            )?,
            assertion_audiences: AssertionAudiences(counters(
                "grantd_assertion_audiences_total",
                "Accepted client assertions by the form of their aud. With assertion_audience = \
                 \"issuer\", only the form issuer is accepted.",
                &["form"],
            )?),
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
            log: Arc::default(),
            registry: registry.clone(),
        };
        metrics.pull_own()?;
        Ok(metrics)
    }

    /// Returns the counter of accepted client assertions. `forms` are all values that the label of
    /// the counter can have.
    pub fn assertion_audiences<const N: usize>(&self, forms: [&str; N]) -> AssertionAudiences {
        for form in forms {
            // Creates the series at zero, so that the function `rate` of Prometheus sees its first
            // increase.
            self.assertion_audiences.0.with_label_values(&[form]);
        }
        self.assertion_audiences.clone()
    }

    fn pull_own(&self) -> Result<(), prometheus::Error> {
        let wasteful = Arc::clone(&self.wasteful);
        self.pull(
            COUNTER,
            "grantd_wasteful_tokens_total",
            "Tokens issued while the client's previous one had more than half of its lifetime left, \
             for the clients with the most of them.",
            ["client"],
            move |each| wasteful.worst().iter().for_each(|(id, count)| each([id], *count)),
        )?;
        let log = Arc::clone(&self.log);
        self.pull(
            COUNTER,
            "grantd_log_lines_lost_total",
            "Log lines lost because their reader was too slow or writing them failed.",
            [],
            move |each| each([], log.get().map_or(0, LogQueue::lost_lines)),
        )?;
        self.pull(
            GAUGE,
            "grantd_build_info",
            "The running version, as a label; always 1.",
            ["version"],
            |each| each([VERSION], 1),
        )
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

    /// Registers a metric whose series `read` passes on at each scrape.
    ///
    /// # Errors
    ///
    /// If a metric with this name exists, or if `name` or one of `labels` is not valid.
    pub fn pull<const LABELS: usize>(
        &self,
        kind: MetricType,
        name: &str,
        help: &str,
        labels: [&'static str; LABELS],
        read: impl Fn(&mut Each<'_, LABELS>) + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(Pulled::new(kind, name, help, labels, read)?))
    }

    /// Creates the series of each of `kinds` at zero, so that the function `rate` of Prometheus
    /// sees its first increase.
    pub fn init_not_http<const N: usize>(&self, kinds: [&str; N]) {
        for kind in kinds {
            self.not_http.with_label_values(&[kind]);
        }
    }

    /// Counts a connection on which the client did not send an HTTP/1 request.
    pub fn count_not_http(&self, kind: &str) {
        self.not_http.with_label_values(&[kind]).inc();
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

    /// Exports the number of lines that the queue `log` has lost. Only the first call has an
    /// effect.
    pub fn watch_log(&self, log: LogQueue) {
        let _ = self.log.set(log);
    }

    /// Returns all metrics in the Prometheus text format.
    ///
    /// # Errors
    ///
    /// If a metric cannot be encoded.
    pub fn to_text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The number of accepted client assertions, by the form of their audience.
#[derive(Clone, Debug)]
pub struct AssertionAudiences(IntCounterVec);

impl AssertionAudiences {
    /// Counts one accepted assertion whose audience has this form.
    pub fn count(&self, form: &str) {
        self.0.with_label_values(&[form]).inc();
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
