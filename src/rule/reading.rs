//! Rules of the text itself: what no program could read.

use super::rules;

rules! { Reading:
    NOT_UTF_8 = "not-utf-8", Error, Fixed, none {
        "The file is not UTF-8",
        what: "A pillar is text in UTF-8, with or without a byte order mark. Convert it with `iconv -t UTF-8`.",
        why: "Whoever guesses an encoding guesses wrong on one host and right on another.",
    }
    TOO_LARGE = "too-large", Error, Fixed, none {
        "A file, a document, an application or all of them together are too large",
        what: "A file, or all pillars of one run, have more than 32 MiB; all documents of a run have more than 4,000,000 values; an application has more than 5,000 values, or there are more than 15,000 applications, or 800,000 values or 128 MiB of text in all, each application's defaults counted. A pillar of 10,000 services has 4 MiB; split it.",
        why: "What is larger is a mistake or an attack, and would cost memory before anybody noticed.",
    }
    TOO_DEEP = "too-deep", Error, Fixed, none {
        "Lists and mappings are nested too deep",
        what: "More than 128 levels, expanded aliases counted. People stop at ten: something opens brackets or indents without end.",
        why: "Readers that take any depth run out of stack and crash.",
    }
    CONTROL_CHARACTER = "control-character", Error, Fixed, yaml {
        "A character that may not stand in YAML",
        what: "Salt's and Ansible's loaders refuse control characters. Remove it, or write it as \"\\x..\" in double quotes.",
        why: "Neither Salt nor Ansible would read the file; most such characters came from a terminal by accident.",
    }
    YAML_SYNTAX = "yaml-syntax", Error, Fixed, yaml {
        "This is not YAML",
        what: "The first place at which the text stops being YAML, as libyaml (Salt, Ansible) or YAML 1.2 sees it. What comes after it is not looked at.",
        why: "Salt reports a file like this for every minion and gives none of them a pillar.",
    }
    JSON_SYNTAX = "json-syntax", Error, Fixed, json {
        "This is not JSON",
        what: "JSON is read by RFC 8259 to the letter: no comments, no comma at the end, no NaN, no zeros in front of a number.",
        why: "What one reader of JSON lets pass the next one refuses or reads as another value.",
    }
    JINJA = "jinja", Error, Fixed, yaml {
        "The file is a Jinja template that is not rendered yet",
        what: "A value holds `{{ … }}` or `{% … %}`. Let Salt or Ansible render the file first and give the result to runsmith. If the braces are meant as they are, give the pillar as JSON, or tag the value `!unsafe` (Ansible).",
        why: "The service would be made of a placeholder instead of its value.",
    }
    RENDERER = "renderer", Error, Fixed, yaml {
        "Salt makes something else of the file before it reads it as YAML",
        what: "The first line names one of Salt's renderers, such as `py` or `gpg`. Let Salt render the file first.",
        why: "The text that stands there is not the pillar that the minion gets.",
    }
    DUPLICATE_KEY = "duplicate-key", Error, Warnings, yaml {
        "A key is given twice in the same mapping",
        what: "Salt refuses such a file, YAML 1.2 and JSON too; Ansible warns and takes the last value. With `--dialect ansible` it is a warning.",
        why: "Of two values one is lost without a word, and which one depends on who reads.",
    }
    MERGE_KEY = "merge-key", Error, Warnings, yaml {
        "A merge key merges nothing",
        what: "`<<` takes a mapping or a list of mappings. In YAML 1.2 there is no merge key: it is a warning that `<<` is a key like any other there.",
        why: "What was to be merged in is missing from the service.",
    }
    UNDEFINED_ALIAS = "undefined-alias", Error, Fixed, yaml {
        "An alias without an anchor before it",
        what: "`*name` stands for the value that `&name` marked earlier in the same document. Set the anchor first, or quote the text if an asterisk is meant.",
        why: "The file cannot be read; often a value that begins with `*` lacks its quotes.",
    }
    RECURSIVE_ALIAS = "recursive-alias", Error, Fixed, yaml {
        "A value that contains itself",
        what: "An alias stands inside the value that its anchor marks. Write out what is meant.",
        why: "Nothing finite can be rendered from it.",
    }
    DUPLICATE_ANCHOR = "duplicate-anchor", Error, Fixed, yaml {
        "An anchor is set twice",
        what: "libyaml, by which Salt and Ansible read, refuses it. Give each anchor a name of its own.",
        why: "Whoever reads the alias cannot tell which value it stands for.",
    }
    ALIAS_BOMB = "alias-bomb", Error, Fixed, yaml {
        "Aliases and merge keys blow the document up",
        what: "They would copy more than 128 MiB in one run. Write the values out, or refer to fewer of them.",
        why: "A few hundred bytes could take all the memory of a host.",
    }
    UNKNOWN_TAG = "unknown-tag", Error, Fixed, yaml {
        "A tag that the dialect does not know",
        what: "`!vault` and `!unsafe` are Ansible's: read such a file with `--dialect ansible`. Other tags have no meaning in a pillar.",
        why: "Salt's loader refuses the file; a loader that does not might run code.",
    }
    BARE_INDICATOR = "bare-indicator", Error, Fixed, yaml {
        "A bare `=` or `<<` as a value",
        what: "YAML 1.1 gives them a meaning that a value cannot have. Quote it if the text is meant.",
        why: "Salt's and Ansible's loaders refuse the file.",
    }
    TAG_MISMATCH = "tag-mismatch", Error, Fixed, yaml {
        "A tag asks for something else than what follows",
        what: "For example `!!seq` before a mapping. Remove the tag, or write what it asks for.",
        why: "The loaders refuse the file.",
    }
    BAD_SCALAR = "bad-scalar", Error, Fixed, yaml {
        "A value that is not what its tag or its form says",
        what: "For example `!!int abc`, or a date that does not exist with `--dialect ansible`. Correct it, or quote it if the text is meant.",
        why: "The loaders refuse the file.",
    }
    VAULT_KEY = "vault-key", Error, Fixed, yaml("--dialect ansible") {
        "An encrypted text as a key",
        what: "Ansible cannot compare a key that it has not decrypted. Write the key in clear text and encrypt its value. Only `--dialect ansible` has encrypted texts.",
        why: "Ansible refuses the file.",
    }
    UNHASHABLE_KEY = "unhashable-key", Error, Fixed, yaml {
        "A list or a mapping as a key",
        what: "Mostly a placeholder like `{{ name }}` that nobody filled in. Fill it in first, or quote it.",
        why: "Python's loaders cannot hold such a key and refuse the file.",
    }
}
