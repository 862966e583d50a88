//! A Prometheus collector for a metric whose values another module keeps. It reads the values at
//! each scrape.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Takes one series of a metric: the values of its labels and its own value.
pub type Each<'e> = dyn FnMut(&[&str], u64) + 'e;

/// Collects one metric. `read` passes on all its series.
pub(super) struct Pulled<R> {
    desc: Desc,
    kind: MetricType,
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
        labels: &[&str],
        read: R,
    ) -> Result<Self, prometheus::Error> {
        let names = labels.iter().copied().map(str::to_owned).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), names, HashMap::new())?;
        Ok(Self { desc, kind, read })
    }

    fn metric(&self, labels: &[&str], value: u64) -> Metric {
        let label_of = |(name, value): (&String, &&str)| {
            let mut label = LabelPair::default();
            label.set_name(name.clone());
            label.set_value((*value).to_owned());
            label
        };
        let labels = self.desc.variable_labels.iter().zip(labels).map(label_of);
        let mut metric = Metric::from_label(labels.collect());
        // The conversion to f64 is exact for values below 2^53.
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value as f64);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value as f64);
            metric.set_gauge(gauge);
        }
        metric
    }
}

impl<R: Fn(&mut Each<'_>) + Send + Sync> Collector for Pulled<R> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut metrics = Vec::new();
        (self.read)(&mut |labels, value| metrics.push(self.metric(labels, value)));
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(self.kind);
        family.set_metric(metrics);
        vec![family]
    }
}
