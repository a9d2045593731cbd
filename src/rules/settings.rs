//! gunicorn's settings as the server will have them: the configuration, over it the options of GUNICORN_CMD_ARGS, over
//! those the options of the command (app/base.py, `load_config`, 27.0.1).

use std::borrow::Cow;

use serde_json::Value as Json;

use super::Subject;
use super::command::{Given, Line};
use crate::source::Span;

/// Where a setting is set, by whoever counts.
pub(super) struct Said {
    pub(super) span: Span,
    /// As a sentence calls it: the pillar's key, or the option and where it is.
    pub(super) name: String,
}

impl Subject<'_> {
    /// The option that sets it, if one does.
    pub(super) fn option(&self, name: &str) -> Option<(&Line, &Given)> {
        self.lines.iter().rev().find_map(|line| {
            let given = line.settings().filter(|given| given.setting.name == name).last();
            given.map(|given| (line, given))
        })
    }

    /// What the server has in the end; none where that is its own default, or nothing that it takes.
    pub(super) fn value(&self, name: &str) -> Option<Cow<'_, Json>> {
        match self.option(name) {
            Some((_, given)) => given.value().map(Cow::Owned),
            None => self.service.settings.get(name).map(Cow::Borrowed),
        }
        .filter(|value| !value.is_null())
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.value(name)?.as_u64()
    }

    pub(super) fn is_on(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| *value == Json::Bool(true))
    }

    /// A word among several that the setting may have, in small letters: the validators of gunicorn take capitals, too.
    pub(super) fn word(&self, name: &str) -> Option<String> {
        Some(self.value(name)?.as_str()?.trim().to_lowercase())
    }

    /// Whether it is a list at commas that has this word.
    pub(super) fn lists(&self, name: &str, word: &str) -> bool {
        self.word(name).is_some_and(|list| list.split(',').any(|one| one.trim() == word))
    }

    /// Whether it has a value that is not empty.
    pub(super) fn is_filled(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| match &*value {
            Json::String(text) => !text.is_empty(),
            Json::Array(items) => !items.is_empty(),
            Json::Object(map) => !map.is_empty(),
            _ => true,
        })
    }

    /// Where it is set, unless only the rendered configuration sets it.
    pub(super) fn said(&self, name: &str) -> Option<Said> {
        if let Some((line, given)) = self.option(name) {
            return Some(Said { span: given.span, name: line.called(given) });
        }
        let span = self.setting(name)?.span;
        Some(Said { span, name: format!("`gunicorn.{name}`") })
    }
}
