//! Rules of what nobody should read.

use super::rules;

rules! { Secrets:
    PLAIN_SECRET = "plain-secret", Warning, Free, yaml {
        "A secret among the plain variables",
        what: "A value outside `secrets` that is sensitive. By its name: PASSWORD, PASSWD, PASSPHRASE, PASS, PWD, SECRET, TOKEN, API_KEY and other KEYs, CREDENTIALS, DSN or AUTHORIZATION are words of it (`TOKEN_URL`, `PASSWORD_MIN_LENGTH`, `public_key` and `MONKEY` are ordinary, and so is a path such as `/etc/app/key.pem`). By what it holds: a private key, a URL with a password, a token of a well-known form, or one of these names with a value (`password=…`). The value is never shown. Write it below `secrets`. If it is no secret, a comment `# runsmith: allow(plain-secret) because REASON` makes it an ordinary value, which is shown and written like any other.",
        why: "A variable of `environment` that is recognised is kept in a file that only root reads all the same, but who reads the pillar cannot see it. What stands elsewhere, as in `gunicorn.raw_env` or a command, is written to files that every user of the host can read.",
    }
}
