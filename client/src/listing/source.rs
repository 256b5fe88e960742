//! One listing as its store gives it: page by page, begun again where it broke off.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use millpond_proto::{ErrorKind, MountId};
use millpond_ufs::ufs::EntryStream;
use millpond_ufs::{Entry, Ufs};
use rand::Rng as _;
use tokio::time::{sleep, timeout_at};

use crate::attr::{Attr, DirEntry};
use crate::core::Core;
use crate::error::ClientError;
use crate::namespace;
use crate::owner::Aged;

/// A directory to list.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) path: String,
    pub(super) mount: MountId,
    /// The path below the mount.
    pub(super) below: String,
    pub(super) generation: u64,
    /// Names that are hidden by mounts.
    pub(super) hidden: HashSet<String>,
    /// Whether the store need not have the directory.
    pub(super) may_be_absent: bool,
}

/// How far a listing got: where another one of the same directory has to go on.
#[derive(Debug, Default, Clone)]
pub(super) struct Resume {
    /// Entries passed, hidden ones included.
    count: usize,
    /// The names of the last few, in the order in which they came.
    last: VecDeque<Arc<str>>,
}

/// A listing under way.
pub(super) struct Source {
    target: Target,
    passed: Resume,
    stream: Option<Stream>,
    /// The directory's owner failed: the store itself is asked.
    direct: bool,
}

struct Stream {
    ufs: Arc<dyn Ufs>,
    pages: BoxStream<'static, Result<Aged, ClientError>>,
    skip: Skip,
    /// Whether the directory's owner gives the pages.
    by_owner: bool,
}

/// What a listing that was begun again has to pass over.
enum Skip {
    Nothing,
    /// Everything up to this name.
    To(Arc<str>),
    /// So many entries: the names are gone.
    Count(usize),
}

/// A page as it came.
pub(super) struct Raw {
    pub(super) entries: Vec<DirEntry>,
    pub(super) asked_at: Instant,
}

impl Source {
    /// A listing of `target` that goes on after `passed`.
    pub(super) const fn new(target: Target, passed: Resume) -> Self {
        Self {
            target,
            passed,
            stream: None,
            direct: false,
        }
    }

    pub(super) const fn target(&self) -> &Target {
        &self.target
    }

    /// The next page that is not empty; none at the end. A store that fails for a moment is
    /// asked again until the client's deadline.
    ///
    /// # Cancel safety
    /// Safe: the page that was waited for comes with the next call.
    pub(super) async fn next(&mut self, core: &Arc<Core>) -> Result<Option<Raw>, ClientError> {
        let deadline = tokio::time::Instant::now() + core.config.deadline;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match timeout_at(deadline, self.step(core)).await {
                Ok(Ok(Some((page, asked_at)))) => {
                    let entries = self.take(core, page);
                    if entries.is_empty() {
                        continue;
                    }
                    return Ok(Some(Raw { entries, asked_at }));
                }
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => error,
                Err(_) => {
                    self.stream = None;
                    return Err(core.too_late("listing", &self.target.path));
                }
            };
            let stream = self.stream.take();
            if stream.as_ref().is_some_and(|stream| stream.by_owner) {
                self.direct = true;
                continue;
            }
            // Without a stream it is the store that is not there, not the directory.
            let listed = stream.is_some();
            if error.kind() == ErrorKind::NotFound
                && listed
                && self.target.may_be_absent
                && self.passed.count == 0
            {
                return Ok(None);
            }
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            let again = tokio::time::Instant::now() + jittered;
            if !error.kind().is_transient() || again >= deadline {
                return Err(self.target.explain(core, error).await);
            }
            tracing::debug!(
                path = self.target.path,
                error = &error as &dyn std::error::Error,
                "a listing broke off, trying again"
            );
            core.metrics.metadata_retries.inc();
            sleep(jittered).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The next page of the store, what was passed before included.
    async fn step(&mut self, core: &Arc<Core>) -> Result<Option<Aged>, ClientError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = open(core, &self.target, self.passed.skip(), self.direct).await?;
                self.stream.insert(stream)
            }
        };
        loop {
            match stream.pages.next().await {
                Some(Ok(page)) => return Ok(Some(page)),
                Some(Err(error)) => return Err(error),
                None => {}
            }
            if !matches!(stream.skip, Skip::To(_)) {
                return Ok(None);
            }
            // The entry where it broke off is gone: from the one before it on all are new.
            self.passed.forget_last();
            *stream = open(core, &self.target, self.passed.skip(), self.direct).await?;
        }
    }

    /// The entries of `page` that are new and shown.
    fn take(&mut self, core: &Core, mut page: Vec<Entry>) -> Vec<DirEntry> {
        let Some(stream) = &mut self.stream else {
            return Vec::new();
        };
        match &mut stream.skip {
            Skip::Nothing => {}
            Skip::To(name) => match page.iter().position(|entry| *entry.name == **name) {
                Some(at) => {
                    page.drain(..=at);
                    stream.skip = Skip::Nothing;
                }
                None => return Vec::new(),
            },
            Skip::Count(left) => {
                let passed = page.len().min(*left);
                page.drain(..passed);
                *left -= passed;
                if *left == 0 {
                    stream.skip = Skip::Nothing;
                }
            }
        }
        let ufs = Arc::clone(&stream.ufs);
        self.passed
            .add(page.iter().map(|entry| entry.name.as_str()));
        page.into_iter()
            .filter(|entry| !self.target.hidden.contains(&entry.name))
            .map(|entry| self.entry(core, &*ufs, entry))
            .collect()
    }

    fn entry(&self, core: &Core, ufs: &dyn Ufs, entry: Entry) -> DirEntry {
        let Target { path, below, .. } = &self.target;
        let attr = match below.is_empty() {
            true => Attr::of(entry.metadata, self.target.mount, ufs, &entry.name),
            false => {
                let below = format!("{below}/{}", entry.name);
                Attr::of(entry.metadata, self.target.mount, ufs, &below)
            }
        };
        let path = namespace::join(path, &entry.name);
        let attr = core.metadata.complete(&path, self.target.generation, attr);
        DirEntry {
            name: entry.name.into(),
            attr: Arc::new(attr),
        }
    }
}

impl Target {
    /// Says what is wrong with the path in terms of the namespace, where that is known.
    async fn explain(&self, core: &Arc<Core>, error: ClientError) -> ClientError {
        let at_root = self.below.is_empty();
        if at_root || !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) {
            return error;
        }
        let path = self.path.clone();
        match core.look_up(&path).await {
            Ok(attr) if !attr.is_dir() => ClientError::NotADirectory { path },
            Err(error @ ClientError::NotFound { .. }) => error,
            Ok(_) | Err(_) => error,
        }
    }
}

impl Resume {
    /// After these `entries`, too.
    pub(super) fn pass(&mut self, entries: &[DirEntry]) {
        self.add(entries.iter().map(|entry| &*entry.name));
    }

    fn add<'a>(&mut self, names: impl ExactSizeIterator<Item = &'a str>) {
        let count = names.len();
        self.count += count;
        self.last
            .extend(names.skip(count.saturating_sub(REMEMBERED)).map(Arc::from));
        while self.last.len() > REMEMBERED {
            self.last.pop_front();
        }
    }

    /// What a listing that goes on from here passes over. Where all remembered names are gone,
    /// as many as there were: too many, if yet others are gone.
    fn skip(&self) -> Skip {
        match self.last.back() {
            Some(name) => Skip::To(Arc::clone(name)),
            None if self.count > 0 => Skip::Count(self.count),
            None => Skip::Nothing,
        }
    }

    fn forget_last(&mut self) {
        if self.last.pop_back().is_some() {
            self.count -= 1;
        }
    }
}

async fn open(
    core: &Arc<Core>,
    target: &Target,
    skip: Skip,
    direct: bool,
) -> Result<Stream, ClientError> {
    let snapshot = core.snapshot();
    let ufs = core.open_store(&snapshot, target.mount).await?;
    let trust = snapshot.trust(target.mount, core.metadata.default_trust());
    // Only from the start: who goes on where another broke off may have read the owner's.
    let question = match direct || !matches!(skip, Skip::Nothing) {
        true => None,
        false => core.question_for(&snapshot, target.mount, &target.below, trust),
    };
    Ok(match question {
        Some(question) => Stream {
            pages: core.pages_by_owner(question),
            ufs,
            skip,
            by_owner: true,
        },
        None => Stream {
            pages: aged(ufs.list(&target.below)),
            ufs,
            skip,
            by_owner: false,
        },
    })
}

/// The pages of a store, with when each was asked for.
fn aged(pages: EntryStream) -> BoxStream<'static, Result<Aged, ClientError>> {
    stream::unfold(pages, |mut pages| async {
        let asked_at = Instant::now();
        let page = pages.next().await?;
        let page = page.map(|entries| (entries, asked_at)).map_err(Into::into);
        Some((page, pages))
    })
    .boxed()
}

/// The last names that a listing remembers: it goes on after the latest of them that is left.
const REMEMBERED: usize = 8;

/// The first pause before a store that failed is asked again.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest such pause.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(2);
