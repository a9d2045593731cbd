//! The rules themselves: as a table, one explained, as JSON, and as the page in docs/.

use serde_json::{Value, json};

use super::stream::json_text;
use super::words::wrapped;
use crate::diagnostic::Severity;
use crate::rule::{Family, Rule, Switch};

/// Changes when a key changes its meaning or goes; new keys may come at any time.
const VERSION: u32 = 1;

/// Lines of prose are no longer than this, wherever there is room for more.
const PROSE: usize = 100;

/// Every rule with its severity and a sentence, by family; `width` is that of the terminal.
pub fn table(rules: &[&Rule], colour: bool, width: usize) -> String {
    let column = rules.iter().map(|rule| rule.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    let mut family: Option<Family> = None;
    for rule in rules {
        if family != Some(rule.family) {
            if family.is_some() {
                out.push('\n');
            }
            family = Some(rule.family);
            let about = format!("{}: {}", rule.family.name(), rule.family.about());
            for line in wrapped(&about, width) {
                out.push_str(&format!("{}\n", bold(&line, colour)));
            }
        }
        let severity = format!("{:7}", rule.severity.word());
        let before = format!("  {:column$}  {}  ", rule.name, coloured(&severity, rule.severity, colour));
        // What stands before the sentence, without what a terminal would not show.
        let indent = column + 2 + 2 + 7 + 2;
        let lines = wrapped(rule.summary, width.saturating_sub(indent).max(30));
        out.push_str(&format!("{before}{}\n", lines.join(&format!("\n{}", " ".repeat(indent)))));
    }
    out.push_str("\n`runsmith rule NAME` explains one; docs/rules.md has all of them.\n");
    out
}

/// All there is to say about one rule.
pub fn explain(rule: &Rule, colour: bool, width: usize) -> String {
    let width = width.min(PROSE);
    let mut out = format!(
        "{}: {}\n{}, {}; {}\n",
        bold(rule.name, colour),
        rule.summary,
        coloured(rule.severity.word(), rule.severity, colour),
        rule.family.name(),
        switch(rule),
    );
    for (title, text) in [("What", rule.what), ("Why", rule.why)] {
        out.push_str(&format!("\n{}\n", bold(title, colour)));
        for line in wrapped(text, width.saturating_sub(2).max(30)) {
            out.push_str(&format!("  {line}\n"));
        }
    }
    if let Some(example) = &rule.example {
        for (title, text) in [("Wrong", example.wrong), ("Right", example.right)] {
            let with = with(example.arguments, "");
            out.push_str(&format!("\n{}{with}\n", bold(title, colour)));
            for line in text.lines() {
                out.push_str(format!("  {}", shown(line)).trim_end());
                out.push('\n');
            }
            if let Some(sentence) = tabs(text) {
                out.push_str(&format!("\n  {sentence}\n"));
            }
        }
    }
    out
}

/// Rules for programs; docs/formats.md tells what each key means.
pub fn json(rules: &[&Rule]) -> String {
    let list: Vec<Value> = rules
        .iter()
        .map(|rule| {
            json!({
                "name": rule.name,
                "family": rule.family.name(),
                "severity": rule.severity.word(),
                "switch": match rule.switch {
                    Switch::Free => "free",
                    Switch::Warnings => "warnings",
                    Switch::Fixed => "fixed",
                },
                "summary": rule.summary,
                "what": rule.what,
                "why": rule.why,
                "example": rule.example.as_ref().map(|example| {
                    let arguments: Vec<&str> = example.arguments.split_whitespace().collect();
                    json!({"format": example.format, "arguments": arguments, "wrong": example.wrong, "right": example.right})
                }),
            })
        })
        .collect();
    json_text(&json!({
        "version": VERSION,
        "tool": {"name": "runsmith", "version": env!("CARGO_PKG_VERSION")},
        "rules": list,
    }))
}

/// docs/rules.md.
pub fn page(rules: &[&Rule]) -> String {
    let mut out = PREFACE.to_owned();
    let mut list = String::new();
    let mut family: Option<Family> = None;
    for rule in rules {
        if family != Some(rule.family) {
            family = Some(rule.family);
            out.push_str(&format!("\n**{}**: {}.\n\n", rule.family.name(), lower(rule.family.about())));
            out.push_str("| rule | severity | finds |\n|---|---|---|\n");
            list.push_str(&format!("\n## {}\n", capital(rule.family.name())));
        }
        out.push_str(&format!(
            "| [`{0}`](#{0}) | {1} | {2} |\n",
            rule.name,
            rule.severity.word(),
            rule.summary.replace('|', "\\|")
        ));
        list.push_str(&chapter(rule));
    }
    out + &list
}

const PREFACE: &str = "# Rules

Made from the registry in `src/rule` by `make golden`; `runsmith rule NAME` prints the same.

How severe the findings of a rule are is set by `--deny NAME`, `--warn NAME` and `--allow NAME` of `validate` and
`render`, and a comment in a YAML pillar silences one rule on one line:
[formats.md](formats.md#severities-and-silences) tells how. Rules that are *fixed* cannot be switched: with such a
finding no service can be rendered.
";

fn chapter(rule: &Rule) -> String {
    let mut out = format!(
        "\n### {}\n\n{}. *{}; {}.*\n\n{}\n\n{}\n",
        rule.name,
        rule.summary,
        capital(rule.severity.word()),
        switch(rule),
        rule.what,
        rule.why
    );
    if let Some(example) = &rule.example {
        for (word, text) in [("Wrong", example.wrong), ("Right", example.right)] {
            let with = with(example.arguments, "`");
            let lines: Vec<_> = text.lines().map(shown).collect();
            out.push_str(&format!("\n{word}{with}:\n\n```{}\n{}\n```\n", example.format, lines.join("\n")));
            if let Some(sentence) = tabs(text) {
                out.push_str(&format!("\n{sentence}\n"));
            }
            // A page cannot hold them, and what stands there instead would be something else.
            let mut spelt: Vec<String> = text
                .chars()
                .filter(|c| *c != '\n')
                .map(|c| (c, shown(&c.to_string())))
                .filter(|(c, spelt)| *spelt != c.to_string())
                .map(|(_, spelt)| format!("`{spelt}`"))
                .collect();
            spelt.dedup();
            if !spelt.is_empty() {
                out.push_str(&format!("\n{} stands for the character itself.\n", spelt.join(" and ")));
            }
        }
    }
    out
}

/// How an example is seen that needs arguments, between such quotes.
pub(super) fn with(arguments: &str, quote: &str) -> String {
    if arguments.is_empty() { String::new() } else { format!(", with {quote}{arguments}{quote}") }
}

/// A line of an example, with its tabs, so that it can be copied.
fn shown(line: &str) -> String {
    line.split('\t').map(crate::visible::visible).collect::<Vec<_>>().join("\t")
}

/// Where there are tabs in an example, which nobody sees.
fn tabs(text: &str) -> Option<String> {
    let lines: Vec<_> = (1..)
        .zip(text.lines())
        .filter(|(_, line)| line.contains('\t'))
        .map(|(number, _)| number.to_string())
        .collect();
    match lines.as_slice() {
        [] => None,
        [one] => Some(format!("There is a tab on line {one}.")),
        _ => Some(format!("There are tabs on the lines {}.", lines.join(", "))),
    }
}

fn switch(rule: &Rule) -> &'static str {
    match rule.switch {
        Switch::Free => "can be denied, warned of or allowed",
        Switch::Warnings => "where it is a warning it can be denied or allowed",
        Switch::Fixed => "fixed",
    }
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn bold(text: &str, colour: bool) -> String {
    if colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

fn coloured(text: &str, severity: Severity, colour: bool) -> String {
    let code = match severity {
        Severity::Error => "31",
        Severity::Warning => "33",
        Severity::Note => "32",
    };
    if colour { format!("\x1b[1;{code}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_blanks() {
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrapped("longer a", 3), ["lon", "ger", "a"]);
    }

    #[test]
    fn a_narrow_terminal_gets_all_of_the_table() {
        let rules = crate::rule::all();
        let text = table(&rules, false, 80);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        for rule in rules {
            assert!(words(&text).contains(&words(rule.summary)), "{}", rule.name);
        }
    }
}
