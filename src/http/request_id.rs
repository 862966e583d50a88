//! `X-Request-Id`: the id of a request. The answer to the request and our log contain this id. With
//! it, a line in the client's log can be matched with a line in our log.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use crate::random::{NoEntropy, Random};

/// Generates request ids.
#[derive(Debug)]
pub(crate) struct RequestIds {
    /// Random, so that the ids of two processes differ.
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new(random: &Random) -> Result<Self, NoEntropy> {
        let mut process = [0; 8];
        random.fill(&mut process)?;
        Ok(Self { process: u64::from_be_bytes(process), next: AtomicU64::new(0) })
    }

    /// Returns the client's id if it is safe to log, otherwise a new one.
    pub(crate) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(id) = headers.get(&REQUEST_ID)
            && is_valid(id.as_bytes())
        {
            return id.clone();
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = [b'-'; 33];
        write_hex(&mut id[..16], self.process);
        write_hex(&mut id[17..], next);
        // Hexadecimal digits and a dash are valid in a header, so this never fails.
        HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static("-"))
    }
}

/// A `HeaderName` that is created once. Inserting the name as a string would copy it each time,
/// because it is not among the standard names of the crate `http`.
pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn is_valid(id: &[u8]) -> bool {
    (1..=64).contains(&id.len())
        && id.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
}

fn write_hex(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_clients_id_only_if_it_is_valid() {
        let ids = RequestIds::new(&Random::counting(0xabc)).unwrap();
        let of = |id: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(&REQUEST_ID, HeaderValue::from_static(id));
            ids.of(&headers).to_str().unwrap().to_owned()
        };
        assert_eq!(of("a.B_9-"), "a.B_9-");
        assert_eq!(of(""), "0000000000000abc-0000000000000000");
        assert_eq!(of("a b"), "0000000000000abc-0000000000000001");
        assert_eq!(ids.of(&HeaderMap::new()), "0000000000000abc-0000000000000002");
        let long: &'static str = "x123456789012345678901234567890123456789012345678901234567890123";
        assert_eq!(of(long), long);
    }
}
