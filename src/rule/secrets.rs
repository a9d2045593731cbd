//! Rules of what nobody should read.

use super::rules;

rules! { Secrets:
    PLAIN_SECRET = "plain-secret", Warning, Free, yaml {
        "A secret among the plain variables",
        what: "A variable of `environment` whose name says PASSWORD, PASSWD, PASSPHRASE, PASS, SECRET, TOKEN, KEY, CREDENTIALS or DSN (`TOKEN_URL` and `PASSWORD_MIN_LENGTH` do not, nor does `MONKEY`), or whose value is a private key, a URL with a password, or holds one (`password=…`). The value is never shown. Write it below `secrets`.",
        why: "Plain variables stand in the run script, which every user of the host can read. Those whose names hold PASSWORD, PASSWD, SECRET, TOKEN, KEY or DSN are kept apart all the same, but who reads the pillar cannot see it.",
    }
}
