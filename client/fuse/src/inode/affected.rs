//! What the kernel has to drop after a change.

use fuser::FileType;
use millpond_proto::Change;

use super::{InodeTable, ROOT};

/// What the kernel may hold of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Affected {
    /// The directory that holds the name, and the name; none for the root.
    pub(crate) entry: Option<(u64, Box<str>)>,
    /// The inode, if the kernel knows it.
    pub(crate) ino: Option<u64>,
    /// Whether that is a directory.
    pub(crate) is_dir: bool,
}

impl InodeTable {
    /// What the kernel may hold of what `change` concerns: nothing of a path whose directory
    /// it does not know. A name is there also where the kernel may believe its absence.
    pub(crate) fn affected(&self, change: &Change) -> Vec<Affected> {
        let mut affected: Vec<Affected> = self.at(&change.path).into_iter().collect();
        if change.recursive {
            let below = self.nodes.keys().filter(|ino| {
                let path = self.path(**ino);
                path.is_some_and(|path| path != change.path && change.concerns(&path))
            });
            affected.extend(below.filter_map(|ino| self.known(*ino)));
        }
        affected
    }

    /// What the kernel may hold of `path` itself.
    fn at(&self, path: &str) -> Option<Affected> {
        let mut affected = self.known(ROOT)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let parent = affected.ino?;
            let ino = self.peek(parent, name);
            affected = self.known(ino).unwrap_or_else(|| Affected {
                entry: Some((parent, name.into())),
                ino: None,
                is_dir: false,
            });
        }
        Some(affected)
    }

    fn known(&self, ino: u64) -> Option<Affected> {
        let node = self.nodes.get(&ino)?;
        Some(Affected {
            entry: (ino != ROOT).then(|| (node.parent, node.name.clone())),
            ino: Some(ino),
            is_dir: node.kind == FileType::Directory,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inode::Identity;

    fn change(path: &str, recursive: bool) -> Change {
        Change {
            path: path.to_owned(),
            recursive,
        }
    }

    #[test]
    fn a_change_affects_what_the_kernel_knows_and_no_more() {
        let mut table = InodeTable::new(Identity::Name);
        let mut look = |parent, name: &str, kind| {
            let looked = table.lookup(parent, name, kind, None);
            looked.unwrap().ino
        };
        let dir = look(ROOT, "d", FileType::Directory);
        let file = look(dir, "f", FileType::RegularFile);
        let sub = look(dir, "s", FileType::Directory);
        let deep = look(sub, "g", FileType::RegularFile);
        look(ROOT, "dd", FileType::RegularFile);

        let inodes = |path, recursive| {
            let affected = table.affected(&change(path, recursive));
            let mut inodes: Vec<_> = affected.iter().filter_map(|a| a.ino).collect();
            inodes.sort_unstable();
            inodes
        };
        let sorted = |mut inodes: Vec<u64>| {
            inodes.sort_unstable();
            inodes
        };
        assert_eq!(inodes("/d/f", false), [file]);
        assert_eq!(inodes("/d", false), [dir]);
        assert_eq!(inodes("/d", true), sorted(vec![dir, file, sub, deep]));
        assert_eq!(table.affected(&Change::everything()).len(), 6);

        let absent = table.affected(&change("/d/none", false));
        assert_eq!(
            absent,
            [Affected {
                entry: Some((dir, "none".into())),
                ino: None,
                is_dir: false,
            }]
        );
        assert_eq!(table.affected(&change("/x/y", false)), []);
    }
}
