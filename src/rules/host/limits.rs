//! Limits that the host cannot give.

use super::finding;
use crate::diagnostic::Diagnostic;
use crate::facts::{Facts, Limits};
use crate::model::input::{LimitValue, Resource};
use crate::model::service::Limit;
use crate::rule;
use crate::rules::Subject;

pub(super) fn check(subject: &Subject<'_>, facts: &Facts, found: &mut Vec<Diagnostic>) {
    let Some(limits) = facts.limits.answer() else { return };
    for (resource, limit) in &subject.service.limits {
        let Some((most, whose)) = reachable(limits, *resource, limit) else { continue };
        let name = serde_json::to_value(resource).ok();
        let name = name.as_ref().and_then(|name| name.as_str()).unwrap_or_default();
        let soft = if exceeds(limit.soft, most) { most.to_string() } else { shown(limit.soft) };
        let wanted = if limit.soft == limit.hard {
            shown(limit.hard)
        } else {
            format!("{} (soft {})", shown(limit.hard), shown(limit.soft))
        };
        let message = format!("the limit {name} is to be {wanted}, and {whose} allows {most} at most");
        let help =
            format!("The service would have {soft}. Raise it where runsvdir is started, or ask for less.");
        let place = subject.place(&["limits", name]);
        found.push(finding(&rule::HOST_LIMIT, message).at(place, "").help(help));
    }
}

/// The most that can be had, and who says so, if that is less than what is wanted.
fn reachable<'a>(limits: &'a Limits, resource: Resource, limit: &Limit) -> Option<(u64, &'a str)> {
    // Without a limit of its own a process has that of its parent, whatever the pillar's default.
    let kernel =
        limits.nr_open.filter(|_| resource == Resource::Nofile).filter(|most| exceeds(limit.hard, *most));
    let parent = if limits.may_raise { None } else { limits.hard.get(&resource).copied().flatten() };
    let parent = parent.filter(|most| exceeds(limit.hard, *most));
    match (kernel, parent) {
        (Some(kernel), Some(parent)) if kernel < parent => Some((kernel, "the kernel (fs.nr_open)")),
        (_, Some(parent)) => Some((parent, limits.whose.as_str())),
        (Some(kernel), None) => Some((kernel, "the kernel (fs.nr_open)")),
        (None, None) => None,
    }
}

fn exceeds(wanted: LimitValue, most: u64) -> bool {
    match wanted {
        LimitValue::Number(number) => number > most,
        LimitValue::Word(_) => true,
    }
}

fn shown(value: LimitValue) -> String {
    match value {
        LimitValue::Number(number) => number.to_string(),
        LimitValue::Word(_) => "unlimited".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::input::Unlimited;
    use std::collections::BTreeMap;

    #[test]
    fn only_what_cannot_be_had_is_found() {
        let limits = |may_raise| Limits {
            whose: "runsvdir".into(),
            hard: BTreeMap::from([(Resource::Nofile, Some(20_000)), (Resource::Core, None)]),
            may_raise,
            nr_open: Some(1_048_576),
        };
        let both = |value| Limit { soft: value, hard: value };
        let number = |number| both(LimitValue::Number(number));
        let unlimited = both(LimitValue::Word(Unlimited::Unlimited));
        let of = |may_raise, resource, limit: &Limit| {
            reachable(&limits(may_raise), resource, limit).map(|(most, whose)| (most, whose.to_owned()))
        };
        assert_eq!(of(false, Resource::Nofile, &number(65_535)), Some((20_000, "runsvdir".into())));
        assert_eq!(of(true, Resource::Nofile, &number(65_535)), None);
        assert_eq!(of(false, Resource::Nofile, &number(20_000)), None);
        let kernel = (1_048_576, "the kernel (fs.nr_open)".to_owned());
        assert_eq!(of(true, Resource::Nofile, &unlimited), Some(kernel));
        assert_eq!(of(false, Resource::Core, &unlimited), None);
    }
}
