//! Some parts of the server have counters of their own. This module registers a metric for each of
//! these counters.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::endpoint::Context;
use crate::guard::throttle::Spent;
use crate::telemetry::metrics::Metrics;

/// Registers a metric for each counter in the parts of `context`.
pub(super) fn register(metrics: &Metrics, context: &Arc<Context>) -> Result<(), prometheus::Error> {
    let counter = |name, help, read: fn(&Context) -> u64| {
        let context = Arc::clone(context);
        metrics.register_counter(name, help, move || read(&context))
    };
    counter(
        "grantd_signing_faults_total",
        "Signatures that failed their check and were computed again.",
        |context| context.engine.faults().into(),
    )?;
    counter("grantd_password_hashes_total", "Slow hashes of secrets computed.", |context| {
        u64::try_from(context.passwords.computed()).unwrap_or(0)
    })?;
    counter(
        "grantd_raw_basic_pairs_total",
        "Basic pairs that were right as sent and not form-decoded.",
        |context| context.raw_pairs.load(Ordering::Relaxed),
    )?;
    counter(
        "grantd_revocation_cut_offs_total",
        "Times that all tokens of a client up to an expiry were revoked, to make room.",
        |context| context.revocations.cut_offs(),
    )?;
    counter(
        "grantd_audit_lines_lost_total",
        "Audit lines lost because the disk was full or too slow.",
        |context| context.audit.as_ref().map_or(0, |audit| audit.lost_lines()),
    )?;
    let throttled = Arc::clone(context);
    metrics.register_counters(
        "grantd_throttled_total",
        "Requests refused because of earlier authentication failures, by exhausted budget.",
        "budget",
        move || {
            [("client", Spent::Client), ("address", Spent::Network)]
                .map(|(budget, spent)| (budget.to_owned(), throttled.throttle.refused(spent)))
                .into()
        },
    )
}
