//! `POST /connect/introspect` (RFC 7662). Forms and errors are the same as at the token endpoint of
//! the `connect` dialect.

use bytes::Bytes;

use crate::dialect::connect::Form;
use crate::dialect::{Answer, Reply, RequestHead};
use crate::endpoint::Exchange;
use crate::endpoint::introspection;
use crate::endpoint::outcome::Served;
use crate::oauth::error::Cause;

/// Answers one introspection request.
pub async fn introspect<'s>(
    exchange: &Exchange<'s>,
    head: &RequestHead<'_>,
    body: Bytes,
) -> Reply<'s> {
    let form = Form::read(head, body)?;
    let parameters = form.parameters(head.max_parameters)?;
    head.check_query(&parameters)?;
    // `token_type_hint` is ignored: the hint would only speed up a lookup (RFC 7662, section 2.1).
    let token = parameters.get("token").ok_or(Cause::FieldMissing("token"))?;
    let credentials = head.credentials(&parameters)?;
    let (active, client_id) = introspection::introspect(exchange, &credentials, token).await?;
    let body = match active {
        Some(active) => Bytes::from(serde_json::to_vec(&active).map_err(|_| Cause::Internal)?),
        None => Bytes::from_static(b"{\"active\":false}"),
    };
    Ok((Answer::private_json(200, body), Served::to(client_id)))
}
