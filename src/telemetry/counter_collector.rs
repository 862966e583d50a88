//! A Prometheus collector for counters that other modules keep. It reads the values of the counters
//! at each scrape.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};

/// Collects one counter without a label, or one counter for each value of a label.
pub(super) struct CounterCollector {
    desc: Desc,
    label: Option<&'static str>,
    read: Box<dyn Fn() -> Vec<(String, u64)> + Send + Sync>,
}

impl CounterCollector {
    /// Creates the collector of one counter without a label. `read` returns the counter's value.
    ///
    /// # Errors
    ///
    /// If `name` is not a valid metric name.
    pub(super) fn one(
        name: &str,
        help: &str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<Self, prometheus::Error> {
        let desc = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), HashMap::new())?;
        Ok(Self { desc, label: None, read: Box::new(move || vec![(String::new(), read())]) })
    }

    /// Creates the collector of one counter for each value of `label`. `read` returns the label
    /// values and the counters' values.
    ///
    /// # Errors
    ///
    /// If `name` is not a valid metric name, or `label` is not a valid label name.
    pub(super) fn labelled(
        name: &str,
        help: &str,
        label: &'static str,
        read: impl Fn() -> Vec<(String, u64)> + Send + Sync + 'static,
    ) -> Result<Self, prometheus::Error> {
        let labels = vec![label.to_owned()];
        let desc = Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())?;
        Ok(Self { desc, label: Some(label), read: Box::new(read) })
    }
}

impl Collector for CounterCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let metrics: Vec<_> = (self.read)()
            .into_iter()
            .map(|(label_value, count)| {
                let mut counter = Counter::default();
                // The conversion is exact for values below 2^53.
                counter.set_value(count as f64);
                let mut metric = Metric::default();
                metric.set_counter(counter);
                if let Some(label) = self.label {
                    let mut pair = LabelPair::default();
                    pair.set_name(label.to_owned());
                    pair.set_value(label_value);
                    metric.set_label(vec![pair]);
                }
                metric
            })
            .collect();
        if metrics.is_empty() {
            return Vec::new();
        }
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::COUNTER);
        family.set_metric(metrics);
        vec![family]
    }
}
