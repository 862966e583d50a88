//! The answer to a refusal, in any dialect.

use crate::config::Dialect;
use crate::dialect::public_error::PublicError;
use crate::dialect::route::Route;
use crate::dialect::{Answer, RequestHead, connect, firstvision, vision};
use crate::oauth::error::Cause;

impl Route<'_> {
    /// Writes the answer to a refusal of a request to this route.
    pub(crate) fn refuse(self, cause: Cause, head: &RequestHead<'_>) -> Answer {
        let mut answer = match self {
            Self::VisionValidate => vision::refuse(&vision::validation_error(cause), head),
            route => route.dialect().refuse(cause, head),
        };
        if cause == Cause::MethodNotAllowed {
            answer.push_header("allow", self.methods());
        }
        answer
    }
}

impl Dialect {
    /// Writes the answer to a refusal in this dialect.
    pub fn refuse(self, cause: Cause, head: &RequestHead<'_>) -> Answer {
        match self {
            Self::Connect => connect::refuse(cause, head),
            Self::Vision => vision::refuse(&vision::public_error(cause), head),
            Self::Firstvision => firstvision::refuse(cause, head),
        }
    }

    /// Returns what the caller of a refused request learns in this dialect.
    pub fn public_error(self, cause: Cause, head: &RequestHead<'_>) -> PublicError {
        match self {
            Self::Connect => connect::public_error(cause, head),
            Self::Vision => vision::public_error(cause),
            Self::Firstvision => firstvision::public_error(cause, head),
        }
    }
}
