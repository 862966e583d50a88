//! The way of spans to an OpenTelemetry collector, as OTLP over HTTP.
//!
//! They wait in the SDK's bounded queue, which loses what it has no room for. Its own thread takes
//! them out and encodes them; what it sends goes through the event loop that accepts, so that there
//! is none beside the server's. No TLS: a collector on this machine or in its network passes them on.

use std::future::Future;
use std::net::ToSocketAddrs;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter,
    SpanProcessor,
};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use crate::cli::CliError;
use crate::cli::http_client::{AnyError, Target, exchange};
use crate::clock::Clock;
use crate::telemetry::traces::Traces;

/// The collector that the standard variables name, if they name one.
pub(super) fn configured() -> Result<Option<Target>, CliError> {
    for variable in [OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT] {
        let Some(url) = std::env::var_os(variable).filter(|url| !url.is_empty()) else { continue };
        return match Target::of_url(&url.to_string_lossy()) {
            Ok((target @ Target::Tcp { .. }, _)) => Ok(Some(target)),
            // The URL is not told: there may be a password in it.
            _ => Err(CliError(format!(
                "{variable}: must be http://host[:port][/path], the address of a collector \
                 (https is not spoken here)"
            ))),
        };
    }
    Ok(None)
}

/// Spans are on their way.
pub(super) struct Exporting {
    provider: SdkTracerProvider,
    losses: Arc<Losses>,
}

impl Exporting {
    /// Sends the spans of `traces` to the collector that is configured, from within the runtime that
    /// they are sent through. Starts nothing if there is none.
    pub(super) fn start(traces: &Traces) -> Result<Option<Self>, CliError> {
        let Some(target) = configured()? else { return Ok(None) };
        let losses = Arc::new(Losses::default());
        let client = Client {
            target: target.clone(),
            runtime: Handle::current(),
            losses: Arc::clone(&losses),
        };
        let otlp = opentelemetry_otlp::SpanExporter::builder().with_http().with_http_client(client);
        let otlp = otlp.build().map_err(|error| CliError(format!("OpenTelemetry: {error}")))?;
        let exporter = Exporter { otlp, target, losses: Arc::clone(&losses) };
        let config = BatchConfigBuilder::default().with_max_queue_size(QUEUE).build();
        let queue = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Counted { queue, losses: Arc::clone(&losses) })
            .with_resource(resource())
            .build();
        traces.send_to(&provider);
        Ok(Some(Self { provider, losses }))
    }

    /// Sends what still waits, as far as the collector takes it in the next moment.
    pub(super) async fn finish(self) {
        let Self { provider, losses } = self;
        // The event loop must go on meanwhile: this waits for what is sent through it. How it went
        // is counted.
        let _ = spawn_blocking(move || provider.shutdown_with_timeout(LAST_MOMENT)).await;
        let lost = losses.in_all();
        // What is still under way has nothing to add.
        *losses.told() = Some(Told { lost, at: Clock::instant() });
        if lost > 0 {
            warn!(lost, "spans that the collector did not take since the start");
        }
    }
}

/// Who sends the spans: grantd, unless the standard variables say otherwise.
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

/// What became of spans. Only differences between the three are ever told.
#[derive(Debug, Default)]
struct Losses {
    /// Those that were to be sent.
    made: AtomicU64,
    /// Those that came out of the queue.
    taken: AtomicU64,
    /// Those that the collector has answered for.
    sent: AtomicU64,
    told: Mutex<Option<Told>>,
    /// Why the last request had no answer. The exporter only says that there was none.
    error: Mutex<Option<String>>,
}

/// What the log said last, and when.
#[derive(Clone, Copy, Debug)]
struct Told {
    lost: u64,
    at: Instant,
}

impl Losses {
    /// Once nothing waits any more.
    fn in_all(&self) -> u64 {
        self.made.load(Ordering::Relaxed).saturating_sub(self.sent.load(Ordering::Relaxed))
    }

    /// While spans go on coming: at least so many, since a full queue may be waiting.
    fn so_far(&self) -> u64 {
        let [made, taken, sent] =
            [&self.made, &self.taken, &self.sent].map(|count| count.load(Ordering::Relaxed));
        made.saturating_sub(taken).saturating_sub(QUEUE as u64) + taken.saturating_sub(sent)
    }

    /// How many, if there are more and it is time to say so.
    fn to_tell(&self) -> Option<u64> {
        let (lost, at) = (self.so_far(), Clock::instant());
        let mut told = self.told();
        let is_new = lost > told.map_or(0, |told| told.lost);
        if !is_new || told.is_some_and(|told| at - told.at < QUIET) {
            return None;
        }
        *told = Some(Told { lost, at });
        Some(lost)
    }

    fn told(&self) -> MutexGuard<'_, Option<Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self) -> MutexGuard<'_, Option<String>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The SDK's queue, and how many spans were put into it.
#[derive(Debug)]
struct Counted {
    queue: BatchSpanProcessor,
    losses: Arc<Losses>,
}

impl SpanProcessor for Counted {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        self.losses.made.fetch_add(1, Ordering::Relaxed);
        self.queue.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

/// The crate's exporter, and a word in the log now and then if it has no luck.
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
        if let Some(lost) = losses.to_tell() {
            let told = losses.error().take();
            let error = told.or_else(|| exported.as_ref().err().map(ToString::to_string));
            warn!(collector = %target, error, lost, "spans are lost: the collector is down or slow");
        }
        exported
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// What the exporter sends through: a connection for each attempt. It makes a few for each batch.
#[derive(Debug)]
struct Client {
    target: Target,
    runtime: Handle,
    losses: Arc<Losses>,
}

impl Client {
    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, AnyError> {
        let Target::Tcp { address, host } = &self.target else {
            return Err("there is no address".into());
        };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = Uri::try_from(path)?;
        request.headers_mut().insert(HOST, HeaderValue::from_str(host)?);
        let request = request.map(Full::new);
        // Here on the SDK's thread, for which nobody waits: a runtime ends only when every name that
        // it was asked for is found.
        let addresses: Vec<_> = address.to_socket_addrs()?.collect();
        let exchanged = self.runtime.spawn(async move {
            let exchanged =
                async { exchange(TcpStream::connect(&*addresses).await?, request).await };
            timeout(PATIENCE, exchanged).await?
        });
        exchanged.await?
    }
}

impl HttpClient for Client {
    // What the trait's `async fn` stands for.
    fn send_bytes<'c, 'f>(
        &'c self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'c: 'f,
        Self: 'f,
    {
        Box::pin(async {
            let sent = self.send(request).await;
            *self.losses.error() = sent.as_ref().err().map(ToString::to_string);
            sent
        })
    }
}

/// How many spans may wait: some megabytes at most.
const QUEUE: usize = 2048;

/// How long the collector may take to answer an attempt; the standard's default.
const PATIENCE: Duration = OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT;

/// Between two warnings.
const QUIET: Duration = Duration::from_secs(60);

/// What a stop waits for the collector at most.
const LAST_MOMENT: Duration = Duration::from_secs(2);
