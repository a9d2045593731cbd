//! What the schema has against an application, each finding at its place and in plain words.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde_json::Value as Json;

use super::proof::Shapes;
use super::values::{dotted, integral_floats, not_whole, wrong_value};
use super::words::{describe, list};
use crate::diagnostic::{Diagnostic, Fix};
use crate::model::settings::{GUNICORN, Pillar, Table, UNICORN};
use crate::model::{nearest, secret};
use crate::pillar::{Node, Value};
use crate::rule;

/// So many unknown keys of one map are named; who has more has given another file than was meant.
const MOST_KEYS: usize = 100;

/// The schema of one application. It is read once in a process, and compiled once somebody has
/// something wrong.
#[derive(Default)]
pub struct Checker(());

/// For so many unknown keys of a run it is looked for what was meant: each is compared with every known one.
static SUGGESTIONS: AtomicUsize = AtomicUsize::new(20_000);

static SHAPES: OnceLock<Option<Shapes>> = OnceLock::new();
static WHOLE: OnceLock<Result<Whole, String>> = OnceLock::new();

/// The compiled schema.
struct Whole {
    validator: Validator,
    schema: Json,
}

impl Checker {
    /// A checker of applications; what it needs is read when it is first asked.
    pub fn new() -> Self {
        Self(())
    }

    /// Every finding about `json`, which `node` is the spanned form of, and the keys of the
    /// application they are about.
    pub fn check(&self, json: &Json, node: &Node) -> (Vec<Diagnostic>, HashSet<String>) {
        if self.proves(json) {
            return (vec![], HashSet::new());
        }
        match WHOLE.get_or_init(Whole::compile) {
            Ok(whole) => whole.check(json, node),
            // A test compiles it, so nobody will read this.
            Err(error) => {
                let message = format!("the schema cannot be compiled: {error}");
                (vec![Diagnostic::error(&rule::INVALID, message).at(node.span, "")], HashSet::new())
            }
        }
    }

    /// A finding for each key that no map at its place has. `nulls` are keys with nothing, which `json` lacks: where
    /// their map is, and their name.
    pub fn unknown(&self, nulls: &[(Vec<String>, String)], node: &Node) -> Vec<Diagnostic> {
        if nulls.is_empty() {
            return vec![];
        }
        let Ok(whole) = WHOLE.get_or_init(Whole::compile) else { return vec![] };
        let unknown = nulls.iter().filter(|(steps, key)| !whole.knows(steps, key));
        unknown.take(MOST_KEYS).map(|(steps, key)| whole.unknown_key(steps, key, node)).collect()
    }

    /// The key that was most likely meant by one that the map at `steps` cannot have.
    pub fn meant(&self, steps: &[String], key: &str) -> Option<String> {
        let Ok(whole) = WHOLE.get_or_init(Whole::compile) else { return None };
        meant(steps, key, &whole.known_keys(steps))
    }

    /// Whether `json` is certainly valid; what is valid in an unusual way is not proven.
    pub fn proves(&self, json: &Json) -> bool {
        SHAPES.get_or_init(|| Shapes::read(super::text())).as_ref().is_some_and(|shapes| shapes.prove(json))
    }
}

impl Whole {
    fn compile() -> Result<Self, String> {
        let schema = super::application();
        let validator = jsonschema::validator_for(&schema).map_err(|error| error.to_string())?;
        Ok(Self { validator, schema })
    }

    fn check(&self, json: &Json, node: &Node) -> (Vec<Diagnostic>, HashSet<String>) {
        let mut found = vec![];
        let mut keys = HashSet::new();
        for error in self.validator.iter_errors(json) {
            self.explain(&error, node, &mut found);
            match steps(&error).into_iter().next() {
                Some(key) => {
                    keys.insert(key);
                }
                None => {
                    if let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() {
                        keys.extend(unexpected.iter().cloned());
                    }
                }
            }
        }
        // What has another type is none of the allowed values either; that goes without saying.
        let mistyped: Vec<_> =
            found.iter().filter(|one| one.rule == &rule::WRONG_TYPE).filter_map(Diagnostic::span).collect();
        found.retain(|one| {
            one.rule != &rule::NOT_ALLOWED || !one.span().is_some_and(|span| mistyped.contains(&span))
        });
        let mut floats = vec![];
        integral_floats(json, &mut vec![], &mut floats);
        for steps in floats.into_iter().filter(|steps| self.is_whole(steps)) {
            let finding = not_whole(&steps, node);
            // It may be too large as well.
            found.retain(|other| other.span() != finding.span());
            found.push(finding);
            keys.extend(steps.into_iter().next());
        }
        (found, keys)
    }

    /// Whether a whole number belongs at `steps`, and no other number.
    fn is_whole(&self, steps: &[String]) -> bool {
        let schemas = self.at(steps);
        let takes = |name: &str| {
            schemas.iter().flat_map(|schema| self.branches(schema)).any(|schema| {
                schema["type"] == name
                    || schema["type"].as_array().is_some_and(|types| types.iter().any(|one| one == name))
            })
        };
        takes("integer") && !takes("number")
    }

    fn explain(&self, error: &ValidationError<'_>, node: &Node, found: &mut Vec<Diagnostic>) {
        let steps = steps(error);
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                for key in unexpected.iter().take(MOST_KEYS) {
                    found.push(self.unknown_key(&steps, key, node));
                }
                if unexpected.len() > MOST_KEYS {
                    let map = node.find(steps.iter().map(String::as_str)).unwrap_or(node);
                    let more = format!("{} more unknown keys", unexpected.len() - MOST_KEYS);
                    found.push(Diagnostic::error(&rule::UNKNOWN_KEY, more).at(map.head(), "in this map"));
                }
            }
            ValidationErrorKind::PropertyNames { error: inner } => {
                let key = inner.instance().as_str().unwrap_or_default().to_owned();
                found.push(self.unknown_key(&steps, &key, node));
            }
            ValidationErrorKind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                let map = node.find(steps.iter().map(String::as_str)).unwrap_or(node);
                // It is there, misspelt, and that is told.
                let known = self.known_keys(&steps);
                if let Value::Map(pairs) = &map.value
                    && pairs.iter().any(|pair| is_misspelt(&pair.key.key_text(), key, &known))
                {
                    return;
                }
                let message = format!("`{}` is missing", dotted(&steps, Some(key)));
                let diagnostic = Diagnostic::error(&rule::MISSING_KEY, message);
                // One that an application takes away is missed there, not in the defaults that the map is from.
                found.push(match map.find([key]) {
                    Some(null) => diagnostic.at(null.span, "a null takes the default away"),
                    None => diagnostic.at(map.head(), "this map lacks it"),
                });
            }
            ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
                self.alternatives(error, context, node, found);
            }
            _ => found.push(self.wrong_value(error, node)),
        }
    }

    fn wrong_value(&self, error: &ValidationError<'_>, node: &Node) -> Diagnostic {
        let steps = steps(error);
        let mut finding = wrong_value(error, &steps, &self.expectation(error), node);
        let place = node.find(steps.iter().map(String::as_str)).unwrap_or(node);
        if finding.fix.is_some() && !self.takes_quoted(&steps, place) {
            finding.fix = None;
        }
        finding
    }

    /// Whether what stands there in quotes would be accepted: as far as the schema says, which knows nothing of addresses.
    fn takes_quoted(&self, steps: &[String], place: &Node) -> bool {
        if matches!(steps.first().map(String::as_str), Some("app" | "bind")) {
            return false;
        }
        let text = place.key_text();
        // It was written in another way, as 0022 is 22 for Salt; nobody knows here how.
        if text.len() != place.span.range().len() {
            return true;
        }
        let schemas = self.at(steps);
        let text = Json::from(text);
        schemas.iter().flat_map(|schema| self.branches(schema)).any(|schema| {
            let is_whole =
                ["$ref", "anyOf", "oneOf", "allOf"].iter().all(|keyword| schema.get(keyword).is_none());
            is_whole && schema.get("type").is_some() && jsonschema::is_valid(schema, &text)
        })
    }

    /// Of several alternatives, the one that got deepest is the one that was meant.
    fn alternatives(
        &self,
        error: &ValidationError<'_>,
        context: &[Vec<ValidationError<'static>>],
        node: &Node,
        found: &mut Vec<Diagnostic>,
    ) {
        let top = error.instance_path().as_str().len();
        let depth = |errors: &Vec<ValidationError<'static>>| {
            errors.iter().map(|inner| inner.instance_path().as_str().len()).max().unwrap_or(0)
        };
        let same_type = |errors: &&Vec<ValidationError<'static>>| {
            !errors.iter().any(|inner| {
                matches!(inner.kind(), ValidationErrorKind::Type { .. })
                    && inner.instance_path().as_str().len() == top
            })
        };
        let branch = context.iter().filter(same_type).max_by_key(|errors| depth(errors));
        match branch {
            Some(errors) if !errors.is_empty() => {
                errors.iter().for_each(|inner| self.explain(inner, node, found))
            }
            _ => found.push(self.wrong_value(error, node)),
        }
    }

    fn unknown_key(&self, steps: &[String], key: &str, node: &Node) -> Diagnostic {
        let span = node.key_span(steps.iter().map(String::as_str), key);
        let map = node.find(steps.iter().map(String::as_str));
        let name = dotted(steps, Some(if key.is_empty() { "\"\"" } else { key }));
        if let Some(section @ ("environment" | "secrets")) = steps.first().map(String::as_str) {
            // `{A:hunter2}` has a key and no value.
            let hidden = section == "secrets" || secret::assigns(key);
            let shown = if hidden { format!("this key of `{section}`") } else { format!("{key:?}") };
            let message = format!("{shown} is not the name of an environment variable");
            return Diagnostic::error(&rule::VARIABLE_NAME, message)
                .at(span, "expected letters, digits and underscores, not beginning with a digit")
                .hide_if(hidden);
        }
        let table = settings_at(steps);
        if let Some(table) = table {
            if let Some(reason) = table.get(key).and_then(|setting| setting.refusal()) {
                return Diagnostic::error(&rule::SETTING, format!("`{name}` cannot be set here"))
                    .at(span, reason);
            }
            if let Some(removed) =
                table.removed.iter().find(|removed| removed.name == key && removed.value.is_none())
            {
                return Diagnostic::error(
                    &rule::SETTING,
                    format!("`{name}` is gone since {} {}", table.server, removed.version),
                )
                .at(span, removed.instead.clone());
            }
        }
        let known = self.known_keys(steps);
        let what = table.map_or_else(
            || "unknown key".to_owned(),
            |table| format!("{} {} has no such setting", table.server, table.version),
        );
        let diagnostic = Diagnostic::error(&rule::UNKNOWN_KEY, format!("{what}: `{name}`"));
        let is_looked_for = SUGGESTIONS.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        match is_looked_for.then(|| meant(steps, key, &known)).flatten() {
            Some(near) => {
                let is_quoted = map.is_some_and(|map| {
                    map.get(key).is_some_and(|pair| pair.key.style != crate::pillar::Style::Plain)
                });
                let spelt = if is_quoted { format!("\"{near}\"") } else { near.clone() };
                let diagnostic = diagnostic.at(span, format!("did you mean `{near}`?"));
                if map.is_none_or(|map| is_free(map, key, &near, &known)) {
                    diagnostic.fix(Fix::risky(span, spelt))
                } else {
                    diagnostic
                }
            }
            None if known.len() <= 20 && !known.is_empty() => {
                diagnostic.at(span, "").help(format!("known here: {}", known.join(", ")))
            }
            None => diagnostic.at(span, ""),
        }
    }

    /// The keys that the map at `steps` may have.
    fn known_keys(&self, steps: &[String]) -> Vec<String> {
        let schemas = self.at(steps);
        let mut known: Vec<String> = vec![];
        for schema in schemas.iter().flat_map(|schema| self.branches(schema)) {
            known.extend(schema["properties"].as_object().into_iter().flatten().map(|(key, _)| key.clone()));
            let names = schema["propertyNames"]["enum"].as_array().into_iter().flatten();
            known.extend(names.filter_map(|name| name.as_str().map(str::to_owned)));
        }
        known
    }

    /// Whether a map at `steps` may have `key`; also if no map belongs there, which is said elsewhere.
    fn knows(&self, steps: &[String], key: &str) -> bool {
        let schemas = self.at(steps);
        let maps: Vec<&Json> = schemas
            .iter()
            .flat_map(|schema| self.branches(schema))
            .filter(|schema| schema["type"] == "object" || schema.get("properties").is_some())
            .collect();
        let takes = |schema: &&Json| {
            let named = schema["properties"].get(key).is_some();
            let names = schema.get("propertyNames");
            let fits = names.is_none_or(|names| jsonschema::is_valid(names, &Json::from(key)));
            named || (fits && schema["additionalProperties"] != false)
        };
        maps.is_empty() || maps.iter().any(takes)
    }

    /// The schemas of what stands at `steps`, before what they refer to.
    fn at(&self, steps: &[String]) -> Vec<&Json> {
        let mut schemas = vec![&self.schema];
        for step in steps {
            schemas = schemas.iter().flat_map(|schema| self.children(schema, step)).collect();
        }
        schemas
    }

    /// A schema, what it refers to, and its alternatives.
    fn branches<'a>(&'a self, schema: &'a Json) -> Vec<&'a Json> {
        let mut all = vec![schema];
        let mut at = 0;
        while let Some(schema) = all.get(at).copied() {
            let target =
                schema["$ref"].as_str().and_then(|name| self.schema.pointer(name.trim_start_matches('#')));
            all.extend(target);
            for keyword in ["anyOf", "oneOf", "allOf"] {
                all.extend(schema[keyword].as_array().into_iter().flatten());
            }
            at += 1;
        }
        all
    }

    fn children<'a>(&'a self, schema: &'a Json, step: &str) -> Vec<&'a Json> {
        self.branches(schema)
            .into_iter()
            .filter_map(|schema| {
                let items = if step.parse::<usize>().is_ok() { schema.get("items") } else { None };
                schema["properties"].get(step).or(items).or_else(|| schema.get("additionalProperties"))
            })
            .filter(|schema| schema.is_object())
            .collect()
    }

    /// What the schema wants at the place of an error, in words.
    fn expectation(&self, error: &ValidationError<'_>) -> String {
        let schemas = self.at(&steps(error));
        let mut wanted: Vec<String> = vec![];
        for schema in schemas.iter().flat_map(|schema| self.branches(schema)) {
            for text in describe(schema) {
                if !wanted.contains(&text) {
                    wanted.push(text);
                }
            }
        }
        let listed = schemas
            .iter()
            .flat_map(|schema| self.branches(schema))
            .any(|schema| schema.get("enum").is_some());
        let example = schemas.iter().find_map(|schema| schema["examples"].get(0)).filter(|_| !listed);
        let example = example.map(|example| format!(", such as {example}")).unwrap_or_default();
        match wanted.as_slice() {
            [] => String::new(),
            _ => format!("expected {}{example}", list(&wanted)),
        }
    }
}

/// The server whose settings the map at `steps` has.
fn settings_at(steps: &[String]) -> Option<&'static Table> {
    match steps {
        [first] if first == "gunicorn" => Some(&GUNICORN),
        [first] if first == "unicorn" => Some(&UNICORN),
        _ => None,
    }
}

/// The one of the `known` keys that was most likely meant.
fn meant(steps: &[String], key: &str, known: &[String]) -> Option<String> {
    // Who knows the option of the command line takes its name.
    let option = format!("--{}", key.replace('_', "-"));
    let as_option = settings_at(steps).and_then(|table| {
        table.settings.iter().find(|one| one.pillar == Pillar::Allowed && one.cli.contains(&option))
    });
    as_option.map(|setting| setting.name.clone()).or_else(|| nearest(key, known))
}

/// The instance path as steps.
fn steps(error: &ValidationError<'_>) -> Vec<String> {
    let path = error.instance_path().as_str();
    path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
}

/// Whether `name` is no known key, and `near` is what it was to be.
fn is_misspelt(name: &str, near: &str, known: &[String]) -> bool {
    !known.iter().any(|one| one == name) && nearest(name, known).as_deref() == Some(near)
}

/// Whether `near` can be written for `key` in this map without being there twice: it is not there, and no other key was
/// to be it. What comes from the defaults or by a merge key stands elsewhere, and is overruled; what an alias calls in is
/// somebody else's as well.
fn is_free(map: &Node, key: &str, near: &str, known: &[String]) -> bool {
    /// In a larger map each key would be compared with each; then nothing is corrected.
    const MOST: usize = 50;
    let Value::Map(pairs) = &map.value else { return true };
    if pairs.len() > MOST || map.via.is_some() || map.get(key).is_some_and(|pair| pair.key.via.is_some()) {
        return false;
    }
    let is_here = |node: &Node| {
        let (at, whole) = (node.span, map.span);
        node.via.is_none() && at.source == whole.source && whole.start <= at.start && at.end <= whole.end
    };
    !pairs.iter().filter(|pair| is_here(&pair.key)).any(|pair| {
        let name = pair.key.key_text();
        name == near || (name != key && is_misspelt(&name, near, known))
    })
}
