//! What was rendered, or comes with the program, read as a service.

use std::sync::Arc;

use serde_json::Value as Json;

use super::json::{Nulls, json};
use super::service;
use crate::diagnostic::Diagnostic;
use crate::failure::Failure;
use crate::model::Service;
use crate::model::secret::{dotted, is_at};
use crate::pillar::{self, Dialect, Format, Merged};
use crate::rule;
use crate::schema::Checker;
use crate::source::{Source, SourceId, Span};

/// Reads the body of a rendered native run script back.
pub fn rendered(source: &Source, id: SourceId) -> Result<Service, Vec<Diagnostic>> {
    let start = Span::new(id, 0, source.text().find('\n').unwrap_or(source.text().len()));
    let first = source.slice(start).trim_end();
    if !first.starts_with("#!/") || !first.ends_with(" run") {
        return Err(vec![
            Diagnostic::error(&rule::RUN_SCRIPT, "this is not a native run script")
                .at(start, "expected a first line such as \"#!/usr/bin/runsmith run\""),
        ]);
    }
    let parsed = pillar::parse_rendered(source, id)?;
    let Some(node) = parsed.documents.first() else {
        return Err(vec![Diagnostic::error(&rule::RUN_SCRIPT, "the run script is empty").at(start, "")]);
    };
    let mut found = vec![];
    let json = json(node, &mut Nulls::Kept, &mut vec![], &mut found);
    if !found.is_empty() {
        return Err(found);
    }
    serde_path_to_error::deserialize(&json).map_err(|error| {
        let path = error.path().to_string();
        let whole = path == ".";
        let steps: Vec<&str> = path.split(['.', '[']).map(|step| step.trim_end_matches(']')).collect();
        let steps = if whole { &[][..] } else { &steps[..] };
        let name =
            if whole { "the service".to_owned() } else { format!("`{}`", dotted(steps.iter().copied())) };
        let hidden = is_at(steps.iter().copied(), node.find(steps.iter().copied()).map(|node| &node.value));
        let reason = if hidden {
            "this does not belong there".to_owned()
        } else {
            in_words(&error.inner().to_string())
        };
        let place = if whole { node.head() } else { node.locate(steps.iter().copied()) };
        let message = format!("{name}: {reason}");
        vec![Diagnostic::error(&rule::RUN_SCRIPT, message).at(place, "").hide_if(hidden)]
    })
}

/// What serde says, without the names of Rust's types.
fn in_words(error: &str) -> String {
    if let Some(rest) = error.strip_prefix("missing field ") {
        return format!("{rest} is missing");
    }
    let (is, wanted) = match error.split_once(", expected ") {
        Some((is, wanted)) => (is, Some(wanted)),
        None => (error, None),
    };
    let is = ["invalid type: ", "invalid value: ", "invalid length "]
        .iter()
        .find_map(|prefix| is.strip_prefix(prefix))
        .map_or_else(
            || is.to_owned(),
            |what| format!("{} cannot be here", what.replace("sequence", "a list")),
        );
    let is = is.replace("unknown variant", "unknown word").replace("unknown field", "unknown key");
    if let Some(kind) = is.strip_prefix("data did not match any variant of untagged enum ") {
        let wanted = if kind == "LimitValue" { "a whole number or `unlimited`" } else { "another value" };
        return format!("expected {wanted}");
    }
    let Some(wanted) = wanted else { return is };
    let wanted = match wanted {
        "f64" | "f32" => "a number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not below 0, that fits",
        "i8" | "i16" | "i32" | "i64" => "a whole number that fits",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "a borrowed string" => "a string",
        other if other.starts_with("struct ") => "a map",
        other => other,
    };
    format!("{is}, expected {wanted}")
}

/// Contexts in which every name of the model is set, one for each server: what templates are checked against.
pub fn specimens() -> Result<Vec<Json>, Failure> {
    let texts = [include_str!("../specimens/gunicorn.yaml"), include_str!("../specimens/unicorn.yaml")];
    let checker = Checker::new();
    let mut contexts = vec![];
    for text in texts {
        let source = Source::new("specimen", text);
        let node = pillar::parse(&source, SourceId(0), Format::Yaml, Dialect::Yaml12)
            .ok()
            .and_then(|parsed| parsed.documents.into_iter().next());
        let application = node.map(|node| Merged {
            name: None,
            name_span: node.span,
            key: "unicorn".to_owned(),
            node,
            defaults: None,
        });
        let placed = application.and_then(|application| service(application, &checker).ok());
        let Some(placed) = placed else {
            return Err(Failure::Template(
                "the specimen that templates are checked against is broken".to_owned(),
            ));
        };
        let context = crate::plan::context(&Arc::new(placed.service), &placed.key);
        contexts.push(serde_json::to_value(context).map_err(|error| Failure::Template(error.to_string()))?);
    }
    Ok(contexts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_in_a_run_script_is_said_without_types_of_rust() {
        let said = |error: &str| in_words(error);
        for (error, words) in [
            (
                r#"invalid type: string "soon", expected f64"#,
                r#"string "soon" cannot be here, expected a number"#,
            ),
            ("invalid type: sequence, expected f64", "a list cannot be here, expected a number"),
            (
                "invalid value: integer `-1`, expected u32",
                "integer `-1` cannot be here, expected a whole number, not below 0, that fits",
            ),
            (
                "invalid type: floating point `5.5`, expected i8",
                "floating point `5.5` cannot be here, expected a whole number that fits",
            ),
            (
                "invalid type: integer `5`, expected struct Layout",
                "integer `5` cannot be here, expected a map",
            ),
            ("missing field `user`", "`user` is missing"),
            (
                "data did not match any variant of untagged enum LimitValue",
                "expected a whole number or `unlimited`",
            ),
        ] {
            assert_eq!(said(error), words);
        }
    }

    #[test]
    fn a_run_script_is_read_back_in_words() {
        let text = "#!/usr/bin/runsmith run\napplication: web\nserver: gunicorn\ncommand: gunicorn\n";
        let source = Source::new("run", text);
        let found = rendered(&source, SourceId(0)).unwrap_err();
        let messages: Vec<_> = found.iter().map(|finding| finding.message.as_str()).collect();
        assert_eq!(messages, [r#"`command`: string "gunicorn" cannot be here, expected a list"#]);
    }

    /// An unknown key is one, whatever it holds.
    #[test]
    fn an_unknown_key_with_nothing_is_found() {
        let source = Source::new("run", "#!/usr/bin/runsmith run\nusr: null\n");
        let found = rendered(&source, SourceId(0)).unwrap_err();
        assert!(
            found[0].message.starts_with("`usr`: unknown key `usr`, expected one of `application`"),
            "{found:?}"
        );
    }
}
