//! From documents to services: selected, checked against the schema, defaults filled in.

mod empty;
mod grounds;
mod json;
mod read_back;
mod rest;
mod secrets;
mod threads;
mod wanted;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::diagnostic::{Diagnostic, Kept, Said, Severity};
use crate::failure::Failure;
use crate::model::{self, Service, input};
use crate::pillar::{self, Application, Merged, Node};
use crate::plan::{Contents, plan_with, used};
use crate::record::{Record, Retired, UNNAMED_SET};
use crate::rule;
use crate::rules::{self, Claims, Texts};
use crate::schema::Checker;
use crate::source::Span;
use crate::template::Templates;
use crate::tree::{Entry, Kind, Tree};
use json::{Nulls, json};
use threads::{in_parallel_with, in_two};
use wanted::{Wanted, clashes, compare_contents, in_order};

pub use empty::without_empty;
pub use read_back::{rendered, specimens};
pub use secrets::{
    masked, secret_values, secrets_in_document, secrets_in_dropped, secrets_in_file, secrets_in_text,
};
pub(crate) use secrets::{reading, readings};
pub(crate) use threads::in_parallel;

/// How many bytes the files of all services of a run may have, since they are in memory at once. A service has 10 to 60 KB.
const MOST_BYTES: usize = 512 << 20;

/// So many bytes of it the value of a secret takes, besides its own: it is a file, and has a place in the record of its service, and
/// `render --diff` keeps both sides. Measured.
const SECRET: usize = 1200;

/// A service and where it was said.
#[derive(Debug)]
pub struct Placed {
    /// The service.
    pub service: Service,
    /// The colon path of its application in the pillar.
    pub key: String,
    /// Where the application stands.
    pub span: Span,
    /// Its values, with their places.
    pub node: Node,
}

/// How many values an application may have, those of its defaults counted: more than any service needs, and little enough
/// that work on every pair of them is done in a moment.
const MOST_VALUES: usize = 5_000;

/// How many applications one run may have. A host has hundreds.
const MOST_APPLICATIONS: usize = 15_000;

/// How many values all applications may have, each with its defaults: those of 10,000 services with 40 defaults and 40 of their
/// own. The value of a secret is a file of its own and costs nearly a kilobyte.
const MOST_VALUES_OF_ALL: usize = 800_000;

/// How many bytes the texts of all applications may have, each with its defaults: each application gets a copy of its own. The
/// pillars of 10,000 services that have 40 defaults need 10 MB.
const MOST_TEXT_OF_ALL: usize = 128 << 20;

/// How large defaults are; the applications of one document share them.
#[derive(Clone, Copy)]
struct Size {
    values: usize,
    bytes: usize,
}

impl Size {
    /// Of what has too many values the texts are not looked at.
    fn of(node: &Node) -> Self {
        let values = node.count(MOST_VALUES + 1);
        let bytes = if values > MOST_VALUES { 0 } else { node.text_bytes() };
        Self { values, bytes }
    }
}

/// The applications of all documents, and complaints about what is none, or too large. `key` is as in [`pillar::select`].
pub fn select(documents: Vec<Node>, key: Option<&str>) -> (Vec<Application>, Vec<Diagnostic>) {
    let mut found = Kept::default();
    let mut applications = vec![];
    for document in documents {
        applications.extend(pillar::select(document, key, &mut found));
    }
    leave_out_excess(&mut applications, &mut found);
    (applications, found.into_vec())
}

/// Leaves out applications that are too large, and those that are too many.
fn leave_out_excess(applications: &mut Vec<Application>, found: &mut Kept) {
    let excess =
        |message, span, help: &str| Diagnostic::error(&rule::TOO_LARGE, message).at(span, "").help(help);
    // Defaults are shared by their applications, one after the other.
    let mut defaults: Option<(Arc<Node>, Size)> = None;
    let mut kept = 0;
    let mut all = Size { values: 0, bytes: 0 };
    let mut is_full = false;
    applications.retain(|application| {
        if is_full {
            return false;
        }
        let Size { mut values, mut bytes } = Size::of(&application.own);
        if let Some(shared) = &application.defaults {
            let size = match &defaults {
                Some((known, size)) if Arc::ptr_eq(known, shared) => *size,
                _ => defaults.insert((Arc::clone(shared), Size::of(shared))).1,
            };
            values += size.values;
            bytes += size.bytes;
        }
        if values > MOST_VALUES {
            let message = format!("this application has more than {MOST_VALUES} values, the most that one may have");
            found.push(excess(message, application.name_span, "Variables that many belong in a file that the application reads."));
            return false;
        }
        kept += 1;
        all = Size { values: all.values + values, bytes: all.bytes.saturating_add(bytes) };
        let is_long = all.bytes > MOST_TEXT_OF_ALL;
        if kept > MOST_APPLICATIONS || all.values > MOST_VALUES_OF_ALL || is_long {
            let (message, help) = if is_long {
                (
                    format!(
                        "up to this application there are more than {} MiB of text, the defaults counted for each \
                         application, the most that one run may have",
                        MOST_TEXT_OF_ALL >> 20
                    ),
                    "Long values belong in a file that the applications read; or name fewer pillars at once.",
                )
            } else {
                (
                    format!(
                        "up to this application there are more than {MOST_APPLICATIONS} applications, or more than \
                         {MOST_VALUES_OF_ALL} values with their defaults, the most that one run may have"
                    ),
                    "Name fewer pillars at once.",
                )
            };
            found.push(excess(message, application.name_span, help));
            is_full = true;
            return false;
        }
        true
    });
}

/// What is wrong with the defaults whoever has them. What they lack an application may add.
fn wrong_defaults(defaults: &Node, checker: &Checker) -> Vec<Diagnostic> {
    let mut found = vec![];
    let mut nulls = vec![];
    let json = json(defaults, &mut Nulls::Dropped(&mut nulls), &mut vec![], &mut found);
    found.extend(checker.check(&json, defaults).0);
    found.extend(checker.unknown(&nulls, defaults));
    found.retain(|finding| finding.rule != &rule::MISSING_KEY);
    found
}

/// An application that is no service, and why.
#[derive(Debug)]
pub struct Unfit {
    /// What is wrong with it: at least one error.
    pub found: Vec<Diagnostic>,
    /// Its key in `applications`, if it has one.
    name: Option<String>,
    /// As in [`model::Context`].
    place: Span,
    node: Node,
}

/// Checks one application and fills in its defaults.
pub fn service(application: Merged, checker: &Checker) -> Result<Placed, Box<Unfit>> {
    let Merged { name, name_span, key, node, defaults } = application;
    let mut found = vec![];
    let mut nulls = vec![];
    let mut json = json(&node, &mut Nulls::Dropped(&mut nulls), &mut vec![], &mut found);
    let (findings, keys) = checker.check(&json, &node);
    found.extend(findings);
    found.extend(checker.unknown(&nulls, &node));
    if let Some(defaults) = defaults {
        let wrong = wrong_defaults(&defaults, checker);
        let at: HashMap<Said<'_>, usize> =
            found.iter().enumerate().map(|(at, one)| (one.said(), at)).collect();
        let same: Vec<Option<usize>> = wrong.iter().map(|finding| at.get(&finding.said()).copied()).collect();
        for (finding, same) in wrong.into_iter().zip(same) {
            match same.and_then(|at| found.get_mut(at)) {
                // What is free among the defaults may be taken by the application, which is another map.
                Some(one) => one.fix = one.fix.take().or(finding.fix),
                None => found.push(finding),
            }
        }
    }
    let place = if name.is_some() { name_span } else { node.head() };
    if let Some(name) = &name
        && !model::is_application_name(name)
    {
        found.push(
            Diagnostic::error(&rule::APPLICATION_NAME, format!("an application cannot be called {name:?}"))
                .at(name_span, "expected small letters, digits, `_`, `.` and `-`, at most 64, beginning with a letter or digit"),
        );
    }
    if !found.is_empty() {
        // What the schema accepts is looked at all the same, so that every mistake shows at once.
        if let Some(map) = json.as_object_mut() {
            map.retain(|key, _| !keys.contains(key));
        }
        let context = model::Context { name: name.as_deref(), place, node: &node };
        if let Ok(input) = serde_json::from_value(json)
            && let Err(more) = model::resolve(input, context)
        {
            // A key may be missing only because it was wrong.
            found.extend(
                more.into_iter()
                    .filter(|diagnostic| diagnostic.rule != &rule::MISSING_KEY || keys.is_empty()),
            );
        }
        return Err(Box::new(Unfit { found, name, place, node }));
    }
    let context = model::Context { name: name.as_deref(), place, node: &node };
    let input = serde_json::from_value::<input::Application>(json).map_err(|error| {
        let message = format!("the application cannot be read: {error}");
        vec![Diagnostic::error(&rule::INVALID, message).at(node.span, "")]
    });
    match input.and_then(|input| model::resolve(input, context)) {
        Ok(service) => Ok(Placed { service, key, span: place, node }),
        Err(found) => Err(Box::new(Unfit { found, name, place, node })),
    }
}

/// Every file of every service, and what is to be written down about them.
#[derive(Debug)]
pub struct Services {
    /// What is wanted.
    pub tree: Tree,
    /// A record for each service, if there is a set that they belong to.
    pub records: Vec<Record>,
    /// Services that are not enabled: no link leads to them.
    pub disabled: Vec<Retired>,
    /// The services, in the order of the pillars, if they were asked for.
    pub known: Vec<Known>,
    /// For each entry of the tree the index of the application that wants it; the first, if several do.
    pub owners: Vec<usize>,
}

impl Services {
    /// The same services, with values that are to be masked besides those of the services themselves.
    pub fn hiding(mut self, values: impl IntoIterator<Item = String>) -> Self {
        self.tree = std::mem::take(&mut self.tree).hiding(values);
        self
    }
}

/// A service and what its pillar says: enough to say where each of its lines comes from.
#[derive(Debug)]
pub struct Known {
    /// The service.
    pub service: Arc<Service>,
    /// As in [`Placed`].
    pub key: String,
    /// As in [`Placed`].
    pub span: Span,
    /// As in [`Placed`].
    pub node: Node,
}

/// How services are worked out.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// By so many threads; the result is the same with any number.
    pub threads: usize,
    /// The set that the services of each source belong to, by the source's number; without any there are no records.
    pub sets: Option<&'a [String]>,
    /// Keep [`Services::known`].
    pub known: bool,
    /// Plan every file; else only those of applications that may want one path, to say so.
    pub files: bool,
}

/// Services, or why there are none.
#[derive(Debug)]
pub enum Rendered {
    /// What is wanted, and what there is to say all the same.
    Services(Services, Vec<Diagnostic>),
    /// Every complaint about every application.
    Findings(Vec<Diagnostic>),
}

/// What is kept of an application once it has been looked at.
struct Planned {
    service: Arc<Service>,
    key: String,
    span: Span,
    /// Nothing as long as its files were not asked for.
    entries: Vec<Entry>,
    may_meet_itself: bool,
    record: Option<Record>,
    disabled: Option<Retired>,
    known: Option<Known>,
    /// Values that are secret, wherever they stand in the application.
    hidden: Vec<String>,
}

/// What all applications come to.
#[derive(Default)]
struct All {
    /// Every entry in the order of the paths.
    wanted: Vec<Wanted>,
    records: Vec<Record>,
    disabled: Vec<Retired>,
    known: Vec<Known>,
    hidden: Vec<String>,
    found: Vec<Diagnostic>,
    unjudged: Unjudged,
    /// What nobody asks for any more.
    remains: (Vec<Planned>, Vec<Claims>),
}

/// Every file of every application.
///
/// `judge` gets everything that is found and gives what is to be told: with an error among that,
/// there are no services.
pub fn render(
    applications: Vec<Application>,
    templates: &Templates,
    texts: Texts<'_>,
    asked: Asked<'_>,
    judge: impl FnOnce(Vec<Diagnostic>) -> Vec<Diagnostic>,
) -> Result<Rendered, Failure> {
    let All { wanted, records, disabled, known, hidden, found, .. } =
        plan_all(applications, templates, texts, asked)?;
    let found = judge(found);
    if found.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return Ok(Rendered::Findings(found));
    }
    let mut owners: Vec<usize> = vec![];
    let mut entries: Vec<Entry> = Vec::with_capacity(wanted.len());
    for (entry, owner) in wanted {
        if asked.known && entries.last().is_none_or(|last| last.path != entry.path) {
            owners.push(owner);
        }
        entries.push(entry);
    }
    match Tree::new(entries) {
        Ok(tree) => Ok(Rendered::Services(
            Services { tree: tree.hiding(hidden), records, disabled, known, owners },
            found,
        )),
        // `clashes` has found and placed every one before.
        Err(clashes) => Err(Failure::Usage(format!("{} paths are wanted twice", clashes.len()))),
    }
}

/// What [`check`] found.
#[derive(Debug)]
pub struct Looked {
    /// Everything that [`render`] would find, with the built-in templates.
    pub found: Vec<Diagnostic>,
    /// How many applications have errors that keep rules from looking.
    pub unjudged: Unjudged,
}

/// How many applications rules have not looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unjudged {
    /// Only at what holds however their errors are fixed.
    pub partly: usize,
    /// Not at all, because what is wrong with them leaves nothing to look at.
    pub wholly: usize,
}

/// Everything that is found about the applications, and what is left of them.
pub fn check(
    applications: Vec<Application>,
    texts: Texts<'_>,
    threads: usize,
) -> Result<(Looked, Remains), Failure> {
    let templates = Templates::built_in()?;
    let asked = Asked { threads, sets: None, known: false, files: false };
    let All { found, unjudged, wanted, remains, .. } = plan_all(applications, &templates, texts, asked)?;
    Ok((Looked { found, unjudged }, Remains { _all: (remains, wanted) }))
}

/// What nobody needs any more and takes long to give back piece by piece: of 10,000 services as long as reading them.
/// Who ends soon may [forget](std::mem::forget) it, since a process gives back everything at once.
#[must_use]
pub struct Remains {
    _all: ((Vec<Planned>, Vec<Claims>), Vec<Wanted>),
}

/// A service, and its server's configuration file as it would be rendered, if it has one.
pub type Configured = (Known, Option<Vec<u8>>);

/// As [`check`], with the services that can be rendered; none if two have the same name.
pub fn check_and_keep(
    applications: Vec<Application>,
    texts: Texts<'_>,
    threads: usize,
) -> Result<(Looked, Vec<Configured>), Failure> {
    let templates = Templates::built_in()?;
    let asked = Asked { threads, sets: None, known: true, files: true };
    let All { wanted, known, found, unjudged, .. } = plan_all(applications, &templates, texts, asked)?;
    let content = |service: &Service| {
        let path = format!("{}/{}", service.layout.config.path, service.config_name()?);
        let at = wanted.binary_search_by(|(entry, _)| entry.path.as_str().cmp(&path)).ok()?;
        match &wanted.get(at)?.0.kind {
            Kind::File(content) => Some(content.clone()),
            Kind::Directory | Kind::Link(_) => None,
        }
    };
    let known = known.into_iter().map(|known| {
        let content = content(&known.service);
        (known, content)
    });
    Ok((Looked { found, unjudged }, known.collect()))
}

fn plan_all(
    applications: Vec<Application>,
    templates: &Templates,
    texts: Texts<'_>,
    asked: Asked<'_>,
) -> Result<All, Failure> {
    let checker = Checker::new();
    let mut all = All::default();
    let mut found = Kept::default();
    let mut planned = Vec::with_capacity(applications.len());
    let mut claims = Vec::with_capacity(applications.len());
    let room = AtomicUsize::new(MOST_BYTES);
    let plan = |application, found: &mut Kept| {
        plan_one(application, &checker, templates, texts, asked, &room, found)
    };
    let (results, founds) = in_parallel_with(applications, asked.threads, plan);
    founds.into_iter().for_each(|after| found.append(after));
    for result in results {
        match result? {
            Ok((plan, claim)) => {
                planned.push(plan);
                claims.push(claim);
            }
            Err(Look::Part) => all.unjudged.partly += 1,
            Err(Look::None) => all.unjudged.wholly += 1,
        }
    }
    let twice = double_names(&planned);
    // Two of one name want the same paths and addresses, and that has been said.
    if twice.is_empty() {
        if asked.files {
            rules::clashes(&claims, &mut found);
        } else {
            let one = || rules::clashes(&claims, &mut found);
            let ((), meet) = in_two(planned.len(), asked.threads, one, || meeting(&planned));
            plan_these(&meet, &mut planned, templates, asked.threads)?;
        }
        all.records.extend(planned.iter_mut().filter_map(|one| one.record.take()));
        all.disabled.extend(planned.iter_mut().filter_map(|one| one.disabled.take()));
        all.known.extend(planned.iter_mut().filter_map(|one| one.known.take()));
        all.hidden.extend(planned.iter_mut().flat_map(|one| std::mem::take(&mut one.hidden)));
        all.wanted = in_order(&mut planned);
        if !asked.files {
            compare_contents(&mut all.wanted, &planned, templates)?;
        }
        clashes(&all.wanted, &planned, &mut found);
    }
    found.extend(twice);
    all.found = found.into_vec();
    all.remains = (planned, claims);
    Ok(all)
}

/// Which of them may want a path twice, or one that another one wants.
fn meeting(planned: &[Planned]) -> Vec<usize> {
    let services: Vec<&Service> = planned.iter().map(|one| &*one.service).collect();
    let others = grounds::meetings(&services);
    let both = planned.iter().zip(others).map(|(one, others)| one.may_meet_itself || others);
    both.enumerate().filter_map(|(at, meets)| meets.then_some(at)).collect()
}

/// Plans the files of some, without contents.
fn plan_these(
    which: &[usize],
    planned: &mut [Planned],
    templates: &Templates,
    threads: usize,
) -> Result<(), Failure> {
    let entries = in_parallel(which.to_vec(), threads, |at| {
        sorted_plan(&planned[at].service, &planned[at].key, templates, Contents::Left)
    });
    for (at, entries) in which.iter().zip(entries) {
        planned[*at].entries = entries?;
    }
    Ok(())
}

fn sorted_plan(
    service: &Arc<Service>,
    key: &str,
    templates: &Templates,
    contents: Contents,
) -> Result<Vec<Entry>, Failure> {
    let mut entries = plan_with(service, key, templates, contents)?;
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// An application that can be used.
type Usable = (Planned, Claims);

/// How far rules have looked at an application that cannot be used.
enum Look {
    /// At what is not wrong in it.
    Part,
    /// Not at all.
    None,
}

/// What one application comes to, if nothing keeps it from being used. Everything found is added to `all`.
fn plan_one(
    application: Application,
    checker: &Checker,
    templates: &Templates,
    texts: Texts<'_>,
    asked: Asked<'_>,
    room: &AtomicUsize,
    all: &mut Kept,
) -> Result<Result<Usable, Look>, Failure> {
    let application = application.merge();
    let spelling = rules::check_spelling(&application.node, texts);
    let placed = match service(application, checker) {
        Ok(placed) => placed,
        Err(unfit) => {
            let beside = rest::check(&unfit, checker);
            let look = if beside.is_some() { Look::Part } else { Look::None };
            let mut found = unfit.found;
            // A value that is refused need not be spelt better as well.
            let taken: HashSet<Option<Span>> = found.iter().map(Diagnostic::span).collect();
            let is_new = |finding: &Diagnostic| !taken.contains(&finding.span());
            let spelling: Vec<_> = spelling.into_iter().filter(is_new).collect();
            found.extend(spelling);
            found.extend(beside.into_iter().flatten());
            all.extend(found);
            return Ok(Err(look));
        }
    };
    all.extend(spelling);
    let Placed { service, key, span, node } = placed;
    all.extend(rules::check(&service, &node, span));
    let service = Arc::new(service);
    let claims = rules::claims(&service, &node, span);
    let entries = match asked.files {
        true => sorted_plan(&service, &key, templates, Contents::Rendered)?,
        false => vec![],
    };
    let bytes = entries
        .iter()
        .map(|entry| {
            let content = if let Kind::File(content) = &entry.kind { content.len() } else { 0 };
            entry.path.len() + content + if entry.secret { SECRET } else { 0 }
        })
        .sum();
    room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(bytes)).map_err(|_| {
        Failure::Usage(format!(
            "the files of all services have more than {} MiB, the most of one run; name fewer pillars at once",
            MOST_BYTES >> 20
        ))
    })?;
    let place = &service.service;
    let wait = place.timeout.whole_seconds();
    let disabled = (!place.enabled).then(|| Retired {
        service: service.application.clone(),
        directory: place.directory.clone(),
        link: place.link.clone(),
        wait,
    });
    let record = asked.sets.map(|sets| {
        let set = sets.get(span.source.0 as usize).map_or(UNNAMED_SET, String::as_str);
        Record::new(&service.application, set, &place.directory, wait, &entries)
            .using(used(&service))
            .running_in(&service.layout.run)
    });
    let hidden = if asked.files { secrets::values_of(&node) } else { vec![] };
    let known = asked.known.then(|| Known { service: Arc::clone(&service), key: key.clone(), span, node });
    let may_meet_itself = !asked.files && grounds::may_meet_itself(&service);
    let planned = Planned { service, key, span, entries, may_meet_itself, record, disabled, known, hidden };
    Ok(Ok((planned, claims)))
}

/// Services that cannot be on one host because they have the same name.
fn double_names(planned: &[Planned]) -> Vec<Diagnostic> {
    let mut by_name: Vec<&Planned> = planned.iter().collect();
    by_name.sort_by(|a, b| a.service.application.cmp(&b.service.application));
    let mut found = vec![];
    for pair in by_name.windows(2) {
        if let [one, two] = pair
            && one.service.application == two.service.application
        {
            let message = format!("the application `{}` is there twice", one.service.application);
            found.push(
                Diagnostic::error(&rule::DOUBLE_SERVICE, message)
                    .at(two.span, "again here")
                    .at(one.span, "first here"),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pillar::{Dialect, Format};
    use crate::source::{Source, SourceId};

    fn selected(text: String) -> (usize, Vec<Diagnostic>) {
        let parsed =
            pillar::parse(&Source::new("t", text), SourceId(0), Format::Yaml, Dialect::Salt).unwrap();
        let (applications, found) = select(parsed.documents, None);
        (applications.len(), found)
    }

    /// Each application gets a copy of its defaults.
    #[test]
    fn the_text_of_defaults_counts_for_each_application() {
        const MIB: usize = 1 << 20;
        let most = MOST_TEXT_OF_ALL / MIB;
        let pillar = |applications: usize, own: &str| {
            let each: String = (0..applications).map(|n| format!("  a{n}: {{{own}}}\n")).collect();
            let long = "x".repeat(MIB);
            format!("defaults: {{environment: {{A: {long}}}}}\napplications:\n{each}")
        };
        assert_eq!(selected(pillar(most - 1, "")), (most - 1, vec![]));
        let (kept, found) = selected(pillar(most + 20, ""));
        assert_eq!((kept, found.len()), (most - 1, 1), "the key and the name of the value count, too");
        assert!(
            found[0].rule == &rule::TOO_LARGE && found[0].message.contains("128 MiB of text"),
            "{found:?}"
        );
        let (kept, found) = selected(pillar(most - 1, &format!("app: {}", "y".repeat(2 * MIB / most))));
        assert_eq!((kept, found.len()), (most - 2, 1));
    }
}
