//! Compares the signatures per second of `BatchKey` (eight messages at once), ring and aws-lc-rs.
//! The three take turns on one thread, for each key size.
//!
//! ```sh
//! taskset -c 0 cargo bench --bench batch
//! ```
//!
//! A turn takes a few milliseconds, and each figure is the median of all turns. The machine's speed
//! drifts, but the drift is the same for all three, so the ratios of the rates are reliable. If
//! `--bench` is not among the arguments (`cargo test --benches`), there is only one turn for each
//! key size.

use std::io::{self, Write};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair as GeneratedPair, KeySize};
use grantd::clock::Clock;
use rsa_x8::{BATCH, BatchKey};

/// The key size, the number of turns, and the goal: the minimum ratio of the rate of `BatchKey` to
/// the rate of ring.
const CASES: [(KeySize, usize, f64); 3] =
    [(KeySize::Rsa2048, 600, 6.0), (KeySize::Rsa3072, 200, 4.0), (KeySize::Rsa4096, 120, 4.5)];

const MESSAGE: &[u8] = &[b'm'; 700];

fn main() -> io::Result<()> {
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:>5} {:>12} {:>12} {:>12}  batch/ring  goal  batch/aws-lc",
        "bits", "batch/s", "ring/s", "aws-lc/s"
    )?;
    for (size, turns, goal) in CASES {
        run(&mut out, size, if measuring { turns } else { 1 }, goal)?;
    }
    Ok(())
}

fn run(out: &mut impl Write, size: KeySize, turns: usize, goal: f64) -> io::Result<()> {
    let generated = GeneratedPair::generate(size).map_err(failed)?;
    let document = generated.as_der().map_err(failed)?;
    let bytes = generated.public_modulus_len();
    let ring = ring::rsa::KeyPair::from_pkcs8(document.as_ref()).map_err(failed)?;
    #[expect(clippy::disallowed_methods, reason = "blinding")]
    let random = ring::rand::SystemRandom::new();
    let aws_random = aws_lc_rs::rand::SystemRandom::new();
    let batch = BatchKey::from_pkcs8(document.as_ref());
    if let Some(batch) = &batch {
        assert!(batch.agrees_with(&ring, &random));
    }
    let mut signatures = [[0; 512]; BATCH];
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..turns {
        let start = Clock::system().instant();
        if let Some(batch) = &batch {
            assert_eq!(batch.sign(&[MESSAGE; BATCH], &mut signatures), [true; BATCH]);
        }
        times[0].push(start.elapsed().as_secs_f64() / BATCH as f64);

        let start = Clock::system().instant();
        let signature = &mut signatures[0][..bytes];
        ring.sign(&ring::signature::RSA_PKCS1_SHA256, &random, MESSAGE, signature)
            .map_err(failed)?;
        times[1].push(start.elapsed().as_secs_f64());

        let start = Clock::system().instant();
        let signature = &mut signatures[1][..bytes];
        generated
            .sign(&aws_lc_rs::signature::RSA_PKCS1_SHA256, &aws_random, MESSAGE, signature)
            .map_err(failed)?;
        times[2].push(start.elapsed().as_secs_f64());
    }
    let rates = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        1.0 / times[times.len() / 2]
    });
    let [batched, reference, aws_lc] = rates;
    let bits = bytes * 8;
    if batch.is_none() {
        return writeln!(
            out,
            "{bits:>5}            - {reference:>12.0} {aws_lc:>12.0}  this CPU has no AVX-512 IFMA"
        );
    }
    writeln!(
        out,
        "{bits:>5} {batched:>12.0} {reference:>12.0} {aws_lc:>12.0} {:>10.2}x {goal:>4.1}x {:>12.2}x",
        batched / reference,
        batched / aws_lc,
    )
}

fn failed(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}
