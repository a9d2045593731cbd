//! Reading pillars: what is said of wrong ones, where, and that hostile ones cost nothing.
#![allow(clippy::disallowed_methods, reason = "a test looks at the clock")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by them")]

use runsmith::diagnostic::Diagnostic;
use runsmith::pillar::{Dialect, Format, Node, Parsed, Style, Value, parse, too_large};
use runsmith::source::{MAX_BYTES, Source, SourceId, Span};
use std::time::{Duration, Instant};

const ID: SourceId = SourceId(0);

fn read(dialect: Dialect, text: &str) -> Result<Parsed, Vec<Diagnostic>> {
    parse(&Source::new("x", text), ID, Format::Yaml, dialect)
}

fn salt(text: &str) -> Node {
    let mut parsed = read(Dialect::Salt, text).unwrap_or_else(|findings| panic!("{findings:?} in {text:?}"));
    assert_eq!(parsed.documents.len(), 1);
    parsed.documents.remove(0)
}

/// The findings as `rule@line:column`.
fn findings(dialect: Dialect, text: &str) -> Vec<String> {
    let source = Source::new("x", text);
    let findings = match parse(&source, ID, Format::Yaml, dialect) {
        Ok(parsed) => parsed.warnings,
        Err(findings) => findings,
    };
    told(&source, &findings)
}

fn told(source: &Source, findings: &[Diagnostic]) -> Vec<String> {
    findings
        .iter()
        .map(|finding| {
            let at = source.position(finding.span().expect("a place").start);
            format!("{}@{}:{}", finding.rule, at.line, at.column)
        })
        .collect()
}

fn json(text: &str) -> Result<Node, Vec<String>> {
    let source = Source::new("x", text);
    match parse(&source, ID, Format::Json, Dialect::Salt) {
        Ok(mut parsed) => Ok(parsed.documents.remove(0)),
        Err(findings) => Err(told(&source, &findings)),
    }
}

fn printed(node: &Node) -> String {
    let mut out = String::new();
    node.write_json(&mut out).expect("a string takes everything");
    out
}

#[test]
fn spans_are_exact() {
    let text =
        "\u{feff}ä: &x !!str 'b c'\nlist:\n- 1\n- [2, *x]\n\n# end\nmap: {k: v}\nnone:\nblock: |\n  x\n  y\n";
    let source = Source::new("x", text);
    let node = salt(text);
    let slice = |span: Span| source.slice(span);
    let value = |name: &str| &node.get(name).expect("there").value;
    assert_eq!(slice(node.get("ä").expect("there").key.span), "ä");
    assert_eq!(slice(value("ä").span), "'b c'");
    assert_eq!(value("ä").style, Style::Quoted);
    assert_eq!(slice(value("list").span), "- 1\n- [2, *x]");
    assert_eq!(slice(value("map").span), "{k: v}");
    assert_eq!(slice(value("none").span), "");
    assert_eq!(slice(value("block").span), "|\n  x\n  y\n");
    assert_eq!(value("block").style, Style::Block);
    let Value::List(items) = &value("list").value else { panic!("a list") };
    let Value::List(inner) = &items[1].value else { panic!("a list") };
    assert_eq!(slice(inner[1].span), "'b c'");
    assert_eq!(slice(inner[1].via.expect("an alias")), "*x");
}

#[test]
fn a_merge_key_is_remembered() {
    let text = "a: &a {user: www, list: [1]}\nb:\n  <<: *a\n  own: 1\n";
    let source = Source::new("x", text);
    let node = salt(text);
    let b = &node.get("b").expect("there").value;
    let user = b.get("user").expect("merged");
    assert_eq!(source.slice(user.value.span), "www");
    assert_eq!(user.value.via.map(|via| source.slice(via)), Some("<<"));
    assert_eq!(user.key.via, user.value.via);
    assert_eq!(b.get("own").expect("its own").value.via, None);
    let Value::List(items) = &b.get("list").expect("merged").value.value else { panic!("a list") };
    assert_eq!(items[0].via, user.value.via);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "a: 1\na: 2\nb: !foo x\nc: {d: 1, d: 2}\ne: !!int x\nf: =\n[g]: 1\n";
    assert_eq!(
        findings(Dialect::Salt, text),
        [
            "duplicate-key@2:1",
            "unknown-tag@3:4",
            "duplicate-key@4:11",
            "bad-scalar@5:10",
            "bare-indicator@6:4",
            "unhashable-key@7:1"
        ]
    );
    assert_eq!(findings(Dialect::Salt, "a: *x\nb: *y\n"), ["undefined-alias@1:4", "undefined-alias@2:4"]);
}

#[test]
fn ansible_warns_of_duplicates_and_lets_merges_be_overridden() {
    let text = "a: &a {x: 1}\nb: {<<: *a, x: 2}\na: 3\n";
    assert_eq!(findings(Dialect::Ansible, text), ["duplicate-key@3:1"]);
    let parsed = read(Dialect::Ansible, text).expect("only a warning");
    assert_eq!(parsed.documents[0].get("a").map(|pair| &pair.value.span.start), Some(&34));
}

#[test]
fn syntax_errors_have_a_place() {
    let cases = [
        ("a:\n\tb: 1\n", "yaml-syntax@2:1"),
        ("a: b: c\n", "yaml-syntax@1:5"),
        ("a: [1, 2\nb: 3\n", "yaml-syntax@2:2"),
        ("a: @x\n", "yaml-syntax@1:4"),
        ("a: \"\\d\"\n", "yaml-syntax@1:5"),
        ("a: 'x\n", "yaml-syntax@2:1"),
        ("a: x\u{0}\n", "control-character@1:5"),
        ("a: &a [*a]\n", "recursive-alias@1:8"),
        ("a: &a 1\nb: &a 2\n", "duplicate-anchor@2:7"),
        ("<<: 1\n", "merge-key@1:5"),
    ];
    for (text, expected) in cases {
        assert_eq!(findings(Dialect::Salt, text), [expected], "{text:?}");
    }
}

#[test]
fn jinja_is_one_finding_with_its_place() {
    let cases = [
        ("# {{ comment }}\nuser: {{ pillar['x'] }}\n", "jinja@2:7"),
        ("{% if x %}\na: 1\n{% endif %}\nb: @\n", "jinja@1:1"),
        ("{# note #}\na: 1\nb: [\n", "jinja@1:1"),
        ("a: 1\nuser: app-{{ env }}\n", "jinja@2:7"),
        ("a: \"{{ x }}\"\nb: '{{ y }}'\n", "jinja@1:4"),
        ("a:\n  {{ name }}: 1\n", "jinja@2:3"),
        ("a: |\n  x\n  {% y %}\n", "jinja@1:4"),
        ("#!jinja|yaml\na: {{ x }}\n", "jinja@2:4"),
        ("#!py\ndef run():\n  return {}\n", "renderer@1:1"),
        ("#!yaml|gpg\na: 1\n", "renderer@1:1"),
    ];
    for (text, expected) in cases {
        assert_eq!(findings(Dialect::Salt, text), [expected], "{text:?}");
    }
    for fine in
        ["# {{ x }}\na: 1\n", "a: ${#list[@]}\n", "a: '%({x-y}i)s'\n", "#!runsmith\na: 1\n", "a: '{{'\n"]
    {
        assert_eq!(findings(Dialect::Salt, fine), [""; 0], "{fine:?}");
    }
    assert_eq!(findings(Dialect::Ansible, "a: !unsafe '{{ x }}'\n"), [""; 0]);
    assert!(json("{\"a\": \"{{ x }}\"}").is_ok());
}

#[test]
fn documents_with_nothing_in_them_are_none() {
    let count = |text: &str| read(Dialect::Salt, text).expect("YAML").documents.len();
    assert_eq!(count(""), 0);
    assert_eq!(count("# comment\n"), 0);
    assert_eq!(count("---\n---\na: 1\n---\n"), 1);
    assert_eq!(count("~"), 1);
    assert_eq!(count("a: 1\n---\nb: 2\n"), 2);
}

#[test]
fn json_is_read_with_spans() {
    let text = "{\"a\": [1, -0, 1.50, 1e2, 123456789012345678901], \"b\\u00e9\\ud83d\\ude00\": null}";
    let source = Source::new("x", text);
    let node = json(text).expect("JSON");
    let Value::List(items) = &node.get("a").expect("there").value.value else { panic!("a list") };
    assert_eq!(
        items.iter().map(|item| source.slice(item.span)).collect::<Vec<_>>(),
        ["1", "-0", "1.50", "1e2", "123456789012345678901"]
    );
    assert_eq!(source.slice(node.get("bé😀").expect("there").key.span), "\"b\\u00e9\\ud83d\\ude00\"");
}

#[test]
fn json_mistakes_have_a_place() {
    let cases = [
        ("{\"a\": 1, \"a\": 2}", "duplicate-key@1:10"),
        ("{\"a\": 1,}", "json-syntax@1:9"),
        ("{a: 1}", "json-syntax@1:2"),
        ("[1 2]", "json-syntax@1:4"),
        ("[01]", "json-syntax@1:3"),
        ("[NaN]", "json-syntax@1:2"),
        ("[1e999]", "json-syntax@1:2"),
        ("\"a\nb\"", "json-syntax@1:3"),
        ("\"\\x\"", "json-syntax@1:2"),
        ("\"\\ud800\"", "json-syntax@1:2"),
        ("\"\\ud800\\u0041\"", "json-syntax@1:2"),
        ("\"a", "json-syntax@1:3"),
        ("", "json-syntax@1:1"),
        ("1 2", "json-syntax@1:3"),
        ("\"\\", "json-syntax@1:2"),
        ("\"\\u12", "json-syntax@1:6"),
        ("-", "json-syntax@1:2"),
        ("{\"a\"", "json-syntax@1:5"),
    ];
    for (text, expected) in cases {
        assert_eq!(json(text).expect_err(text), [expected], "{text:?}");
    }
}

#[test]
fn prints_what_python_prints() {
    let text = "s: \"a\\n\\\"\\u0001é\"\ni: 123456789012345678901\nf: [1.0, 1.5e+20, 1.0e-5, -0.0, .inf, .nan]\n\
                1: x\ntrue: y\n~: z\n1.5: w\nempty: [{}, []]\nbytes: !!binary aGVsbG8=\n";
    assert_eq!(
        printed(&salt(&text.replace("true: y\n", ""))),
        "{\n  \"s\": \"a\\n\\\"\\u0001é\",\n  \"i\": 123456789012345678901,\n  \"f\": [\n    1.0,\n    1.5e+20,\n    \
         1e-05,\n    -0.0,\n    \"Infinity\",\n    \"NaN\"\n  ],\n  \"1\": \"x\",\n  \"null\": \"z\",\n  \"1.5\": \"w\",\n  \
         \"empty\": [\n    {},\n    []\n  ],\n  \"bytes\": \"aGVsbG8=\"\n}"
    );
    let back: serde_json::Value = serde_json::from_str(&printed(&salt("a: [1, x, ~]"))).expect("JSON");
    assert_eq!(back, salt("a: [1, x, ~]").to_json());
}

#[test]
fn bytes_that_are_no_utf_8_are_shown() {
    let refused = |bytes: &[u8]| {
        let (source, finding) = *Source::from_bytes("x", bytes.to_vec(), ID).expect_err("no UTF-8");
        let at = source.position(finding.span().expect("a place").start);
        (at.line, at.column, finding.message)
    };
    assert_eq!(refused(b"a: \xc3\xa4\nb: x\xe4y\n").0, 2);
    assert_eq!(refused(b"a: \xc3\xa4\nb: x\xe4y\n").1, 5);
    assert!(refused(b"\xff\xfea\0:\0").2.contains("UTF-16"));
    assert!(refused(b"\xfe\xff\0a").2.contains("UTF-16"));
    assert_eq!(refused(b"a\xc3").1, 2);
    assert_eq!(Source::from_bytes("x", "ä".into(), ID).expect("UTF-8").text(), "ä");
}

/// The rules found, and that it took no time.
fn quickly(what: &str, text: String, dialect: Dialect, format: Format) -> Vec<String> {
    let source = Source::new("x", text);
    let begun = Instant::now();
    let result = parse(&source, ID, format, dialect);
    let took = begun.elapsed();
    // Tests are built without optimization and run beside each other; what is quadratic takes hours.
    assert!(took < Duration::from_secs(60), "{what} took {took:?}");
    match result {
        Ok(_) => vec![],
        Err(findings) => {
            assert!(findings.len() <= 101, "{what}: {} findings", findings.len());
            findings.iter().map(|finding| finding.rule.name.to_owned()).collect()
        }
    }
}

#[test]
fn hostile_texts_are_answered_at_once() {
    let bomb = |open: &str, close: &str| {
        let mut text = format!("a0: &a0 {open}lol{close}\n");
        for level in 1..40 {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        text
    };
    let mut merge_bomb = String::from("a0: &a0 {k: v}\n");
    for level in 1..40 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        merge_bomb.push_str(&format!("a{level}: &a{level} {{<<: [{items}], k{level}: v}}\n"));
    }
    let mut chain = String::from("a0: &a0 [x]\n");
    (1..5000).for_each(|at| chain.push_str(&format!("a{at}: &a{at} [*a{}]\n", at - 1)));
    let long_string = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 5000].join(", "));
    let indented: String = (0..3000).map(|at| format!("{}a:\n", " ".repeat(at))).collect();
    let many_anchors: String = (0..100_000).map(|at| format!("- &a{at} x\n- *a{at}\n")).collect();
    let same_keys: String = "a: 1\n".repeat(100_000);
    let bad_aliases: String = "- *x\n".repeat(100_000);
    let bad_tags: String = "- !x y\n".repeat(100_000);
    let tag_lines: String = (0..100_000).map(|at| format!("%TAG !a{at}! x\n")).collect();
    let jinja = "a: {{ x }}\n".repeat(100_000);
    let cases: [(&str, String, &str); 25] = [
        ("billion laughs", bomb("[", "]"), "alias-bomb"),
        ("merge bomb", merge_bomb, "alias-bomb"),
        ("alias chain", chain, "too-deep"),
        ("one long string many times", long_string, "alias-bomb"),
        ("flow lists", "[".repeat(50_000), "too-deep"),
        ("flow lists, closed", "[".repeat(50_000) + &"]".repeat(50_000), "too-deep"),
        ("flow maps", "{a: ".repeat(50_000), "too-deep"),
        ("flow keys", "{".repeat(50_000), "too-deep"),
        ("10 MB of brackets", "[".repeat(10 << 20), "too-deep"),
        ("block lists", "- ".repeat(1 << 20), "too-deep"),
        ("question marks", "? ".repeat(50_000), "too-deep"),
        ("indentation", indented, "too-deep"),
        ("many anchors", many_anchors, ""),
        ("same key", same_keys, "duplicate-key"),
        ("undefined aliases", bad_aliases, "undefined-alias"),
        ("unknown tags", bad_tags, "unknown-tag"),
        ("%TAG lines", tag_lines, "yaml-syntax"),
        ("Jinja", jinja, "jinja"),
        ("one long line", "x".repeat(MAX_BYTES), ""),
        ("one long value", format!("a: {}", "x".repeat(10 << 20)), ""),
        ("one long number", format!("a: {}", "9".repeat(10 << 20)), "bad-scalar"),
        ("one long hexadecimal number", format!("a: 0x{}", "f".repeat(10 << 20)), "bad-scalar"),
        ("sixties", format!("a: 1{}", ":00".repeat(1 << 20)), "bad-scalar"),
        ("an open quote", format!("a: \"{}", "x\n".repeat(1 << 20)), "yaml-syntax"),
        ("too long", "x".repeat(MAX_BYTES + 1), "too-large"),
    ];
    for dialect in [Dialect::Salt, Dialect::Ansible, Dialect::Yaml12] {
        for (what, text, rule) in &cases {
            // The scanner of Salt and Ansible is the same one, and the long texts take their time unoptimized.
            if text.len() > 1 << 20 && dialect != Dialect::Salt {
                continue;
            }
            let rules = quickly(what, text.clone(), dialect, Format::Yaml);
            if dialect == Dialect::Salt {
                assert!(rules.iter().all(|found| found == rule), "{what}: {rules:?}");
                assert_eq!(rules.is_empty(), rule.is_empty(), "{what}: {rules:?}");
            }
            if *what == "billion laughs" || *what == "flow lists" {
                assert_eq!(rules, [*rule], "{what} {dialect:?}");
            }
        }
    }
}

#[test]
fn hostile_json_is_answered_at_once() {
    for (what, text, rule) in [
        ("lists", "[".repeat(10 << 20), "too-deep"),
        ("objects", "{\"a\":".repeat(50_000), "too-deep"),
        ("a long number", "9".repeat(10 << 20), "json-syntax"),
        ("an open string", format!("\"{}", "x".repeat(10 << 20)), "json-syntax"),
        ("commas", ",".repeat(10 << 20), "json-syntax"),
    ] {
        assert_eq!(quickly(what, text.clone(), Dialect::Salt, Format::Json), [rule], "{what}");
        quickly(what, text, Dialect::Ansible, Format::Yaml);
    }
}

#[test]
fn very_many_keys_are_only_many() {
    let yaml: String = (0..300_000).map(|at| format!("k{at}: v\n")).collect();
    assert!(quickly("very many keys", yaml, Dialect::Salt, Format::Yaml).is_empty());
    let pairs: Vec<String> = (0..200_000).map(|at| format!("\"k{at}\": {at}")).collect();
    let json = format!("{{{}}}", pairs.join(","));
    assert!(quickly("many JSON keys", json, Dialect::Salt, Format::Json).is_empty());
}

#[test]
fn too_many_values_are_refused() {
    let text = "-\n".repeat(5_000_000);
    assert_eq!(quickly("five million items", text, Dialect::Salt, Format::Yaml), ["too-large"]);
    assert_eq!(too_large(MAX_BYTES as u64, ID), None);
    assert_eq!(too_large(100 << 20, ID).map(|finding| finding.rule.name), Some("too-large"));
}

#[test]
fn yaml_1_2_warns_of_merge_keys() {
    assert_eq!(findings(Dialect::Yaml12, "a:\n  <<: {b: 1}\n"), ["merge-key@2:3"]);
    assert_eq!(findings(Dialect::Yaml12, "\"<<\": 1\n"), [""; 0]);
}

#[test]
fn many_warnings_do_not_hide_the_value() {
    let text: String = (0..500).map(|at| format!("- {{k{at}: 1, k{at}: 2}}\n")).collect();
    let parsed = read(Dialect::Ansible, &text).expect("only warnings");
    assert_eq!(parsed.warnings.len(), 100);
    assert!(matches!(&parsed.documents[0].value, Value::List(items) if items.len() == 500));
}
