//! The requests of the OpenAPI document as a collection for Postman (Collection Format v2.1), which
//! Insomnia imports too.

use serde_json::{Map, Value, json};

use crate::page::reading::{items, members, operations, text};

/// Returns the collection of the operations in `document`.
pub fn postman(document: &Value) -> Value {
    let folders = items(&document["tags"]).map(|tag| {
        let requests: Vec<_> = operations(document)
            .filter(|(_, _, operation)| operation["tags"][0] == tag["name"])
            .flat_map(|(path, method, operation)| requests(path, method, operation))
            .collect();
        json!({ "name": tag["name"], "item": requests })
    });
    json!({
        "info": {
            "name": document["info"]["title"],
            "description": "Set the variables client_id and client_secret, then send. The variables \
                belong to you alone: enter the secret as a current value, which is not shared.",
            "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
        },
        "item": folders.collect::<Vec<_>>(),
        "variable": [
            { "key": "base_url", "value": document["servers"][0]["url"] },
            { "key": "client_id", "value": "" },
            { "key": "client_secret", "value": "" },
            { "key": "scope", "value": "" },
            { "key": "access_token", "value": "" },
        ],
    })
}

/// Returns a request for each encoding of the operation's body.
fn requests(path: &str, method: &str, operation: &Value) -> Vec<Value> {
    let mut requests: Vec<_> = members(&operation["requestBody"]["content"])
        // The same JSON under another name is only for clients that are registered for it.
        .filter(|(name, _)| *name != "application/octet-stream")
        .map(|(media_type, content)| request(path, method, operation, Some((media_type, content))))
        .collect();
    if requests.is_empty() {
        requests.push(request(path, method, operation, None));
    }
    requests
}

fn request(
    path: &str,
    method: &str,
    operation: &Value,
    content: Option<(&String, &Value)>,
) -> Value {
    let summary = text(&operation["summary"]);
    let encoding = content.map(|(media_type, _)| format!(" ({media_type})")).unwrap_or_default();
    let query: Vec<_> = items(&operation["parameters"])
        .filter(|parameter| parameter["in"] == "query" && parameter["required"] == true)
        .map(|parameter| {
            let value = &parameter["schema"]["enum"][0];
            json!({ "key": parameter["name"], "value": value })
        })
        .collect();
    let path = path.replace("{scope}", "{{scope}}");
    let segments: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let search: Vec<_> = query
        .iter()
        .map(|pair| format!("{}={}", text(&pair["key"]), text(&pair["value"])))
        .collect();
    let search = if search.is_empty() { String::new() } else { format!("?{}", search.join("&")) };
    let mut request = json!({
        "method": method.to_ascii_uppercase(),
        "description": operation["description"],
        "header": [],
        "url": {
            "raw": format!("{{{{base_url}}}}{path}{search}"),
            "host": ["{{base_url}}"],
            "path": segments,
            "query": query,
        },
        "auth": auth(operation, content.is_some()),
    });
    if let Some((media_type, content)) = content {
        request["body"] = body(media_type, content);
        if media_type == "application/json" {
            request["header"] = json!([{ "key": "Content-Type", "value": media_type }]);
        }
    }
    let mut item = json!({ "name": format!("{summary}{encoding}: {path}"), "request": request });
    if operation["tags"][0] == "Tokens" {
        // The next requests use the token.
        let script = [
            "const answer = pm.response.json();",
            "if (answer.access_token) pm.collectionVariables.set('access_token', answer.access_token);",
        ];
        item["event"] = json!([{
            "listen": "test",
            "script": { "type": "text/javascript", "exec": script },
        }]);
    }
    item
}

/// Returns the authorization of a request. Credentials in the body need none.
fn auth(operation: &Value, has_body: bool) -> Value {
    let needs = |scheme: &str| {
        items(&operation["security"]).any(|alternative| alternative.get(scheme).is_some())
    };
    let is_optional = items(&operation["security"]).any(|alternative| *alternative == json!({}));
    if needs("access_token") {
        json!({
            "type": "bearer",
            "bearer": [{ "key": "token", "value": "{{access_token}}", "type": "string" }],
        })
    } else if needs("client_secret_basic") && !(is_optional && has_body) {
        json!({
            "type": "basic",
            "basic": [
                { "key": "username", "value": "{{client_id}}", "type": "string" },
                { "key": "password", "value": "{{client_secret}}", "type": "string" },
            ],
        })
    } else {
        json!({ "type": "noauth" })
    }
}

/// Returns the body of a request: the example, with the variables in place of the credentials.
fn body(media_type: &str, content: &Value) -> Value {
    let fields: Map<_, _> = members(&content["example"])
        .map(|(name, value)| {
            let value = match name.as_str() {
                "client_id" => "{{client_id}}".into(),
                "client_secret" => "{{client_secret}}".into(),
                "token" => "{{access_token}}".into(),
                "scope" if value.is_array() => json!(["{{scope}}"]),
                "scope" => "{{scope}}".into(),
                _ => value.clone(),
            };
            (name.clone(), value)
        })
        .collect();
    let pairs: Vec<_> = fields
        .iter()
        .map(|(name, value)| json!({ "key": name, "value": value, "type": "text" }))
        .collect();
    match media_type {
        "multipart/form-data" => json!({ "mode": "formdata", "formdata": pairs }),
        "application/x-www-form-urlencoded" => json!({ "mode": "urlencoded", "urlencoded": pairs }),
        _ => json!({
            "mode": "raw",
            "raw": serde_json::to_string_pretty(&fields).unwrap_or_default(),
            "options": { "raw": { "language": "json" } },
        }),
    }
}
