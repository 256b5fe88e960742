//! Which version of a file one inode stands for while it is open.

use fuser::FileAttr;
use millpond_proto::FileId;

/// The open handles of one inode and the version whose pages the kernel may hold.
///
/// The kernel has one page cache per inode, whatever handle filled it. So all handles that
/// are open on an inode at one time are of one version: a second version needs a second
/// inode.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    /// The version opened last; its pages may be in the kernel.
    pages: Option<FileId>,
    /// Whether the kernel has surely dropped the pages of earlier versions.
    settled: bool,
    opens: u32,
    attr: Option<FileAttr>,
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
        let same = self.pages == Some(version);
        if self.opens > 0 && !same {
            return None;
        }
        self.pages = Some(version);
        self.settled &= same;
        self.attr = Some(attr);
        self.opens += 1;
        Some(self.settled)
    }

    /// Notes a read through a handle whose open dropped the pages: the kernel sends none
    /// before it has handled the answer to that open.
    pub(crate) fn settle(&mut self, version: FileId) {
        if self.open_version() == Some(version) {
            self.settled = true;
        }
    }

    pub(crate) fn release(&mut self) {
        self.opens = self.opens.saturating_sub(1);
    }

    /// The version that is held open now.
    pub(crate) fn open_version(&self) -> Option<FileId> {
        self.pages.filter(|_| self.opens > 0)
    }

    /// The attributes of the version that is held open now.
    pub(crate) fn pinned(&self) -> Option<FileAttr> {
        self.attr.filter(|_| self.opens > 0)
    }
}
