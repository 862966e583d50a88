//! A refusal as its caller sees it, in the words of a dialect.

use std::borrow::Cow;

/// The part of a refusal that a dialect tells the caller. Several causes may have the same public
/// error, so none of its fields says more than the caller may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicError {
    /// The HTTP status.
    pub status: u16,
    /// The error code of the dialect.
    pub code: &'static str,
    /// The text in the answer; may be empty.
    pub text: Cow<'static, str>,
    /// The remedy for the caller. It is not in the answer, but in the documentation of the server.
    pub advice: &'static str,
}

/// A row in a dialect's table: status, code, text and advice.
pub(super) type Row = (u16, &'static str, &'static str, &'static str);

impl PublicError {
    pub(super) fn of((status, code, text, advice): Row) -> Self {
        Self { status, code, text: Cow::Borrowed(text), advice }
    }
}

/// The texts for DPoP proofs, the same in the dialects `vision` and `firstvision`, whose documents have
/// none.
pub(super) const DPOP_PROOF: &str = "DPoP proof is not valid";
pub(super) const DPOP_NONCE: &str = "DPoP proof must have the nonce of DPoP-Nonce";

/// The advice that dialects share.
pub(super) mod advice {
    pub const READ_THE_REFERENCE: &str = "Compare the request with the documentation of this path.";
    pub const SEND_ALL_BYTES: &str = "Send as many bytes as Content-Length says, or let the HTTP library write the chunks, and check that \
     no proxy cuts the body off.";
    pub const SEND_LESS: &str =
        "Send only the documented parameters: a token request needs a few hundred bytes.";
    pub const FEWER_HEADERS: &str =
        "Send fewer or shorter header fields; cookies, for example, are not needed here.";
    pub const ALLOWED_METHOD: &str = "Use a method that the Allow header of the answer lists.";
    pub const COMPARE_PATH: &str =
        "Compare the path of the URL with the documented paths; they are case-sensitive.";
    pub const SEND_AT_ONCE: &str =
        "Send the whole request at once, and check the network and the proxies on the way.";
    pub const WAIT: &str = "Wait for as many seconds as Retry-After says. Keep a token until shortly before it expires; \
     if credentials have failed, check them before you try again.";
    pub const TELL_THE_OPERATOR: &str = "Try again later. If the error stays, tell the operator of this server the X-Request-Id of the \
     answer.";
    pub const RETRY: &str = "Wait for as many seconds as Retry-After says, and try again.";
    pub const CHECK_CREDENTIALS: &str = "Check the client id, the secret and the scope, and that they belong to this server. If they \
     are right, ask the operator of this server, and quote the X-Request-Id of the answer. If an API \
     answers this to a token, get one for the scope that the API requires.";
    pub const CHECK_ID_AND_SECRET: &str = "Check the client id and the secret, and that they belong to this server. If they are right, \
     ask the operator of this server, and quote the X-Request-Id of the answer.";
    pub const SEND_DPOP_NONCE: &str = "Repeat the request with a new DPoP proof whose claim nonce is the value of the header \
     DPoP-Nonce of the answer.";
    pub const SIGN_DPOP_PROOF: &str = "Sign a new proof for each request, with its method, the URL of this path without the query, \
     the current time and a new jti, and send it in one header DPoP.";
    pub const NEW_TOKEN: &str = "Get a new token, and repeat the request with it.";
    pub const SEND_BEARER: &str =
        "Send the access token in the header Authorization, after the word Bearer and a space.";
}
