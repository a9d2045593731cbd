//! Which applications a document holds: below a key, flat, or as `{defaults, applications}`.

use std::sync::Arc;

use super::{Int, Node, Pair, Style, Value};
use crate::diagnostic::{Diagnostic, Kept};
use crate::rule;
use crate::source::Span;

/// One application as the document has it: its values over the defaults.
#[derive(Clone, Debug)]
pub struct Application {
    /// Its key in `applications`.
    pub name: Option<String>,
    /// Where that key stands; without one, where the application does.
    pub name_span: Span,
    /// The colon path to it, empty for a flat document.
    pub key: String,
    /// What it says itself.
    pub own: Node,
    /// What it has in common with the others of its document.
    pub defaults: Option<Arc<Node>>,
    /// Whether it is the first of those that these defaults are for. With that one they are checked by themselves: a
    /// mistake that every application happens to override is one all the same.
    pub is_first: bool,
}

/// One application with its values merged with the defaults.
#[derive(Clone, Debug)]
pub struct Merged {
    /// As in [`Application`].
    pub name: Option<String>,
    /// As in [`Application`].
    pub name_span: Span,
    /// As in [`Application`].
    pub key: String,
    /// Its values over the defaults; each remembers its place.
    pub node: Node,
    /// The defaults, if they are to be checked by themselves.
    pub defaults: Option<Arc<Node>>,
}

impl Application {
    /// Its values over the defaults.
    ///
    /// [`select`] does not do it: of 10,000 applications that takes a third of the time of reading them, and whoever
    /// looks at them does so with several threads.
    pub fn merge(self) -> Merged {
        let Self { name, name_span, key, own, defaults, is_first } = self;
        let node = match &defaults {
            Some(defaults) => merge(defaults, own),
            None => own,
        };
        Merged { name, name_span, key, node, defaults: defaults.filter(|_| is_first) }
    }
}

/// The key that is looked for when none is given.
const DEFAULT_KEY: &str = "unicorn";

/// The applications of one document. `key` is a colon path as Salt writes it; without one, the key
/// `unicorn` counts if there is one, else the document itself. A document that names an
/// application at its top is flat, and its key `unicorn` holds the settings of Ruby unicorn.
///
/// Nothing at `key` is not a complaint, because several documents may be given and one of them has
/// it: the caller sees that no document did. What is wrong with what is no application is added to `found`.
pub fn select(document: Node, key: Option<&str>, found: &mut Kept) -> Vec<Application> {
    let flat = document.get("application").is_some() || document.get("unicorn_application").is_some();
    let nested = !flat && document.has(&[DEFAULT_KEY]);
    let (node, path) = match key.or(nested.then_some(DEFAULT_KEY)) {
        Some(key) => match descend(document, key) {
            Some(node) => (node, key.to_owned()),
            None => return vec![],
        },
        None => (document, String::new()),
    };
    let Value::Map(_) = node.value else {
        let what = if path.is_empty() { "the document".to_owned() } else { format!("`{path}`") };
        found.push(
            Diagnostic::error(&rule::NOT_A_PILLAR, format!("{what} is not a map of keys and values"))
                .at(node.span, "expected an application, or `applications` with their names"),
        );
        return vec![];
    };
    if node.get("applications").is_none() && node.get("defaults").is_none() {
        let application = Application {
            name: None,
            name_span: node.span,
            key: path,
            own: node,
            defaults: None,
            is_first: true,
        };
        return vec![application];
    }
    applications(node, &path, found)
}

fn applications(node: Node, path: &str, found: &mut Kept) -> Vec<Application> {
    let mut is_odd = false;
    let mut defaults: Option<Arc<Node>> = None;
    let mut named: Vec<Pair> = vec![];
    let span = node.span;
    let Value::Map(pairs) = node.value else { return vec![] };
    for pair in pairs {
        match (&pair.key.value, &pair.value.value) {
            (Value::Str(key), Value::Map(_)) if key == "defaults" => {
                defaults = Some(Arc::new(pair.value));
            }
            (Value::Str(key), Value::Null) if key == "defaults" => {}
            (Value::Str(key), Value::Map(_)) if key == "applications" => {
                if let Value::Map(pairs) = pair.value.value {
                    named = pairs;
                }
            }
            (Value::Str(key), Value::Null) if key == "applications" => {}
            (Value::Str(key), _) if key == "defaults" || key == "applications" => {
                is_odd = true;
                found.push(
                    Diagnostic::error(&rule::WRONG_TYPE, format!("`{key}` is not a map"))
                        .at(pair.value.span, "expected a map"),
                );
            }
            _ => {
                is_odd = true;
                let key = key_text(&pair.key.value);
                let diagnostic = Diagnostic::error(&rule::UNKNOWN_KEY, format!("unknown key: `{key}`"));
                found.push(diagnostic.at(
                    pair.key.span,
                    "beside `applications` only `defaults` may stand; keys of an application belong below its name",
                ));
            }
        }
    }
    if named.is_empty() && !is_odd {
        found.push(
            Diagnostic::error(&rule::MISSING_KEY, "there is no application")
                .at(span, "expected `applications` with at least one name"),
        );
    }
    let prefix = if path.is_empty() { "applications:".to_owned() } else { format!("{path}:applications:") };
    let mut applications = Vec::with_capacity(named.len());
    for pair in named {
        let Value::Str(name) = pair.key.value else {
            found.push(
                Diagnostic::error(
                    &rule::APPLICATION_NAME,
                    format!("the name of an application is a string; this is {}", key_text(&pair.key.value)),
                )
                .at(pair.key.span, "quote it"),
            );
            continue;
        };
        let own = match &pair.value.value {
            Value::Null => {
                let (value, style) = (Value::Map(vec![]), Style::Collection);
                Node { span: pair.key.span, value, style, ..pair.value }
            }
            Value::Map(_) => pair.value,
            _ => {
                found.push(
                    Diagnostic::error(&rule::WRONG_TYPE, format!("the application `{name}` is not a map"))
                        .at(pair.value.span, "expected its keys and values"),
                );
                continue;
            }
        };
        let key = [&prefix, name.as_str()].concat();
        let name = Some(name);
        let is_first = applications.is_empty();
        let defaults = defaults.clone();
        applications.push(Application { key, name, name_span: pair.key.span, own, defaults, is_first });
    }
    applications
}

/// `over` on top of `base`: maps are merged key by key, everything else is replaced.
fn merge(base: &Node, over: Node) -> Node {
    let Value::Map(mut above) = over.value else { return over };
    let Value::Map(below) = &base.value else {
        // What a null takes away from a default that is no map cannot be known.
        above.iter_mut().for_each(|pair| pair.value.ordinary |= pair.value.value == Value::Null);
        return Node { value: Value::Map(above), ..over };
    };
    for pair in below {
        match above.iter_mut().find(|other| other.key.value == pair.key.value) {
            Some(other) if matches!(other.value.value, Value::Map(_)) => {
                let value = std::mem::replace(&mut other.value, base.hollow());
                other.value = merge(&pair.value, value);
            }
            // It takes the default away.
            Some(other) if other.value.value == Value::Null => {
                other.value.ordinary = pair.value.value != Value::Null;
            }
            Some(_) => {}
            None => above.push(pair.clone()),
        }
    }
    Node { value: Value::Map(above), ..over }
}

/// The value at a colon path. As in Salt, a step is a key or, in a list, an index.
pub fn descend(mut node: Node, key: &str) -> Option<Node> {
    for step in key.split(':') {
        node = take(node, step)?;
    }
    Some(node)
}

fn take(node: Node, step: &str) -> Option<Node> {
    match node.value {
        Value::Map(pairs) => {
            pairs.into_iter().find(|pair| key_text(&pair.key.value) == step).map(|pair| pair.value)
        }
        Value::List(items) => step.parse::<usize>().ok().and_then(|index| items.into_iter().nth(index)),
        _ => None,
    }
}

fn key_text(value: &Value) -> String {
    match value {
        Value::Str(text) | Value::Timestamp(text) => text.clone(),
        Value::Int(Int::Small(number)) => number.to_string(),
        Value::Int(Int::Big(number)) => number.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Null => "null".to_owned(),
        Value::Bytes(_) | Value::Vault(_) | Value::List(_) | Value::Map(_) => "this".to_owned(),
    }
}
