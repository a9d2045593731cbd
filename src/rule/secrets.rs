//! Rules of what nobody should read.

use super::rules;

rules! { Secrets:
    PLAIN_SECRET = "plain-secret", Warning, Free, yaml {
        "A secret among the plain variables",
        what: "A value outside `secrets` that is sensitive. By its name: PASSWORD, PASSWD, PASSPHRASE, PASS, PWD, SECRET, TOKEN, API_KEY and other KEYs, CREDENTIALS, DSN or AUTHORIZATION are words of it (`TOKEN_URL`, `PASSWORD_MIN_LENGTH`, `public_key` and `MONKEY` are ordinary, and so is a path such as `/etc/app/key.pem`). By what it holds: a private key, a URL with a password, a token of a well-known form, or one of these names with a value (`password=…`). The value is never shown. Write it below `secrets`. If it is no secret, a comment `# runsmith: allow(plain-secret) because REASON` makes it an ordinary value, which is shown and written like any other.",
        why: "A variable of `environment` that is recognised is kept in a file that only root reads all the same, but who reads the pillar cannot see it. What stands elsewhere, as in `gunicorn.raw_env` or a command, is written to files that every user of the host can read.",
    }
    UNDECRYPTED = "undecrypted", Error, Free, yaml {
        "A secret that is still encrypted",
        what: "A value of `secrets`, or a variable of `environment`, that stands for a secret and is none: a PGP, age, PKCS #7 or CMS message, Ansible's vault (`$ANSIBLE_VAULT;…`), eyaml or SOPS (`ENC[…]`), Vault's transit engine (`vault:v3:…`), an address of Salt's sdb (`sdb://…`), a mask (only asterisks, `REDACTED`, `<redacted>`), or an expression of a template (`{{ … }}`). Render the pillar where the key is, and look at what the renderer or `salt-call` reports.",
        why: "Salt without the key of a GPG renderer hands on the ciphertext and reports success. The application would start with it, and fail at the first use.",
    }
    CORE_DUMP = "core-dump", Warning, Free, yaml {
        "A crash of the application writes its memory to a file",
        what: "`limits.core` is more than 0, its default. To look into crashes, set it for as long as that takes, and write why: `# runsmith: allow(core-dump) because REASON`.",
        why: "A core dump holds all that the application had in memory: secrets, keys, requests. It lies in the release, or where `/proc/sys/kernel/core_pattern` says, until somebody removes it.",
    }
    EMPTY_SECRET = "empty-secret", Error, Free, yaml {
        "A secret without a value",
        what: "A value of `secrets` that is an empty string or `null`. A `null` that takes a secret of `defaults` away is fine. A variable that is meant to be empty belongs below `environment`.",
        why: "A look-up that finds nothing leaves nothing behind, and the application would start without its secret.",
    }
}
