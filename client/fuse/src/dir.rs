//! One open directory: a cursor over its listing with bounded memory.
//!
//! A cursor is opened with the directory and lives until it is closed. The listing streams
//! through it page by page, and each entry has the offset of its place in the stream, so an
//! entry that was there from start to end is seen exactly once however the directory changes
//! meanwhile. The last [`WINDOW`] entries are kept, so that steps back are exact; a step
//! further back lists again and goes on after the entry that was at that place (found by
//! name, or by count if it is gone). Going back to the start lists anew, as `rewinddir`
//! asks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fuser::FileAttr;
use futures::StreamExt;
use futures::stream::BoxStream;
use millpond_client::{ClientError, DirEntry, FileSystem, Page};
use millpond_proto::FileId;

use crate::attr::AttrStyle;

/// Entries that stay readable after they were passed, about 2 MiB; beside them a cursor
/// holds one page as the store gave it.
pub(crate) const WINDOW: usize = 8192;

/// Every so many entries the name is kept for steps far back.
const STRIDE: usize = 1024;

/// The longest name that the kernel takes in a listing; a longer one would fail the whole.
const NAME_MAX: usize = 1023;

/// An entry, as far as the kernel is told about it.
#[derive(Debug, Clone)]
pub(crate) struct DirItem {
    pub(crate) name: Box<str>,
    /// Its inode number is filled in when it is given out.
    pub(crate) attr: FileAttr,
    pub(crate) version: Option<FileId>,
    /// Until when the kernel may believe it.
    pub(crate) believed_until: Instant,
}

impl DirItem {
    pub(crate) fn shown(&self, now: Instant) -> Shown<'_> {
        Shown {
            name: &self.name,
            attr: self.attr,
            version: self.version,
            valid: self.believed_until.saturating_duration_since(now),
        }
    }
}

/// What the kernel is told about an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) name: &'a str,
    /// Its inode number is filled in when it is given out.
    pub(crate) attr: FileAttr,
    pub(crate) version: Option<FileId>,
    /// How long it may be believed.
    pub(crate) valid: Duration,
}

/// The stream of a directory's pages.
type Pages = BoxStream<'static, Result<Page, ClientError>>;

/// A place in a directory's listing. Entry numbers start at 0 and do not count `.` and `..`.
pub(crate) struct DirCursor {
    fs: FileSystem,
    style: AttrStyle,
    path: String,
    pages: Option<Pages>,
    /// Number of the first entry in `window`.
    base: usize,
    window: VecDeque<DirItem>,
    at_end: bool,
    /// The listing failed: its stream is gone, the places given so far still count.
    broken: bool,
    /// The names of entries 0, `STRIDE`, 2 × `STRIDE`, …
    anchors: Vec<Box<str>>,
}

impl std::fmt::Debug for DirCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirCursor")
            .field("path", &self.path)
            .field("base", &self.base)
            .field("window", &self.window.len())
            .field("at_end", &self.at_end)
            .finish_non_exhaustive()
    }
}

impl DirCursor {
    pub(crate) fn new(fs: FileSystem, style: AttrStyle, path: String) -> Self {
        Self {
            fs,
            style,
            path,
            pages: None,
            base: 0,
            window: VecDeque::new(),
            at_end: false,
            broken: false,
            anchors: Vec::new(),
        }
    }

    /// Whether entry `number` can be given without waiting (or is known not to exist).
    pub(crate) fn is_at_hand(&self, number: usize) -> bool {
        (self.base..self.next()).contains(&number) || (self.at_end && number >= self.next())
    }

    /// Entry `number`, if it is at hand.
    pub(crate) fn item(&self, number: usize) -> Option<&DirItem> {
        self.window.get(number.checked_sub(self.base)?)
    }

    /// Forgets everything: the next step lists from the start.
    pub(crate) fn rewind(&mut self) {
        self.restart();
        self.anchors.clear();
    }

    /// Whether anything was listed since the start.
    pub(crate) fn has_moved(&self) -> bool {
        self.pages.is_some() || self.at_end || self.broken
    }

    /// Brings entry `number` to hand, or finds out that the listing ends before it.
    ///
    /// # Errors
    /// Those of [`FileSystem::pages`]; the next call lists again up to the same place.
    pub(crate) async fn seek(&mut self, number: usize) -> Result<(), ClientError> {
        if number < self.base || self.broken {
            self.go_back(number).await?;
        }
        while !self.is_at_hand(number) {
            match self.load_page().await? {
                Some(page) => self.append(page, number),
                None => self.at_end = true,
            }
        }
        Ok(())
    }

    fn next(&self) -> usize {
        self.base + self.window.len()
    }

    fn restart(&mut self) {
        self.pages = None;
        self.base = 0;
        self.window.clear();
        self.at_end = false;
        self.broken = false;
    }

    /// Lists again up to the anchor before `number`.
    async fn go_back(&mut self, number: usize) -> Result<(), ClientError> {
        let anchor = (number / STRIDE).min(self.anchors.len().saturating_sub(1));
        let Some(name) = self.anchors.get(anchor).cloned() else {
            self.restart();
            return Ok(());
        };
        let start = anchor * STRIDE;
        for by_name in [true, false] {
            self.restart();
            let mut passed = 0;
            while let Some(mut page) = self.load_page().await? {
                let found = if by_name {
                    page.iter().position(|item| item.name == name)
                } else {
                    start.checked_sub(passed).filter(|at| *at < page.len())
                };
                if let Some(found) = found {
                    self.base = start;
                    self.append(page.split_off(found), number);
                    return Ok(());
                }
                passed += page.len();
            }
        }
        // The directory shrank to less than the place asked for.
        self.base = start;
        self.at_end = true;
        Ok(())
    }

    /// The next page of the stream; `None` at its end.
    async fn load_page(&mut self) -> Result<Option<Vec<DirItem>>, ClientError> {
        let pages = self.pages.get_or_insert_with(|| self.fs.pages(&self.path));
        let page = pages.next().await.transpose();
        match &page {
            Ok(Some(_)) => {}
            Ok(None) => self.pages = None,
            Err(_) => {
                self.restart();
                self.broken = true;
            }
        }
        let page = page?;
        Ok(page.map(|page| {
            let now = Instant::now();
            let believed_until = now + page.valid(now);
            let entries = page.entries().iter();
            entries
                .filter_map(|entry| self.item_of(entry, believed_until))
                .collect()
        }))
    }

    fn item_of(&self, entry: &DirEntry, believed_until: Instant) -> Option<DirItem> {
        if !is_listable(&entry.name) {
            tracing::debug!(
                name = &*entry.name,
                "left out a name that the kernel refuses"
            );
            return None;
        }
        Some(DirItem {
            attr: self.style.file_attr(0, &entry.attr),
            version: entry.attr.file_id,
            name: (*entry.name).into(),
            believed_until,
        })
    }

    /// Adds a page, and lets go of what is more than [`WINDOW`] before entry `wanted`.
    fn append(&mut self, page: Vec<DirItem>, wanted: usize) {
        for item in page {
            if self.next() == self.anchors.len() * STRIDE {
                self.anchors.push(item.name.clone());
            }
            self.window.push_back(item);
        }
        let keep_from = wanted.saturating_sub(WINDOW);
        let surplus = keep_from.saturating_sub(self.base).min(self.window.len());
        self.window.drain(..surplus);
        self.base += surplus;
    }
}

/// Whether the kernel takes `name`: one bad name fails a whole reply.
pub(crate) fn is_listable(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name != "."
        && name != ".."
        && !name.bytes().any(|byte| byte == b'/' || byte == 0)
}
