//! `POST /connect/token`: the dialect of IdentityServer-style OAuth 2.0 clients.
//!
//! The body is `multipart/form-data`, as in the documentation of these clients, or
//! `application/x-www-form-urlencoded`, as in RFC 6749. Errors have the format of RFC 6749, section
//! 5.2.

mod errors;

use std::io::Write;
use std::pin::pin;

use bytes::Bytes;

pub use crate::dialect::connect::errors::public_error;
use crate::dialect::public_error::PublicError;
use crate::dialect::{Answer, Reply, RequestHead};
use crate::endpoint::Exchange;
use crate::endpoint::token::{TokenRequest, issue};
use crate::form::media_type::{Charset, MediaType};
use crate::form::multipart::Parts;
use crate::form::parameters::{FormError, Parameters};
use crate::form::urlencoded;
use crate::oauth::client::TokenProfile;
use crate::oauth::error::Cause;
use crate::oauth::grant::GrantRequest;

/// Answers one token request.
pub async fn token<'s>(exchange: &Exchange<'s>, head: &RequestHead<'_>, body: Bytes) -> Reply<'s> {
    let form = Form::read(head, body)?;
    let parameters = form.parameters(head.max_parameters)?;
    head.check_query(&parameters)?;
    let request = TokenRequest {
        grant: GrantRequest::read(&parameters)?,
        credentials: head.credentials(&parameters)?,
        certificate: head.certificate,
        dpop: head.dpop,
        method: "POST",
        content_type: None,
        profile: TokenProfile::AtJwt,
    };
    let issued = pin!(issue(exchange, &request, Answer::begin_token()));
    let mut issued = issued.await?;
    // Scope tokens contain no character that JSON would escape (RFC 6749, section 3.3).
    let (lifetime, scope) = (issued.lifetime, &issued.scope);
    let token_type = issued.confirmation.token_type();
    write!(
        issued.buffer,
        "\",\"expires_in\":{lifetime},\"token_type\":\"{token_type}\",\"scope\":\"{scope}\"}}"
    )
    .map_err(|_| Cause::Internal)?;
    Ok(Answer::with_token(exchange, issued))
}

/// A form whose encoding and declared charset are known, but whose parameters are not parsed yet.
pub(super) struct Form {
    encoded: Encoded,
    charset: Charset,
}

#[expect(clippy::large_enum_variant, reason = "there is one for each request, and it is not moved")]
enum Encoded {
    Urlencoded(Bytes),
    Multipart(Parts),
}

impl Form {
    pub(super) fn read(head: &RequestHead<'_>, body: Bytes) -> Result<Self, Cause> {
        let content_type = head.content_type.unwrap_or_default();
        // Fast path: the Content-Type that most clients send, or no Content-Type and no body.
        if content_type == URLENCODED.as_bytes() || content_type.is_empty() && body.is_empty() {
            return Ok(Self { encoded: Encoded::Urlencoded(body), charset: Charset::Utf8 });
        }
        if content_type.is_empty() {
            return Err(Cause::MediaType);
        }
        let content_type =
            std::str::from_utf8(content_type).map_err(|_| Cause::ContentTypeMalformed)?;
        let media_type = MediaType::parse(content_type).ok_or(Cause::ContentTypeMalformed)?;
        let charset = media_type.charset();
        if charset == Charset::Other {
            return Err(Cause::Charset);
        }
        let encoded = if media_type.is(URLENCODED) {
            Encoded::Urlencoded(body)
        } else if media_type.is("multipart/form-data") {
            if is_object(&body) {
                return Err(FormError::Object.into());
            }
            let boundary = media_type.boundary.as_deref().unwrap_or_default();
            Encoded::Multipart(Parts::read(body, boundary, head.max_parameters)?)
        } else {
            return Err(Cause::MediaType);
        };
        Ok(Self { encoded, charset })
    }

    pub(super) fn parameters(&self, max_parameters: usize) -> Result<Parameters<'_>, Cause> {
        let parameters = match &self.encoded {
            Encoded::Urlencoded(body) if is_object(body) => Err(FormError::Object),
            Encoded::Urlencoded(body) => urlencoded::parse(body, max_parameters),
            Encoded::Multipart(parts) => parts.parameters(),
        };
        let is_ascii = match &parameters {
            Ok(parameters) => self.charset == Charset::Utf8 || parameters.are_ascii(),
            Err(error) => *error != FormError::NotUtf8,
        };
        if !self.charset.fits(is_ascii) {
            return Err(Cause::Charset);
        }
        Ok(parameters?)
    }
}

/// Whether the body looks like a JSON object. No form looks like this.
fn is_object(body: &[u8]) -> bool {
    body.first().is_some_and(|&first| first == b'{' || first.is_ascii_whitespace())
        && body.trim_ascii().starts_with(b"{")
        && body.trim_ascii().ends_with(b"}")
}

/// Writes the answer to a refusal. Its text is a constant and contains nothing from the request.
pub fn refuse(cause: Cause, head: &RequestHead<'_>) -> Answer {
    let PublicError { status, code, text, .. } = public_error(cause, head);
    let body = if text.is_empty() {
        format!(r#"{{"error":"{code}"}}"#)
    } else {
        format!(r#"{{"error":"{code}","error_description":"{text}"}}"#)
    };
    let mut answer = Answer::private_json(status, body);
    if status == 401 && !cause.is_about_a_token() {
        answer.push_header("www-authenticate", "Basic realm=\"connect/token\"");
    }
    answer
}

const URLENCODED: &str = "application/x-www-form-urlencoded";
