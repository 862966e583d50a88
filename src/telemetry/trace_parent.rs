//! Parses the `traceparent` header (W3C Trace Context, section 3.2), which names the trace that a
//! request belongs to.

/// A valid `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent<'r> {
    /// The id of the trace: 32 hexadecimal digits.
    pub trace_id: &'r str,
    /// The id of the caller's span in the trace: 16 hexadecimal digits.
    pub parent_id: &'r str,
    /// Whether the caller records the trace.
    pub is_sampled: bool,
}

impl<'r> TraceParent<'r> {
    /// Parses the value of the header. `None` if the value is not valid. W3C Trace Context requires
    /// that a header with an invalid value be ignored.
    pub fn parse(field: &'r [u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(field).ok()?.split('-');
        let (version, trace_id, parent_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |part: &str, length: usize| {
            part.len() == length
                && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
        // Version 00 has exactly four parts; later versions may have more.
        let is_whole = version != "00" || parts.next().is_none();
        let is_valid = is_hex(version, 2)
            && version != "ff"
            && is_hex(trace_id, 32)
            && is_hex(parent_id, 16)
            && is_hex(flags, 2)
            && is_whole
            && !is_zero(trace_id)
            && !is_zero(parent_id);
        let is_sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & SAMPLED != 0);
        is_valid.then_some(Self { trace_id, parent_id, is_sampled })
    }
}

/// The flag `sampled`, the only flag of version 00.
const SAMPLED: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_what_the_recommendation_allows() {
        let (trace_id, parent_id) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        for (good, is_sampled) in [
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", false),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fe", false),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff", true),
            ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-holds", true),
        ] {
            let expected = TraceParent { trace_id, parent_id, is_sampled };
            assert_eq!(TraceParent::parse(good.as_bytes()), Some(expected), "{good}");
        }
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
