//! What nobody should read.

use super::{Subject, finding};
use crate::diagnostic::Diagnostic;
use crate::model::secret::{NameSays, Why, dotted, is_named, is_ordinary, is_secret_option, why};
use crate::pillar::{Node, Pair, Value};
use crate::rule;

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Diagnostic>) {
    let Value::Map(sections) = &subject.node.value else { return };
    for Pair { key, value } in sections {
        match &key.value {
            Value::Str(section) if section == "secrets" => secrets(value, found),
            Value::Str(section) if section == "environment" => variables(value, found),
            Value::Str(section) => elsewhere(value, NameSays::of(section), false, &mut vec![section], found),
            _ => {}
        }
    }
}

fn variables(environment: &Node, found: &mut Vec<Diagnostic>) {
    let Value::Map(variables) = &environment.value else { return };
    for Pair { key, value } in variables {
        let (Value::Str(name), Value::Str(text)) = (&key.value, &value.value) else { continue };
        // Another variable may be a row of asterisks, or a pattern with braces.
        let is_meant = is_named(name) || !(is_masked(text) || is_template(text));
        if let Some(what) = undecrypted(text).filter(|_| is_meant) {
            found.push(still_encrypted(&format!("environment.{name}"), what, value));
        }
        let Some(why) = why(name, text) else { continue };
        found.push(
            finding(&rule::PLAIN_SECRET, format!("`environment.{name}` {}", why.words()))
                .at_hidden(value.span, "write it below `secrets`")
                .help("It is kept in a file that only root reads all the same; `secrets` says so to whoever reads the pillar."),
        );
    }
}

fn secrets(secrets: &Node, found: &mut Vec<Diagnostic>) {
    let Value::Map(secrets) = &secrets.value else { return };
    for Pair { key, value } in secrets {
        let Value::Str(name) = &key.value else { continue };
        let path = dotted(["secrets", name.as_str()]);
        match &value.value {
            // It takes a default away.
            Value::Null if value.ordinary => {}
            Value::Null => found.push(empty(&path, "is null", value)),
            Value::Str(text) if text.trim().is_empty() => found.push(empty(&path, "is empty", value)),
            Value::Str(text) => {
                found.extend(undecrypted(text).map(|what| still_encrypted(&path, what, value)))
            }
            _ => {}
        }
    }
}

fn empty(path: &str, is: &str, value: &Node) -> Diagnostic {
    finding(&rule::EMPTY_SECRET, format!("`{path}` {is}"))
        .at(value.span, "write its value, or remove it")
        .help("What is meant to be empty belongs below `environment`.")
}

fn still_encrypted(path: &str, what: &str, value: &Node) -> Diagnostic {
    finding(&rule::UNDECRYPTED, format!("`{path}` is {what}"))
        .at_hidden(value.span, "nothing has decrypted it")
        .help("Render the pillar where the key is, and look at what the renderer reports.")
}

/// What stands in the place of a secret, if something does.
fn undecrypted(text: &str) -> Option<&'static str> {
    const FORMS: &[(&str, &str)] = &[
        ("-----BEGIN PGP MESSAGE-----", "a PGP message"),
        ("-----BEGIN AGE ENCRYPTED FILE-----", "ciphertext of age"),
        ("age-encryption.org/v1", "ciphertext of age"),
        ("-----BEGIN PKCS7-----", "a PKCS #7 message"),
        ("-----BEGIN CMS-----", "a CMS message"),
        ("$ANSIBLE_VAULT;", "ciphertext of Ansible's vault"),
        ("ENC[", "ciphertext of eyaml or SOPS"),
        ("sdb://", "an address of Salt's sdb"),
    ];
    let text = text.trim();
    let form = FORMS.iter().find(|(begin, _)| text.starts_with(begin)).map(|(_, what)| *what);
    // The number is the version of the key.
    let is_transit = || {
        let version = text.strip_prefix("vault:v").and_then(|rest| rest.split_once(':'));
        version.is_some_and(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let form = form.or_else(|| is_transit().then_some("ciphertext of Vault's transit engine"));
    form.or_else(|| is_masked(text).then_some("a mask, which stands for a secret"))
        .or_else(|| is_template(text).then_some("an expression of a template, which nothing has rendered"))
}

/// Whether a text is what tools print in the place of a secret: asterisks, `<redacted>`, `[FILTERED]`.
fn is_masked(text: &str) -> bool {
    const SHORTEST: usize = 3;
    const WORDS: &[&str] = &["redacted", "filtered", "masked", "hidden", "sensitive"];
    if text.len() >= SHORTEST && text.bytes().all(|byte| byte == b'*') {
        return true;
    }
    let inside = [("<", ">"), ("[", "]"), ("(", ")"), ("***", "***")]
        .iter()
        .find_map(|(open, close)| text.strip_prefix(open)?.strip_suffix(close));
    inside.is_some_and(|word| WORDS.iter().any(|mask| word.trim().eq_ignore_ascii_case(mask)))
        || text == "REDACTED"
}

/// Whether a text is one expression of Jinja or of a similar language.
fn is_template(text: &str) -> bool {
    text.strip_prefix("{{")
        .and_then(|rest| rest.strip_suffix("}}"))
        .is_some_and(|inside| !inside.contains("}}"))
}

/// What is sensitive in other sections, which nothing keeps from anybody.
fn elsewhere<'a>(
    node: &'a Node,
    name: NameSays,
    named: bool,
    steps: &mut Vec<&'a str>,
    found: &mut Vec<Diagnostic>,
) {
    match &node.value {
        Value::Map(pairs) => {
            for Pair { key, value } in pairs {
                let Value::Str(key) = &key.value else { continue };
                steps.push(key);
                let name = NameSays::of(key);
                elsewhere(value, name, name.is_named(), steps, found);
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
            let Some(why) = by_name.or_else(|| name.why(text)) else { return };
            let message = format!("`{}` {}", dotted(steps.iter().copied()), why.words());
            found.push(
                finding(&rule::PLAIN_SECRET, message)
                    .at_hidden(node.span, "hand it to the application by `secrets`")
                    .help("Every user of the host can read the files that this is written to."),
            );
        }
        _ => {}
    }
}
