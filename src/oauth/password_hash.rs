//! Slow hashes for secrets that a person may have chosen: argon2id (RFC 9106), PBKDF2 with
//! HMAC-SHA-256 (RFC 8018) and bcrypt, in the text forms that other software uses.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use argon2::{Argon2, Params, Version};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{NO_PAD, STANDARD_NO_PAD};
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use ring::pbkdf2;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A stored slow hash.
///
/// An argon2id hash is in the PHC string format. A pbkdf2-sha256 hash is in passlib's format or in
/// the PHC string format. A bcrypt hash is in OpenBSD's format:
///
/// ```text
/// $argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>
/// $pbkdf2-sha256$29000$<salt>$<hash>
/// $pbkdf2-sha256$i=29000,l=32$<salt>$<hash>
/// $2b$12$<salt><hash>
/// ```
#[derive(PartialEq, Eq)]
pub struct PasswordHash {
    stored: Box<str>,
    /// The cost of a comparison.
    pub work: Work,
    salt: Box<[u8]>,
    output: Box<[u8]>,
}

/// The cost of comparing one secret with a hash: the algorithm and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// argon2id, version 1.3.
    Argon2id {
        /// Memory in KiB.
        memory: u32,
        /// Passes over the memory.
        passes: u32,
        /// Lanes. This server computes them one after the other.
        lanes: u32,
    },
    /// PBKDF2 with HMAC-SHA-256.
    Pbkdf2Sha256 {
        /// Iterations per block.
        rounds: u32,
        /// Blocks of 32 output bytes.
        blocks: u8,
    },
    /// bcrypt.
    Bcrypt {
        /// The binary logarithm of the number of rounds.
        cost: u32,
    },
}

impl Work {
    /// The cost of new argon2id hashes: 19 MiB and 2 passes, OWASP's minimum.
    pub const ARGON2ID: Self = Self::Argon2id { memory: 19_456, passes: 2, lanes: 1 };
    /// The cost of new PBKDF2 hashes: OWASP's minimum.
    pub const PBKDF2_SHA256: Self = Self::Pbkdf2Sha256 { rounds: 600_000, blocks: 1 };

    /// Whether the registry accepts a hash of this cost. The cost must not be trivially low. The
    /// computation may need at most 256 MiB of memory and about two seconds, so that no entry of
    /// the registry can stall the server.
    fn is_sane(self) -> bool {
        match self {
            Self::Argon2id { memory, passes, lanes } => {
                (1..=16).contains(&lanes)
                    && (8 * lanes..=MAX_MEMORY).contains(&memory)
                    && (1..=MAX_MEMORY_PASSES / memory).contains(&passes)
            }
            Self::Pbkdf2Sha256 { rounds, .. } => (1000..=5_000_000).contains(&rounds),
            Self::Bcrypt { cost } => (4..=15).contains(&cost),
        }
    }

    /// Writes the hash of `secret` to `output`. `None` if the lengths or costs are invalid. This
    /// cannot happen for a hash that [`PasswordHash::parse`] accepted.
    fn run(self, secret: &str, salt: &[u8], output: &mut [u8]) -> Option<()> {
        match self {
            Self::Argon2id { memory, passes, lanes } => {
                let params = Params::new(memory, passes, lanes, Some(output.len())).ok()?;
                Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(secret.as_bytes(), salt, output)
                    .ok()
            }
            Self::Pbkdf2Sha256 { rounds, .. } => {
                let rounds = NonZeroU32::new(rounds)?;
                let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
                pbkdf2::derive(algorithm, rounds, salt, secret.as_bytes(), output);
                Some(())
            }
            Self::Bcrypt { cost } => {
                // bcrypt reads at most 72 bytes, including the terminating NUL. `text` gets its
                // full capacity at once: if it grew later, a copy of the secret would stay in
                // memory and would not be wiped.
                let read = secret.as_bytes().iter().copied().chain([0]).take(72);
                let mut text = Zeroizing::new(Vec::with_capacity(72));
                text.extend(read);
                let whole = Zeroizing::new(bcrypt::bcrypt(cost, salt.try_into().ok()?, &text));
                output.copy_from_slice(whole.get(..output.len())?);
                Some(())
            }
        }
    }
}

impl PasswordHash {
    /// Hashes `secret` with `salt`. `None` if `work` is bcrypt, because bcrypt ignores all bytes of
    /// a secret after the first 72. A bcrypt hash can be imported, but this server creates no
    /// bcrypt hashes.
    pub fn of(secret: &str, work: Work, salt: [u8; 16]) -> Option<Self> {
        let mut output = [0; 32];
        work.run(secret, &salt, &mut output)?;
        let [salt64, hash64] = [&salt[..], &output].map(|bytes| STANDARD_NO_PAD.encode(bytes));
        let stored = match work {
            Work::Argon2id { memory, passes, lanes } => {
                format!("$argon2id$v=19$m={memory},t={passes},p={lanes}${salt64}${hash64}")
            }
            Work::Pbkdf2Sha256 { rounds, .. } => {
                format!("$pbkdf2-sha256$i={rounds},l=32${salt64}${hash64}")
            }
            Work::Bcrypt { .. } => return None,
        };
        Some(Self { stored: stored.into(), work, salt: salt.into(), output: output.into() })
    }

    /// Parses the stored form.
    ///
    /// # Errors
    ///
    /// A description of the forms that are expected. It quotes nothing of `stored`, which may be a
    /// secret.
    pub fn parse(stored: &str) -> Result<Self, &'static str> {
        let mut parts = stored.split('$');
        if parts.next() != Some("") {
            return Err(EXPECTED);
        }
        let (read, expected) = match parts.next() {
            Some("argon2id") => (read_argon2id(parts), EXPECTED_ARGON2ID),
            Some("pbkdf2-sha256") => (read_pbkdf2(parts), EXPECTED_PBKDF2),
            Some("2a" | "2b" | "2y") => (read_bcrypt(parts), EXPECTED_BCRYPT),
            _ => return Err(EXPECTED),
        };
        let (work, salt, output) = read.filter(|(work, ..)| work.is_sane()).ok_or(expected)?;
        Ok(Self { stored: stored.into(), work, salt: salt.into(), output: output.into() })
    }

    /// Creates a hash that no secret matches, for unknown clients. A comparison with it costs
    /// `work`. `number` distinguishes several hashes of one client.
    pub fn unmatchable(work: Work, number: usize) -> Self {
        let output = match work {
            Work::Argon2id { .. } => 32,
            Work::Pbkdf2Sha256 { blocks, .. } => 32 * usize::from(blocks),
            Work::Bcrypt { .. } => 23,
        };
        let (salt, stored) = ([0; 16], format!("{work:?} {number}").into());
        Self { stored, work, salt: salt.into(), output: vec![0; output].into() }
    }

    /// Returns the stored form.
    pub fn as_stored(&self) -> &str {
        &self.stored
    }

    /// Whether `secret` has this hash. The computation is slow: never call this on an event loop.
    pub fn is_of(&self, secret: &str) -> bool {
        let mut output = Zeroizing::new(vec![0; self.output.len()]);
        self.work.run(secret, &self.salt, &mut output).is_some()
            && bool::from(output.ct_eq(&self.output))
    }
}

/// Hides the hash, because a weak secret can be found by hashing guesses and comparing the results
/// with the stored hash.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash").field("work", &self.work).finish_non_exhaustive()
    }
}

type Read = Option<(Work, Vec<u8>, Vec<u8>)>;

/// Reads `v=19$m=…,t=…,p=…$<salt>$<hash>`.
fn read_argon2id<'a>(mut parts: impl Iterator<Item = &'a str>) -> Read {
    parts.next().filter(|version| *version == "v=19")?;
    let mut costs = parts.next()?.split(',');
    let mut cost = |name| number(costs.next()?.strip_prefix(name)?);
    let work = Work::Argon2id { memory: cost("m=")?, passes: cost("t=")?, lanes: cost("p=")? };
    if costs.next().is_some() {
        return None;
    }
    let [salt, output] = salt_and_output(parts, &STANDARD_NO_PAD)?;
    Some((work, salt, output))
}

/// Reads passlib's form `<rounds>$<salt>$<hash>`, in passlib's base64, or the PHC form
/// `i=…$<salt>$<hash>` or `i=…,l=…$<salt>$<hash>`, in standard base64.
fn read_pbkdf2<'a>(mut parts: impl Iterator<Item = &'a str>) -> Read {
    let costs = parts.next()?;
    let Some(costs) = costs.strip_prefix("i=") else {
        let [salt, output] = salt_and_output(parts, &PASSLIB)?;
        return Some((pbkdf2_work(number(costs)?, &output), salt, output));
    };
    let (rounds, length) = match costs.split_once(",l=") {
        Some((rounds, length)) => (number(rounds)?, Some(number(length)?)),
        None => (number(costs)?, None),
    };
    let [salt, output] = salt_and_output(parts, &STANDARD_NO_PAD)?;
    if length.is_some_and(|length| usize::try_from(length) != Ok(output.len())) {
        return None;
    }
    Some((pbkdf2_work(rounds, &output), salt, output))
}

/// Returns the cost of a PBKDF2 hash. Each block of 32 output bytes is computed in `rounds`
/// iterations.
fn pbkdf2_work(rounds: u32, output: &[u8]) -> Work {
    // At most 2 blocks: `salt_and_output` allows at most 64 bytes.
    Work::Pbkdf2Sha256 { rounds, blocks: output.len().div_ceil(32) as u8 }
}

/// Reads `<cost>$<salt><hash>`: a cost of 2 digits, a salt of 22 characters, a hash of 31
/// characters.
fn read_bcrypt<'a>(mut parts: impl Iterator<Item = &'a str>) -> Read {
    let cost = parts.next().filter(|cost| cost.len() == 2)?;
    let cost = cost.strip_prefix('0').unwrap_or(cost);
    let (salt, output) = parts.next()?.split_at_checked(22)?;
    if parts.next().is_some() || output.len() != 31 {
        return None;
    }
    let [salt, output] = [salt, output].map(|text| BCRYPT.decode(text).ok());
    Some((Work::Bcrypt { cost: number(cost)? }, salt?, output?))
}

fn salt_and_output<'a>(
    mut parts: impl Iterator<Item = &'a str>,
    base64: &GeneralPurpose,
) -> Option<[Vec<u8>; 2]> {
    let mut bytes = |lengths: RangeInclusive<usize>| {
        base64.decode(parts.next()?).ok().filter(|bytes| lengths.contains(&bytes.len()))
    };
    let (salt, output) = (bytes(8..=64)?, bytes(16..=64)?);
    parts.next().is_none().then_some([salt, output])
}

/// Parses a number in decimal digits, without a sign or a leading zero.
fn number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if is_plain { text.parse().ok() } else { None }
}

const PASSLIB: GeneralPurpose = GeneralPurpose::new(&PASSLIB_ALPHABET, NO_PAD);
/// Standard base64, but with `.` in place of `+`.
const PASSLIB_ALPHABET: alphabet::Alphabet = match alphabet::Alphabet::new(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./",
) {
    Ok(alphabet) => alphabet,
    // Never reached: the alphabet is valid. The `match` is evaluated at compile time.
    Err(_) => alphabet::STANDARD,
};
/// Accepts trailing bits: the last character of an encoded 16-byte salt has unused bits, and some
/// software does not set these to 0.
const BCRYPT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::BCRYPT,
    GeneralPurposeConfig::with_decode_allow_trailing_bits(NO_PAD, true),
);

/// The maximum memory accepted for argon2id, in KiB.
const MAX_MEMORY: u32 = 262_144;
/// The greatest product of memory in KiB and passes that is accepted for argon2id: 16 passes over
/// 64 MiB, or 4 passes over 256 MiB.
const MAX_MEMORY_PASSES: u32 = 1 << 20;

const EXPECTED: &str =
    "$sha256$<base64url>, or an argon2id, pbkdf2-sha256 or bcrypt hash in its usual text form";
const EXPECTED_ARGON2ID: &str = "$argon2id$v=19$m=…,t=…,p=…$<salt>$<hash> with m up to 262144 KiB, \
                                 m times t up to 1048576 and p up to 16";
const EXPECTED_PBKDF2: &str = "$pbkdf2-sha256$<rounds>$<salt>$<hash> with 1000 to 5000000 rounds, \
                               in passlib's or the PHC form";
const EXPECTED_BCRYPT: &str = "$2b$<cost>$<salt><hash> with a cost from 04 to 15";

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes of `imported-secret`, made by argon2-cffi, passlib and Python's bcrypt.
    const FOREIGN: [&str; 6] = [
        "$argon2id$v=19$m=8192,t=2,p=1$2FurCrcnJyk+ioKBwUNDxA$gLx2Q2ama6t4N1B6Bi5xRVT7hLyfjqgLIkMFqQREh6s",
        "$argon2id$v=19$m=65536,t=3,p=4$eM+5FyIkhFBqbY0x5rwXgg$nfdjgqj1GkVl8ilzwGR3wpXvTL4yTvQMVz0MPkL63YA",
        "$pbkdf2-sha256$29000$hxAi5Ly3thZC6H3vfW.tVQ$lQwrwgKvH0R5Wx4G/bqic1o.ITsPz8fm6TSUU9ZGlkM",
        "$pbkdf2-sha256$i=29000,l=32$hxAi5Ly3thZC6H3vfW+tVQ$lQwrwgKvH0R5Wx4G/bqic1o+ITsPz8fm6TSUU9ZGlkM",
        "$2b$05$TnE0l4bsgWyWTvjvvWPBkeXL5cZDNjUtDoIMQhOu9QNQ4nbH1qf4m",
        "$2a$05$kkWxfaJCUREEzpMWhoQyLeOSgeIXW7p/psQncB/LTgU8h6yYcHqbG",
    ];
    /// The hash of a secret of 72 times the character `x`, made by Python's bcrypt.
    const BCRYPT_OF_72: &str = "$2b$05$WYTuree5Hy8jf/bv/rrwPO/9zWOVw7s8TCICKiMC7r2njtPcyYata";

    #[test]
    fn hashes_of_other_software_are_read() {
        for stored in FOREIGN {
            let hash = PasswordHash::parse(stored).unwrap();
            assert!(hash.is_of("imported-secret"), "{stored}");
            assert!(!hash.is_of("imported-secreT"), "{stored}");
            assert!(!hash.is_of(""), "{stored}");
            assert_eq!(hash.as_stored(), stored);
        }
        let hash = PasswordHash::parse(BCRYPT_OF_72).unwrap();
        for (length, same) in [(71, false), (72, true), (73, true), (5000, true)] {
            assert_eq!(hash.is_of(&"x".repeat(length)), same, "{length}");
        }
    }

    #[test]
    fn a_new_hash_round_trips() {
        for work in [
            Work::Argon2id { memory: 64, passes: 1, lanes: 1 },
            Work::Pbkdf2Sha256 { rounds: 1000, blocks: 1 },
        ] {
            let made = PasswordHash::of("secret", work, [7; 16]).unwrap();
            let read = PasswordHash::parse(made.as_stored()).unwrap();
            assert_eq!(read.work, work);
            assert!(read.is_of("secret") && !read.is_of("other"));
        }
        assert!(Work::ARGON2ID.is_sane() && Work::PBKDF2_SHA256.is_sane());
        assert!(PasswordHash::of("secret", Work::Bcrypt { cost: 4 }, [7; 16]).is_none());
    }

    #[test]
    fn an_expensive_or_malformed_hash_is_refused_without_its_value() {
        let salt = "2FurCrcnJyk+ioKBwUNDxA";
        let hash = "gLx2Q2ama6t4N1B6Bi5xRVT7hLyfjqgLIkMFqQREh6s";
        let argon2id = |costs: &str| format!("$argon2id$v=19${costs}${salt}${hash}");
        assert!(PasswordHash::parse(&argon2id("m=262144,t=4,p=16")).is_ok());
        for (stored, expected) in [
            (argon2id("m=262145,t=1,p=1"), EXPECTED_ARGON2ID),
            (argon2id("m=262144,t=5,p=1"), EXPECTED_ARGON2ID),
            (argon2id("m=8192,t=1000,p=1"), EXPECTED_ARGON2ID),
            (argon2id("m=8192,t=1,p=17"), EXPECTED_ARGON2ID),
            (argon2id("m=7,t=1,p=1"), EXPECTED_ARGON2ID),
            (argon2id("m=8192,t=0,p=1"), EXPECTED_ARGON2ID),
            (argon2id("m=8192,t=1,p=0"), EXPECTED_ARGON2ID),
            (argon2id("m=+8192,t=1,p=1"), EXPECTED_ARGON2ID),
            (argon2id("m=08192,t=1,p=1"), EXPECTED_ARGON2ID),
            (argon2id("m=8192,t=1"), EXPECTED_ARGON2ID),
            (argon2id("m=8192,t=1,p=1,x=1"), EXPECTED_ARGON2ID),
            (argon2id("t=1,m=8192,p=1"), EXPECTED_ARGON2ID),
            (argon2id("m=8192,t=1,p=1").replace("v=19", "v=16"), EXPECTED_ARGON2ID),
            (argon2id("m=8192,t=1,p=1") + "$", EXPECTED_ARGON2ID),
            (argon2id("m=8192,t=1,p=1").replace(salt, "c2hvcnQ"), EXPECTED_ARGON2ID),
            (argon2id("m=8192,t=1,p=1").replace(hash, "c2hvcnQ"), EXPECTED_ARGON2ID),
            (argon2id("m=8192,t=1,p=1").replace("argon2id", "argon2i"), EXPECTED),
            (FOREIGN[2].replace("29000", "999"), EXPECTED_PBKDF2),
            (FOREIGN[2].replace("29000", "5000001"), EXPECTED_PBKDF2),
            (FOREIGN[2].replace("29000", ""), EXPECTED_PBKDF2),
            (FOREIGN[3].replace("l=32", "l=31"), EXPECTED_PBKDF2),
            (FOREIGN[3].replace('+', "."), EXPECTED_PBKDF2),
            (FOREIGN[4].replace("$05$", "$03$"), EXPECTED_BCRYPT),
            (FOREIGN[4].replace("$05$", "$16$"), EXPECTED_BCRYPT),
            (FOREIGN[4].replace("$05$", "$5$"), EXPECTED_BCRYPT),
            (FOREIGN[4].replace("$2b$", "$2x$"), EXPECTED),
            (FOREIGN[4][..59].to_owned(), EXPECTED_BCRYPT),
            ("hunter2".to_owned(), EXPECTED),
            (String::new(), EXPECTED),
        ] {
            assert_eq!(PasswordHash::parse(&stored).err(), Some(expected), "{stored}");
        }
    }

    #[test]
    fn an_unmatchable_hash_costs_as_many_blocks_and_is_distinct() {
        let long = "0123456789".repeat(8) + "abcdeA";
        let stored = format!("$pbkdf2-sha256$i=29000$hxAi5Ly3thZC6H3vfW+tVQ${long}");
        for (stored, length) in
            [(&*stored, 64), (FOREIGN[2], 32), (FOREIGN[0], 32), (FOREIGN[4], 23)]
        {
            let work = PasswordHash::parse(stored).unwrap().work;
            let [first, second] = [0, 1].map(|number| PasswordHash::unmatchable(work, number));
            assert_eq!(first.output.len(), length, "{stored}");
            assert_ne!(first.as_stored(), second.as_stored());
        }
    }

    #[test]
    fn no_secret_matches_an_unmatchable_hash_and_debug_shows_no_hash() {
        for stored in FOREIGN {
            let work = PasswordHash::parse(stored).unwrap().work;
            assert!(!PasswordHash::unmatchable(work, 0).is_of("imported-secret"));
        }
        let shown = format!("{:?}", PasswordHash::parse(FOREIGN[4]).unwrap());
        assert_eq!(shown, "PasswordHash { work: Bcrypt { cost: 5 }, .. }");
    }
}
