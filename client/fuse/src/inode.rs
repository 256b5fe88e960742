//! Inode numbers: what the kernel calls files by, and how many times it was told.
//!
//! An inode number is derived from (parent number, name), so that it is the same each time
//! the path is looked up, also after the kernel forgot it and the table dropped it. The
//! table holds exactly the inodes that the kernel still knows, plus their ancestors: it
//! grows with what the kernel caches and shrinks with what it forgets, with no limit of its
//! own. Names are stored once; paths are made by walking up.

mod affected;
mod live;
mod names;
mod spread;
mod version;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use fuser::{FileAttr, FileType};
use millpond_client::Draft;
use millpond_proto::FileId;

use crate::attr::Kept;
pub(crate) use affected::Affected;
pub(crate) use live::Live;
use names::MoreNames;
use spread::Spread;
pub(crate) use version::{OpenFiles, Opened};

/// The inode number of the mount's root.
pub(crate) const ROOT: u64 = 1;

/// What the inode of a file stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A name, and while it is open one version: the kernel asks at every open.
    Name,
    /// One version of a name, for good: the kernel may open it without asking, because its
    /// pages can never be of another.
    Version,
}

/// The inodes that the kernel knows.
///
/// Invariants:
/// - a node is present exactly while its lookup count is above zero or a child is present;
/// - at most one node per (parent, name) is attached; the others were replaced while open (or
///   while the kernel knew them, where an inode stands for a version);
/// - two nodes never share a number;
/// - with [`Identity::Version`] the version of a file's node never changes once it is known.
#[derive(Debug)]
pub(crate) struct InodeTable {
    /// The path of the mount's root in the namespace, "" for the namespace's own.
    root: Box<str>,
    identity: Identity,
    nodes: HashMap<u64, Node, Spread>,
    /// Attached nodes whose first-choice number was taken when they came, and those that have
    /// got another name since. Nearly always empty where nothing is renamed: else it fills on a
    /// 63-bit hash collision or when an open file is replaced.
    displaced: HashMap<(u64, Box<str>), u64>,
    more_names: MoreNames,
    derive: Derive,
}

/// Derives the `attempt`-th candidate number for a name in a directory.
type Derive = fn(parent: u64, name: &str, attempt: u32) -> u64;

#[derive(Debug)]
struct Node {
    parent: u64,
    name: Box<str>,
    lookups: u64,
    children: u64,
    kind: FileType,
    /// Replaced while open: the name now belongs to another inode.
    detached: bool,
    /// The version that the attributes last given to the kernel are of, where known.
    seen: Option<FileId>,
    /// The attributes of that version, where the inode stands for it.
    kept: Option<Kept>,
    files: Option<Box<OpenFiles>>,
}

/// What the kernel should be told about a name it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Looked {
    /// The inode, with one more lookup counted.
    pub(crate) ino: u64,
    /// Attributes of the version that is held open, to be given instead of the store's.
    pub(crate) pinned: Option<FileAttr>,
}

impl InodeTable {
    pub(crate) fn new(identity: Identity) -> Self {
        Self::with_derivation(identity, derive_ino)
    }

    fn with_derivation(identity: Identity, derive: Derive) -> Self {
        let root = Node {
            parent: ROOT,
            name: "".into(),
            lookups: 1,
            children: 0,
            kind: FileType::Directory,
            detached: false,
            seen: None,
            kept: None,
            files: None,
        };
        let mut nodes = HashMap::default();
        nodes.insert(ROOT, root);
        Self {
            root: Box::from(""),
            identity,
            nodes,
            displaced: HashMap::new(),
            more_names: MoreNames::new(),
            derive,
        }
    }

    /// The table of a mount whose root is the directory `path` of the namespace.
    pub(crate) fn below(mut self, path: &str) -> Self {
        self.root = path.trim_end_matches('/').into();
        self
    }

    /// The path of the mount's root in the namespace, "" for the namespace's own.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// Inodes present, the root included.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The path of an inode in the namespace: absolute, `/` for the namespace's root.
    pub(crate) fn path(&self, ino: u64) -> Option<String> {
        let mut names = Vec::with_capacity(8);
        let mut at = ino;
        while at != ROOT {
            let node = self.nodes.get(&at)?;
            names.push(&*node.name);
            at = node.parent;
        }
        let below: usize = names.iter().map(|name| name.len() + 1).sum();
        let mut path = String::with_capacity(self.root.len() + below + 1);
        path.push_str(&self.root);
        for name in names.iter().rev() {
            path.push('/');
            path.push_str(name);
        }
        if path.is_empty() {
            path.push('/');
        }
        Some(path)
    }

    /// The path of `name` in the directory `parent`.
    pub(crate) fn child_path(&self, parent: u64, name: &str) -> Option<String> {
        let mut path = self.path(parent)?;
        if !path.ends_with('/') {
            path.push('/');
        }
        path.push_str(name);
        Some(path)
    }

    /// The parent of an inode; the root is its own.
    pub(crate) fn parent(&self, ino: u64) -> Option<u64> {
        self.nodes.get(&ino).map(|node| node.parent)
    }

    /// The number that [`lookup`](Self::lookup) would give, without counting a lookup.
    pub(crate) fn peek(&self, parent: u64, name: &str) -> u64 {
        self.find(parent, name).unwrap_or_else(|free| free.ino)
    }

    /// Counts one lookup of `name` in `parent`, which the caller must pass on to the kernel
    /// (or take back with [`forget`](Self::forget)). `None` when `parent` is not known.
    ///
    /// `version` is that of the attributes that the caller is about to give, and to
    /// [`keep`](Self::keep). When another version is held open under this name (or the inode
    /// stands for another version), the name moves to a new inode and the open handles keep
    /// the old one with their pages and attributes.
    pub(crate) fn lookup(
        &mut self,
        parent: u64,
        name: &str,
        kind: FileType,
        version: Option<FileId>,
    ) -> Option<Looked> {
        if !self.nodes.contains_key(&parent) {
            return None;
        }
        let mut found = self.find(parent, name);
        if let Ok(ino) = found
            && self.is_taken_by_other(ino, kind, version)
        {
            self.detach(ino);
            found = self.find(parent, name);
        }
        let ino = found.unwrap_or_else(|free| self.insert(parent, name, kind, free));
        let node = self.nodes.get_mut(&ino)?;
        node.lookups += 1;
        let pinned = node.pinned(ino);
        if pinned.is_none() {
            node.kind = kind;
            node.seen = version;
        }
        Some(Looked { ino, pinned })
    }

    /// Keeps the attributes of the version that `ino` stands for, if it does: they are what
    /// the inode has for as long as it lives, whatever its name holds by then.
    pub(crate) fn keep(&mut self, ino: u64, attr: &FileAttr) {
        if self.identity == Identity::Version
            && let Some(node) = self.nodes.get_mut(&ino)
            && node.seen.is_some()
        {
            node.kept = Some(Kept::of(attr));
        }
    }

    /// The version that the file `ino` stands for, where it does.
    pub(crate) fn version(&self, ino: u64) -> Option<FileId> {
        let node = self.nodes.get(&ino)?;
        node.kept.and(node.seen)
    }

    /// The parent of an inode and the name that it was looked up by.
    pub(crate) fn entry(&self, ino: u64) -> Option<(u64, &str)> {
        let node = self.nodes.get(&ino)?;
        Some((node.parent, &node.name))
    }

    /// Takes back `count` lookups. The inode goes when none is left and nothing below it
    /// is known; returns whether it went.
    pub(crate) fn forget(&mut self, ino: u64, count: u64) -> bool {
        if ino == ROOT {
            return false;
        }
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(count);
            self.sweep(ino);
        }
        !self.nodes.contains_key(&ino)
    }

    /// Makes the name of `ino` free for another inode; the kernel may go on using `ino`.
    pub(crate) fn detach(&mut self, ino: u64) {
        let Some(node) = self.nodes.get_mut(&ino) else {
            return;
        };
        if ino == ROOT || node.detached {
            return;
        }
        node.detached = true;
        let key = (node.parent, node.name.clone());
        if self.displaced.get(&key) == Some(&ino) {
            self.displaced.remove(&key);
        }
        self.drop_names(ino);
    }

    /// Notes that attributes of `version` and `kind` go to the kernel for `ino`. Returns
    /// the attributes to give instead, when a version is held open.
    ///
    /// # Errors
    /// [`Replaced`] when the name now holds another kind of thing than this inode was.
    pub(crate) fn attributes(
        &mut self,
        ino: u64,
        kind: FileType,
        version: Option<FileId>,
    ) -> Result<Option<FileAttr>, Replaced> {
        let node = self.nodes.get_mut(&ino).ok_or(Replaced)?;
        if let Some(pinned) = node.pinned(ino) {
            return Ok(Some(pinned));
        }
        if node.kind != kind || node.detached {
            return Err(Replaced);
        }
        node.seen = version;
        Ok(None)
    }

    /// The attributes of the version of `ino` that is held open, if one is, or that it
    /// stands for.
    pub(crate) fn pinned(&self, ino: u64) -> Option<FileAttr> {
        self.nodes.get(&ino)?.pinned(ino)
    }

    /// Counts an open of `version` on `ino`; `attr` are its attributes.
    ///
    /// # Errors
    /// [`Replaced`] when another version is open on this inode (the name is then free for
    /// a new inode, which the kernel gets when it looks the name up again) or the inode was
    /// replaced before.
    pub(crate) fn open(
        &mut self,
        ino: u64,
        version: FileId,
        attr: FileAttr,
    ) -> Result<Opened, Replaced> {
        let node = self.nodes.get_mut(&ino).ok_or(Replaced)?;
        if node.detached {
            return Err(Replaced);
        }
        let seen = node.seen;
        let files = node.files.get_or_insert_with(Box::default);
        match files.open(version, attr) {
            Some(keep_pages) => {
                node.seen = Some(version);
                Ok(Opened {
                    keep_pages,
                    refresh_attributes: seen != Some(version),
                })
            }
            None => {
                self.detach(ino);
                Err(Replaced)
            }
        }
    }

    /// Counts an open of `draft` on `ino`: from now on all who have it open see what is written.
    ///
    /// # Errors
    /// [`Replaced`] when another version is open on this inode or the inode was replaced
    /// before, as with [`open`](Self::open).
    pub(crate) fn open_draft(&mut self, ino: u64, draft: &Arc<Draft>) -> Result<Opened, Replaced> {
        let node = self.nodes.get_mut(&ino).ok_or(Replaced)?;
        if node.detached {
            return Err(Replaced);
        }
        let files = node.files.get_or_insert_with(Box::default);
        match files.open_draft(draft) {
            Some(keep_pages) => {
                let seen = node.seen;
                node.seen = draft.version();
                Ok(Opened {
                    keep_pages,
                    refresh_attributes: seen.is_none() || seen != node.seen,
                })
            }
            None => {
                self.detach(ino);
                Err(Replaced)
            }
        }
    }

    /// Has those who have `ino` open, if anybody has, read `draft` from now on. Where they have
    /// another version open than it is written over, they keep that.
    pub(crate) fn join_draft(&mut self, ino: u64, draft: &Arc<Draft>) {
        let Some(node) = self.nodes.get_mut(&ino) else {
            return;
        };
        if let Some(files) = node.files.as_mut().filter(|files| !files.is_closed())
            && !files.join(draft)
        {
            self.detach(ino);
        }
    }

    /// The draft of the file that is open on `ino`, if it was written since it was opened.
    pub(crate) fn draft(&self, ino: u64) -> Option<Arc<Draft>> {
        self.nodes.get(&ino)?.files.as_ref()?.live().draft()
    }

    /// What the handles that are open on `ino` have in common.
    pub(crate) fn live(&self, ino: u64) -> Arc<Live> {
        let files = self.nodes.get(&ino).and_then(|node| node.files.as_ref());
        files
            .map(|files| Arc::clone(files.live()))
            .unwrap_or_default()
    }

    /// Notes that a read or a write arrived on `ino` through a handle whose open of `version`
    /// was answered without [`keep_pages`](Opened::keep_pages).
    pub(crate) fn settle(&mut self, ino: u64, version: Option<FileId>) {
        if let Some(node) = self.nodes.get_mut(&ino)
            && let Some(files) = &mut node.files
        {
            files.settle(version);
        }
    }

    /// Counts a release of what [`open`](Self::open) counted.
    pub(crate) fn release(&mut self, ino: u64) {
        if let Some(files) = self
            .nodes
            .get_mut(&ino)
            .and_then(|node| node.files.as_mut())
        {
            files.release();
        }
    }

    /// Whether what is held open on `ino`, or what it stands for, is not what its name holds
    /// now.
    fn is_taken_by_other(&self, ino: u64, kind: FileType, version: Option<FileId>) -> bool {
        let Some(node) = self.nodes.get(&ino) else {
            return false;
        };
        let open = node.files.as_ref().and_then(|files| files.open_version());
        open.or_else(|| node.kept.and(node.seen))
            .is_some_and(|taken| kind != node.kind || version.is_some_and(|v| v != taken))
    }

    /// The attached node of a name, or the number that a new one gets.
    fn find(&self, parent: u64, name: &str) -> Result<u64, Free> {
        // The owned key is only made in the rare case that anything is displaced.
        if !self.displaced.is_empty()
            && let Some(ino) = self.displaced.get(&(parent, Box::from(name)))
        {
            return Ok(*ino);
        }
        let mut attempt = 0;
        let mut free = None;
        loop {
            let ino = (self.derive)(parent, name, attempt);
            match self.nodes.get(&ino) {
                _ if ino <= ROOT => {}
                Some(node) if attempt == 0 && node.is(parent, name) => return Ok(ino),
                Some(_) => {}
                None => free = Some(ino),
            }
            if let Some(ino) = free {
                return Err(Free { ino, attempt });
            }
            attempt += 1;
        }
    }

    fn insert(&mut self, parent: u64, name: &str, kind: FileType, free: Free) -> u64 {
        let node = Node {
            parent,
            name: name.into(),
            lookups: 0,
            children: 0,
            kind,
            detached: false,
            seen: None,
            kept: None,
            files: None,
        };
        self.nodes.insert(free.ino, node);
        if free.attempt > 0 {
            self.displaced.insert((parent, name.into()), free.ino);
        }
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children += 1;
        }
        free.ino
    }

    /// Removes `ino` if nothing needs it, then its parent likewise, and so on.
    fn sweep(&mut self, ino: u64) {
        let mut at = ino;
        while at != ROOT {
            let Entry::Occupied(entry) = self.nodes.entry(at) else {
                return;
            };
            if entry.get().lookups > 0 || entry.get().children > 0 {
                return;
            }
            let node = entry.remove();
            if !node.detached && !self.displaced.is_empty() {
                let key = (node.parent, node.name);
                if self.displaced.get(&key) == Some(&at) {
                    self.displaced.remove(&key);
                }
            }
            self.drop_names(at);
            at = node.parent;
            if let Some(parent) = self.nodes.get_mut(&at) {
                parent.children -= 1;
            }
        }
    }
}

impl Node {
    fn pinned(&self, ino: u64) -> Option<FileAttr> {
        let open = self.files.as_ref().and_then(|files| files.pinned());
        open.or_else(|| Some(self.kept?.attr(ino)))
    }

    fn is(&self, parent: u64, name: &str) -> bool {
        !self.detached && self.parent == parent && *self.name == *name
    }
}

/// The inode no longer stands for what its name holds: look the name up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replaced;

/// An unused inode number and how many candidates were taken before it.
#[derive(Debug, Clone, Copy)]
struct Free {
    ino: u64,
    attempt: u32,
}

/// Fixed keys: numbers are the same in every mount of the same tree by the same build. A
/// name chosen to collide costs one more probe, nothing else.
fn derive_ino(parent: u64, name: &str, attempt: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    (parent, name, attempt).hash(&mut hasher);
    // The top bit stays clear for tools that read inode numbers as signed.
    hasher.finish() & (u64::MAX >> 1)
}

#[cfg(test)]
mod tests;
