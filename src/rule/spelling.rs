//! Rules of what others read differently, or what has had its day.

use super::rules;

rules! { Spelling:
    DIALECT_SCALAR = "dialect-scalar", Warning, Free, yaml {
        "A bare value that Salt, Ansible and YAML 1.2 read differently",
        what: "Zeros in front, `yes` and `no`, `1_000`, `12:30`, dates, `1e3` and the like. `validate --fix` writes what the dialect reads in a way that all of them read.",
        why: "`workers: 010` starts 10 workers from Salt and 8 from Ansible, and an editor that checks YAML 1.2 sees a third thing.",
    }
    DEPRECATED_KEY = "deprecated-key", Warning, Free, yaml {
        "A key that has a better name, or is heeded no more",
        what: "`unicorn_application` is the gist's name for `application`, and is renamed by `validate --fix`; `gunicorn.ssl_version` is ignored by gunicorn.",
        why: "Who reads the pillar takes it for something that it no longer is.",
    }
}
