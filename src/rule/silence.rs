//! Rules of comments that silence a rule.

use super::rules;

rules! { Silence:
    SILENCE_REASON = "silence-reason", Warning, Free, yaml {
        "A rule is silenced without a reason",
        what: "Write `# runsmith: allow(RULE) because REASON`. Without a reason nothing is silenced.",
        why: "Nobody can tell later whether the reason still holds.",
    }
    SILENCE_RULE = "silence-rule", Warning, Free, yaml {
        "A comment that silences nothing, or less than it says",
        what: "It names a rule that does not exist or is fixed, while the other names in its list hold; or it has not the form `# runsmith: allow(RULE, RULE) because REASON`, though it was meant to: the colon is missing, say, or `allow` is misspelt.",
        why: "Who wrote it believes that the finding has been dealt with.",
    }
    SILENCE_UNUSED = "silence-unused", Warning, Free, yaml {
        "A comment silences a rule that finds nothing there",
        what: "A comment is about its own line, or, on a line by itself, about the next one that is neither blank nor a comment. Not said where `--key` selects a part of the pillar, or an error keeps rules from looking.",
        why: "It would hide the next mistake on that line.",
    }
}
