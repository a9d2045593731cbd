//! An application without the keys that are wrong in it, so that rules can look at the others.

use serde_json::from_value;

use super::Unfit;
use super::json::{Nulls, json};
use crate::diagnostic::Diagnostic;
use crate::model::{self, Context, Service};
use crate::pillar::{Node, Value};
use crate::rule;
use crate::rules::{self, Steps};
use crate::schema::Checker;

/// Keys of an application that hold maps whose keys do not belong together; any other value is left out as a whole.
const SECTIONS: &[&str] = &[
    "environment",
    "gunicorn",
    "handoff",
    "layout",
    "limits",
    "log",
    "restart",
    "secrets",
    "service",
    "unicorn",
];

/// An application with more errors than this is not looked at further: each is looked for in all of it.
const MOST_FOUND: usize = 100;

/// What the rules have to say of an application that has errors, as far as it holds whatever is written instead of
/// what is wrong; nothing, if too little is left of it.
pub(super) fn check(unfit: &Unfit, checker: &Checker) -> Option<Vec<Diagnostic>> {
    if unfit.found.len() > MOST_FOUND {
        return None;
    }
    let mut node = unfit.node.clone();
    let unknown = leave_out(&mut node, unfit, checker)?;
    let service = service(&node, unfit)?;
    Some(rules::check_beside(&service, &node, unfit.place, &unknown))
}

/// Takes away what is wrong. The result is what nobody knows then.
fn leave_out(node: &mut Node, unfit: &Unfit, checker: &Checker) -> Option<Vec<Steps>> {
    let mut unknown: Vec<Steps> = vec![];
    for key in ["application", "user", "virtualenv_home"] {
        let is_there = unfit.node.find([key]).is_some_and(|node| node.value != Value::Null);
        // A key that is missing is about to be written. One that need not be there is no reason to look less.
        if !is_there && unfit.found.iter().any(|finding| lacks(finding, key)) {
            unknown.push(vec![key.to_owned()]);
        }
    }
    for finding in &unfit.found {
        if finding.rule == &rule::APPLICATION_NAME {
            unknown.push(vec!["application".to_owned()]);
        }
        let Some(span) = finding.span() else { continue };
        for mut path in rules::paths_of(&unfit.node, span) {
            if finding.rule == &rule::MISSING_KEY && path.len() < 2 {
                // The application itself lacks it, at whose first key that is told.
                continue;
            }
            let (key, map) = path.split_last()?;
            if finding.rule == &rule::UNKNOWN_KEY {
                // Under another name it would say something else: that of a key, or nobody knows which.
                let meant = checker.meant(map, key);
                unknown.push(map.iter().cloned().chain(meant).collect());
            } else if finding.rule == &rule::SETTING {
                // Others are to be written instead.
                unknown.push(map.to_vec());
            }
            let is_section = path.first().is_some_and(|first| SECTIONS.contains(&first.as_str()));
            path.truncate(if is_section { 2 } else { 1 });
            remove(node, &path);
            unknown.push(path);
        }
    }
    Some(unknown)
}

fn lacks(finding: &Diagnostic, key: &str) -> bool {
    finding.rule == &rule::MISSING_KEY && finding.message.starts_with(&format!("`{key}` is missing"))
}

fn remove(node: &mut Node, path: &[String]) {
    let Value::Map(pairs) = &mut node.value else { return };
    match path {
        [] => {}
        [key] => pairs.retain(|pair| pair.key.key_text() != *key),
        [key, rest @ ..] => {
            pairs
                .iter_mut()
                .filter(|pair| pair.key.key_text() == *key)
                .for_each(|pair| remove(&mut pair.value, rest));
        }
    }
}

/// The service that the rest makes, with something in the place of what is missing.
fn service(node: &Node, unfit: &Unfit) -> Option<Service> {
    let mut found = vec![];
    let json = json(node, &mut Nulls::Dropped(&mut vec![]), &mut vec![], &mut found);
    let input = from_value(json).ok().filter(|_| found.is_empty())?;
    let context = Context { name: unfit.name.as_deref(), place: unfit.place, node };
    let (service, more) = model::resolve_anyway(input, context);
    let is_whole = more
        .iter()
        .all(|finding| finding.rule == &rule::MISSING_KEY || finding.rule == &rule::APPLICATION_NAME);
    is_whole.then_some(service)
}
