//! Which version of a file one inode stands for while it is open.

use std::sync::Arc;

use fuser::FileAttr;
use millpond_client::Draft;
use millpond_proto::FileId;

use super::live::Live;

/// The open handles of one inode and the version whose pages the kernel may hold.
///
/// The kernel has one page cache per inode, whatever handle filled it. So all handles that
/// are open on an inode at one time are of one version: a second version needs a second
/// inode.
///
/// A file that is written through this mount goes from version to version while it is open: its
/// pages are those of its draft, which the kernel itself has written to.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    /// The version opened last; its pages may be in the kernel.
    pages: Option<FileId>,
    /// Whether the kernel has surely dropped the pages of earlier versions.
    settled: bool,
    opens: u32,
    attr: Option<FileAttr>,
    /// Has the draft while the file is open and was written.
    live: Arc<Live>,
}

/// What to answer to an open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    /// The pages that the kernel holds are of this version.
    pub(crate) keep_pages: bool,
    /// The attributes that the kernel holds are of another version (or of an unknown one):
    /// it must ask again before it trusts the size.
    pub(crate) refresh_attributes: bool,
}

impl OpenFiles {
    /// Counts an open of `version`; says whether pages may be kept, or `None` when another
    /// version is open.
    ///
    /// The kernel drops pages when it handles the *answer* to an open, and it may handle the
    /// answer to a later open first. So pages are dropped by every open of a new version until
    /// [`settle`](Self::settle) has shown that one of them is through.
    pub(crate) fn open(&mut self, version: FileId, attr: FileAttr) -> Option<bool> {
        if self.opens > 0 && self.open_version().is_some_and(|open| open != version) {
            return None;
        }
        self.show(Some(version));
        self.attr = Some(attr);
        self.opens += 1;
        Some(self.settled)
    }

    /// Counts an open of `draft`, as [`open`](Self::open) does one of a version.
    pub(crate) fn open_draft(&mut self, draft: &Arc<Draft>) -> Option<bool> {
        if self.opens > 0 && !self.has(draft) {
            return None;
        }
        self.join(draft);
        self.opens += 1;
        Some(self.settled)
    }

    /// Has those who have the file open read `draft` from now on, which is of the version that
    /// is open; says whether it is.
    pub(crate) fn join(&mut self, draft: &Arc<Draft>) -> bool {
        if self.opens > 0 && !self.has(draft) {
            return false;
        }
        if self.live.draft().is_none() {
            self.show(draft.below());
        }
        self.live.set(Some(Arc::clone(draft)));
        true
    }

    /// Whether `draft` is what is open, or is written over it.
    fn has(&self, draft: &Arc<Draft>) -> bool {
        match self.live.draft() {
            Some(open) => {
                Arc::ptr_eq(&open, draft)
                    || open
                        .version()
                        .is_some_and(|version| draft.below() == Some(version))
            }
            None => self.pages.is_some() && self.pages == draft.below(),
        }
    }

    /// The pages in the kernel are of `version` from now on, or go.
    fn show(&mut self, version: Option<FileId>) {
        let same = self.live.draft().is_some() || (self.pages.is_some() && self.pages == version);
        self.settled &= same;
        self.pages = version;
    }

    /// Notes a read through a handle whose open dropped the pages: the kernel sends none
    /// before it has handled the answer to that open. `version` is that of the handle, if it
    /// has one of its own.
    pub(crate) fn settle(&mut self, version: Option<FileId>) {
        let is_open = self.live.draft().is_some() || self.open_version() == version;
        if self.opens > 0 && is_open {
            self.settled = true;
        }
    }

    pub(crate) fn release(&mut self) {
        self.opens = self.opens.saturating_sub(1);
        if self.opens == 0
            && let Some(draft) = self.live.draft()
        {
            // Of what is not a version yet, it is not known which it will be.
            self.pages = draft.version();
            self.settled &= self.pages.is_some();
            self.attr = None;
            self.live.set(None);
        }
    }

    /// The version that is held open now; none of a file that is not one of the store's yet.
    pub(crate) fn open_version(&self) -> Option<FileId> {
        if self.opens == 0 {
            return None;
        }
        match self.live.draft() {
            Some(draft) => draft.version(),
            None => self.pages,
        }
    }

    /// The attributes of the version that is held open now, unless it is written.
    pub(crate) fn pinned(&self) -> Option<FileAttr> {
        let pinned = self.attr.filter(|_| self.opens > 0);
        pinned.filter(|_| self.live.draft().is_none())
    }

    /// The attributes that are shown while it is open are from now on those of `attr`, all but
    /// the size.
    pub(crate) fn changed(&mut self, attr: &FileAttr) {
        if let Some(shown) = &mut self.attr {
            *shown = FileAttr {
                size: shown.size,
                blocks: shown.blocks,
                ..*attr
            };
        }
    }

    /// The file has one name less.
    pub(crate) fn unlinked(&mut self) {
        if let Some(shown) = &mut self.attr {
            shown.nlink = shown.nlink.saturating_sub(1);
            shown.ctime = std::time::SystemTime::now();
        }
    }

    /// What all handles have in common.
    pub(crate) const fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Whether nobody has it open.
    pub(crate) const fn is_closed(&self) -> bool {
        self.opens == 0
    }
}
