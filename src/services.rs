//! From documents to services: selected, checked against the schema, defaults filled in.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::diagnostic::Diagnostic;
use crate::failure::Failure;
use crate::model::{self, Service, input};
use crate::pillar::{self, Application, Dialect, Format, Int, Node, Value};
use crate::plan::plan;
use crate::schema::Checker;
use crate::source::{Source, SourceId, Span};
use crate::template::Templates;
use crate::tree::{Entry, Tree};
use crate::visible::visible;

/// A service and where it was said.
#[derive(Debug)]
pub struct Placed {
    /// The service.
    pub service: Service,
    /// The colon path of its application in the pillar.
    pub key: String,
    /// Where the application stands.
    pub span: Span,
}

/// The applications of all documents. `key` is as in [`pillar::select`].
pub fn applications(documents: Vec<Node>, key: Option<&str>) -> Result<Vec<Application>, Vec<Diagnostic>> {
    let (applications, found) = select(documents, key);
    if found.is_empty() { Ok(applications) } else { Err(found) }
}

/// The applications of those documents that have some, and the complaints about the others.
pub fn select(documents: Vec<Node>, key: Option<&str>) -> (Vec<Application>, Vec<Diagnostic>) {
    let mut found = vec![];
    let mut applications = vec![];
    for document in documents {
        match pillar::select(document, key) {
            Ok(some) => applications.extend(some.into_iter().flatten()),
            Err(diagnostics) => found.extend(diagnostics),
        }
    }
    (applications, found)
}

/// Checks one application and fills in its defaults.
pub fn service(application: Application, checker: &Checker) -> Result<Placed, Vec<Diagnostic>> {
    let Application { name, name_span, key, node } = application;
    let mut found = vec![];
    let mut json = json(&node, &mut vec![], &mut found);
    let (findings, keys) = checker.check(&json, &node);
    found.extend(findings);
    if let Some(name) = &name
        && !model::is_application_name(name)
    {
        found.push(
            Diagnostic::error("application-name", format!("an application cannot be called {name:?}"))
                .at(name_span, "expected small letters, digits, `_`, `.` and `-`, at most 64, beginning with a letter or digit"),
        );
    }
    if !found.is_empty() {
        // What the schema accepts is looked at all the same, so that every mistake shows at once.
        if let Some(map) = json.as_object_mut() {
            map.retain(|key, _| !keys.contains(key));
        }
        let context = model::Context { name: name.as_deref(), node: &node };
        if let Ok(input) = serde_json::from_value(json)
            && let Err(more) = model::resolve(input, context)
        {
            // A key may be missing only because it was wrong.
            found.extend(
                more.into_iter().filter(|diagnostic| diagnostic.rule != "missing-key" || keys.is_empty()),
            );
        }
        return Err(found);
    }
    let input: input::Application = serde_json::from_value(json).map_err(|error| {
        vec![
            Diagnostic::error("invalid", format!("the application cannot be read: {error}"))
                .at(node.span, ""),
        ]
    })?;
    let context = model::Context { name: name.as_deref(), node: &node };
    let service = model::resolve(input, context)?;
    Ok(Placed { service, key, span: node.span })
}

/// A tree, or why there is none.
#[derive(Debug)]
pub enum Rendered {
    /// Every file of every service.
    Tree(Tree),
    /// Every complaint about every application.
    Findings(Vec<Diagnostic>),
}

/// What is kept of a service once its files are planned.
struct Planned {
    name: String,
    span: Span,
    entries: Vec<Entry>,
}

/// An entry, and the application that wants it.
type Wanted = (Entry, Span);

/// The user's text may be wrong, or the world refuse.
type Outcome<T> = Result<Result<T, Vec<Diagnostic>>, Failure>;

/// Every file of every application, worked out by so many `threads`; the result is the same with any number.
pub fn render(
    applications: Vec<Application>,
    templates: &Templates,
    threads: usize,
) -> Result<Rendered, Failure> {
    let (wanted, found) = plan_all(applications, templates, threads)?;
    if !found.is_empty() {
        return Ok(Rendered::Findings(found));
    }
    match Tree::new(wanted.into_iter().map(|(entry, _)| entry).collect()) {
        Ok(tree) => Ok(Rendered::Tree(tree)),
        // `clashes` has found and placed every one before.
        Err(clashes) => Err(Failure::Usage(format!("{} paths are wanted twice", clashes.len()))),
    }
}

/// Every complaint that [`render`] would have about the applications, with the built-in templates.
pub fn check(applications: Vec<Application>, threads: usize) -> Result<Vec<Diagnostic>, Failure> {
    let templates = Templates::built_in()?;
    plan_all(applications, &templates, threads).map(|(_, found)| found)
}

/// Every entry that is wanted, in order and with the place of its application, and every complaint.
fn plan_all(
    applications: Vec<Application>,
    templates: &Templates,
    threads: usize,
) -> Result<(Vec<Wanted>, Vec<Diagnostic>), Failure> {
    let checker = Checker::new();
    let mut found = vec![];
    let mut planned = Vec::with_capacity(applications.len());
    for result in in_parallel(applications, threads, |application| plan_one(application, &checker, templates))
    {
        match result? {
            Ok(one) => planned.push(one),
            Err(diagnostics) => found.extend(diagnostics),
        }
    }
    let twice = double_names(&planned);
    // Two of one name want the same paths, and that has been said.
    let wanted = if twice.is_empty() { in_order(planned) } else { vec![] };
    found.extend(twice);
    found.extend(clashes(&wanted));
    Ok((wanted, found))
}

fn plan_one(application: Application, checker: &Checker, templates: &Templates) -> Outcome<Planned> {
    let placed = match service(application, checker) {
        Ok(placed) => placed,
        Err(found) => return Ok(Err(found)),
    };
    let service = Arc::new(placed.service);
    let mut entries = plan(&service, &placed.key, templates)?;
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Ok(Planned { name: service.application.clone(), span: placed.span, entries }))
}

/// Maps in order; each thread takes a run of neighbours.
fn in_parallel<T: Send, R: Send>(items: Vec<T>, threads: usize, map: impl Fn(T) -> R + Sync) -> Vec<R> {
    /// Fewer than this are done before a thread has started.
    const WORTH_A_THREAD: usize = 32;
    let threads = threads.min(items.len() / WORTH_A_THREAD).max(1);
    if threads == 1 {
        return items.into_iter().map(map).collect();
    }
    let size = items.len().div_ceil(threads);
    let mut runs = vec![];
    let mut items = items.into_iter();
    for _ in 0..threads {
        runs.push(items.by_ref().take(size).collect::<Vec<T>>());
    }
    std::thread::scope(|scope| {
        let map = &map;
        let handles: Vec<_> = runs
            .into_iter()
            .map(|run| scope.spawn(move || run.into_iter().map(map).collect::<Vec<R>>()))
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Services that cannot be on one host because they have the same name.
fn double_names(planned: &[Planned]) -> Vec<Diagnostic> {
    let mut by_name: Vec<&Planned> = planned.iter().collect();
    by_name.sort_by(|a, b| a.name.cmp(&b.name));
    let mut found = vec![];
    for pair in by_name.windows(2) {
        if let [one, two] = pair
            && one.name == two.name
        {
            let message = format!("the application `{}` is there twice", one.name);
            found.push(
                Diagnostic::error("double-service", message)
                    .at(two.span, "again here")
                    .at(one.span, "first here"),
            );
        }
    }
    found
}

/// All entries in the order of their paths, each with the place of the application that wants it.
///
/// Each application's are in order; what begins with the same two steps (`/etc/sv`, `/var/www`) is
/// brought together first. Applications mostly come in the order of their names, so the sort then
/// finds little to do, where comparing 200,000 paths all over was a good part of a run.
fn in_order(planned: Vec<Planned>) -> Vec<(Entry, Span)> {
    /// Where every application has a place of its own, bringing together does not help.
    const MOST_PARTS: usize = 32;
    let mut parts: Vec<(String, Vec<(Entry, Span)>)> = vec![];
    let mut count = 0;
    for Planned { span, entries, .. } in planned {
        count += entries.len();
        let mut at = 0;
        for entry in entries {
            let begins = |part: &(String, _)| first_steps(&entry.path) == part.0;
            if parts.get(at).is_none_or(|part| !begins(part)) {
                at = parts.iter().position(begins).unwrap_or(parts.len()).min(MOST_PARTS);
            }
            if at == parts.len() {
                parts.push((first_steps(&entry.path).to_owned(), vec![]));
            }
            parts[at].1.push((entry, span));
        }
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let mut all = Vec::with_capacity(count);
    parts.into_iter().for_each(|(_, part)| all.extend(part));
    all.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    all
}

/// `/etc/sv` of `/etc/sv/shop/run`. The third step is the application's, mostly.
fn first_steps(path: &str) -> &str {
    path.match_indices('/').nth(2).map_or(path, |(end, _)| &path[..end])
}

/// Paths that are wanted for different things; `wanted` is in order.
fn clashes(wanted: &[(Entry, Span)]) -> Vec<Diagnostic> {
    let mut found = vec![];
    for pair in wanted.windows(2) {
        if let [(one, first), (two, second)] = pair
            && one.path == two.path
            && one != two
        {
            let message = format!("{} is wanted twice, and not alike", visible(&one.path));
            let diagnostic =
                Diagnostic::error("path-clash", message).at(*second, "this application wants it");
            found.push(if first == second {
                diagnostic
            } else {
                diagnostic.at(*first, "and so does this one")
            });
        }
    }
    found
}

/// Where secrets stand: no excerpt of a finding may show what is there.
pub fn secret_spans(applications: &[Application]) -> Vec<Span> {
    let mut spans = vec![];
    for application in applications {
        for (section, all) in [("secrets", true), ("environment", false)] {
            let Some(pair) = application.node.get(section) else { continue };
            let Value::Map(variables) = &pair.value.value else { continue };
            spans.extend(
                variables
                    .iter()
                    .filter(|variable| all || Service::is_secret_name(&variable.key.key_text()))
                    .map(|variable| variable.value.span),
            );
        }
    }
    spans
}

/// What a key of a pillar says about the value that follows.
enum Named {
    /// Whatever stands below it is secret.
    All,
    /// It is secret unless it is a map: an application may be called `monkey`.
    Value,
    /// Nothing.
    No,
}

fn named(key: &str) -> Named {
    if key.eq_ignore_ascii_case("secrets") || key.eq_ignore_ascii_case("secret") {
        Named::All
    } else if Service::is_secret_name(key) {
        Named::Value
    } else {
        Named::No
    }
}

/// Where secrets stand in a document of which nobody knows yet what it is: all below `secrets`, and
/// the values of keys that are named like one, wherever they are. Rather too many than one too few.
pub fn secrets_in_document(document: &Node) -> Vec<Span> {
    let mut spans = vec![];
    collect_secrets(document, false, &mut spans);
    // The same value comes by many aliases.
    spans.sort();
    spans.dedup();
    spans
}

fn collect_secrets(node: &Node, secret: bool, spans: &mut Vec<Span>) {
    match &node.value {
        Value::Map(pairs) => {
            for pair in pairs {
                match (named(&pair.key.key_text()), &pair.value.value) {
                    (Named::All, _) => collect_secrets(&pair.value, true, spans),
                    (Named::Value, Value::Map(_)) => collect_secrets(&pair.value, secret, spans),
                    (Named::Value, _) => collect_secrets(&pair.value, true, spans),
                    (Named::No, _) => collect_secrets(&pair.value, secret, spans),
                }
            }
        }
        Value::List(items) => items.iter().for_each(|item| collect_secrets(item, secret, spans)),
        Value::Null => {}
        _ if secret => spans.push(node.span),
        _ => {}
    }
}

/// Where secrets may stand in a text that could not be read: whatever follows such a key, on its
/// line and on the deeper ones below it. A guess that covers rather too much.
pub fn secrets_in_text(text: &str, id: SourceId) -> Vec<Span> {
    let mut spans = vec![];
    let mut at = 0;
    while let Some(line) = text.get(at..).and_then(|rest| rest.split_inclusive('\n').next()) {
        let end = at + line.len();
        let Some(value) = secret_value(line) else {
            at = end;
            continue;
        };
        let start = at + value;
        let end = end_of_value(text, start, end, depth(line), line.trim_start().starts_with('-'));
        spans.push(Span::new(id, start, end));
        at = end.max(start);
    }
    spans
}

/// Where on a line the value of the first key that is named like a secret begins.
fn secret_value(line: &str) -> Option<usize> {
    line.match_indices(':').find_map(|(colon, _)| {
        let before = line.get(..colon)?.trim_end().trim_end_matches(['"', '\'']);
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let start = before
            .char_indices()
            .rev()
            .take_while(|(_, c)| is_part(*c))
            .last()
            .map_or(before.len(), |(at, _)| at);
        let is_secret = !matches!(named(before.get(start..)?), Named::No);
        is_secret.then_some(colon + 1)
    })
}

fn depth(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t', '\u{feff}']).len()
}

/// Where a value ends that begins at `start` on a line that ends at `end` and is indented by `depth`.
fn end_of_value(text: &str, start: usize, mut end: usize, depth_of_key: usize, in_list: bool) -> usize {
    let value = text.get(start..).unwrap_or_default();
    let open = value.trim_start();
    if open.starts_with(['{', '[']) {
        // Brackets in quotes are counted too: the value then seems longer, which does no harm, or
        // ends too early, which its indentation makes good.
        let mut level = 0;
        for (at, c) in value.char_indices() {
            match c {
                '{' | '[' => level += 1,
                '}' | ']' => level -= 1,
                _ => continue,
            }
            if level == 0 {
                end = end.max(start + at);
                break;
            }
        }
        if level > 0 {
            return text.len();
        }
    } else if let Some(quote) = open.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let inside = start + (value.len() - open.len()) + 1;
        match text.get(inside..).unwrap_or_default().find(quote) {
            Some(closing) => end = end.max(inside + closing + 1),
            None => return text.len(),
        }
    }
    // The rest of the line on which it seems to end, and what is deeper than its key.
    if !text.get(..end).is_some_and(|before| before.ends_with('\n')) {
        let rest = text.get(end..).unwrap_or_default();
        end += rest.find('\n').map_or(rest.len(), |at| at + 1);
    }
    for line in text.get(end..).unwrap_or_default().split_inclusive('\n') {
        let item = !in_list && depth(line) == depth_of_key && line.trim_start().starts_with('-');
        if !line.trim().is_empty() && depth(line) <= depth_of_key && !item {
            break;
        }
        end += line.len();
    }
    end
}

/// Reads the body of a rendered native run script back.
pub fn rendered(source: &Source, id: SourceId) -> Result<Service, Vec<Diagnostic>> {
    let start = Span::new(id, 0, source.text().find('\n').unwrap_or(source.text().len()));
    let first = source.slice(start).trim_end();
    if !first.starts_with("#!/") || !first.ends_with(" run") {
        return Err(vec![
            Diagnostic::error("run-script", "this is not a native run script")
                .at(start, "expected a first line such as \"#!/usr/bin/runsmith run\""),
        ]);
    }
    let parsed = pillar::parse_rendered(source, id)?;
    let Some(node) = parsed.documents.first() else {
        return Err(vec![Diagnostic::error("run-script", "the run script is empty").at(start, "")]);
    };
    let mut found = vec![];
    let json = json(node, &mut vec![], &mut found);
    if !found.is_empty() {
        return Err(found);
    }
    serde_path_to_error::deserialize(&json).map_err(|error| {
        let path = error.path().to_string();
        let steps = path.split(['.', '[']).map(|step| step.trim_end_matches(']'));
        let name = if path == "." { "the service".to_owned() } else { format!("`{path}`") };
        let message = format!("{name}: {}", error.inner());
        let place = if path == "." { node.head() } else { node.locate(steps) };
        vec![Diagnostic::error("run-script", message).at(place, "")]
    })
}

/// Contexts in which every name of the model is set, one for each server: what templates are checked against.
pub fn specimens() -> Result<Vec<Json>, Failure> {
    let texts = [include_str!("specimens/gunicorn.yaml"), include_str!("specimens/unicorn.yaml")];
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

/// A node as JSON, for the schema. Nothing (`null`) is the same as a missing key, except among a
/// server's own settings. What JSON does not have is a finding.
fn json(node: &Node, path: &mut Vec<String>, found: &mut Vec<Diagnostic>) -> Json {
    let mut unfit = |what: &str| {
        let message = format!("`{}` is {what} here", path.join("."));
        found.push(Diagnostic::error("wrong-type", message).at(node.span, "quote it"));
        Json::Null
    };
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(Int::Small(number)) => Json::from(*number),
        // Only a variable takes a number of this size, and writes it in decimal.
        Value::Int(Int::Big(number)) => Json::from(number.as_str()),
        Value::Float(number) => {
            serde_json::Number::from_f64(*number).map_or_else(|| unfit("not a number"), Json::Number)
        }
        Value::Str(text) if text.contains('\0') => {
            found.push(
                Diagnostic::error("nul", format!("`{}` holds a NUL character", path.join(".")))
                    .at(node.span, "no path, variable or argument can hold it")
                    .hide_if(path.first().is_some_and(|first| first == "secrets" || first == "environment")),
            );
            Json::from("")
        }
        Value::Str(text) => Json::String(text.clone()),
        Value::Bytes(_) => unfit("binary data"),
        Value::Timestamp(_) => unfit("a date"),
        Value::Vault(_) => unfit("still encrypted"),
        Value::List(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                list.push(json(item, path, found));
                path.pop();
            }
            Json::Array(list)
        }
        Value::Map(pairs) => {
            let settings = path.first().is_some_and(|key| key == "gunicorn" || key == "unicorn");
            let mut map = Map::with_capacity(pairs.len());
            for pair in pairs {
                let Value::Str(key) = &pair.key.value else {
                    found.push(
                        Diagnostic::error("wrong-type", "this key is not a string here")
                            .at(pair.key.span, "quote it"),
                    );
                    continue;
                };
                path.push(key.clone());
                let value = json(&pair.value, path, found);
                path.pop();
                if settings || !matches!(pair.value.value, Value::Null) {
                    map.insert(key.clone(), value);
                }
            }
            Json::Object(map)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a text that could not be read.
    fn left(text: &str) -> String {
        let mut out = String::new();
        let mut at = 0;
        for span in secrets_in_text(text, SourceId(0)) {
            out.push_str(&text[at..span.range().start]);
            at = span.range().end;
        }
        out + &text[at..]
    }

    #[test]
    fn secrets_of_a_text_that_cannot_be_read() {
        let cases = [
            ("secrets: {A: s3cr3t\nB: s3cr3t\n", "secrets:"),
            ("a: 1\nsecrets:\n  A: s3cr3t\n\n  B: s3cr3t\nuser: x\n", "a: 1\nsecrets:user: x\n"),
            ("x: {\"API_KEY\" : \"s3cr3t, s3cr3t\n", "x: {\"API_KEY\" :"),
            ("API_KEY: 's3cr3t\n s3cr3t' s3cr3t\nuser: x\n", "API_KEY:user: x\n"),
            ("secrets:\n- s3cr3t\n- s3cr3t\nuser: x", "secrets:user: x"),
            ("- token: |\n    s3cr3t\n  user: x\n", "- token:"),
            ("secrets: [s3cr3t,\ns3cr3t]\nuser: x\n", "secrets:user: x\n"),
            ("{\"secrets\":{\"A\":\"s3cr3t\"},\"b\":1}", "{\"secrets\":"),
            ("user: x\r\nbind: y\r\n", "user: x\r\nbind: y\r\n"),
            ("", ""),
            ("a\u{feff}漢:\npassword:", "a\u{feff}漢:\npassword:"),
        ];
        for (text, want) in cases {
            assert_eq!(left(text), want, "{text:?}");
        }
    }
}
