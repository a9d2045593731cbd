//! How bad findings are in the end: what the command line and comments in the pillar say.

use std::collections::HashMap;

use super::silence::{self, Lines, Silence};
use crate::diagnostic::{Diagnostic, Kept, Severity};
use crate::rule::{self, Family, Rule, Switch};
use crate::source::Sources;

/// What the command line says about rules.
#[derive(Debug, Default)]
pub struct Levels {
    named: HashMap<&'static str, Level>,
    all: Option<Level>,
}

/// What becomes of the findings of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// They are errors.
    Deny,
    /// They are warnings.
    Warn,
    /// There are none.
    Allow,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Deny => "denied",
            Self::Warn => "warned of",
            Self::Allow => "allowed",
        }
    }
}

/// A name that stands for every rule that can be switched.
const ALL: &str = "all";

impl Levels {
    /// Reads names of rules, or `all`, which counts less than a name.
    ///
    /// # Errors
    /// The sentence says which name is wrong: no rule has it, it is there for two levels, or the rule
    /// is fixed.
    pub fn read<'a>(given: impl IntoIterator<Item = (&'a str, Level)>) -> Result<Self, String> {
        let mut levels = Self::default();
        for (name, level) in given {
            let before = if name == ALL {
                levels.all.replace(level)
            } else {
                let rule = rule::named(name).ok_or_else(|| unknown(name))?;
                if rule.switch == Switch::Fixed && level != Level::Deny {
                    return Err(format!(
                        "the rule `{name}` cannot be {}: with such a finding no service can be rendered",
                        level.word()
                    ));
                }
                levels.named.insert(rule.name, level)
            };
            if let Some(before) = before.filter(|before| *before != level) {
                return Err(format!("the rule `{name}` is both {} and {}", before.word(), level.word()));
            }
        }
        Ok(levels)
    }

    fn apply(&self, mut finding: Diagnostic) -> Option<Diagnostic> {
        if !finding.rule.is_switchable(finding.severity) {
            return Some(finding);
        }
        match self.named.get(finding.rule.name).copied().or(self.all) {
            None => {}
            Some(Level::Deny) => finding.severity = Severity::Error,
            Some(Level::Warn) => finding.severity = Severity::Warning,
            Some(Level::Allow) => return None,
        }
        Some(finding)
    }
}

/// What is said of a name that no rule has.
pub fn unknown(name: &str) -> String {
    let meant = rule::nearest(name)
        .map_or_else(|| "`runsmith rule` lists them".to_owned(), |near| format!("did you mean `{near}`?"));
    format!("there is no rule `{name}`; {meant}")
}

/// Whether a comment can silence a finding of that rule.
fn can_be_silenced(rule: &Rule) -> bool {
    rule.switch != Switch::Fixed && rule.family != Family::Silence
}

/// The findings as they are to be told: those that a comment silences are gone, comments that do
/// not do what they say are found, and the levels of the command line are applied.
///
/// `is_whole` says that everything the comments may be about was looked at.
pub fn judge(
    found: Vec<Diagnostic>,
    silences: &[Silence],
    levels: &Levels,
    sources: &Sources,
    is_whole: bool,
) -> Vec<Diagnostic> {
    // What is wrong in itself hides what else there would have been to find.
    let is_whole = is_whole
        && !found.iter().any(|finding| {
            finding.severity == Severity::Error && !finding.rule.is_switchable(finding.severity)
        });
    let mut used = vec![false; silences.len()];
    // A text may be nothing but comments that are wrong.
    let mut kept = Kept::default();
    let lines = Lines::new(silences, sources);
    for finding in found {
        let silent =
            if finding.rule.is_switchable(finding.severity) { lines.silencing(&finding) } else { None };
        match silent {
            Some(index) => used[index] = true,
            None => kept.push(finding),
        }
    }
    for (silence, used) in silences.iter().zip(used) {
        kept.extend(silence::complaints(silence, used || !is_whole));
    }
    kept.into_vec().into_iter().filter_map(|finding| levels.apply(finding)).collect()
}

/// A rule that a comment can silence. `suggests`: else the sentence names none that may be meant, for which each rule is compared.
pub(super) fn silenceable(name: &str, suggests: bool) -> Result<&'static Rule, String> {
    let rule = rule::named(name).ok_or_else(|| match suggests {
        true => unknown(name),
        false => format!("there is no rule `{name}`"),
    })?;
    if can_be_silenced(rule) {
        Ok(rule)
    } else if rule.family == Family::Silence {
        Err(format!("a comment cannot silence `{name}`: correct the comment"))
    } else {
        Err(format!("a comment cannot silence `{name}`: with such a finding no service can be rendered"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let read = |given: &[(&'static str, Level)]| Levels::read(given.iter().copied());
        assert!(read(&[("user-root", Level::Deny), ("all", Level::Warn)]).is_ok());
        assert!(read(&[("yaml-syntax", Level::Deny), ("duplicate-key", Level::Allow)]).is_ok());
        assert_eq!(
            read(&[("user-rot", Level::Deny)]).unwrap_err(),
            "there is no rule `user-rot`; did you mean `user-root`?"
        );
        assert!(read(&[("yaml-syntax", Level::Allow)]).unwrap_err().contains("cannot be allowed"));
        assert!(
            read(&[("user-root", Level::Deny), ("user-root", Level::Allow)])
                .unwrap_err()
                .contains("both denied and allowed")
        );
        assert!(read(&[("all", Level::Deny), ("all", Level::Allow)]).is_err());
    }

    #[test]
    fn a_name_counts_more_than_all() {
        let levels = Levels::read([("all", Level::Deny), ("user-root", Level::Allow)]).unwrap();
        assert!(levels.apply(Diagnostic::warning(&rule::USER_ROOT, "m")).is_none());
        let denied = levels.apply(Diagnostic::warning(&rule::NO_EFFECT, "m")).unwrap();
        assert_eq!(denied.severity, Severity::Error);
        let fixed = Levels::read([("all", Level::Allow)]).unwrap();
        assert!(fixed.apply(Diagnostic::error(&rule::DUPLICATE_KEY, "m")).is_some());
        assert!(fixed.apply(Diagnostic::warning(&rule::DUPLICATE_KEY, "m")).is_none());
    }
}
