//! `logconfig_dict`, which gunicorn gives to `logging.config.dictConfig` over its own configuration: each key of the one
//! replaces that of the other as a whole (glogging.py, `setup` and `CONFIG_DEFAULTS`, 27.0.1).

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::pillar::{Int, Node, Pair, Value};
use crate::rule;

/// Levels as Python's logging knows them; it compares capitals.
const LEVELS: &[&str] = &["CRITICAL", "FATAL", "ERROR", "WARN", "WARNING", "INFO", "DEBUG", "NOTSET"];

/// What gunicorn's own configuration has in each section that others name things of.
const OWN: [(&str, &[&str]); 3] =
    [("formatters", &["generic"]), ("handlers", &["console", "error_console"]), ("filters", &[])];

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let Some(whole) = subject.setting("logconfig_dict") else { return };
    let mut say = |node: &Node, what: String, help: &str| {
        let message = format!("`gunicorn.logconfig_dict`: {what}, and gunicorn ends");
        found.push(finding(&rule::REFUSED_VALUE, message).at(node.span, help));
    };
    // An empty one is as good as none.
    if pairs(whole).is_empty() {
        return;
    }
    let section = |name: &str| whole.get(name).map(|pair| &pair.value);
    if let Some(version) = section("version").filter(|node| node.value != Value::Int(Int::Small(1))) {
        say(version, "Python's logging knows version 1 only".to_owned(), "write 1, or leave it out");
    }
    if let Some(node) = section("incremental").filter(|node| node.value == Value::Bool(true)) {
        // Nothing has been configured that it could change: the handlers, gunicorn's own if none are said, are not there yet.
        if section("handlers").is_none_or(|handlers| !pairs(handlers).is_empty()) {
            say(node, "there is nothing yet that it could change".to_owned(), "leave it out");
        }
        return;
    }
    for name in OWN.iter().map(|(name, _)| *name).chain(["loggers"]) {
        if let Some(node) = section(name).filter(|node| !matches!(node.value, Value::Map(_))) {
            say(node, format!("`{name}` is no map"), "write a map of names");
            return;
        }
    }
    let of = |name: &str| section(name).map_or(&[][..], pairs);
    for style in of("formatters").iter().filter_map(|formatter| formatter.value.get("style")) {
        if text(&style.value).is_some_and(|text| !["%", "{", "$"].contains(&text)) {
            say(&style.value, "there is no such style".to_owned(), "write \"%\", \"{\" or \"$\"");
        }
    }
    let has = |section: Option<&Node>, name: &str, thing: &str| match section {
        Some(node) => node.get(thing).is_some(),
        None => OWN.iter().any(|(one, names)| *one == name && names.contains(&thing)),
    };
    for one in of("handlers").iter().chain(of("loggers")).chain(whole.get("root")) {
        if let Some(level) = one.value.get("level").map(|pair| &pair.value)
            && text(level).is_some_and(|text| !LEVELS.contains(&text))
        {
            let help = "write DEBUG, INFO, WARNING, ERROR or CRITICAL";
            say(level, "there is no such level".to_owned(), help);
        }
        // What it names, and where that would have to be.
        for (key, name) in [("filters", "filters"), ("formatter", "formatters"), ("handlers", "handlers")] {
            let Some(named) = one.value.get(key).map(|pair| &pair.value) else { continue };
            let items =
                if let Value::List(items) = &named.value { items } else { std::slice::from_ref(named) };
            for item in items {
                if let Some(thing) = text(item).filter(|thing| !has(section(name), name, thing)) {
                    let kind = name.trim_end_matches('s');
                    say(item, format!("there is no {kind} `{thing}`"), &format!("name one of `{name}`"));
                }
            }
        }
    }
    // Its own root logger and its two loggers write to its own handlers.
    let Some(handlers) = section("handlers") else { return };
    for (name, wanted) in [("root", &["console"][..]), ("loggers", &["error_console", "console"])] {
        let lacking = wanted.iter().find(|wanted| handlers.get(wanted).is_none());
        if let (None, Some(handler)) = (section(name), lacking) {
            let what =
                format!("gunicorn's own `{name}` use the handler `{handler}`, which these `handlers` lack");
            say(handlers, what, "add it, or write `root` and `loggers` as well");
            return;
        }
    }
}

fn pairs(node: &Node) -> &[Pair] {
    if let Value::Map(pairs) = &node.value { pairs } else { &[] }
}

fn text(node: &Node) -> Option<&str> {
    if let Value::Str(text) = &node.value { Some(text) } else { None }
}
