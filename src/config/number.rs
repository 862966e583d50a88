//! Numbers with a range, and durations.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserializer;
use serde::de::{Error, Visitor};

use crate::config::scalar::{Scalar, scalar};
use crate::time::parse_duration;

/// Deserializes a number from `MIN` to `MAX`.
pub(super) fn number<'de, D, T, const MIN: u64, const MAX: u64>(
    deserializer: D,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    deserializer.deserialize_u64(Number::<T, MIN, MAX>(PhantomData))
}

struct Number<T, const MIN: u64, const MAX: u64>(PhantomData<T>);

impl<T: TryFrom<u64>, const MIN: u64, const MAX: u64> Visitor<'_> for Number<T, MIN, MAX> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number from {MIN} to {MAX}")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        let number = Some(number).filter(|number| (MIN..=MAX).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| E::custom(format_args!("must be a number from {MIN} to {MAX}")))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        // Refuse a negative number: pass on `u64::MAX`, which is above every `MAX`.
        self.visit_u64(u64::try_from(number).unwrap_or(u64::MAX))
    }
}

/// Deserializes a duration, in seconds, or `off`.
pub(super) fn duration_or_off<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    scalar(deserializer, NO_DURATION, |value| {
        let seconds = match value {
            Scalar::Text(text) if text.eq_ignore_ascii_case("off") => return Ok(None),
            Scalar::Text(text) => parse_duration(text).ok_or(
                "must be off, seconds, or a duration as in 12h or 90d (units: s, m, h, d)",
            )?,
            // 0 is refused.
            Scalar::Number(seconds) => u64::try_from(seconds).unwrap_or(0),
            Scalar::Switch(_) => return Err(NO_DURATION),
        };
        if (1..=MOST_SECONDS).contains(&seconds) {
            Ok(Some(seconds))
        } else {
            Err("must be a duration from 1s to 3650d, or off")
        }
    })
}

const NO_DURATION: &str = "must be a duration as in \"90d\", or \"off\"";

/// The longest duration: ten years.
const MOST_SECONDS: u64 = 315_360_000;

/// The greatest value of the settings `workers` and `limits.password_threads`.
pub(super) const MAX_WORKERS: u64 = 1024;
/// The greatest value of most settings that are sizes (1 GiB) or counts (about a thousand million).
/// A larger value would have no effect as a limit.
pub(super) const MANY: u64 = 1 << 30;
/// The greatest value of most settings that are times: a year, in seconds.
pub(super) const LONG: u64 = 31_536_000;

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
