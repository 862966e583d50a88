//! The reference: the OpenAPI document as a page.
//!
//! It is static HTML that is made here, instead of a renderer from elsewhere. Such a renderer is a
//! script of up to several megabytes, writes styles that the page's policy would have to allow, must
//! be kept up to date, and shows nothing without JavaScript. The document is small and its form is
//! known, so some hundred lines do: a browser searches, prints and reads out the page as it is.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

use crate::page::html::escape;
use crate::page::reading::{items, members, operations, text};

/// Returns the page that shows `document`.
pub fn html(document: &Value) -> String {
    let mut reference = Reference { document, html: String::from(HEAD) };
    reference.contents();
    for tag in items(&document["tags"]) {
        let name = text(&tag["name"]);
        let id = id_of(name);
        reference.push(format_args!("<section aria-labelledby=\"{id}\">\n"));
        reference.push(format_args!("<h2 id=\"{id}\">{}</h2>\n", escape(name)));
        reference.paragraphs(&tag["description"]);
        for (path, method, operation) in operations(document).filter(|it| has_tag(it.2, name)) {
            reference.operation(path, method, operation);
        }
        reference.html.push_str("</section>\n");
    }
    reference.errors();
    reference.html.push_str("</main>\n</body>\n</html>\n");
    reference.html
}

struct Reference<'d> {
    document: &'d Value,
    html: String,
}

impl<'d> Reference<'d> {
    /// Appends text that is HTML already.
    fn push(&mut self, html: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.html.write_fmt(html);
    }

    /// Follows a `$ref` to a component.
    fn resolve(&self, value: &'d Value) -> &'d Value {
        match value["$ref"].as_str().and_then(|target| target.strip_prefix('#')) {
            Some(pointer) => self.document.pointer(pointer).unwrap_or(&Value::Null),
            None => value,
        }
    }

    fn paragraphs(&mut self, value: &Value) {
        for paragraph in text(value).split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
            self.push(format_args!("<p>{}</p>\n", escape(paragraph)));
        }
    }

    fn contents(&mut self) {
        let document = self.document;
        self.html.push_str("<h1>Reference</h1>\n");
        self.paragraphs(&document["info"]["description"]);
        self.push(format_args!(
            "<p>All paths are below <code>{}</code>. For other programs, there is this reference as an \
             <a href=\"openapi.json\">OpenAPI document</a>, and a \
             <a href=\"docs/grantd.postman_collection.json\">collection of requests</a> that Postman \
             and Insomnia import.</p>\n",
            escape(text(&document["servers"][0]["url"]))
        ));
        self.html.push_str("<nav class=\"toc\" aria-label=\"Contents\">\n<ul>\n");
        for tag in items(&document["tags"]) {
            let name = text(&tag["name"]);
            self.push(format_args!("<li><a href=\"#{}\">{}</a>\n<ul>", id_of(name), escape(name)));
            for (path, method, operation) in operations(document).filter(|it| has_tag(it.2, name)) {
                self.push(format_args!(
                    "<li><a href=\"#{}\"><span class=\"method\">{}</span> <code>{}</code></a></li>\n",
                    escape(text(&operation["operationId"])),
                    method.to_ascii_uppercase(),
                    escape(path)
                ));
            }
            self.html.push_str("</ul></li>\n");
        }
        self.html.push_str("<li><a href=\"#errors\">Errors</a>\n<ul>");
        for dialect in members(&document["x-refusals"]).map(|(dialect, _)| escape(dialect)) {
            self.push(format_args!("<li><a href=\"#errors-{dialect}\">{dialect}</a></li>\n"));
        }
        self.html.push_str("</ul></li>\n</ul>\n</nav>\n");
    }

    fn operation(&mut self, path: &str, method: &str, operation: &'d Value) {
        let id = escape(text(&operation["operationId"]));
        self.push(format_args!(
            "<section aria-labelledby=\"{id}\">\n<h3 id=\"{id}\"><span class=\"method\">{}</span> \
             <code>{}</code></h3>\n<p><strong>{}.</strong></p>\n",
            method.to_ascii_uppercase(),
            escape(path),
            escape(text(&operation["summary"]))
        ));
        self.paragraphs(&operation["description"]);
        self.security(operation);
        self.parameters(operation);
        self.body(operation);
        self.responses(operation);
        self.html.push_str("</section>\n");
    }

    fn security(&mut self, operation: &'d Value) {
        let names = items(&operation["security"]).flat_map(members).map(|(name, _)| name);
        let schemes = &self.document["components"]["securitySchemes"];
        let described: Vec<_> = names.map(|name| (name, &schemes[name.as_str()])).collect();
        if described.is_empty() {
            return;
        }
        self.html.push_str("<h4>Authentication</h4>\n<dl>\n");
        for (name, scheme) in described {
            let description = escape(text(&scheme["description"]));
            let name = escape(name);
            self.push(format_args!("<dt><code>{name}</code></dt>\n<dd>{description}</dd>\n"));
        }
        self.html.push_str("</dl>\n");
    }

    fn parameters(&mut self, operation: &'d Value) {
        let rows: Vec<_> = items(&operation["parameters"])
            .map(|parameter| {
                let parameter = self.resolve(parameter);
                let required = if parameter["required"] == true { ", required" } else { "" };
                let place = format!("{}{required}", text(&parameter["in"]));
                let described = describe(&parameter["schema"], text(&parameter["description"]));
                [code(text(&parameter["name"])), place, described]
            })
            .collect();
        self.html.push_str("<h4>Parameters</h4>\n");
        self.table(["Name", "Place", "Description"], &rows);
    }

    fn body(&mut self, operation: &'d Value) {
        let content = &operation["requestBody"]["content"];
        let types: Vec<_> = members(content).map(|(name, _)| code(name)).collect();
        let Some((_, first)) = members(content).next() else { return };
        self.push(format_args!("<h4>Body</h4>\n<p>{}</p>\n", types.join(" or ")));
        self.fields(&first["schema"]);
        if first["example"].as_object().is_some_and(|example| !example.is_empty()) {
            self.example(&first["example"]);
        }
    }

    /// Writes a table of the properties of an object's schema.
    fn fields(&mut self, schema: &Value) {
        let required: Vec<_> = items(&schema["required"]).map(text).collect();
        let rows: Vec<_> = members(&schema["properties"])
            .filter(|(_, property)| property.is_object())
            .map(|(name, property)| {
                let described = describe(property, text(&property["description"]));
                let is_required = if required.contains(&name.as_str()) { "yes" } else { "" };
                [code(name), is_required.to_owned(), described]
            })
            .collect();
        if !rows.is_empty() {
            self.table(["Field", "Required", "Description"], &rows);
        }
    }

    fn example(&mut self, example: &Value) {
        let example = serde_json::to_string_pretty(example).unwrap_or_default();
        self.push(format_args!("<pre tabindex=\"0\"><code>{}</code></pre>\n", escape(&example)));
    }

    fn responses(&mut self, operation: &'d Value) {
        let dialect = escape(text(&operation["x-dialect"]));
        let mut refusals = String::new();
        for (status, response) in members(&operation["responses"]) {
            let response = self.resolve(response);
            let content = &response["content"]["application/json"];
            let description = escape(text(&response["description"]));
            if status.as_str() < FIRST_REFUSAL {
                self.push(format_args!(
                    "<h4><span class=\"status\">{status}</span> {description}</h4>\n"
                ));
                self.headers(response);
                self.fields(&content["schema"]);
                for schema in items(&content["schema"]["anyOf"]) {
                    self.fields(schema);
                }
                if content["example"].is_object() {
                    self.example(&content["example"]);
                }
            } else {
                let examples = members(&content["examples"]).map(|(_, example)| {
                    let example = self.resolve(example);
                    format!("<li>{}</li>\n", escape(text(&example["summary"])))
                });
                let texts: BTreeSet<_> = examples.collect();
                let _ = write!(
                    refusals,
                    "<dt><a href=\"#errors-{dialect}-{status}\">{status} {description}</a></dt>\n\
                     <dd><ul>\n{}</ul></dd>\n",
                    texts.into_iter().collect::<String>()
                );
            }
        }
        self.push(format_args!(
            "<h4>Refusals</h4>\n<details>\n<summary>Statuses and texts</summary>\n\
             <dl>\n{refusals}</dl>\n</details>\n"
        ));
    }

    fn headers(&mut self, response: &'d Value) {
        let rows: Vec<_> = members(&response["headers"])
            .map(|(name, header)| {
                let header = self.resolve(header);
                let always = if header["required"] == true { "yes" } else { "" };
                let described = describe(&header["schema"], text(&header["description"]));
                [code(name), always.to_owned(), described]
            })
            .collect();
        self.table(["Header", "Always", "Description"], &rows);
    }

    /// Writes all errors of each dialect, with the advice for the caller.
    fn errors(&mut self) {
        self.html.push_str("<section aria-labelledby=\"errors\">\n<h2 id=\"errors\">Errors</h2>\n");
        for (dialect, refusals) in members(&self.document["x-refusals"]) {
            let dialect = escape(dialect);
            self.push(format_args!("<h3 id=\"errors-{dialect}\">{dialect}</h3>\n"));
            let mut refusals: Vec<_> = items(refusals).collect();
            refusals.sort_by_key(|refusal| refusal["status"].as_u64());
            for group in refusals.chunk_by(|one, other| one["status"] == other["status"]) {
                let status = &group[0]["status"];
                let id = format!("errors-{dialect}-{status}");
                self.push(format_args!(
                    "<h4 id=\"{id}\"><span class=\"status\">{status}</span></h4>\n"
                ));
                self.html.push_str("<dl>\n");
                for refusal in group {
                    let [code_of, text_of, advice] =
                        ["code", "text", "what_to_do"].map(|name| text(&refusal[name]));
                    let text_of = if text_of.is_empty() { "(no text)" } else { text_of };
                    self.push(format_args!(
                        "<dt>{} {}</dt>\n<dd>{}</dd>\n",
                        code(code_of),
                        escape(text_of),
                        escape(advice)
                    ));
                }
                self.html.push_str("</dl>\n");
            }
        }
        self.html.push_str("</section>\n");
    }

    /// Writes a table. Its cells are HTML already.
    fn table(&mut self, head: [&str; 3], rows: &[[String; 3]]) {
        self.html.push_str("<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>");
        for cell in head {
            self.push(format_args!("<th scope=\"col\">{cell}</th>"));
        }
        self.html.push_str("</tr></thead>\n<tbody>\n");
        for [first, second, third] in rows {
            self.push(format_args!(
                "<tr><th scope=\"row\">{first}</th><td>{second}</td><td>{third}</td></tr>\n"
            ));
        }
        self.html.push_str("</tbody>\n</table></div>\n");
    }
}

/// Returns what a schema allows, followed by `description`, as HTML.
fn describe(schema: &Value, description: &str) -> String {
    let mut facts = Vec::new();
    if let Some(value) = schema.get("const") {
        facts.push(format!("always {}", code(&plain(value))));
    } else if schema["enum"].is_array() {
        let values: Vec<_> = items(&schema["enum"]).map(|value| code(&plain(value))).collect();
        facts.push(values.join(" or "));
    } else if schema["type"].is_string() {
        facts.push(escape(text(&schema["type"])));
    }
    if let Some(length) = schema["maxLength"].as_u64() {
        facts.push(format!("at most {length} characters"));
    }
    let mut described = facts.join(", ");
    if !described.is_empty() && !description.is_empty() {
        described.push_str(". ");
    }
    described + &escape(description)
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// A string without its quotes, and any other value as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn has_tag(operation: &Value, tag: &str) -> bool {
    operation["tags"][0] == tag
}

/// Returns the id of the heading of a tag.
fn id_of(tag: &str) -> String {
    tag.to_ascii_lowercase().replace(' ', "-")
}

/// The first status that is a refusal.
const FIRST_REFUSAL: &str = "400";

const HEAD: &str = include_str!("reference_head.html");
