//! What was rendered, or comes with the program, read as a service.

use std::sync::Arc;

use serde_json::Value as Json;

use super::json::json;
use super::service;
use crate::diagnostic::Diagnostic;
use crate::failure::Failure;
use crate::model::Service;
use crate::model::secret::{dotted, is_at};
use crate::pillar::{self, Application, Dialect, Format};
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
    let json = json(node, &mut vec![], &mut found);
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
        let reason = if hidden { "this does not belong there".to_owned() } else { error.inner().to_string() };
        let place = if whole { node.head() } else { node.locate(steps.iter().copied()) };
        let message = format!("{name}: {reason}");
        vec![Diagnostic::error(&rule::RUN_SCRIPT, message).at(place, "").hide_if(hidden)]
    })
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
        let application = node.map(|node| Application {
            name: None,
            name_span: node.span,
            key: "unicorn".to_owned(),
            node,
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
