//! Where things stand in a TOML document, for faults.

use serde::Deserialize;
use toml::Spanned;

/// The field whose value begins at this byte offset of a TOML document, or one of whose elements does:
/// with the name of its table.
pub(super) fn field_at(text: &str, offset: usize) -> Option<String> {
    let line_start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    let name_of = |line: &str| line.split_once('=').map(|(name, _)| name.trim().to_owned());
    let is_table = |line: &&str| line.trim_start().starts_with('[');
    let mut above = text[..line_start].lines().rev();
    let rest_of_line = text[offset..].lines().next().unwrap_or_default();
    let field = match name_of(&text[line_start..offset]) {
        Some(field) => field,
        // The fault is in a name.
        None if rest_of_line.contains('=') || is_table(&rest_of_line) => return None,
        // In a list of several lines, the name stands above.
        None => above.by_ref().take_while(|line| !is_table(line)).find_map(name_of)?,
    };
    let table = above.find(is_table).map(|line| line.trim().trim_matches(['[', ']']).trim());
    Some(table.map_or_else(|| field.clone(), |table| format!("{table}.{field}")))
}

/// Where the path of a route stands in a configuration: its byte offset.
pub(super) fn of_route(text: &str, index: usize) -> Option<usize> {
    #[derive(Deserialize)]
    struct Document {
        route: Vec<Route>,
    }
    #[derive(Deserialize)]
    struct Route {
        path: Spanned<String>,
    }
    let document: Document = toml::from_str(text).ok()?;
    Some(document.route.get(index)?.path.span().start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_place() {
        let text = "a = 1\nlist = [\n  2,\n  3,\n]\n[table]\nb = 4\n[[route]]\npath = 5\nc\n";
        for (value, field) in [
            ("1", Some("a")),
            ("[", Some("list")),
            ("2", Some("list")),
            ("3", Some("list")),
            ("4", Some("table.b")),
            ("5", Some("route.path")),
            ("a =", None),
            ("[table]", None),
        ] {
            let offset = text.find(value).unwrap();
            assert_eq!(field_at(text, offset).as_deref(), field, "{value}");
        }
    }
}
