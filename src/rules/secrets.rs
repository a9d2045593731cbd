//! What nobody should read.

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::model::secret::{Why, is_named, is_ordinary, is_secret_option, why};
use crate::pillar::{Node, Pair, Value};
use crate::rule;

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let Value::Map(sections) = &subject.node.value else { return };
    for Pair { key, value } in sections {
        match &key.value {
            Value::Str(section) if section == "secrets" => {}
            Value::Str(section) if section == "environment" => variables(value, found),
            Value::Str(section) => elsewhere(value, section, false, &mut vec![section], found),
            _ => {}
        }
    }
}

fn variables(environment: &Node, found: &mut Vec<Diagnostic>) {
    let Value::Map(variables) = &environment.value else { return };
    for Pair { key, value } in variables {
        let (Value::Str(name), Value::Str(text)) = (&key.value, &value.value) else { continue };
        let Some(why) = why(name, text) else { continue };
        found.push(
            finding(&rule::PLAIN_SECRET, format!("`environment.{name}` {}", why.words()))
                .at_hidden(value.span, "write it below `secrets`")
                .help("It is kept in a file that only root reads all the same; `secrets` says so to whoever reads the pillar."),
        );
    }
}

/// What is sensitive in other sections, which nothing keeps from anybody.
fn elsewhere<'a>(
    node: &'a Node,
    name: &'a str,
    named: bool,
    steps: &mut Vec<&'a str>,
    found: &mut Vec<Diagnostic>,
) {
    match &node.value {
        Value::Map(pairs) => {
            for Pair { key, value } in pairs {
                let Value::Str(key) = &key.value else { continue };
                steps.push(key);
                elsewhere(value, key, is_named(key), steps, found);
                steps.pop();
            }
        }
        Value::List(items) => {
            // `["gunicorn", "--token", "hunter2"]`
            let mut follows = false;
            for item in items {
                elsewhere(item, name, named || follows, steps, found);
                follows = matches!(&item.value, Value::Str(word) if is_secret_option(word));
            }
        }
        Value::Str(text) => {
            let by_name = (named && !is_ordinary(text)).then_some(Why::Name);
            let Some(why) = by_name.or_else(|| why(name, text)) else { return };
            let message =
                format!("`{}` {}", crate::model::secret::dotted(steps.iter().copied()), why.words());
            found.push(
                finding(&rule::PLAIN_SECRET, message)
                    .at_hidden(node.span, "hand it to the application by `secrets`")
                    .help("Every user of the host can read the files that this is written to."),
            );
        }
        _ => {}
    }
}
