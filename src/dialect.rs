//! One file for each documented token service: its request into a token request, an outcome into
//! its answer. A dialect reads and writes; it decides nothing.

pub mod connect;

use std::borrow::Cow;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::endpoint::token::Refused;
use crate::oauth::client_authentication::Authorization;

/// What a dialect sees of a request beside its body.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestHead<'a> {
    /// The `Authorization` header.
    pub authorization: Authorization<'a>,
    /// The `Content-Type` header.
    pub content_type: Option<&'a [u8]>,
    /// The query, without its question mark.
    pub query: Option<&'a str>,
    /// How many parameters a form may have.
    pub max_parameters: usize,
}

/// What is sent back, in no library's types.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header fields; names in lower case.
    pub headers: SmallVec<[(&'static str, Cow<'static, str>); 6]>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// A JSON body with this status.
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        let mut answer = Self { status, headers: SmallVec::new(), body: body.into() };
        answer.push_header("content-type", "application/json");
        answer
    }

    /// Adds a header field.
    pub fn push_header(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        self.headers.push((name, value.into()));
    }

    /// Forbids every cache to keep this (RFC 6749, section 5.1).
    pub fn forbid_storing(&mut self) {
        self.push_header("cache-control", "no-store");
        self.push_header("pragma", "no-cache");
    }
}

/// An answer, and for the log what became of the request.
#[derive(Debug)]
pub struct Outcome<'s> {
    /// What is sent.
    pub answer: Answer,
    /// The client that got a token, or why none did.
    pub verdict: Result<&'s str, Refused<'s>>,
}
