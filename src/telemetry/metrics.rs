//! Counters, gauges and histograms in a registry of their own: nothing global, so that two servers
//! in one process do not mix.

use std::fmt;
use std::sync::OnceLock;

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::telemetry::log_queue::LogQueue;

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    /// Connections that are open.
    pub connections: IntGauge,
    /// Connections that were closed or refused because there were too many.
    pub connections_shed: IntCounter,
    /// Tokens that wait for a signature.
    pub signing_queue: IntGauge,
    signer: IntGaugeVec,
    /// Signatures that failed their check and were made again.
    pub signing_faults: IntGauge,
    /// Slow hashes of secrets that were computed.
    pub password_hashes: IntGauge,
    /// Secrets that wait for their slow hash.
    pub password_queue: IntGauge,
    /// Registered clients.
    pub clients: IntGauge,
    lost_log_lines: IntGauge,
    log: OnceLock<LogQueue>,
}

impl Metrics {
    /// A fresh set, all at zero.
    ///
    /// # Errors
    ///
    /// If two of them had the same name, which the first test of any kind would find.
    pub fn new() -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("grantd_requests_total", "Requests by route, outcome and cause of refusal."),
            &["route", "outcome", "cause"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("grantd_request_seconds", "Time from head to answer, by route.")
                .buckets(BUCKETS.to_vec()),
            &["route"],
        )?;
        let metrics = Self {
            requests,
            seconds,
            connections: IntGauge::new("grantd_connections", "Open connections.")?,
            connections_shed: IntCounter::new(
                "grantd_connections_shed_total",
                "Connections closed or refused because there were too many.",
            )?,
            signing_queue: IntGauge::new(
                "grantd_signing_queue",
                "Tokens that wait for a signature.",
            )?,
            signer: IntGaugeVec::new(
                Opts::new("grantd_signer_info", "What signs tokens: always 1, by its name."),
                &["signer"],
            )?,
            signing_faults: IntGauge::new(
                "grantd_signing_faults",
                "Signatures since the start that failed their check and were made again.",
            )?,
            password_hashes: IntGauge::new(
                "grantd_password_hashes",
                "Slow hashes of secrets computed since the start.",
            )?,
            password_queue: IntGauge::new(
                "grantd_password_queue",
                "Secrets that wait for their slow hash.",
            )?,
            clients: IntGauge::new("grantd_clients", "Registered clients.")?,
            lost_log_lines: IntGauge::new(
                "grantd_log_lines_lost",
                "Log lines lost since the start, because their reader was too slow.",
            )?,
            log: OnceLock::new(),
            registry: Registry::new(),
        };
        let collectors: [Box<dyn Collector>; 11] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.seconds.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.connections_shed.clone()),
            Box::new(metrics.signing_queue.clone()),
            Box::new(metrics.signer.clone()),
            Box::new(metrics.signing_faults.clone()),
            Box::new(metrics.password_hashes.clone()),
            Box::new(metrics.password_queue.clone()),
            Box::new(metrics.clients.clone()),
            Box::new(metrics.lost_log_lines.clone()),
        ];
        for collector in collectors {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// Names what signs.
    pub fn name_signer(&self, signer: &str) {
        self.signer.with_label_values(&[signer]).set(1);
    }

    /// Counts a request that was answered `seconds` after its first byte.
    pub fn count(&self, route: &str, outcome: &str, cause: &str, seconds: f64) {
        self.requests.with_label_values(&[route, outcome, cause]).inc();
        self.seconds.with_label_values(&[route]).observe(seconds);
    }

    /// Counts the lines that this log loses. The first one named is the one counted.
    pub fn watch_log(&self, log: LogQueue) {
        let _ = self.log.set(log);
    }

    /// Everything, in the Prometheus text format.
    ///
    /// # Errors
    ///
    /// If a metric cannot be written down.
    pub fn to_text(&self) -> Result<String, prometheus::Error> {
        let lost = self.log.get().map_or(0, LogQueue::lost_lines);
        self.lost_log_lines.set(i64::try_from(lost).unwrap_or(i64::MAX));
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// In seconds: a metadata answer takes some 10 µs, an idle server's token 1 ms, a full queue 0.2 s.
const BUCKETS: [f64; 12] =
    [0.000_05, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 10.0];
