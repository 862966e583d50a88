//! Counters, gauges and histograms in a registry of their own: nothing global, so that two servers
//! in one process do not mix.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::telemetry::figures::Figures;
use crate::telemetry::log_queue::LogQueue;
use crate::telemetry::wasteful::Wasteful;

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    phases: [Histogram; 4],
    /// Requests with forwarding fields from peers that are not trusted to send them.
    pub untrusted_forwarding: IntCounter,
    /// Which clients ask for more tokens than they need.
    pub wasteful: Arc<Wasteful>,
    /// Connections that are open.
    pub connections: IntGauge,
    /// Connections that were closed or refused because there were too many.
    pub connections_shed: IntCounter,
    /// Tokens that wait for a signature.
    pub signing_queue: IntGauge,
    /// Tokens that may wait for a signature.
    pub signing_queue_open: IntGauge,
    signer: IntGaugeVec,
    /// Secrets that wait for their slow hash.
    pub password_queue: IntGauge,
    assertion_audiences: AssertionAudiences,
    /// Self-signed certificates that a proxy takes for authorities.
    pub self_signed_certificates: IntCounter,
    /// Registered clients.
    pub clients: IntGauge,
    /// Tokens that are revoked and whose time is not over.
    pub revocations: IntGauge,
    /// Which snapshot is in force, counted from 1.
    pub snapshot_generation: IntGauge,
    reloads: IntCounterVec,
    reload_refused: IntGauge,
    not_http: IntCounterVec,
    expiring_clients: IntGaugeVec,
    log: Arc<OnceLock<LogQueue>>,
}

impl Metrics {
    /// A fresh set, all at zero.
    ///
    /// # Errors
    ///
    /// If two of them had the same name, which the first test of any kind would find.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name, help| registered(&registry, IntGauge::new(name, help)?);
        let counter = |name, help| registered(&registry, IntCounter::new(name, help)?);
        let counters = |name, help, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let seconds = HistogramOpts::new("grantd_request_seconds", "Time from head to answer.");
        let seconds = HistogramVec::new(seconds.buckets(BUCKETS.to_vec()), &["route"])?;
        let phases = HistogramOpts::new("grantd_phase_seconds", "Time of each part of a token.");
        let phases = HistogramVec::new(phases.buckets(PHASE_BUCKETS.to_vec()), &["phase"])?;
        let phases = registered(&registry, phases)?;
        let gauges = |name, help, label| {
            registered(&registry, IntGaugeVec::new(Opts::new(name, help), &[label])?)
        };
        let wasteful = Arc::<Wasteful>::default();
        let watched = Arc::clone(&wasteful);
        registry.register(Box::new(Figures::labelled(
            "grantd_wasteful_tokens_total",
            "Tokens asked for while the last had half of its life left: the worst clients.",
            "client",
            move || watched.worst().into_iter().map(|(id, count)| (id.into(), count)).collect(),
        )?))?;
        let log = Arc::<OnceLock<LogQueue>>::default();
        let watched = Arc::clone(&log);
        registry.register(Box::new(Figures::one(
            "grantd_log_lines_lost_total",
            "Log lines lost because their reader was too slow.",
            move || watched.get().map_or(0, LogQueue::lost_lines),
        )?))?;
        let build = Opts::new("grantd_build_info", "The version that runs: always 1, by its name.");
        let build = registered(&registry, IntGaugeVec::new(build, &["version"])?)?;
        build.with_label_values(&[VERSION]).set(1);
        let signer = Opts::new("grantd_signer_info", "What signs tokens: always 1, by its name.");
        Ok(Self {
            requests: counters(
                "grantd_requests_total",
                "Requests by route, outcome and cause of refusal.",
                &["route", "outcome", "cause"],
            )?,
            seconds: registered(&registry, seconds)?,
            phases: PHASES.map(|phase| phases.with_label_values(&[phase])),
            untrusted_forwarding: counter(
                "grantd_untrusted_forwarding_total",
                "Requests with forwarding fields from a peer that trusted_proxies does not name.",
            )?,
            wasteful,
            connections: gauge("grantd_connections", "Open connections.")?,
            connections_shed: counter(
                "grantd_connections_shed_total",
                "Connections closed or refused because there were too many.",
            )?,
            signing_queue: gauge("grantd_signing_queue", "Tokens that wait for a signature.")?,
            signing_queue_open: gauge(
                "grantd_signing_queue_open",
                "Tokens that may wait for a signature: all that limits.signing_queue allows when \
                 signing has its processors to itself, half of it while nothing is signed.",
            )?,
            signer: registered(&registry, IntGaugeVec::new(signer, &["signer"])?)?,
            password_queue: gauge(
                "grantd_password_queue",
                "Secrets that wait for their slow hash.",
            )?,
            assertion_audiences: AssertionAudiences(counters(
                "grantd_assertion_audiences_total",
                "Client assertions that have authenticated, by what their aud names and how: with \
                 assertion_audience = \"issuer\", only the form issuer is accepted.",
                &["form"],
            )?),
            self_signed_certificates: counter(
                "grantd_self_signed_certificates_total",
                "Requests with a self-signed certificate that stands in the proxy's CA file.",
            )?,
            clients: gauge("grantd_clients", "Registered clients.")?,
            revocations: gauge(
                "grantd_revocations",
                "Revoked tokens whose time is not over, and uses of assertions from the future.",
            )?,
            snapshot_generation: gauge(
                "grantd_snapshot_generation",
                "Which set of clients, keys and settings is in force: 1 at the start.",
            )?,
            reloads: counters(
                "grantd_reloads_total",
                "Times that the files were read again, by what came of it.",
                &["outcome"],
            )?,
            reload_refused: gauge(
                "grantd_reload_refused",
                "Whether what was read last is wrong, and what was in force before still is.",
            )?,
            not_http: counters(
                "grantd_not_http_total",
                "Connections closed because their bytes were no HTTP/1 request, by what they were.",
                &["kind"],
            )?,
            expiring_clients: gauges(
                "grantd_clients_expiring",
                "Enabled clients whose last secret has ended or ends within this time.",
                "within",
            )?,
            log,
            registry,
        })
    }

    /// Names what signs.
    pub fn name_signer(&self, signer: &str) {
        self.signer.with_label_values(&[signer]).set(1);
    }

    /// What counts the audiences of assertions, which can have these forms.
    pub fn assertion_audiences<const N: usize>(&self, forms: [&str; N]) -> AssertionAudiences {
        for form in forms {
            // From now on there is a zero to compare with.
            self.assertion_audiences.0.with_label_values(&[form]);
        }
        self.assertion_audiences.clone()
    }

    /// Counts a request that was answered `seconds` after its first byte.
    pub fn count(&self, route: &str, outcome: &str, cause: &str, seconds: f64) {
        self.requests.with_label_values(&[route, outcome, cause]).inc();
        self.seconds.with_label_values(&[route]).observe(seconds);
    }

    /// Counts how long each part of a token took, in seconds: reading the request, deciding,
    /// waiting for a signing thread, signing.
    pub fn count_phases(&self, seconds: [f64; 4]) {
        for (phase, seconds) in self.phases.iter().zip(seconds) {
            phase.observe(seconds);
        }
    }

    /// Shows a counter whose figure `read` gives.
    ///
    /// # Errors
    ///
    /// If there is a metric of this name, or it is no name.
    pub fn show_counter(
        &self,
        name: &str,
        help: &str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(Figures::one(name, help, read)?))
    }

    /// Shows a counter for each value of `label`, whose figures `read` gives.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn show_counters(
        &self,
        name: &str,
        help: &str,
        label: &'static str,
        read: impl Fn() -> Vec<(String, u64)> + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(Figures::labelled(name, help, label, read)?))
    }

    /// Shows how many clients have no secret that is good for longer than each of these times.
    pub fn show_expiring_clients<const N: usize>(&self, within: [(&str, usize); N]) {
        for (time, clients) in within {
            let clients = i64::try_from(clients).unwrap_or(i64::MAX);
            self.expiring_clients.with_label_values(&[time]).set(clients);
        }
    }

    /// From now on there is a zero of each of these kinds to compare with.
    pub fn name_not_http<const N: usize>(&self, kinds: [&str; N]) {
        for kind in kinds {
            self.not_http.with_label_values(&[kind]);
        }
    }

    /// Counts a connection whose bytes were no HTTP/1 request.
    pub fn count_not_http(&self, kind: &str) {
        self.not_http.with_label_values(&[kind]).inc();
    }

    /// Counts files that were read again and are right, whether they were different or not.
    pub fn count_reload(&self, is_different: bool) {
        let outcome = if is_different { "applied" } else { "unchanged" };
        self.reloads.with_label_values(&[outcome]).inc();
        self.reload_refused.set(0);
    }

    /// Counts files that were read again and are wrong.
    pub fn count_refused_reload(&self) {
        self.reloads.with_label_values(&["refused"]).inc();
        self.reload_refused.set(1);
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
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// How often an assertion that has authenticated had an audience of each form.
#[derive(Clone, Debug)]
pub struct AssertionAudiences(IntCounterVec);

impl AssertionAudiences {
    /// Counts one.
    pub fn count(&self, form: &str) {
        self.0.with_label_values(&[form]).inc();
    }
}

/// The version that this is, in the log and in metrics.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

const PHASES: [&str; 4] = ["parse", "auth", "queue", "sign"];

/// The same metric, shown from now on.
fn registered<M>(registry: &Registry, metric: M) -> Result<M, prometheus::Error>
where
    M: Collector + Clone + 'static,
{
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// In seconds: reading takes some 2 µs, one of eight signatures 0.1 ms, a full queue 0.2 s.
const PHASE_BUCKETS: [f64; 12] =
    [0.000_002, 0.000_005, 0.000_02, 0.000_1, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0];

/// In seconds: a metadata answer takes some 10 µs, an idle server's token 1 ms, a full queue 0.2 s.
const BUCKETS: [f64; 12] =
    [0.000_05, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 10.0];
