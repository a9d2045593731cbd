//! What a program, a shell or a person fills in later, where a text gives a value to a name: `${PASSWORD}`, `<password>`.

use super::given::up_to;
use super::secret::{is_named, is_random, is_shouted};

/// So many bytes of a placeholder are looked at: it is asked for each name in a text.
const LONGEST: usize = 200;

/// So many placeholders may stand in a row, for the same reason.
const MOST: usize = 16;

/// So deep are defaults within defaults looked at: `${A:-${B}}`.
const DEEPEST: usize = 4;

/// Commands that print what is kept elsewhere. Any other one may have the secret among its own words.
const READERS: &[&str] = &["aws", "az", "cat", "gcloud", "head", "kubectl", "op", "pass", "sops", "vault"];

/// Whether the value that a text begins with is nothing but placeholders. What follows it belongs to something else.
pub(super) fn is_filled_in(text: &str) -> bool {
    let rest = after_placeholders(text);
    let is_end = |c: char| c.is_whitespace() || "\"'`,;}&)]|>\\".contains(c);
    rest.is_empty() || (rest.len() < text.len() && rest.starts_with(is_end))
}

/// Whether a text is nothing but placeholders, or nothing at all.
pub(super) fn is_placeholders(text: &str) -> bool {
    after_placeholders(text).is_empty()
}

/// Whether a text is one variable of a shell, in braces. Without them it may be a password that begins with a dollar sign, since no
/// shell reads what is given to a name by itself.
pub(super) fn is_variable_of_shell(text: &str) -> bool {
    let inside = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    inside.is_some_and(is_variable_to_fill_in)
}

fn after_placeholders(text: &str) -> &str {
    let mut rest = text;
    for _ in 0..MOST {
        match placeholder(rest, 0) {
            Some(length) => rest = rest.get(length..).unwrap_or_default(),
            None => break,
        }
    }
    rest
}

/// How long the placeholder is that a text begins with.
fn placeholder(text: &str, depth: usize) -> Option<usize> {
    // A mask may be as long as it likes: a row of asterisks follows one name only.
    let asterisks = text.bytes().take_while(|byte| *byte == b'*').count();
    if asterisks > 0 {
        return Some(asterisks);
    }
    if let Some(rest) = text.strip_prefix("{{").or_else(|| text.strip_prefix("${{")) {
        return Some(text.len() - rest.len() + expression(rest, "}}")? + 2);
    }
    if let Some(rest) = text.strip_prefix("{%") {
        return Some(2 + expression(rest, "%}")? + 2);
    }
    if let Some(rest) = text.strip_prefix("${") {
        return Some(2 + in_braces(rest, depth)?);
    }
    if let Some(rest) = text.strip_prefix("$(") {
        let inside = before(rest, ")")?;
        return prints_what_is_elsewhere(inside).then_some(2 + inside.len() + 1);
    }
    if let Some(rest) = text.strip_prefix('$') {
        let name = name_in(rest);
        return is_variable_to_fill_in(name).then_some(1 + name.len());
    }
    if let Some(rest) = text.strip_prefix("%(") {
        let inside = before(rest, ")")?;
        let is_conversion = rest.as_bytes().get(inside.len() + 1).is_some_and(u8::is_ascii_alphabetic);
        return (is_conversion && is_words(inside)).then_some(2 + inside.len() + 2);
    }
    let inside = before(text.strip_prefix('<')?, ">")?;
    is_words(inside).then_some(1 + inside.len() + 1)
}

/// What stands before the first `end` in a text, if that is not too far away.
fn before<'a>(text: &'a str, end: &str) -> Option<&'a str> {
    text.get(..up_to(text, LONGEST).find(end)?)
}

/// How long an expression of a template is. One with a string in it may have the secret itself there: `{{ x | default('…') }}`.
fn expression(text: &str, end: &str) -> Option<usize> {
    let inside = before(text, end)?;
    let bare = inside.trim_matches(|c: char| c.is_whitespace() || c == '-');
    let is_name = bare.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    (is_name && !inside.contains(['"', '\'', '`'])).then_some(inside.len())
}

/// How long `NAME}` is, also with a default that is a placeholder itself.
fn in_braces(text: &str, depth: usize) -> Option<usize> {
    let name = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.')?;
    if name == 0 || name > LONGEST {
        return None;
    }
    let after = text.get(name..)?;
    if after.starts_with('}') {
        return Some(name + 1);
    }
    // What is said if there is no value is none.
    if after.starts_with('?') || after.starts_with(":?") {
        return Some(name + before(after, "}")?.len() + 1);
    }
    // `${env:NAME}`
    if let ("env" | "ENV" | "file" | "sys", Some(rest)) = (text.get(..name)?, after.strip_prefix(':')) {
        let inside = before(rest, "}")?;
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
        return inside.chars().all(is_part).then_some(name + 1 + inside.len() + 1);
    }
    let default = [":-", ":=", "-", "="].iter().find_map(|sign| after.strip_prefix(sign))?;
    let length = text.len() - default.len();
    if default.starts_with('}') {
        return Some(length + 1);
    }
    let inner = Some(depth).filter(|depth| *depth < DEEPEST).and_then(|_| placeholder(default, depth + 1))?;
    default.get(inner..)?.starts_with('}').then_some(length + inner + 1)
}

/// The name of a variable that a text begins with.
fn name_in(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// Whether what follows a dollar sign is the name of a variable, and no password that begins with one.
fn is_variable_to_fill_in(name: &str) -> bool {
    name.len() <= LONGEST
        && (is_shouted(name) || (name_in(name).len() == name.len() && is_named(name)))
        && (name.contains('_') || !is_random(name))
}

/// Whether a command of a shell is one of those that only read, or the name of a variable of make's and Kubernetes' syntax.
fn prints_what_is_elsewhere(command: &str) -> bool {
    let command = command.trim();
    let word = command.split_whitespace().next().unwrap_or_default();
    let is_reading = READERS.contains(&word) || (command.starts_with('<') && !command.starts_with("<<"));
    is_shouted(command) || (is_reading && !command.contains([';', '|', '&', '`']) && !command.contains("<<"))
}

/// Whether a text is what people write to be replaced: `your password`, `db-password`.
fn is_words(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || " _.-".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_nothing_but_placeholders_is_filled_in() {
        assert!(is_placeholders("") && is_filled_in("") && !is_filled_in("\" more"));
        for text in [
            "$TOKEN",
            "$db_password",
            "${TOKEN}",
            "${db.password}",
            "${TOKEN:-}",
            "${TOKEN:?is not set}",
            "${TOKEN:-${OTHER}}",
            "${env:TOKEN}",
            "${{ secrets.TOKEN }}",
            "$(TOKEN)",
            "$(cat /run/token)",
            "$(< /run/token)",
            "$(vault kv get -field=x secret/y)",
            "%(token)s",
            "{{ token }}",
            "{{ salt.token | quote }}",
            "{% x %}{{ y }}",
            "<your token>",
            "********",
            "${A}${B}",
        ] {
            assert!(is_placeholders(text) && is_filled_in(text), "{text}");
            assert!(is_filled_in(&format!("{text}\" more")), "{text}");
            assert!(!is_filled_in(&format!("{text}-hunter2")), "{text}");
            assert!(!is_filled_in(&format!("hunter2{text}")), "{text}");
        }
        for text in [
            "$ecret1",
            "$A1B2C3D4E5F6G7H8",
            "${TOKEN:-hunter2}",
            "${TOKEN-hunter2}",
            "${TOKEN:+hunter2}",
            "${TOKEN:hunter2}",
            "${TOKEN",
            "$(echo hunter2)",
            "$(cat /x; echo hunter2)",
            "$(cat <<< hunter2)",
            "{{ 'hunter2' }}",
            "{{ x | default(\"hunter2\") }}",
            "{{ 123456 }}",
            "{{ x }",
            "{% if x %}hunter2{% endif %}",
            "<b>hunter2",
            "<b>hunter2</b>",
            "%(x)",
            "%hunter2",
            "=hunter2",
        ] {
            assert!(!is_filled_in(text), "{text}");
        }
        for (text, is_one) in [
            ("$TOKEN", false),
            ("$UMMER2024", false),
            ("${TOKEN}", true),
            ("$TOKEN/x", false),
            ("$ecret1", false),
            ("${TOKEN:-x}", false),
            ("$", false),
            ("TOKEN", false),
        ] {
            assert_eq!(is_variable_of_shell(text), is_one, "{text}");
        }
    }

    #[test]
    fn a_long_text_is_looked_at_in_a_moment() {
        for text in ["${A:-", "{{ ", "<a ", "$(", "%(a", "${A}", "$A"] {
            let text = text.repeat(100_000);
            assert!(!is_filled_in(&text[..text.len() - 1]) || text.len() < LONGEST, "{text:.20}");
        }
        assert!(is_filled_in(&"*".repeat(100_000)));
    }
}
