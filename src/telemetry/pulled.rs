//! The text of a metric whose values another module keeps. It reads the values at each scrape and
//! writes them down at once: there may be a million series, and the objects of the crate
//! `prometheus` for a series take some ten times as much memory as its line.

use std::fmt::Write as _;

/// Takes one series of a metric: the values of its labels and its own value.
pub type Each<'e> = dyn FnMut(&[&str], u64) + 'e;

/// A metric. `read` passes on all its series.
pub(super) struct Pulled {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) read: Box<dyn Fn(&mut Each<'_>) + Send + Sync>,
}

impl Pulled {
    /// Appends the metric to `text` in the Prometheus text format; nothing if it has no series.
    pub(super) fn write(&self, text: &mut String) {
        let Self { name, help, labels, read } = self;
        // Every counter has this suffix, and nothing else has it.
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        let mut head = Some(format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        read(&mut |values, number| {
            text.push_str(&head.take().unwrap_or_default());
            text.push_str(name);
            let mut separator = '{';
            for (label, value) in labels.iter().zip(values) {
                text.push(separator);
                text.push_str(label);
                text.push_str("=\"");
                push_escaped(text, value);
                text.push('"');
                separator = ',';
            }
            if !labels.is_empty() {
                text.push('}');
            }
            // Writing to a String cannot fail.
            let _ = writeln!(text, " {number}");
        });
    }
}

fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '"' | '\\' => text.extend(['\\', character]),
            _ => text.push(character),
        }
    }
}
