//! Measures the use of a client assertion: what single use adds to its verification.
//!
//! The bench `bare` does what a use cannot do without: it wakes another thread, which appends a
//! line to a file, and waits for its answer. The bench `one after the other` uses values on one
//! connection; a use may take 50 µs at the median. The bench `128 at once` has as many uses wait
//! together: they share one write, so that each takes a fraction of that. Both cores are kept awake:
//! a use wakes two threads, and an idle processor of a virtual machine takes 10 to 20 µs to wake.

#![expect(clippy::unwrap_used, reason = "a failing bench may panic")]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use grantd::clock::Clock;
use grantd::internal::state::uses::{Owner, SingleUse, Uses};
use grantd::internal::time::UnixTime;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

#[path = "support/cores.rs"]
#[expect(dead_code, reason = "each bench uses a part of it")]
mod cores;

criterion_group!(assertion, uses);
criterion_main!(assertion);

/// The time at which the record begins (Unix seconds), and one at which it knows what is signed.
const BEGIN: u64 = 1_790_000_000;
const NOW: u64 = BEGIN + 60;
/// The clients that share the record: a client holds at most half of it.
const CLIENTS: u64 = 64;
const AT_ONCE: u64 = 128;

fn uses(c: &mut Criterion) {
    let _awake = cores::Awake::start();
    let directory = tempfile::tempdir().unwrap();
    let (clock, manual) = Clock::manual(BEGIN);
    let uses = Uses::open(directory.path(), 10_000, clock.clone()).unwrap();
    manual.set(NOW);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut next = 0;
    let mut group = c.benchmark_group("use");
    group.throughput(Throughput::Elements(1));
    let mut bare = Vec::new();
    group.bench_function("bare", |bencher| {
        let bench = Bare::start(directory.path());
        bencher.iter_custom(|times| timed(times, &mut bare, || bench.write(&runtime)));
    });
    let mut one = Vec::new();
    group.bench_function("one after the other", |bencher| {
        bencher.iter_custom(|times| {
            timed(times, &mut one, || {
                next += 1;
                // Values expire, so that the record is not full.
                manual.set(NOW + next / 1000);
                runtime.block_on(spend(&uses, &clock, next));
            })
        });
    });
    group.throughput(Throughput::Elements(AT_ONCE));
    group.bench_function("128 at once", |bencher| {
        bencher.iter(|| {
            manual.set(NOW + next / 1000);
            let all = (next + 1..=next + AT_ONCE).map(|number| spend(&uses, &clock, number));
            next += AT_ONCE;
            runtime.block_on(join_all(all));
        });
    });
    group.finish();
    for (name, mut times) in [("bare", bare), ("one after the other", one)] {
        times.sort_unstable();
        println!("{name}: {:?} at the median of {}", times[times.len() / 2], times.len());
    }
}

async fn spend(uses: &Uses, clock: &Clock, number: u64) {
    let (client_id, token_id) = (format!("client-{}", number % CLIENTS), number.to_string());
    let now = UnixTime(clock.unix_seconds());
    let single_use = SingleUse {
        client_id: &client_id,
        owner: Owner::Client,
        token_id: &token_id,
        signed_at: now,
        until: now + 2,
    };
    uses.spend(single_use).await.unwrap();
}

/// Runs `work` this many times, and keeps the time of each.
fn timed(times: u64, kept: &mut Vec<Duration>, mut work: impl FnMut()) -> Duration {
    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
    let now = Instant::now;
    let begin = now();
    for _ in 0..times {
        let begin = now();
        work();
        kept.push(begin.elapsed());
    }
    begin.elapsed()
}

/// A thread that appends a line to a file for each request.
struct Bare(mpsc::Sender<oneshot::Sender<()>>);

impl Bare {
    fn start(directory: &std::path::Path) -> Self {
        let mut file =
            OpenOptions::new().create(true).append(true).open(directory.join("bare")).unwrap();
        let (sender, receiver) = mpsc::channel::<oneshot::Sender<()>>();
        std::thread::spawn(move || {
            while let Ok(answer) = receiver.recv() {
                file.write_all(&[b'x'; 46]).unwrap();
                answer.send(()).unwrap();
            }
        });
        Self(sender)
    }

    fn write(&self, runtime: &Runtime) {
        let (sender, receiver) = oneshot::channel();
        self.0.send(sender).unwrap();
        runtime.block_on(receiver).unwrap();
    }
}
