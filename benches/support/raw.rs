//! Measures signatures without a server, in a process of its own on the contestant's core.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use grantd::clock::Clock;
use grantd::internal::keys::directory::KeyDirectory;
use grantd::internal::keys::key_store::StoredKeys;
use grantd::internal::signing::private_key::PrivateKey;
use grantd::internal::signing::single::{MAX_SIGNATURE_BYTES, SingleSigner};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rsa_x8::BATCH;

use super::cores;

/// The first argument of the child process.
const SIGN: &str = "sign";
/// The message to sign, as long as the signing input of the demo client's token.
const MESSAGE: [u8; 470] = [b'x'; 470];

type Signatures = [[u8; MAX_SIGNATURE_BYTES]; BATCH];

/// The result of signing without a server.
pub(crate) struct Alone {
    /// Signatures per second.
    pub(crate) rate: f64,
    /// The time during which the process ran, as a share of the time during which it ran or was
    /// ready to run.
    pub(crate) share: f64,
}

/// Signs with `ring`, `aws-lc` or `batch` for `seconds` on the contestant's core. The key is the
/// first in the directory `keys`.
pub(crate) fn alone(signer: &str, seconds: f64, keys: &Path) -> Alone {
    start(cores::MEASURED, signer, seconds, keys).finish()
}

/// Signs as [`alone`] does, but on both cores at once. Returns the signatures per second of both
/// cores together.
pub(crate) fn on_both_cores(signer: &str, seconds: f64, keys: &Path) -> f64 {
    let both = [cores::MEASURED, cores::LOAD].map(|core| start(core, signer, seconds, keys));
    both.into_iter().map(|signing| signing.finish().rate).sum()
}

/// A child process that signs.
struct Signing(Child);

fn start(core: &str, signer: &str, seconds: f64, keys: &Path) -> Signing {
    let mut command = cores::this_bench(core);
    command.args([SIGN, signer, &seconds.to_string()]).arg(keys).stdout(Stdio::piped());
    Signing(command.spawn().unwrap())
}

impl Signing {
    fn finish(self) -> Alone {
        let output = self.0.wait_with_output().unwrap();
        assert!(output.status.success(), "signing failed");
        let output = String::from_utf8(output.stdout).unwrap();
        let mut figures = output.split_whitespace().map(|figure| figure.parse().unwrap());
        Alone { rate: figures.next().unwrap(), share: figures.next().unwrap() }
    }
}

/// If this process was started by [`start`], signs, prints the result and returns `true`.
pub(crate) fn is_child(arguments: &[String]) -> bool {
    let [mode, signer, seconds, keys] = arguments else { return false };
    if mode != SIGN {
        return false;
    }
    let seconds = Duration::from_secs_f64(seconds.parse().unwrap());
    let rate = sign_for(seconds, signer, Path::new(keys));
    let times = fs::read_to_string("/proc/self/schedstat").unwrap();
    let mut times = times.split(' ').map(|time| time.trim().parse::<f64>().unwrap());
    let (ran, waited) = (times.next().unwrap(), times.next().unwrap());
    println!("{rate} {}", ran / (ran + waited));
    true
}

/// Signs on this thread until the time is over, and returns the signatures per second.
fn sign_for(time: Duration, signer: &str, keys: &Path) -> f64 {
    let keys = StoredKeys::read(&mut KeyDirectory::new(keys)).keys;
    let key = &*keys[0].1.private_key;
    #[expect(clippy::disallowed_methods, reason = "blinding, as in service")]
    let random = SystemRandom::new();
    let single = |library: SingleSigner| {
        repeat(time, key, |signatures| {
            library.sign(key, &MESSAGE, &random, &mut signatures[0]).unwrap();
            1
        })
    };
    match signer {
        "ring" => single(SingleSigner::Ring),
        "aws-lc" => single(SingleSigner::AwsLc),
        "batch" => {
            let batch = key.batch.as_ref().unwrap();
            repeat(time, key, |signatures| {
                assert_eq!(batch.sign(&[&MESSAGE[..]; BATCH], signatures), [true; BATCH]);
                BATCH
            })
        }
        _ => panic!("no signer is called {signer}"),
    }
}

/// Calls `sign` until the time is over. Each call returns the number of signatures that it made.
/// Returns the signatures per second. Panics unless the signatures of the last call are valid.
fn repeat(time: Duration, key: &PrivateKey, sign: impl Fn(&mut Signatures) -> usize) -> f64 {
    let mut signatures = [[0; MAX_SIGNATURE_BYTES]; BATCH];
    let mut last = 0;
    let mut calls = 0;
    let started = Clock::system().instant();
    while started.elapsed() < time {
        last = sign(&mut signatures);
        calls += 1;
    }
    let seconds = started.elapsed().as_secs_f64();

    let public = key.ring.public();
    let verifier = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
    for signature in &signatures[..last] {
        verifier.verify(&MESSAGE, &signature[..public.modulus_len()]).unwrap();
    }
    f64::from(calls) * last as f64 / seconds
}
