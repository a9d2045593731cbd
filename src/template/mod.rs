//! The template environment: strict, and quoting by itself.
//!
//! Every expression is written as a literal of the language its template is in, so a template's
//! author cannot forget to quote; a name that the model does not have is an error.

mod bounds;
mod yaml;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior};

use crate::failure::Failure;

use crate::quote;
pub use crate::quote::{comment, hidden};
pub use yaml::document;

/// The language a template writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// sh and bash.
    Sh,
    /// Python.
    Python,
    /// Ruby.
    Ruby,
    /// YAML.
    Yaml,
}

/// The built-in templates: name, language, text.
const BUILT_IN: &[(&str, Language, &str)] = &[
    ("run-native", Language::Yaml, include_str!("../../templates/run-native")),
    ("run-shell", Language::Sh, include_str!("../../templates/run-shell")),
    ("finish-native", Language::Sh, include_str!("../../templates/finish-native")),
    ("finish-shell", Language::Sh, include_str!("../../templates/finish-shell")),
    ("check-native", Language::Sh, include_str!("../../templates/check-native")),
    ("check-shell", Language::Sh, include_str!("../../templates/check-shell")),
    ("log-run", Language::Sh, include_str!("../../templates/log-run")),
    ("svlogd-config", Language::Sh, include_str!("../../templates/svlogd-config")),
    ("gunicorn.py", Language::Python, include_str!("../../templates/gunicorn.py")),
    ("gunicorn-ready.py", Language::Python, include_str!("../../templates/gunicorn-ready.py")),
    ("unicorn.rb", Language::Ruby, include_str!("../../templates/unicorn.rb")),
    ("unicorn-ready.rb", Language::Ruby, include_str!("../../templates/unicorn-ready.rb")),
];

/// Those that others include, and that make no file of their own.
const PARTS: &[&str] = &["gunicorn-ready.py", "unicorn-ready.rb"];

/// The largest template that may replace one, in bytes; the largest built-in one has 40,000. The stacks of [`bounds`] are made for it.
pub const MOST_BYTES: usize = 256 << 10;

/// What rendering one file may cost, if templates were replaced: an operation costs one, and 64 bytes that are made, held or
/// written cost one (minijinja's units), so that one file has at most 64 MB. The built-in templates need 2,000, and 20 for
/// each value of a list or map of the pillar.
const FUEL_A_FILE: u64 = 1_000_000;

/// What all files of a run may cost together, if templates were replaced: those of 10,000 services, with room.
const FUEL_A_RUN: u64 = 200_000_000;

/// So much processor time all files of a run may take together, if templates were replaced: those of 10,000 services take a few
/// seconds of it.
const MILLISECONDS_A_RUN: u64 = 60_000;

/// Gives the memory that this process has, in bytes.
pub type Memory = fn() -> u64;

/// Where nobody says how much memory the process has.
const NOT_KNOWN: Memory = || 0;

/// What is wrong with a template that reaches a bound.
const TOO_MUCH: &str = "it does too much work, or makes too much text, for one file; look for loops in loops and values that grow";

/// The templates of one run.
pub struct Templates {
    environment: Arc<Environment<'static>>,
    sources: Vec<(String, String)>,
    memory: Memory,
    /// The processor time that replaced templates have taken.
    milliseconds: AtomicU64,
    /// What is left of [`FUEL_A_RUN`]; not counted for the built-in templates, which take as long as their input is.
    fuel: AtomicU64,
}

impl Templates {
    /// The built-in templates.
    pub fn built_in() -> Result<Self, Failure> {
        Self::with(vec![])
    }

    /// What the templates are called.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, ..)| *name)
    }

    /// The built-in templates with some replaced: pairs of a template's name and its new text.
    /// Fails if a name is not one of ours, or a text is not a template.
    pub fn with(replacements: Vec<(String, String)>) -> Result<Self, Failure> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax =
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
        environment.set_syntax(syntax.map_err(|error| explain(&error, &[]))?);
        // Debug information holds the whole context, secrets and all.
        environment.set_debug(false);
        environment.set_auto_escape_callback(|name| {
            let language =
                BUILT_IN.iter().find(|(known, ..)| *known == name).map(|(_, language, _)| *language);
            AutoEscape::Custom(
                match language {
                    Some(Language::Python) => "python",
                    Some(Language::Ruby) => "ruby",
                    Some(Language::Yaml) => "yaml",
                    Some(Language::Sh) | None => "sh",
                }
                .into(),
            )
        });
        environment.set_formatter(write);
        environment.add_filter("comment", |text: &str| Value::from_safe_string(comment(text)));
        let mut sources = vec![];
        for (name, text) in &replacements {
            if !BUILT_IN.iter().any(|(known, ..)| known == name) {
                let known: Vec<&str> = BUILT_IN.iter().map(|(known, ..)| *known).collect();
                return Err(Failure::Template(format!(
                    "{name}: no such template; the templates are {}",
                    known.join(", ")
                )));
            }
            if let Some(at) = text.find('\0') {
                let line = text[..at].matches('\n').count() + 1;
                return Err(Failure::Template(format!("{name}:{line}: a NUL character, which no text has")));
            }
            sources.push((name.clone(), text.clone()));
        }
        for (name, text) in replacements {
            let own = name.clone();
            let parsed = bounds::bounded(bounds::PARSES, NOT_KNOWN, move || {
                environment.add_template_owned(name, text).map(|()| environment)
            });
            environment = parsed.map_err(|_| exceeded(&own))?.map_err(|error| explain(&error, &sources))?;
        }
        // A run needs half of the others; each is compiled when it is first used.
        environment.set_auto_reload(false);
        if !sources.is_empty() {
            environment.set_fuel(Some(FUEL_A_FILE));
        }
        environment.set_loader(|name| {
            Ok(BUILT_IN.iter().find(|(known, ..)| *known == name).map(|(_, _, text)| *text))
        });
        Ok(Self {
            environment: Arc::new(environment),
            sources,
            memory: NOT_KNOWN,
            milliseconds: AtomicU64::new(0),
            fuel: AtomicU64::new(FUEL_A_RUN),
        })
    }

    /// The memory of the process counts, too, while one of the replaced templates is rendered.
    #[must_use]
    pub fn within(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// Renders one template.
    ///
    /// # Errors
    /// The template asks for what is not there, or, of replaced templates, does more than a file or a run may cost.
    pub fn render(&self, name: &str, context: &Value) -> Result<String, Failure> {
        let failed = |error: Error| explain(&error, &self.sources);
        let template = self.environment.get_template(name).map_err(failed)?;
        if self.sources.is_empty() {
            return template.render(context).map_err(failed);
        }
        let (environment, context, own) = (Arc::clone(&self.environment), context.clone(), name.to_owned());
        let rendered = bounds::bounded(bounds::RENDERS, self.memory, move || {
            let rendered = environment.get_template(&own)?.render_captured(context)?;
            let (used, _) = rendered.state().fuel_levels().unwrap_or_default();
            Ok((rendered.into_output(), used, bounds::used()))
        });
        let rendered = rendered.map_err(|_| exceeded(name))?;
        let (text, used, milliseconds) = rendered.map_err(failed)?;
        let all = self.milliseconds.fetch_add(milliseconds, Ordering::Relaxed).saturating_add(milliseconds);
        let left =
            self.fuel.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(used));
        if left.is_err() || all > MILLISECONDS_A_RUN {
            let sentence = format!(
                "{name}: the templates together do too much work for one run; make fewer services at once, or simpler templates"
            );
            return Err(Failure::Template(sentence));
        }
        Ok(text)
    }

    /// Checks every replaced template against a context that has every name of the model: a name it
    /// does not have is a failure before anything is rendered, and so is a file that does not say that it is managed.
    pub fn check(&self, complete: &serde_json::Value) -> Result<(), Failure> {
        for (name, _) in &self.sources {
            let (environment, own) = (Arc::clone(&self.environment), name.clone());
            let undeclared = bounds::bounded(bounds::PARSES, self.memory, move || {
                Ok(environment.get_template(&own)?.undeclared_variables(true))
            });
            let undeclared = undeclared
                .map_err(|_| exceeded(name))?
                .map_err(|error: Error| explain(&error, &self.sources))?;
            let mut unknown: Vec<String> =
                undeclared.into_iter().filter(|variable| !known(complete, variable)).collect();
            unknown.sort();
            if let Some(first) = unknown.first() {
                let at = self
                    .sources
                    .iter()
                    .find(|(source, _)| source == name)
                    .and_then(|(_, text)| line_of(text, first));
                let line = at.map(|line| format!(":{line}")).unwrap_or_default();
                let hint = hint(complete, first);
                return Err(Failure::Template(format!(
                    "{name}{line}: the model has no `{}`{hint}",
                    excerpt(first)
                )));
            }
            let text = self.render(name, &Value::from(Serde(complete)))?;
            let sentence = complete["managed"].as_str().unwrap_or_default();
            if !PARTS.contains(&name.as_str()) && !text.contains(sentence) {
                return Err(Failure::Template(format!(
                    "{name}: what it renders does not say that it is managed; write `# {{{{ managed | comment }}}}` near its top"
                )));
            }
        }
        Ok(())
    }
}

/// Whether `service.handoff.ready` leads somewhere in the model. Maps whose keys are the pillar's
/// own (`environment`, `settings`) may have any.
fn known(complete: &serde_json::Value, variable: &str) -> bool {
    let mut value = complete;
    for step in variable.split('.') {
        match value.as_object() {
            Some(map) => match map.get(step) {
                Some(inner) => value = inner,
                None => {
                    return variable.starts_with("settings.") || variable.starts_with("service.environment.");
                }
            },
            // `service.bind.first`, `service.home.upper`: what a value offers is not ours to know.
            None => return true,
        }
    }
    true
}

fn hint(complete: &serde_json::Value, variable: &str) -> String {
    let (parent, name) = variable.rsplit_once('.').unwrap_or(("", variable));
    let mut value = Some(complete);
    for step in parent.split('.').filter(|step| !step.is_empty()) {
        value = value.and_then(|value| value.get(step));
    }
    let names: Vec<&String> =
        value.and_then(serde_json::Value::as_object).into_iter().flatten().map(|(name, _)| name).collect();
    let near = names.iter().map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
    near.filter(|(distance, _)| *distance <= 2)
        .map(|(_, known)| {
            format!(
                "; did you mean `{}{known}`?",
                if parent.is_empty() { String::new() } else { format!("{parent}.") }
            )
        })
        .unwrap_or_default()
}

fn line_of(text: &str, variable: &str) -> Option<usize> {
    text.lines().position(|line| line.contains(variable)).map(|index| index + 1)
}

/// A template has reached a bound that fuel does not count ([`bounds`]).
fn exceeded(name: &str) -> Failure {
    Failure::Template(format!(
        "{name}: {TOO_MUCH} (it takes more than 5 s of the processor, or 512 MiB of memory)"
    ))
}

/// What of a place in a template fits into a sentence.
fn excerpt(place: &str) -> String {
    const MOST: usize = 100;
    let cut = place.char_indices().nth(MOST).map(|(at, _)| at);
    cut.map_or_else(|| place.to_owned(), |at| format!("{}…", &place[..at]))
}

/// One sentence with the template's name and line. minijinja's own long form is not used: it
/// prints the values.
fn explain(error: &Error, sources: &[(String, String)]) -> Failure {
    let name = error.name().unwrap_or("template");
    let line = error.line().map(|line| format!(":{line}")).unwrap_or_default();
    let text = sources.iter().find(|(source, _)| source == name).map(|(_, text)| text.as_str());
    let place = error.range().and_then(|range| text.and_then(|text| text.get(range)));
    let what = match error.kind() {
        ErrorKind::UndefinedError => "a name that the model does not have".to_owned(),
        ErrorKind::OutOfFuel => TOO_MUCH.to_owned(),
        kind => kind.to_string(),
    };
    let detail = match (error.kind(), error.detail()) {
        (
            ErrorKind::SyntaxError
            | ErrorKind::InvalidOperation
            | ErrorKind::UnknownFilter
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownFunction,
            Some(detail),
        ) => format!(": {detail}"),
        _ => place.map(|place| format!(": `{}`", excerpt(place))).unwrap_or_default(),
    };
    Failure::Template(format!("{name}{line}: {what}{detail}"))
}

/// Writes a value as a literal of the template's language.
fn write(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if value.is_safe() {
        return out.write_str(value.as_str().unwrap_or_default()).map_err(Error::from);
    }
    let language = match state.auto_escape() {
        AutoEscape::Custom(name) => match name.as_ref() {
            "python" => Language::Python,
            "ruby" => Language::Ruby,
            "yaml" => Language::Yaml,
            _ => Language::Sh,
        },
        _ => Language::Sh,
    };
    literal(language, value, out)
}

fn literal(language: Language, value: &Value, out: &mut Output<'_>) -> Result<(), Error> {
    let wrong =
        |what: &str| Err(Error::new(ErrorKind::InvalidOperation, format!("{what} cannot be written here")));
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            let written = match language {
                Language::Sh => quote::sh(text, out),
                Language::Python => quote::python(text, out),
                Language::Ruby => quote::ruby(text, out),
                Language::Yaml => quote::yaml(text, out),
            };
            Ok(written?)
        }
        ValueKind::Number => Ok(write!(out, "{value}")?),
        ValueKind::Bool => {
            let truth = value.is_true();
            out.write_str(match (language, truth) {
                (Language::Python, true) => "True",
                (Language::Python, false) => "False",
                (_, true) => "true",
                (_, false) => "false",
            })?;
            Ok(())
        }
        ValueKind::None => {
            out.write_str(match language {
                Language::Python => "None",
                Language::Ruby => "nil",
                Language::Yaml => "null",
                Language::Sh => return wrong("nothing (null)"),
            })?;
            Ok(())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?;
            let (open, separator, close) = match language {
                Language::Sh => ("", " ", ""),
                Language::Python | Language::Ruby | Language::Yaml => ("[", ", ", "]"),
            };
            out.write_str(open)?;
            for (index, item) in items.enumerate() {
                if index > 0 {
                    out.write_str(separator)?;
                }
                if language == Language::Sh && matches!(item.kind(), ValueKind::Seq | ValueKind::Map) {
                    return wrong("a list of lists or maps");
                }
                literal(language, &item, out)?;
            }
            out.write_str(close)?;
            Ok(())
        }
        ValueKind::Map => {
            let arrow = match language {
                Language::Python | Language::Yaml => ": ",
                Language::Ruby => " => ",
                Language::Sh => return wrong("a map"),
            };
            out.write_char('{')?;
            for (index, key) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.write_str(", ")?;
                }
                literal(language, &key, out)?;
                out.write_str(arrow)?;
                literal(language, &value.get_item(&key)?, out)?;
            }
            out.write_char('}')?;
            Ok(())
        }
        _ => wrong("this value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(name: &str, template: &str, context: serde_json::Value) -> Result<String, String> {
        Templates::with(vec![(name.to_owned(), template.to_owned())])
            .and_then(|templates| templates.render(name, &Value::from(Serde(&context))))
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_built_in_templates_are_templates() {
        let templates = Templates::built_in().unwrap();
        for (name, ..) in BUILT_IN {
            assert!(templates.environment.get_template(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn quotes_by_language() {
        let value = json!({"v": ["it's", 1, true], "m": {"a": null}});
        assert_eq!(render("run-shell", "x={{ v }}", value.clone()).unwrap(), r"x='it'\''s' 1 true");
        assert_eq!(
            render("gunicorn.py", "x = {{ v }}, {{ m }}", value.clone()).unwrap(),
            "x = [\"it's\", 1, True], {\"a\": None}"
        );
        assert_eq!(
            render("unicorn.rb", "x {{ v }}, {{ m }}", value).unwrap(),
            "x [\"it's\", 1, true], {\"a\" => nil}"
        );
    }

    #[test]
    fn says_where_a_template_is_wrong() {
        assert_eq!(
            render("run-shell", "a\n{{ service.usr }}\n", json!({"service": {}})).unwrap_err(),
            "run-shell:2: a name that the model does not have: `service.usr`"
        );
        assert!(
            render("run-shell", "a\n{% if %}\n", json!({}))
                .unwrap_err()
                .starts_with("run-shell:2: syntax error")
        );
        assert!(render("other", "", json!({})).unwrap_err().starts_with("other: no such template"));
    }

    #[test]
    fn checks_names_before_rendering() {
        let templates =
            Templates::with(vec![("log-run".into(), "x\n{% if false %}{{ service.usr }}{% endif %}".into())])
                .unwrap();
        let error = templates.check(&json!({"service": {"user": "deploy"}})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "log-run:2: the model has no `service.usr`; did you mean `service.user`?"
        );
    }
}
