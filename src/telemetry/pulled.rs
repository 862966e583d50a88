//! A Prometheus collector for a metric whose values another module keeps. It reads the values at
//! each scrape.

use prometheus::core::{Collector, Desc, Describer};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

/// Takes one series of a metric: the values of its labels and its own value.
pub type Each<'e> = dyn FnMut(&[&str], u64) + 'e;

/// Collects one metric. `read` passes on all its series.
pub(super) struct Pulled<R> {
    desc: Desc,
    kind: MetricType,
    options: Opts,
    labels: &'static [&'static str],
    read: R,
}

impl<R> Pulled<R> {
    /// # Errors
    ///
    /// If `name` or one of `labels` is not valid.
    pub(super) fn new(
        kind: MetricType,
        name: &str,
        help: &str,
        labels: &'static [&'static str],
        read: R,
    ) -> Result<Self, prometheus::Error> {
        let options = Opts::new(name, help);
        let named = labels.iter().copied().map(str::to_owned).collect();
        let desc = options.clone().variable_labels(named).describe()?;
        Ok(Self { desc, kind, options, labels, read })
    }
}

impl<R: Fn(&mut Each<'_>) + Send + Sync> Collector for Pulled<R> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let options = self.options.clone();
        let collected = if self.kind == MetricType::COUNTER {
            IntCounterVec::new(options, self.labels).map(|counters| {
                (self.read)(&mut |labels, n| counters.with_label_values(labels).inc_by(n));
                counters.collect()
            })
        } else {
            IntGaugeVec::new(options, self.labels).map(|gauges| {
                (self.read)(&mut |labels, n| gauges.with_label_values(labels).set(n.cast_signed()));
                gauges.collect()
            })
        };
        // `new` has made the same description, so there is no error.
        collected.unwrap_or_default()
    }
}
