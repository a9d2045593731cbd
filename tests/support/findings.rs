//! From the bytes of one pillar to its findings, without a file or a process: what `validate` does.

use runsmith::diagnostic::{Diagnostic, Severity};
use runsmith::pillar::{self, Dialect, Format};
use runsmith::report::{self, Findings};
use runsmith::rules::judge::{Levels, judge};
use runsmith::rules::{Texts, fix, silence};
use runsmith::services;
use runsmith::source::{Source, SourceId, Sources, Span};

/// What was found in one pillar.
pub(crate) struct Found {
    /// The text, and nothing else.
    pub(crate) sources: Sources,
    /// Every finding.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Where secrets stand.
    pub(crate) secrets: Vec<Span>,
    /// How many applications it has.
    pub(crate) applications: usize,
}

impl Found {
    /// Everything that `validate` would find in `bytes`.
    pub(crate) fn of(bytes: Vec<u8>, format: Format, dialect: Dialect) -> Self {
        let mut sources = Sources::new();
        let id = sources.next_id();
        let mut found =
            Self { sources: Sources::new(), diagnostics: vec![], secrets: vec![], applications: 0 };
        let source = match Source::from_bytes("pillar", bytes, id) {
            Ok(source) => source,
            Err(refused) => {
                let (source, finding) = *refused;
                found.secrets = services::secrets_in_text(source.text(), id);
                found.diagnostics.push(finding);
                sources.add(source);
                return Self { sources, ..found };
            }
        };
        let parsed = pillar::parse(&source, id, format, dialect);
        let text = source.text().to_owned();
        sources.add(source);
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(diagnostics) => {
                assert!(!diagnostics.is_empty(), "a text is refused for a reason");
                let secrets = services::secrets_in_text(&text, id);
                return Self { sources, diagnostics, secrets, applications: 0 };
            }
        };
        for document in &parsed.documents {
            found.secrets.extend(services::secrets_in_document(document, &text));
        }
        if !parsed.warnings.is_empty() {
            found.secrets.extend(services::secrets_in_text(&text, id));
        }
        let silences = match format {
            Format::Yaml => silence::find(sources.get(id), id, &parsed.documents),
            Format::Json => vec![],
        };
        let (applications, unfit) = services::select(parsed.documents, None);
        found.applications = applications.len();
        found.diagnostics = parsed.warnings;
        found.diagnostics.extend(unfit);
        if !applications.is_empty() {
            match services::check(applications, Texts { sources: &sources, dialect }, 1) {
                Ok((looked, _)) => found.diagnostics.extend(looked.found),
                Err(failure) => panic!("nothing outside is asked, and yet: {failure}"),
            }
        }
        found.diagnostics = judge(found.diagnostics, &silences, &Levels::default(), &sources, true);
        Self { sources, ..found }
    }

    /// Whether a service could not be rendered.
    pub(crate) fn is_wrong(&self) -> bool {
        self.diagnostics.iter().any(|finding| finding.severity == Severity::Error) || self.applications == 0
    }

    /// Every place that a finding names lies in the text, and on its characters.
    pub(crate) fn check_places(&self) {
        for finding in &self.diagnostics {
            for label in &finding.labels {
                let text = self.sources.get(label.span.source).text();
                assert!(
                    text.get(label.span.range()).is_some(),
                    "{:?} is no place in {text:?}: {finding:?}",
                    label.span
                );
            }
        }
    }

    /// Every fix can be made, and changes something.
    pub(crate) fn check_fixes(&self) {
        for source in (0..).map(SourceId).zip(self.sources.iter()) {
            let (id, text) = (source.0, source.1.text());
            let fixed = fix::apply(text, id, &self.diagnostics, |_| true);
            assert_eq!(fixed.count > 0, fixed.text != text, "{} fixes of {text:?}", fixed.count);
        }
    }

    /// Every report can be made.
    pub(crate) fn check_reports(&self) {
        let findings = Findings::new(&self.diagnostics, &self.sources, &self.secrets);
        for (colour, width) in [(false, 80), (true, 40)] {
            let text = report::text::of(&findings, colour, width);
            assert!(findings.iter().len() == 0 || !text.is_empty());
        }
        let mut written = [vec![], vec![], vec![]];
        let [json, sarif, gitlab] = &mut written;
        report::json::json(&findings, self.applications, json).expect("a vector takes all");
        report::sarif::sarif(&findings, sarif).expect("a vector takes all");
        report::gitlab::gitlab(&findings, gitlab).expect("a vector takes all");
        for text in written {
            let text = String::from_utf8(text).expect("JSON");
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "no JSON: {text}");
        }
        report::github::github(&findings);
        report::junit::junit(&findings);
    }
}
