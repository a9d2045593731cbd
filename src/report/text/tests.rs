use super::*;
use crate::rule;
use crate::source::{Source, SourceId};

/// Where `needle` is in `source` for the first time.
fn span(source: &Source, id: SourceId, needle: &str) -> Span {
    let start = source.text().find(needle).unwrap();
    Span::new(id, start, start + needle.len())
}

/// One error about `needle` in a text.
fn about(source_text: &str, needle: &str) -> String {
    let mut sources = Sources::new();
    let id = sources.add(Source::new("web.sls", source_text));
    let span = span(sources.get(id), id, needle);
    text(&[Diagnostic::error(&rule::INVALID, "wrong").at(span, "here")], &sources, Look::default())
}

fn show(text: &str) -> String {
    // Lines of the golden texts end where their last character does.
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn golden(have: &str, want: &str) {
    let (have, want) = (show(have), show(want.trim_start_matches('\n')));
    assert!(have == want, "\n--- have\n{have}\n--- want\n{want}");
}

#[test]
fn a_finding_with_places_and_help() {
    let mut sources = Sources::new();
    let one = sources.add(Source::new("b.sls", "unicorn:\n  web:\n    bind: 8000\n    workers: many\n"));
    let two = sources.add(Source::new("a.sls", "x: 1\nbind: 8000\n"));
    let at = |id, needle| span(sources.get(id), id, needle);
    let findings = [
        Diagnostic::warning(&rule::ADDRESS, "two services bind 8000")
            .at(at(one, "8000"), "bound here")
            .at(at(two, "8000"), "and here")
            .help("give one of them another port")
            .help("or stop one"),
        Diagnostic::error(&rule::WRONG_TYPE, "workers is a number").at(at(one, "many"), ""),
        Diagnostic::error(&rule::WRONG_TYPE, "workers is a number").at(at(one, "many"), ""),
        Diagnostic {
            severity: Severity::Note,
            ..Diagnostic::error(&rule::JINJA, "x is seen").at(at(two, "x"), "")
        },
        Diagnostic::error(&rule::EMPTY, "nothing to render"),
    ];
    golden(
        &text(&findings, &sources, Look::default()),
        r#"
error[empty]: nothing to render

note[jinja]: x is seen
 --> a.sls:1:1
  |
1 | x: 1
  | ^

warning[address]: two services bind 8000
 --> b.sls:3:11
  |
3 |     bind: 8000
  |           ^^^^ bound here
 ::: a.sls:2:7
  |
2 | bind: 8000
  |       ---- and here
  |
  = help: give one of them another port
  = help: or stop one

error[wrong-type]: workers is a number
 --> b.sls:4:14
  |
4 |     workers: many
  |              ^^^^

2 errors, 1 warning, 1 note in 2 files; `runsmith rule NAME` explains
"#,
    );
}

#[test]
fn nothing_found_is_nothing_said() {
    assert_eq!(text(&[], &Sources::new(), Look::default()), "");
}

#[test]
fn columns_are_characters() {
    golden(
        &about("\u{feff}a: 漢字 😀 x\n", "x"),
        r#"
error[invalid]: wrong
 --> web.sls:1:9
  |
1 | a: 漢字 😀 x
  |            ^ here

1 error in 1 file; `runsmith rule NAME` explains
"#,
    );
    golden(
        &about("a:\t\tx\r\nb: 1\r\n", "x"),
        r#"
error[invalid]: wrong
 --> web.sls:1:5
  |
1 | a:        x
  |           ^ here

1 error in 1 file; `runsmith rule NAME` explains
"#,
    );
}

#[test]
fn ends_and_empty_texts() {
    let mut sources = Sources::new();
    let empty = sources.add(Source::new("empty", ""));
    let ended = sources.add(Source::new("ended", "a: 1\n"));
    let open = sources.add(Source::new("open", "a: 1"));
    let past = sources.add(Source::new("past", "a: 1"));
    let findings = [
        Diagnostic::error(&rule::APP, "m").at(Span::new(empty, 0, 0), "here"),
        Diagnostic::error(&rule::APP, "m").at(Span::new(ended, 5, 5), "here"),
        Diagnostic::error(&rule::APP, "m").at(Span::new(open, 4, 4), "here"),
        Diagnostic::error(&rule::APP, "m").at(Span::new(past, 90, 99), "here"),
    ];
    golden(
        &text(&findings, &sources, Look::default()),
        r#"
error[app]: m
 --> empty:1:1
  |
1 |
  | ^ here

error[app]: m
 --> ended:2:1
  |
2 |
  | ^ here

error[app]: m
 --> open:1:5
  |
1 | a: 1
  |     ^ here

error[app]: m
 --> past:1:5
  |
1 | a: 1
  |     ^ here

4 errors in 4 files; `runsmith rule NAME` explains
"#,
    );
}

#[test]
fn several_lines() {
    golden(
        &about("a: |\n  one\n  two\n  three\nb: 1\n", "|\n  one\n  two\n  three\n"),
        r#"
error[invalid]: wrong
 --> web.sls:1:4
  |
1 |   a: |
  |  ____^
2 | |   one
3 | |   two
4 | |   three
  | |_______^ here

1 error in 1 file; `runsmith rule NAME` explains
"#,
    );
    let long = "  line\n".repeat(40);
    golden(
        &about(&format!("a: |\n{long}b: 1\n"), &format!("|\n{long}")),
        r#"
error[invalid]: wrong
 --> web.sls:1:4
  |
1 | a: |
  |    ^ here (up to line 41)

1 error in 1 file; `runsmith rule NAME` explains
"#,
    );
}

#[test]
fn a_terminal_is_not_obeyed() {
    let mut sources = Sources::new();
    let id = sources.add(Source::new("evil\u{1b}]0;x\u{7}.sls", "a: \u{1b}[31mred\u{202e} x\u{0}y\n"));
    let at = span(sources.get(id), id, "x");
    let finding =
        Diagnostic::error(&rule::APP, "bad \u{1b}[0m\nvalue").at(at, "here\r\u{9b}").help("not \u{8}this");
    golden(
        &text(&[finding], &sources, Look::default()),
        r#"
error[app]: bad \u{1b}[0m\nvalue
 --> evil\u{1b}]0;x\u{7}.sls:1:14
  |
1 | a: \u{1b}[31mred\u{202e} x\u{0}y
  |                          ^ here\r\u{9b}
  |
  = help: not \u{8}this

1 error in 1 file; `runsmith rule NAME` explains
"#,
    );
}

#[test]
fn long_lines_are_cut_around_the_place() {
    let look = Look { width: 60, ..Look::default() };
    let source = Source::new("long", format!("key: {}needle{}\n", "abc ".repeat(500), " xyz".repeat(500)));
    let mut sources = Sources::new();
    let id = sources.add(source);
    let at = span(sources.get(id), id, "needle");
    golden(
        &text(&[Diagnostic::error(&rule::APP, "m").at(at, "here")], &sources, look),
        r#"
error[app]: m
 --> long:1:2006
  |
1 | …c abc abc abc abc needle xyz xyz xyz xyz xyz xyz xyz x…
  |                    ^^^^^^ here

1 error in 1 file; `runsmith rule NAME` explains
"#,
    );
    // A place longer than the line may be.
    let at = Span::new(id, 5, 3000);
    golden(
        &text(&[Diagnostic::error(&rule::APP, "m").at(at, "here")], &sources, look),
        r#"
error[app]: m
 --> long:1:6
  |
1 | key: abc abc abc abc abc abc abc abc abc abc abc abc a…
  |      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ here

1 error in 1 file; `runsmith rule NAME` explains
"#,
    );
}

#[test]
fn secrets_are_never_shown() {
    let mut sources = Sources::new();
    let id = sources.add(Source::new("s", "env: {TOKEN: hunter2, PORT: x}\nkey: |\n  MII\n  END\n"));
    let at = |needle| span(sources.get(id), id, needle);
    let findings = [
        Diagnostic::error(&rule::WRONG_TYPE, "PORT is a number").at(at("x"), "this"),
        Diagnostic::error(&rule::SECRET, "TOKEN is short").at_hidden(at("hunter2"), "this"),
        Diagnostic::error(&rule::SETTING, "key is not a key").at(at("MII\n"), ""),
        Diagnostic::error(&rule::LIMIT, "half").at(at("ter2"), ""),
    ];
    let secrets = [at("|\n  MII\n  END\n")];
    let text = text(&findings, &sources, Look { secrets: &secrets, ..Look::default() });
    assert!(!text.contains("hunter") && !text.contains("MII") && !text.contains("ter2"), "{text}");
    golden(
        &text,
        r#"
error[secret]: TOKEN is short
 --> s:1:14
  |
1 | env: {TOKEN: ********, PORT: x}
  |              ^^^^^^^^ this

error[limit]: half
 --> s:1:17
  |
1 | env: {TOKEN: ********, PORT: x}
  |                      ^

error[wrong-type]: PORT is a number
 --> s:1:29
  |
1 | env: {TOKEN: ********, PORT: x}
  |                              ^ this

error[setting]: key is not a key
 --> s:3:3
  |
3 | ********
  |         ^

4 errors in 1 file; `runsmith rule NAME` explains
"#,
    );
}

#[test]
fn colours_when_asked_for() {
    let mut sources = Sources::new();
    let id = sources.add(Source::new("c", "a: 1\n"));
    let finding = Diagnostic::error(&rule::APP, "m").at(Span::new(id, 3, 4), "here");
    let text = text(&[finding], &sources, Look { colour: true, ..Look::default() });
    let expected = "\u{1b}[1m\u{1b}[91merror[app]\u{1b}[0m\u{1b}[1m: m\u{1b}[0m\n \u{1b}[1m\u{1b}[94m--> \u{1b}[0mc:1:4\n  \u{1b}[1m\u{1b}[94m|\u{1b}[0m\n\u{1b}[1m\u{1b}[94m1\u{1b}[0m \u{1b}[1m\u{1b}[94m|\u{1b}[0m a: 1\n  \u{1b}[1m\u{1b}[94m|\u{1b}[0m    \u{1b}[1m\u{1b}[91m^\u{1b}[0m \u{1b}[1m\u{1b}[91mhere\u{1b}[0m\n\n1 error in 1 file; `runsmith rule NAME` explains\n";
    assert_eq!(text, expected);
}

#[test]
fn every_span_of_a_nasty_text_can_be_shown() {
    let nasty = "\u{feff}a:\t漢\r\n\r\nb\r\u{1b}[0m e\u{301}😀\n\n";
    let mut sources = Sources::new();
    let id = sources.add(Source::new("n", nasty));
    for start in 0..=nasty.len() + 1 {
        for end in start..=nasty.len() + 1 {
            let hidden = Diagnostic::error(&rule::APP, "m").at_hidden(Span::new(id, start, end), "h");
            let shown = Diagnostic::error(&rule::APP, "m").at(Span::new(id, start, end), "h");
            for (finding, width) in [(hidden, 3), (shown, 80)] {
                let text = text(&[finding], &sources, Look { width, ..Look::default() });
                assert!(text.contains("--> n:"), "{text}");
            }
        }
    }
}

#[test]
fn a_line_of_30_megabytes_costs_no_more_than_a_short_one() {
    let mut sources = Sources::new();
    let id = sources.add(Source::new("big", "x".repeat(30 << 20)));
    let finding =
        Diagnostic::error(&rule::APP, "m").at(Span::new(id, 100, 20 << 20), "").at(Span::new(id, 7, 9), "");
    assert!(text(&[finding], &sources, Look::default()).len() < 1000);
}

/// However long the place is that findings are about: none of it is looked at more than shows. The place is one secret, its lines
/// end late, and blanks are at its end; and a sentence that quotes it shows nothing of it.
#[test]
fn many_findings_about_one_long_place() {
    const MIB: usize = 1 << 20;
    let secret = format!("Zq9{}", "Xw".repeat(4 * MIB));
    let lines = "\n  x".repeat(20);
    let blanks = " ".repeat(4 * MIB);
    let mut sources = Sources::new();
    let id = sources.add(Source::new("web.sls", format!("a: \"{secret}{lines}{blanks}\"\n")));
    let place = |from: usize| Span::new(id, from, 4 + secret.len() + lines.len() + blanks.len());
    let findings: Vec<Diagnostic> = (0..3_000)
        .map(|n| Diagnostic::error(&rule::INVALID, format!("wrong {n}")).at_hidden(place(4), "here"))
        .collect();
    let shown = text(&findings, &sources, Look::default());
    assert!(shown.contains("wrong 2999") && !shown.contains("Xw"), "{shown:.1000}");
    let quotes = format!("no {}; nor {}", &secret[..6_000], &secret[..5_000]);
    let finding = Diagnostic::error(&rule::INVALID, quotes).at_hidden(place(4), "");
    let shown = text(&[finding], &sources, Look::default());
    assert!(shown.contains("no ********\n") && !shown.contains("Xw"), "{shown:.1000}");
}

/// Between the ends of one line are very many secrets.
#[test]
fn a_place_with_many_secrets_in_it() {
    let mut sources = Sources::new();
    let words = "s3cr3t, ".repeat(200_000);
    let id = sources.add(Source::new("web.sls", format!("a: [{words}x]\n")));
    let secrets: Vec<Span> = (0..200_000).map(|n| Span::new(id, 4 + 8 * n, 10 + 8 * n)).collect();
    let whole = Span::new(id, 3, 4 + words.len());
    let findings: Vec<Diagnostic> =
        (0..200).map(|n| Diagnostic::error(&rule::INVALID, format!("wrong {n}")).at(whole, "")).collect();
    let shown = text(&findings, &sources, Look { secrets: &secrets, ..Look::default() });
    assert!(shown.contains("a: [********, ********, ") && !shown.contains("s3cr3t"), "{shown:.1000}");
}
