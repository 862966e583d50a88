//! Tests whether secret data affects the time of a signature or the time to check a client's
//! secret. The method is that of Reparaz, Balasch and Verbauwhede ("Dude, is my code constant
//! time?", DATE 2017): inputs of two classes are timed in random order, and Welch's t-test compares
//! the times of the classes.
//!
//! ```sh
//! cargo bench --bench timing --no-run && chrt -f 50 taskset -c 0 cargo bench --bench timing
//! ```
//!
//! The bench fails if a `|t|` is 4.5 or more, which shows a leak. The bench also tests code with a
//! planted leak. If the `|t|` of that code is 10 or less, the machine is so noisy that a real leak
//! could be missed, and the bench fails. If the core's other hyperthread is busy, the noise is as
//! large as one per cent of the time that a batch takes, so use a quiet machine.
//! `tests/constant-time` finds leaks that no measurement shows.
//!
//! `GRANTD_TIMING_MEASUREMENTS` sets the number of measurements in a test. For messages, the
//! test that has a planted leak makes half of that number. Each test of secrets makes eight times
//! that number. If `--bench` is not among the arguments (`cargo test --benches`), each test makes
//! few measurements, and the bench ignores the results.

use std::hint::black_box;
use std::io::{self, Write};
use std::process::ExitCode;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use grantd::clock::Clock;
use grantd::internal::oauth::client_secret::FastHash;
use ring::rand::{SecureRandom, SystemRandom};
use rsa_x8::{BATCH, BatchKey};
use subtle::ConstantTimeEq;

#[path = "support/welch.rs"]
mod welch;

use welch::{Class, Times};

/// If `|t|` is at least this large, the times of the two classes differ (Goodwill, Jun, Jaffe and
/// Rohatgi, "A testing methodology for side-channel resistance validation", 2011).
const LEAK: f64 = 4.5;

/// The `|t|` that a planted leak must exceed.
const PLAIN: f64 = 10.0;

/// The default number of measurements in each test. One test takes about 20 s.
const MEASUREMENTS: usize = 25_000;

/// The number of keys of each class.
const KEYS: usize = 16;

/// The length of a message in bytes.
const MESSAGE: usize = 64;
/// The value of each byte of the fixed message. Five of the eight bits are set, but a random byte
/// has four set bits on average, so the planted leak takes a different time for the two classes.
const FIXED: u8 = b'm';

/// The number of comparisons timed together, because one comparison takes only a few ticks of the
/// clock.
const COMPARISONS: usize = 8;

/// The length of a client's secret in characters.
const SECRET: usize = 40;

fn main() -> io::Result<ExitCode> {
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let measurements = match std::env::var("GRANTD_TIMING_MEASUREMENTS") {
        Ok(number) => number.parse().map_err(failed)?,
        Err(_) => MEASUREMENTS,
    };
    let mut bench = Bench {
        #[expect(clippy::disallowed_methods, reason = "classes and inputs")]
        random: SystemRandom::new(),
        measurements: if measuring { measurements } else { 20 },
        judging: measuring,
        sound: true,
    };
    writeln!(
        io::stdout(),
        "{:<52} {:>9} {:>7} {:>7} {:>8}",
        "fixed against random",
        "measured",
        "ns",
        "|t|",
        "must be"
    )?;
    bench.batches()?;
    bench.secrets()?;
    Ok(if bench.sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Bench {
    random: SystemRandom,
    measurements: usize,
    judging: bool,
    sound: bool,
}

impl Bench {
    /// Tests batches of eight RSA-2048 signatures: a fixed message against random messages, and a
    /// fixed key against random keys.
    fn batches(&mut self) -> io::Result<()> {
        let fixed = generate()?;
        let Some(key) = BatchKey::from_pkcs8(&fixed) else {
            self.sound &= !self.judging;
            return writeln!(io::stdout(), "no batches: this CPU has no AVX-512 IFMA");
        };
        let random = self.random.clone();
        let messages = |class, messages: &mut [[u8; MESSAGE]; BATCH]| {
            random.fill(messages.as_flattened_mut()).map_err(failed)?;
            choose(class, &[FIXED; MESSAGE * BATCH], messages.as_flattened_mut());
            io::Result::Ok(())
        };
        let mut input = [[0; MESSAGE]; BATCH];
        self.run("batch, messages", Wanted::Silence, self.measurements, |class| {
            messages(class, &mut input)?;
            Ok(timed(|| sign(&key, &input)))
        })?;
        self.run(
            "batch, messages; planted: skips zero bits",
            Wanted::Leak,
            self.measurements / 2,
            |class| {
                messages(class, &mut input)?;
                Ok(timed(|| {
                    sign(&key, &input);
                    multiply_bits(input.as_flattened());
                }))
            },
        )?;

        // The fixed key is parsed again for each pair, so that its copies are spread in memory like
        // the random keys.
        let mut keys = Vec::new();
        for _ in 0..KEYS {
            keys.push([&*fixed, &*generate()?].map(BatchKey::from_pkcs8));
        }
        let key = |class: Class, place: u8| {
            let pair = &keys[usize::from(place) % KEYS];
            let [fixed, random] = pair.each_ref().map(Option::as_ref);
            if class == Class::Fixed { fixed } else { random }
        };
        let message = [[FIXED; MESSAGE]; BATCH];
        self.run("batch, keys", Wanted::Silence, self.measurements, |class| {
            let mut place = [0];
            random.fill(&mut place).map_err(failed)?;
            let key = key(class, place[0]).ok_or_else(|| failed("a key was refused"))?;
            Ok(timed(|| sign(key, &message)))
        })
    }

    /// Tests the hashing of a presented secret, and the comparison of that hash with the stored
    /// hash. The two classes are the right secret, and wrong secrets of the same length.
    fn secrets(&mut self) -> io::Result<()> {
        let random = self.random.clone();
        let right = [b's'; SECRET];
        let stored = FastHash::of(str::from_utf8(&right).map_err(failed)?);
        let presented = |class, secret: &mut [u8; SECRET]| {
            random.fill(secret).map_err(failed)?;
            for byte in &mut *secret {
                *byte = b'a' + (*byte & 15);
            }
            choose(class, &right, secret);
            io::Result::Ok(())
        };
        let count = self.measurements * 8;
        let mut secret = [0; SECRET];
        self.run("client secret, right against wrong", Wanted::Silence, count, |class| {
            presented(class, &mut secret)?;
            let secret = str::from_utf8(&secret).map_err(failed)?;
            Ok(timed(|| {
                for _ in 0..COMPARISONS {
                    black_box(FastHash::of(black_box(secret)).ct_eq(&stored));
                }
            }))
        })?;
        self.run(
            "client secret; planted: stops at the first difference",
            Wanted::Leak,
            count,
            |class| {
                presented(class, &mut secret)?;
                Ok(timed(|| {
                    for _ in 0..COMPARISONS {
                        black_box(FastHash::of(str::from_utf8(black_box(&secret)).unwrap_or("")));
                        black_box(black_box(&secret).iter().eq(black_box(&right)));
                    }
                }))
            },
        )
    }

    fn run(
        &mut self,
        name: &str,
        wanted: Wanted,
        count: usize,
        mut measure: impl FnMut(Class) -> io::Result<u64>,
    ) -> io::Result<()> {
        let mut times = Times::default();
        // The first `count / 20` measurements warm the caches and are dropped.
        for number in 0..count + count / 20 {
            let mut coin = [0];
            self.random.fill(&mut coin).map_err(failed)?;
            let class = if coin[0] & 1 == 0 { Class::Fixed } else { Class::Random };
            let time = measure(class)?;
            if number >= count / 20 {
                times.push(class, time);
            }
        }
        if !self.judging {
            return writeln!(io::stdout(), "{name:<52} {count:>9} not judged");
        }
        let (t, median) = (times.largest_t(), times.median());
        let (sound, bound) = match wanted {
            Wanted::Silence => (t < LEAK, format!("< {LEAK}")),
            Wanted::Leak => (t > PLAIN, format!("> {PLAIN}")),
        };
        self.sound &= sound;
        let verdict = if sound { "" } else { "  IT IS NOT" };
        writeln!(io::stdout(), "{name:<52} {count:>9} {median:>7} {t:>7.2} {bound:>8}{verdict}")
    }
}

#[derive(Clone, Copy)]
enum Wanted {
    Silence,
    Leak,
}

/// Overwrites `random` with `fixed` if the class is [`Class::Fixed`]. Otherwise does the same work
/// and leaves `random` unchanged.
fn choose(class: Class, fixed: &[u8], random: &mut [u8]) {
    let keep = black_box(if class == Class::Fixed { 0 } else { u8::MAX });
    for (random, fixed) in random.iter_mut().zip(fixed) {
        *random = (*random & keep) | (fixed & !keep);
    }
}

/// Returns the time of `run` in nanoseconds.
fn timed(run: impl FnOnce()) -> u64 {
    let start = Clock::system().instant();
    run();
    start.elapsed().as_nanos() as u64
}

fn sign(key: &BatchKey, messages: &[[u8; MESSAGE]; BATCH]) {
    let mut signatures = [[0; 512]; BATCH];
    let messages = black_box(messages).each_ref().map(|message| &message[..]);
    let passed = key.sign(&messages, black_box(&mut signatures));
    assert_eq!(passed, [true; BATCH]);
}

/// Plants a leak: does one multiplication of 1024-bit factors for each set bit of `secret`, as
/// square-and-multiply does for each set bit of an exponent. Only the first 256 bytes of `secret`
/// are used: they have as many bits as the private exponents of both primes together.
fn multiply_bits(secret: &[u8]) {
    for bit in secret[..256].iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1)) {
        if bit == 1 {
            black_box(product(black_box(&[u64::MAX; 16]), black_box(&[u64::MAX; 16])));
        }
    }
}

fn product(a: &[u64; 16], b: &[u64; 16]) -> [u64; 32] {
    let mut product = [0; 32];
    for (i, a) in a.iter().enumerate() {
        let mut carry = 0;
        for (j, b) in b.iter().enumerate() {
            let sum = u128::from(*a) * u128::from(*b) + u128::from(product[i + j]) + carry;
            product[i + j] = sum as u64;
            carry = sum >> 64;
        }
        product[i + 16] = carry as u64;
    }
    product
}

fn generate() -> io::Result<Vec<u8>> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
    Ok(pair.as_der().map_err(failed)?.as_ref().to_vec())
}

fn failed(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}
