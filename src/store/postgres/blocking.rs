//! Waits for the database on this thread.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::store::postgres::failure::{About, Failure};

/// Runs `work` on this thread until it ends. A panic, which a malformed answer may cause in the
/// client library, is a failure.
pub(super) fn wait<T>(
    runtime: Option<&Runtime>,
    about: &About<'_>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let Some(runtime) = runtime else { return Err(about.away("is no longer used")) };
    catch_unwind(AssertUnwindSafe(|| runtime.block_on(work)))
        .unwrap_or_else(|_| Err(about.malformed("an answer that cannot be read")))
}

/// The text about a statement that has not ended within `limit`.
pub(super) fn too_slow(limit: Duration) -> String {
    format!(
        "did not answer within {} s: see its load and its locks (pg_stat_activity)",
        limit.as_secs()
    )
}
