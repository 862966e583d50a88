//! Sends spans to an OpenTelemetry collector, as OTLP over HTTP.
//!
//! The OpenTelemetry SDK reads the standard environment variables. The SDK queues the spans. A
//! thread of the SDK encodes the spans, sends them, and retries failed requests. This module adds
//! an HTTP client without TLS, for a collector on this machine or in the same network. This module
//! also logs how many spans were lost.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter,
};
use parking_lot::Mutex;
use tracing::warn;

use crate::cli::error::CliError;
use crate::cli::http_client::{Target, send};
use crate::clock::Clock;
use crate::config::ListenAddr;
use crate::telemetry::traces::Traces;

/// Returns the collector that the standard environment variables name; `None` if they name no
/// collector.
pub(super) fn configured() -> Result<Option<Target>, CliError> {
    for variable in [OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT] {
        let Some(url) = std::env::var_os(variable).filter(|url| !url.is_empty()) else { continue };
        return match Target::of_url(&url.to_string_lossy()) {
            Ok((target @ Target { address: ListenAddr::Tcp(_), .. }, _)) => Ok(Some(target)),
            // The error does not show the URL, which may contain a password.
            _ => Err(CliError(format!(
                "{variable}: must be http://host[:port][/path], the address of a collector \
                 (https is not spoken here)"
            ))),
        };
    }
    Ok(None)
}

/// A running export of spans to a collector.
pub(super) struct Exporting {
    provider: SdkTracerProvider,
    losses: Arc<Losses>,
}

impl Exporting {
    /// Starts to send the spans of `traces` to the configured collector. `None` if no collector is
    /// configured.
    pub(super) fn start(traces: &Traces) -> Result<Option<Self>, CliError> {
        let Some(target) = configured()? else { return Ok(None) };
        let losses = Arc::new(Losses { ended: traces.ended(), ..Losses::default() });
        let client = Client { target: target.clone(), losses: Arc::clone(&losses) };
        let otlp = opentelemetry_otlp::SpanExporter::builder().with_http().with_http_client(client);
        let otlp = otlp.build().map_err(|error| CliError(format!("OpenTelemetry: {error}")))?;
        let exporter = Exporter { otlp, target, losses: Arc::clone(&losses) };
        let config = BatchConfigBuilder::default().with_max_queue_size(QUEUE).build();
        let queue = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(queue)
            .with_resource(resource())
            .build();
        traces.send_to(&provider);
        Ok(Some(Self { provider, losses }))
    }

    /// Sends the spans that are still in the queue. This takes at most [`LAST_MOMENT`]. Then logs
    /// how many spans were lost.
    pub(super) fn finish(self) {
        // Ignore the result: the counts of spans show whether the shutdown succeeded.
        let _ = self.provider.shutdown_with_timeout(LAST_MOMENT);
        let lost = self.losses.count(0);
        // Suppress further warnings of the SDK's thread, which may still be sending.
        self.losses.report.lock().lost = u64::MAX;
        if lost > 0 {
            warn!(lost, "spans that the collector did not take since the start");
        }
    }
}

/// Returns the OpenTelemetry resource that names the sender of the spans: the service grantd,
/// unless the standard environment variables name another service.
fn resource() -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name(env!("CARGO_PKG_NAME"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        _ => resource.build(),
    }
}

/// Counts of spans, and the last warning about lost spans.
#[derive(Debug, Default)]
struct Losses {
    /// Spans that were given to the queue.
    ended: Arc<AtomicU64>,
    /// Spans that were taken out of the queue. They are counted when their export has ended.
    taken: AtomicU64,
    /// Spans that the collector has accepted.
    sent: AtomicU64,
    report: Mutex<Report>,
}

#[derive(Debug, Default)]
struct Report {
    lost: u64,
    at: Option<Instant>,
    /// The error of the last HTTP request; `None` if that request succeeded. It is kept because the
    /// SDK's own error does not contain the cause.
    error: Option<String>,
}

impl Losses {
    /// Returns a lower bound for the number of lost spans, given that at most `waiting` spans are
    /// in the queue.
    fn count(&self, waiting: usize) -> u64 {
        let [ended, taken, sent] =
            [&*self.ended, &self.taken, &self.sent].map(|count| count.load(Ordering::Relaxed));
        ended.saturating_sub(taken).saturating_sub(waiting as u64) + taken.saturating_sub(sent)
    }
}

/// Wraps the SDK's exporter. While spans are lost, logs a warning at most once per [`QUIET`].
#[derive(Debug)]
struct Exporter {
    otlp: opentelemetry_otlp::SpanExporter,
    target: Target,
    losses: Arc<Losses>,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let Self { otlp, target, losses } = self;
        let spans = batch.len() as u64;
        let exported = otlp.export(batch).await;
        if exported.is_ok() {
            losses.sent.fetch_add(spans, Ordering::Relaxed);
        }
        losses.taken.fetch_add(spans, Ordering::Relaxed);
        let (lost, now) = (losses.count(QUEUE), Clock::system().instant());
        let mut report = losses.report.lock();
        if lost > report.lost && report.at.is_none_or(|at| now - at >= QUIET) {
            let error = report.error.take();
            let error = error.or_else(|| exported.as_ref().err().map(ToString::to_string));
            let collector = &target.address;
            warn!(%collector, error, lost, "spans are lost: the collector is down or slow");
            (report.lost, report.at) = (lost, Some(now));
        }
        exported
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// The HTTP client of the exporter. Opens a connection for each request, because requests are rare.
#[derive(Debug)]
struct Client {
    target: Target,
    losses: Arc<Losses>,
}

impl HttpClient for Client {
    // Not an `async fn`: `async_trait` has expanded this method of the trait to the signature
    // below.
    fn send_bytes<'c, 'f>(
        &'c self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'c: 'f,
        Self: 'f,
    {
        // This call blocks the SDK's thread until the answer arrives. That is harmless, because the
        // thread has no other work.
        let sent = send(&self.target, Ok(request.map(Full::new)), PATIENCE);
        let sent = sent.map_err(|CliError(problem)| problem);
        self.losses.report.lock().error = sent.as_ref().err().cloned();
        Box::pin(ready(sent.map_err(Into::into)))
    }
}

/// The maximum number of spans in the queue. They take a few megabytes at most.
const QUEUE: usize = 2048;

/// The timeout of one HTTP request to the collector: the default of the OpenTelemetry
/// specification.
const PATIENCE: Duration = OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT;

/// The shortest time between two warnings about lost spans.
const QUIET: Duration = Duration::from_secs(60);

/// The longest time that the server's shutdown waits for the collector.
const LAST_MOMENT: Duration = Duration::from_secs(2);
