//! One signature at a time, by ring or by aws-lc.
//!
//! PKCS#1 v1.5 signatures are deterministic, so both libraries make the same bytes. Which library
//! is faster depends on the processor. So the server measures both when it starts.

use std::fmt;
use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::RSA_PKCS1_SHA256;
pub use rsa_x8::MAX_SIGNATURE_BYTES;

use crate::clock::Clock;
use crate::signing::private_key::PrivateKey;

/// A library that makes single signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SingleSigner {
    /// aws-lc.
    AwsLc,
    /// ring.
    Ring,
}

impl SingleSigner {
    /// Returns the library that signs faster with `key` on this machine. The trial takes about
    /// 50 ms.
    pub(super) fn fastest(key: &PrivateKey) -> Self {
        let random = blinding();
        let mut best = [(Self::AwsLc, Duration::MAX), (Self::Ring, Duration::MAX)];
        let begin = Clock::system().instant();
        while begin.elapsed() < TRIAL {
            for (single, time) in &mut best {
                // Make several signatures in a row, because a vector unit that was powered down is
                // slow at first.
                for _ in 0..IN_A_ROW {
                    let start = Clock::system().instant();
                    single.sign(key, b"trial", &random, &mut [0; MAX_SIGNATURE_BYTES]);
                    // Take the minimum, because other load on the machine only adds time.
                    *time = start.elapsed().min(*time);
                }
            }
        }
        let [aws_lc, ring] = best;
        if aws_lc.1 < ring.1 { Self::AwsLc } else { Self::Ring }
    }

    /// Signs `message` into the first bytes of `signature` and returns their number. `None` if the
    /// library fails.
    ///
    /// `random` blinds ring's private operation; aws-lc uses its own source of randomness.
    pub fn sign(
        self,
        key: &PrivateKey,
        message: &[u8],
        random: &SystemRandom,
        signature: &mut [u8; MAX_SIGNATURE_BYTES],
    ) -> Option<usize> {
        let length = key.ring.public().modulus_len();
        let signature = signature.get_mut(..length)?;
        match self {
            Self::AwsLc => {
                let random = aws_lc_rs::rand::SystemRandom::new();
                let padding = &aws_lc_rs::signature::RSA_PKCS1_SHA256;
                key.aws_lc.sign(padding, &random, message, signature).ok()?;
            }
            Self::Ring => key.ring.sign(&RSA_PKCS1_SHA256, random, message, signature).ok()?,
        }
        Some(length)
    }
}

impl fmt::Display for SingleSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AwsLc => "aws-lc",
            Self::Ring => "ring",
        })
    }
}

/// Returns the source of randomness with which ring blinds its private operation.
pub(super) fn blinding() -> SystemRandom {
    #[expect(clippy::disallowed_methods, reason = "changes no signature, so no test fixes it")]
    SystemRandom::new()
}

const TRIAL: Duration = Duration::from_millis(50);
const IN_A_ROW: usize = 8;
