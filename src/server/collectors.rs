//! Registers a metric for each value that a part of the server keeps. Each scrape reads the values.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::endpoint::Context;
use crate::guard::throttle::budgets::Spent;
use crate::keys::key_set::KeySet;
use crate::keys::life::{KeyState, KeyTime};
use crate::keys::signing_key::SigningKey;
use crate::server::collectors::Read::{Series, Value};
use crate::state::store_health::StoreHealth;
use crate::tally::Tally;
use crate::telemetry::log_queue::LogQueue;
use crate::telemetry::metrics::VERSION;
use crate::telemetry::pulled::Each;

/// Registers the metrics of the parts of `context`. `signer` names the signing backend.
pub(super) fn register(context: &Arc<Context>, signer: String) {
    for (name, help, read) in METRICS {
        let labels = if let Series(labels, _) = read { labels } else { &[] };
        // The context owns the metrics, so they must not keep it alive.
        let weak = Arc::downgrade(context);
        context.metrics.pull(name, help, labels, move |each| {
            let Some(context) = weak.upgrade() else { return };
            match read {
                Value(value) => each(&[], value(&context)),
                Series(_, series) => series(&context, each),
            }
        });
    }
    let help = "The signing backend, as a label; always 1.";
    let read = move |each: &mut Each<'_>| each(&[&signer], 1);
    context.metrics.pull("grantd_signer_info", help, &["signer"], read);
}

/// The name and the help text of a metric, and how its series are read.
type Metric = (&'static str, &'static str, Read);

/// Reads a metric.
#[derive(Clone, Copy)]
enum Read {
    /// A single series without labels.
    Value(fn(&Context) -> u64),
    /// Any number of series, with these labels.
    Series(&'static [&'static str], fn(&Context, &mut Each<'_>)),
}

const METRICS: [Metric; 28] = [
    (
        "grantd_audit_lines_lost_total",
        "Audit lines lost because the disk was full or too slow.",
        Value(|context| context.audit.as_ref().map_or(0, |audit| audit.lost_lines())),
    ),
    (
        "grantd_build_info",
        "The running version, as a label; always 1.",
        Series(&["version"], |_, each| each(&[VERSION], 1)),
    ),
    (
        "grantd_clients",
        "Registered clients.",
        Value(|context| context.snapshot().clients.len() as u64),
    ),
    (
        "grantd_clients_expiring",
        "Enabled clients whose last secret has expired or expires within this time.",
        Series(&["within"], |context, each| {
            let (snapshot, now) = (context.snapshot(), context.clock.now());
            for (name, time) in EXPIRING {
                each(&[name], snapshot.clients.ended_secrets(now + time) as u64);
            }
        }),
    ),
    (
        "grantd_key_age_seconds",
        "Seconds since a key was published; since 1970 if its file states no time.",
        Series(&["kid", "state"], |context, each| {
            let now = context.clock.now();
            let snapshot = context.snapshot();
            for (key, state) in shown(&snapshot.keys, context.key_time(&snapshot, now)) {
                let age = now.since(key.times().published_at);
                each(&[key.key_id(), &state.to_string()], age);
            }
        }),
    ),
    (
        "grantd_key_next_seconds",
        "Seconds until the next key begins to sign; 0 while none is published.",
        Value(|context| {
            let now = context.clock.now();
            let snapshot = context.snapshot();
            let at = context.key_time(&snapshot, now);
            let published = shown(&snapshot.keys, at).filter(|it| it.1 == KeyState::Published);
            let next = published.map(|(key, _)| snapshot.keys.times_of(key, at).signs_from).min();
            next.map_or(0, |from| from.since(now))
        }),
    ),
    (
        "grantd_key_rotation_held_up",
        "1 if the next signing key cannot be made, or must wait because a server has not published \
         it, otherwise 0. With a store in PostgreSQL, a key that waits is reported by the leading \
         server, an overdue key by each.",
        Value(|context| context.rotation_fault().is_some().into()),
    ),
    (
        "grantd_key_set_fetches_total",
        "Answers with a key set that contains the key.",
        Series(&["kid"], |context, each| {
            let snapshot = context.snapshot();
            for (key, _) in shown(&snapshot.keys, context.key_time(&snapshot, context.clock.now()))
            {
                each(&[key.key_id()], key.fetches.count());
            }
        }),
    ),
    (
        "grantd_key_signing_seconds",
        "Seconds since the present signing key began to sign; since 1970 if its file states no time.",
        Series(&[], |context, each| {
            let now = context.clock.now();
            let snapshot = context.snapshot();
            let at = context.key_time(&snapshot, now);
            if let Some(key) = snapshot.keys.signing_key(at) {
                each(&[], now.since(snapshot.keys.times_of(key, at).signs_from));
            }
        }),
    ),
    (
        "grantd_log_lines_lost_total",
        "Log lines lost because their reader was too slow or writing them failed.",
        Value(|context| context.metrics.log.get().map_or(0, LogQueue::lost_lines)),
    ),
    (
        "grantd_password_hashes_total",
        "Slow hashes of secrets computed.",
        Value(|context| context.passwords.computed()),
    ),
    (
        "grantd_password_queue",
        "Secrets that wait for their slow hash.",
        Value(|context| context.passwords.waiting() as u64),
    ),
    (
        "grantd_raw_basic_pairs_total",
        "Basic pairs that were right as sent and not form-decoded.",
        Value(|context| context.raw_pairs.load(Ordering::Relaxed)),
    ),
    (
        "grantd_reload_refused",
        "1 if the last reload found a fault and an earlier version of some file is in force, \
         otherwise 0.",
        Value(|context| context.reload_fault.load().is_some().into()),
    ),
    (
        "grantd_revocation_cut_offs_total",
        "Times that a client held its share of the revocations, and all its tokens up to an expiry \
         were revoked in place of half of its rows.",
        Value(|context| context.revocations.cut_offs()),
    ),
    (
        "grantd_revocations",
        "Revoked tokens that expired less than an hour ago or have not expired.",
        Value(|context| context.revocations.len() as u64),
    ),
    (
        "grantd_secret_last_use_seconds",
        "Time of the last successful use of a client's secret, in Unix seconds.",
        Series(&["client", "label"], |context, each| {
            each_secret(context, |labels, used| each(labels, used.last().0));
        }),
    ),
    (
        "grantd_secret_uses_total",
        "Successful uses of a client's secret since the server started.",
        Series(&["client", "label"], |context, each| {
            each_secret(context, |labels, used| each(labels, used.count()));
        }),
    ),
    (
        "grantd_signing_faults_total",
        "Signatures that failed their check and were computed again.",
        Value(|context| context.engine.faults().into()),
    ),
    (
        "grantd_signing_queue",
        "Tokens that wait for a signature.",
        Value(|context| context.engine.waiting() as u64),
    ),
    (
        "grantd_signing_queue_open",
        "Admission limit of the signing queue: limits.signing_queue if the signing threads have \
         their processors to themselves, half of it while nothing is signed.",
        Value(|context| context.engine.open() as u64),
    ),
    (
        "grantd_snapshot_generation",
        "Number of the snapshot of clients, keys and settings in force: 1 at the start.",
        Value(|context| context.snapshot().generation),
    ),
    (
        "grantd_store_age_seconds",
        "Seconds since what the server knows of the store in PostgreSQL was true; 0 without one.",
        Value(|context| of_store(context, 0, |store, now| store.age(now).as_secs())),
    ),
    (
        "grantd_store_changes_total",
        "Changes read from the store in PostgreSQL since the server started.",
        Value(|context| of_store(context, 0, |store, _| store.changes())),
    ),
    (
        "grantd_store_epoch",
        "Time since which the store in PostgreSQL knows every use, in Unix seconds: another one \
         after a crash, a promotion or a restore; 0 without a store.",
        Value(|context| of_store(context, 0, |store, _| store.epoch())),
    ),
    (
        "grantd_store_up",
        "0 if the store in PostgreSQL did not answer at the last attempt, otherwise 1.",
        Value(|context| of_store(context, 1, |store, _| store.is_up().into())),
    ),
    (
        "grantd_throttled_total",
        "Requests refused because of earlier authentication failures, by exhausted budget.",
        Series(&["budget"], |context, each| {
            each(&["client"], context.throttle.refused(Spent::Client));
            each(&["address"], context.throttle.refused(Spent::Network));
        }),
    ),
    (
        "grantd_wasteful_tokens_total",
        "Tokens issued while the client's previous one had more than half of its lifetime left, \
         for the clients with the most of them.",
        Series(&["client"], |context, each| {
            let worst = context.metrics.wasteful.worst();
            worst.iter().for_each(|(id, count)| each(&[id], *count));
        }),
    ),
];

/// The periods for which clients with expiring secrets are counted, in seconds.
const EXPIRING: [(&str, u64); 3] = [("1d", 86_400), ("7d", 7 * 86_400), ("30d", 30 * 86_400)];

/// Returns a value of the store in a database; `without` if there is none.
fn of_store(
    context: &Context,
    without: u64,
    value: impl FnOnce(&StoreHealth, Instant) -> u64,
) -> u64 {
    context.store.as_ref().map_or(without, |store| value(store, context.clock.instant()))
}

/// Returns each key that is not gone at `at`, with its state.
fn shown(keys: &KeySet, at: KeyTime) -> impl Iterator<Item = (&SigningKey, KeyState)> {
    keys.states(at).filter(|(_, state)| *state != KeyState::Gone)
}

/// Passes on the client and label of each secret that was used, with its uses.
fn each_secret(context: &Context, mut each: impl FnMut(&[&str], &Tally)) {
    let used = context.secret_uses.used(|| {
        let clients = Arc::clone(&context.snapshot().clients);
        move |id: &str, label: &str| {
            let secrets = clients.get(id).map_or(&[][..], |client| &client.secrets);
            secrets.iter().any(|secret| *secret.label == *label)
        }
    });
    used.iter().for_each(|(id, label, used)| each(&[id, label], used));
}
