pub fn document(snapshot: &crate::snapshot::Snapshot) -> serde_json::Value {
    serde_json::json!({"openapi":"3.1.0","servers":[{"url":snapshot.issuer.join("")}]})
}
