//! Changes of names: what the kernel knows by a number keeps it under another name.

use std::collections::HashMap;

use fuser::FileAttr;

use super::{InodeTable, ROOT};

/// A name in a directory.
pub(super) type Name = (u64, Box<str>);

/// The names that inodes have beside their first ones: those of hard links that were made
/// through this mount, for as long as the kernel knows the inode.
pub(super) type MoreNames = HashMap<u64, Vec<Name>>;

impl InodeTable {
    /// The path of `ino` if it still has the name that it is known by.
    pub(crate) fn live_path(&self, ino: u64) -> Option<String> {
        let mut at = ino;
        while at != ROOT {
            let node = self.nodes.get(&at)?;
            if node.detached {
                return None;
            }
            at = node.parent;
        }
        self.path(ino)
    }

    /// The path of `name` in the directory `parent`, if that still has its name.
    pub(crate) fn live_child_path(&self, parent: u64, name: &str) -> Option<String> {
        self.live_path(parent)?;
        self.child_path(parent, name)
    }

    /// The paths of all names that `ino` has, if it has more than one.
    pub(crate) fn other_paths(&self, ino: u64) -> Vec<String> {
        let Some(more) = self.more_names.get(&ino) else {
            return Vec::new();
        };
        let more = more
            .iter()
            .filter_map(|(parent, name)| self.child_path(*parent, name));
        self.path(ino).into_iter().chain(more).collect()
    }

    /// Whether the name is one of several of an inode.
    pub(crate) fn is_shared(&self, parent: u64, name: &str) -> bool {
        !self.more_names.is_empty()
            && self
                .find(parent, name)
                .is_ok_and(|ino| self.more_names.contains_key(&ino))
    }

    /// The attributes of `ino` are other ones now, its bytes the same: `attr` are those of its
    /// present name.
    pub(crate) fn changed(&mut self, ino: u64, attr: &FileAttr) {
        if let Some(node) = self.nodes.get_mut(&ino)
            && let Some(files) = &mut node.files
        {
            files.changed(attr);
        }
    }

    /// The name is gone; the kernel may go on using the inode.
    pub(crate) fn unlink(&mut self, parent: u64, name: &str) {
        let Ok(ino) = self.find(parent, name) else {
            return;
        };
        if let Some(node) = self.nodes.get_mut(&ino)
            && let Some(files) = &mut node.files
        {
            files.unlinked();
        }
        let Some(mut more) = self.more_names.remove(&ino) else {
            return self.detach(ino);
        };
        let at = more.iter().position(|(p, n)| *p == parent && **n == *name);
        let freed = match at {
            Some(at) => more.swap_remove(at).0,
            // Its first name: another takes that place.
            None => {
                let Some((new_parent, new_name)) = more.pop() else {
                    return self.detach(ino);
                };
                let Some(node) = self.nodes.get_mut(&ino) else {
                    return;
                };
                node.name = new_name;
                std::mem::replace(&mut node.parent, new_parent)
            }
        };
        self.displaced.remove(&(parent, Box::from(name)));
        if !more.is_empty() {
            self.more_names.insert(ino, more);
        }
        self.let_go(freed);
    }

    /// What was `name` in `parent` is `new_name` in `new_parent` now, with its number; what was
    /// there has no name any more.
    pub(crate) fn rename(&mut self, parent: u64, name: &str, new_parent: u64, new_name: &str) {
        if (parent, name) == (new_parent, new_name) {
            return;
        }
        self.unlink(new_parent, new_name);
        let Ok(ino) = self.find(parent, name) else {
            return;
        };
        self.give_name(ino, (parent, name), (new_parent, new_name));
    }

    /// The two names have changed places.
    pub(crate) fn exchange(&mut self, a: (u64, &str), b: (u64, &str)) {
        let (at_a, at_b) = (self.find(a.0, a.1), self.find(b.0, b.1));
        // Nothing is ever called by the empty name.
        if let Ok(ino) = at_a {
            self.give_name(ino, a, (a.0, ""));
        }
        if let Ok(ino) = at_b {
            self.give_name(ino, b, a);
        }
        if let Ok(ino) = at_a {
            self.give_name(ino, (a.0, ""), b);
        }
    }

    /// `ino` has one more name.
    pub(crate) fn link(&mut self, ino: u64, parent: u64, name: &str) {
        if self.find(parent, name).is_ok_and(|at| at == ino) {
            return;
        }
        self.unlink(parent, name);
        let Some(node) = self.nodes.get_mut(&parent) else {
            return;
        };
        node.children += 1;
        self.displaced.insert((parent, name.into()), ino);
        let names = self.more_names.entry(ino).or_default();
        names.push((parent, name.into()));
    }

    /// Has the attached `ino` be called `new` instead of `old`.
    fn give_name(&mut self, ino: u64, old: (u64, &str), new: (u64, &str)) {
        if !self.nodes.contains_key(&new.0) {
            return self.detach(ino);
        }
        let more = self.more_names.get_mut(&ino);
        let extra = more.and_then(|more| {
            more.iter_mut()
                .find(|(parent, name)| *parent == old.0 && **name == *old.1)
        });
        match extra {
            Some(extra) => *extra = (new.0, new.1.into()),
            None => {
                let Some(node) = self.nodes.get_mut(&ino) else {
                    return;
                };
                node.parent = new.0;
                node.name = new.1.into();
            }
        }
        if let Some(parent) = self.nodes.get_mut(&new.0) {
            parent.children += 1;
        }
        self.displaced.remove(&(old.0, Box::from(old.1)));
        // Where the first choice is this very number, it is found by that.
        let is_first_choice = (self.derive)(new.0, new.1, 0) == ino && self.is_called(ino, new);
        if !is_first_choice {
            self.displaced.insert((new.0, new.1.into()), ino);
        }
        self.let_go(old.0);
    }

    fn is_called(&self, ino: u64, (parent, name): (u64, &str)) -> bool {
        self.nodes
            .get(&ino)
            .is_some_and(|node| node.is(parent, name))
    }

    /// The directory has one name less in it.
    pub(super) fn let_go(&mut self, parent: u64) {
        if let Some(node) = self.nodes.get_mut(&parent) {
            node.children -= 1;
            self.sweep(parent);
        }
    }

    /// Forgets the further names of an inode that is forgotten.
    pub(super) fn drop_names(&mut self, ino: u64) {
        if self.more_names.is_empty() {
            return;
        }
        for (parent, name) in self.more_names.remove(&ino).unwrap_or_default() {
            self.displaced.remove(&(parent, name));
            self.let_go(parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use fuser::FileType;

    use super::*;
    use crate::inode::Identity;

    fn look(table: &mut InodeTable, parent: u64, name: &str, kind: FileType) -> u64 {
        let looked = table.lookup(parent, name, kind, None);
        looked.unwrap().ino
    }

    #[test]
    fn a_number_goes_with_the_name_until_it_is_forgotten() {
        let mut table = InodeTable::new(Identity::Name);
        let dir = look(&mut table, ROOT, "d", FileType::Directory);
        let file = look(&mut table, dir, "f", FileType::RegularFile);
        let replaced = look(&mut table, ROOT, "g", FileType::RegularFile);
        table.rename(dir, "f", ROOT, "g");
        assert_eq!(table.path(file).as_deref(), Some("/g"));
        assert_eq!(look(&mut table, ROOT, "g", FileType::RegularFile), file);
        assert_eq!(table.live_path(replaced), None);
        let other = look(&mut table, dir, "f", FileType::RegularFile);
        assert_ne!(other, file);
        table.rename(ROOT, "d", ROOT, "e");
        assert_eq!(table.path(other).as_deref(), Some("/e/f"));
        table.exchange((dir, "f"), (ROOT, "g"));
        assert_eq!(table.path(other).as_deref(), Some("/g"));
        assert_eq!(table.path(file).as_deref(), Some("/e/f"));
        for (ino, count) in [(other, 1), (file, 2), (replaced, 1), (dir, 1)] {
            assert!(table.forget(ino, count), "{ino}");
        }
        assert_eq!(table.len(), 1);
        assert_eq!(look(&mut table, ROOT, "d", FileType::Directory), dir);
    }

    #[test]
    fn an_inode_of_several_names_lives_as_long_as_one_of_them() {
        let mut table = InodeTable::new(Identity::Name);
        let file = look(&mut table, ROOT, "a", FileType::RegularFile);
        table.link(file, ROOT, "b");
        assert_eq!(look(&mut table, ROOT, "b", FileType::RegularFile), file);
        assert_eq!(table.other_paths(file), ["/a", "/b"]);
        table.unlink(ROOT, "a");
        assert_eq!(table.live_path(file).as_deref(), Some("/b"));
        assert_ne!(look(&mut table, ROOT, "a", FileType::RegularFile), file);
        assert_eq!(look(&mut table, ROOT, "b", FileType::RegularFile), file);
        table.unlink(ROOT, "b");
        assert_eq!(table.live_path(file), None);
        let again = look(&mut table, ROOT, "b", FileType::RegularFile);
        assert_ne!(again, file);
        assert!(table.forget(file, 3));
        assert!(table.forget(again, 1));
    }
}
