//! From documents to services: selected, checked against the schema, defaults filled in.

mod empty;
mod grounds;
mod json;
mod read_back;
mod secrets;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Severity};
use crate::failure::Failure;
use crate::model::{self, Service, input};
use crate::pillar::{self, Application, Merged, Node};
use crate::plan::{Contents, plan, plan_with};
use crate::record::{Record, Retired};
use crate::rule;
use crate::rules::{self, Claims, Texts};
use crate::schema::Checker;
use crate::source::Span;
use crate::template::Templates;
use crate::tree::{Entry, Kind, Tree};
use crate::visible::visible;
use json::{Nulls, json};

pub use empty::without_empty;
pub use read_back::{rendered, specimens};
pub use secrets::{masked, secret_spans, secrets_in_document, secrets_in_text};

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

/// The applications of all documents, and complaints about what is none. `key` is as in [`pillar::select`].
pub fn select(documents: Vec<Node>, key: Option<&str>) -> (Vec<Application>, Vec<Diagnostic>) {
    let mut found = vec![];
    let mut applications = vec![];
    for document in documents {
        let (some, complaints) = pillar::select(document, key);
        applications.extend(some.into_iter().flatten());
        found.extend(complaints);
    }
    (applications, found)
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

/// Checks one application and fills in its defaults.
pub fn service(application: Merged, checker: &Checker) -> Result<Placed, Vec<Diagnostic>> {
    let Merged { name, name_span, key, node, defaults } = application;
    let mut found = vec![];
    let mut nulls = vec![];
    let mut json = json(&node, &mut Nulls::Dropped(&mut nulls), &mut vec![], &mut found);
    let (findings, keys) = checker.check(&json, &node);
    found.extend(findings);
    found.extend(checker.unknown(&nulls, &node));
    if let Some(defaults) = defaults {
        for finding in wrong_defaults(&defaults, checker) {
            match found.iter_mut().find(|one| one.said() == finding.said()) {
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
        return Err(found);
    }
    let input: input::Application = serde_json::from_value(json).map_err(|error| {
        vec![
            Diagnostic::error(&rule::INVALID, format!("the application cannot be read: {error}"))
                .at(node.span, ""),
        ]
    })?;
    let context = model::Context { name: name.as_deref(), place, node: &node };
    let service = model::resolve(input, context)?;
    Ok(Placed { service, key, span: place, node })
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
    /// The set that they belong to; without one there are no records.
    pub set: Option<&'a str>,
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
}

/// What all applications come to.
#[derive(Default)]
struct All {
    /// Every entry in the order of the paths.
    wanted: Vec<Wanted>,
    records: Vec<Record>,
    disabled: Vec<Retired>,
    known: Vec<Known>,
    found: Vec<Diagnostic>,
    /// How many applications the rules have not looked at, because they are none yet.
    unjudged: usize,
    /// What nobody asks for any more.
    remains: (Vec<Planned>, Vec<Claims>),
}

/// An entry, and which application wants it.
type Wanted = (Entry, usize);

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
    let All { wanted, records, disabled, known, found, .. } =
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
        Ok(tree) => Ok(Rendered::Services(Services { tree, records, disabled, known, owners }, found)),
        // `clashes` has found and placed every one before.
        Err(clashes) => Err(Failure::Usage(format!("{} paths are wanted twice", clashes.len()))),
    }
}

/// What [`check`] found.
#[derive(Debug)]
pub struct Looked {
    /// Everything that [`render`] would find, with the built-in templates.
    pub found: Vec<Diagnostic>,
    /// How many applications the rules have not looked at, because what is wrong with them leaves nothing to look at.
    pub unjudged: usize,
}

/// Everything that is found about the applications, and what is left of them.
pub fn check(
    applications: Vec<Application>,
    texts: Texts<'_>,
    threads: usize,
) -> Result<(Looked, Remains), Failure> {
    let templates = Templates::built_in()?;
    let asked = Asked { threads, set: None, known: false, files: false };
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
    let asked = Asked { threads, set: None, known: true, files: true };
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
    let mut planned = Vec::with_capacity(applications.len());
    let mut claims = Vec::with_capacity(applications.len());
    for result in in_parallel(applications, asked.threads, |application| {
        plan_one(application, &checker, templates, texts, asked)
    }) {
        let (one, found) = result?;
        match one {
            Some((plan, claim)) => {
                planned.push(plan);
                claims.push(claim);
            }
            None => all.unjudged += 1,
        }
        all.found.extend(found);
    }
    let twice = double_names(&planned);
    // Two of one name want the same paths and addresses, and that has been said.
    if twice.is_empty() {
        let (found, meet) = in_two(
            asked.threads > 1,
            || rules::clashes(&claims),
            || if asked.files { vec![] } else { meeting(&planned) },
        );
        all.found.extend(found);
        plan_these(&meet, &mut planned, templates, asked.threads)?;
        all.records.extend(planned.iter_mut().filter_map(|one| one.record.take()));
        all.disabled.extend(planned.iter_mut().filter_map(|one| one.disabled.take()));
        all.known.extend(planned.iter_mut().filter_map(|one| one.known.take()));
        all.wanted = in_order(&mut planned);
        if !asked.files {
            compare_contents(&mut all.wanted, &planned, templates)?;
        }
        all.found.extend(clashes(&all.wanted, &planned));
    }
    all.found.extend(twice);
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

/// Where several applications want one file, its contents decide whether they want the same.
fn compare_contents(wanted: &mut [Wanted], from: &[Planned], templates: &Templates) -> Result<(), Failure> {
    let meets: Vec<bool> = (0..wanted.len())
        .map(|at| {
            let is_same =
                |other: Option<&Wanted>| other.is_some_and(|(one, _)| one.path == wanted[at].0.path);
            matches!(wanted[at].0.kind, Kind::File(_))
                && (is_same(at.checked_sub(1).and_then(|at| wanted.get(at))) || is_same(wanted.get(at + 1)))
        })
        .collect();
    // What one application wants lies all over the order; each is planned again once.
    let mut planned: BTreeMap<usize, Vec<Entry>> = BTreeMap::new();
    for ((entry, owner), _) in wanted.iter_mut().zip(meets).filter(|(_, meets)| *meets) {
        if !planned.contains_key(owner) {
            let Planned { service, key, .. } = &from[*owner];
            planned.insert(*owner, plan(service, key, templates)?);
        }
        // An application may want one path twice, and in the order in which they were planned.
        if let Some(entries) = planned.get_mut(owner)
            && let Some(at) = entries.iter().position(|one| one.path == entry.path)
        {
            entry.kind = entries.remove(at).kind;
        }
    }
    Ok(())
}

/// An application that can be used.
type Usable = (Planned, Claims);

/// What one application comes to, if nothing keeps it from being used, and everything found.
fn plan_one(
    application: Application,
    checker: &Checker,
    templates: &Templates,
    texts: Texts<'_>,
    asked: Asked<'_>,
) -> Result<(Option<Usable>, Vec<Diagnostic>), Failure> {
    let application = application.merge();
    let spelling = rules::check_spelling(&application.node, texts);
    let placed = match service(application, checker) {
        Ok(placed) => placed,
        Err(mut found) => {
            // A value that is refused need not be spelt better as well.
            let is_new = |finding: &Diagnostic| !found.iter().any(|other| other.span() == finding.span());
            let spelling: Vec<_> = spelling.into_iter().filter(is_new).collect();
            found.extend(spelling);
            return Ok((None, found));
        }
    };
    let mut found = spelling;
    let Placed { service, key, span, node } = placed;
    found.extend(rules::check(&service, &node, span));
    let service = Arc::new(service);
    let claims = rules::claims(&service, &node, span);
    let entries = match asked.files {
        true => sorted_plan(&service, &key, templates, Contents::Rendered)?,
        false => vec![],
    };
    let place = &service.service;
    let wait = place.timeout.whole_seconds();
    let disabled = (!place.enabled).then(|| Retired {
        service: service.application.clone(),
        directory: place.directory.clone(),
        link: place.link.clone(),
        wait,
    });
    let record =
        asked.set.map(|set| Record::new(&service.application, set, &place.directory, wait, &entries));
    let known = asked.known.then(|| Known { service: Arc::clone(&service), key: key.clone(), span, node });
    let may_meet_itself = grounds::may_meet_itself(&service);
    let planned = Planned { service, key, span, entries, may_meet_itself, record, disabled, known };
    Ok((Some((planned, claims)), found))
}

/// What an application leaves behind, in bytes, measured at 10,000.
const ROOM_OF_AN_ITEM: usize = 6 << 10;

/// glibc maps larger blocks by themselves in any case (DEFAULT_MMAP_THRESHOLD_MAX), in bytes.
const MOST_ROOM: usize = 30 << 20;

/// Lets the memory of this thread grow once instead of page by page.
///
/// glibc's malloc grows the heap of a thread other than the first by mprotect(2), 4 KiB at a time, which waits for every
/// page fault of the other threads and they for it: a fifth of the time of `validate`. A block that is given back raises
/// the size from which blocks are mapped by themselves, and the most that a heap keeps (mallopt(3), M_MMAP_THRESHOLD);
/// the next, smaller one makes the heap grow, and stays with it. Nothing is written to, so no memory is used up.
fn make_room(bytes: usize) {
    for size in [bytes, bytes.saturating_sub(64 << 10)] {
        std::hint::black_box(Vec::<u8>::with_capacity(size));
    }
}

/// Both of two things, at the same time if there are threads for that.
fn in_two<A, B: Send>(parallel: bool, one: impl FnOnce() -> A, other: impl FnOnce() -> B + Send) -> (A, B) {
    if !parallel {
        return (one(), other());
    }
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        (one(), other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Maps in order; each thread takes a run of neighbours.
pub(crate) fn in_parallel<T: Send, R: Send>(
    items: Vec<T>,
    threads: usize,
    map: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    /// Fewer than this are done before a thread has started.
    const WORTH_A_THREAD: usize = 32;
    let threads = threads.min(items.len() / WORTH_A_THREAD).max(1);
    if threads == 1 {
        return items.into_iter().map(map).collect();
    }
    let size = items.len().div_ceil(threads);
    let room = (size * ROOM_OF_AN_ITEM).min(MOST_ROOM);
    let mut runs = vec![];
    let mut items = items.into_iter();
    for _ in 0..threads {
        runs.push(items.by_ref().take(size).collect::<Vec<T>>());
    }
    std::thread::scope(|scope| {
        let map = &map;
        let handles: Vec<_> = runs
            .into_iter()
            .map(|run| {
                scope.spawn(move || {
                    make_room(room);
                    run.into_iter().map(map).collect::<Vec<R>>()
                })
            })
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
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

/// All entries in the order of their paths, each with the application that wants it.
///
/// Each application's are in order; what begins with the same two steps (`/etc/sv`, `/var/www`) is
/// brought together first. Applications mostly come in the order of their names, so the sort then
/// finds little to do, where comparing 200,000 paths all over was a good part of a run.
fn in_order(planned: &mut [Planned]) -> Vec<Wanted> {
    /// Where every application has a place of its own, bringing together does not help.
    const MOST_PARTS: usize = 32;
    let mut parts: Vec<(String, Vec<Wanted>)> = vec![];
    let mut count = 0;
    for (owner, planned) in planned.iter_mut().enumerate() {
        let entries = std::mem::take(&mut planned.entries);
        count += entries.len();
        let mut at = 0;
        for entry in entries {
            let begins = |part: &(String, _)| first_steps(&entry.path) == part.0;
            if parts.get(at).is_none_or(|part| !begins(part)) {
                at = parts.iter().position(begins).unwrap_or(parts.len()).min(MOST_PARTS);
            }
            if at == parts.len() {
                parts.push((first_steps(&entry.path).to_owned(), vec![]));
            }
            parts[at].1.push((entry, owner));
        }
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let mut all = Vec::with_capacity(count);
    parts.into_iter().for_each(|(_, part)| all.extend(part));
    all.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    all
}

/// `/etc/sv` of `/etc/sv/shop/run`. The third step is the application's, mostly.
fn first_steps(path: &str) -> &str {
    path.match_indices('/').nth(2).map_or(path, |(end, _)| &path[..end])
}

/// Paths that are wanted for different things; `wanted` is in order.
fn clashes(wanted: &[Wanted], planned: &[Planned]) -> Vec<Diagnostic> {
    let mut found = vec![];
    for pair in wanted.windows(2) {
        if let [(one, first), (two, second)] = pair
            && one.path == two.path
            && one != two
        {
            let message = format!("{} is wanted twice, and not alike", visible(&one.path));
            let diagnostic = Diagnostic::error(&rule::PATH_CLASH, message)
                .at(planned[*second].span, "this application wants it");
            found.push(if first == second {
                diagnostic
            } else {
                diagnostic.at(planned[*first].span, "and so does this one")
            });
        }
    }
    found
}
