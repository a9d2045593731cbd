//! The JSON Schema in the repository, and the page of keys made of it, are what the types give.

use std::path::Path;

/// `make golden` sets RUNSMITH_BLESS and rewrites the file; `git diff` is the review.
#[test]
fn the_schema_file_is_in_step() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/pillar.schema.json");
    let want = format!("{}\n", serde_json::to_string_pretty(&runsmith::schema::document()).unwrap());
    if std::env::var_os("RUNSMITH_BLESS").is_some() {
        std::fs::write(&path, &want).unwrap();
        return;
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), want, "run `make golden` and review the difference");
}

/// The page of keys: `docs/pillar.md`.
#[test]
fn the_page_of_keys_is_in_step() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pillar.md");
    let want = page();
    if std::env::var_os("RUNSMITH_BLESS").is_some() {
        std::fs::write(&path, &want).unwrap();
        return;
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), want, "run `make golden` and review the difference");
}

fn page() -> String {
    let schema = runsmith::schema::document();
    let definitions = &schema["$defs"];
    let mut page = String::from(
        "# Keys of a pillar\n\nMade from the JSON Schema (`runsmith schema`) by `make golden`. An application stands at the \
         top of a document, or below `applications`, beside `defaults`: maps are merged with the defaults key by key, \
         everything else is replaced, and `null` takes a default away, except from a server's own setting that may \
         be none (such as `accesslog`): there it is what the server gets.\n\n",
    );
    table(&definitions["Application"], "", &mut page);
    for (title, name) in [("gunicorn", "GunicornSettings"), ("Ruby unicorn", "UnicornSettings")] {
        let settings = &definitions[name];
        let version = settings["x-server-version"].as_str().unwrap();
        page.push_str(&format!("\n## Settings of {title} {version}\n\n"));
        page.push_str(
            "The default is what is rendered; where the server's own differs, it is told beside it.\n\n",
        );
        table(settings, "", &mut page);
    }
    page
}

fn table(schema: &serde_json::Value, prefix: &str, page: &mut String) {
    if prefix.is_empty() {
        page.push_str("| key | default | example | meaning |\n|---|---|---|---|\n");
    }
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let code = |value: &serde_json::Value| format!("`{}`", value.to_string().replace('|', "\\|"));
        let default = match (&property["default"], property["x-default"].as_str()) {
            (_, Some(text)) => text.to_owned(),
            (serde_json::Value::Null, None) => "none".to_owned(),
            (value, None) => code(value),
        };
        let meaning =
            property["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let row =
            format!("| `{prefix}{key}` | {default} | {} | {meaning} |\n", code(&property["examples"][0]));
        // A map may be given alone and in a list.
        if !page.contains(&row) {
            page.push_str(&row);
        }
        for inner in alternatives(property) {
            table(inner, &format!("{prefix}{key}."), page);
        }
    }
}

/// A property's own map, or that of the alternatives which are one. Settings have pages of their own.
fn alternatives(property: &serde_json::Value) -> Vec<&serde_json::Value> {
    let mut all = vec![];
    let mut waiting = vec![property];
    while let Some(schema) = waiting.pop() {
        if schema.get("properties").is_some() {
            all.push(schema);
        }
        for keyword in ["anyOf", "oneOf"] {
            waiting.extend(schema[keyword].as_array().into_iter().flatten());
        }
        waiting.extend(schema.get("items"));
    }
    all
}
