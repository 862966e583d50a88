//! `POST /connect/revocation` (RFC 7009). Forms and errors are the same as at the token endpoint of
//! the `connect` dialect.

use bytes::Bytes;

use crate::dialect::connect::Form;
use crate::dialect::{Answer, Reply, RequestHead};
use crate::endpoint::Exchange;
use crate::endpoint::outcome::Served;
use crate::endpoint::revocation;
use crate::oauth::error::Cause;

/// Answers one revocation request.
pub async fn revoke<'s>(exchange: &Exchange<'s>, head: &RequestHead<'_>, body: Bytes) -> Reply<'s> {
    let form = Form::read(head, body)?;
    let parameters = form.parameters(head.max_parameters)?;
    head.check_query(&parameters)?;
    // `token_type_hint` is ignored (RFC 7009, section 2.1, allows this): grantd issues only access
    // tokens.
    let token = parameters.get("token").ok_or(Cause::FieldMissing("token"))?;
    let credentials = head.credentials(&parameters)?;
    let client_id = revocation::revoke(exchange, &credentials, token).await?;
    let mut answer = Answer::empty(200);
    answer.push_header("cache-control", "no-store");
    Ok((answer, Served::to(client_id)))
}
