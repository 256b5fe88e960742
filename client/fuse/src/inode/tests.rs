use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;

const DIR: FileType = FileType::Directory;
const FILE: FileType = FileType::RegularFile;

fn version(n: u128) -> FileId {
    FileId::derive(
        "file:///x",
        &millpond_proto::FileVersion::Modified(n as i64),
        1,
    )
}

fn attr(size: u64) -> FileAttr {
    let time = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: fuser::INodeNo(2),
        size,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: FILE,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn look(table: &mut InodeTable, parent: u64, name: &str, kind: FileType) -> u64 {
    table.lookup(parent, name, kind, None).unwrap().ino
}

#[test]
fn a_path_has_the_same_number_after_it_was_forgotten() {
    let mut table = InodeTable::new(Identity::Name);
    let dir = look(&mut table, ROOT, "d", DIR);
    let file = look(&mut table, dir, "f", FILE);
    assert_eq!(table.path(ROOT).unwrap(), "/");
    assert_eq!(table.path(file).unwrap(), "/d/f");
    assert_eq!(table.child_path(ROOT, "x").unwrap(), "/x");
    assert_eq!(table.child_path(dir, "x").unwrap(), "/d/x");
    assert_eq!(table.peek(dir, "f"), file);
    table.forget(file, 1);
    table.forget(dir, 1);
    assert_eq!((table.len(), table.path(file)), (1, None));
    assert_eq!(look(&mut table, ROOT, "d", DIR), dir);
    assert_eq!(table.peek(dir, "f"), file);
    assert_eq!(look(&mut table, dir, "f", FILE), file);
}

#[test]
fn an_ancestor_stays_while_something_below_it_is_known() {
    let mut table = InodeTable::new(Identity::Name);
    let a = look(&mut table, ROOT, "a", DIR);
    let b = look(&mut table, a, "b", DIR);
    let c = look(&mut table, b, "c", FILE);
    table.forget(a, 1);
    table.forget(b, 1);
    assert_eq!(table.len(), 4);
    assert_eq!(table.path(c).unwrap(), "/a/b/c");
    table.forget(c, 1);
    assert_eq!(table.len(), 1);
}

#[test]
fn the_root_is_never_forgotten() {
    let mut table = InodeTable::new(Identity::Name);
    table.forget(ROOT, u64::MAX);
    assert_eq!(table.path(ROOT).unwrap(), "/");
}

#[test]
fn pages_are_kept_while_the_version_is_the_same_and_dropped_when_it_changes() {
    let mut table = InodeTable::new(Identity::Name);
    let file = look(&mut table, ROOT, "f", FILE);
    let (old, new) = (version(1), version(2));
    let first = table.open(file, old, attr(1)).unwrap();
    assert!(!first.keep_pages && first.refresh_attributes);
    table.settle(file, Some(old));
    assert!(table.open(file, old, attr(1)).unwrap().keep_pages);
    table.release(file);
    table.release(file);
    let again = table.open(file, old, attr(1)).unwrap();
    assert!(again.keep_pages && !again.refresh_attributes);
    table.release(file);
    let changed = table.open(file, new, attr(2)).unwrap();
    assert!(!changed.keep_pages && changed.refresh_attributes);
    table.settle(file, Some(new));
    assert!(table.open(file, new, attr(2)).unwrap().keep_pages);
}

/// The kernel may handle the answer to the second open first; were it told to keep its pages,
/// it would give those of the old version to the second handle.
#[test]
fn regression_pages_are_kept_only_once_a_read_shows_that_the_old_ones_are_gone() {
    let mut table = InodeTable::new(Identity::Name);
    let file = look(&mut table, ROOT, "f", FILE);
    let (old, new) = (version(1), version(2));
    table.open(file, old, attr(1)).unwrap();
    table.settle(file, Some(old));
    table.release(file);

    assert!(!table.open(file, new, attr(2)).unwrap().keep_pages);
    assert!(!table.open(file, new, attr(2)).unwrap().keep_pages);
    table.settle(file, Some(old));
    assert!(!table.open(file, new, attr(2)).unwrap().keep_pages);
    table.settle(file, Some(new));
    assert!(table.open(file, new, attr(2)).unwrap().keep_pages);
}

#[test]
fn an_open_that_matches_the_attributes_given_needs_no_refresh() {
    let mut table = InodeTable::new(Identity::Name);
    let file = table.lookup(ROOT, "f", FILE, Some(version(1))).unwrap().ino;
    assert!(
        !table
            .open(file, version(1), attr(1))
            .unwrap()
            .refresh_attributes
    );
}

#[test]
fn a_file_replaced_while_open_gets_a_second_inode() {
    let mut table = InodeTable::new(Identity::Name);
    let (old, new) = (version(1), version(2));
    let first = table.lookup(ROOT, "f", FILE, Some(old)).unwrap().ino;
    table.open(first, old, attr(10)).unwrap();
    // A lookup that sees another version.
    let second = table.lookup(ROOT, "f", FILE, Some(new)).unwrap();
    assert_ne!(second.ino, first);
    assert_eq!(second.pinned, None);
    // The open handle keeps its attributes, and nothing else opens on the old inode.
    assert_eq!(table.pinned(first).unwrap().size, 10);
    assert_eq!(
        table
            .attributes(first, FILE, Some(new))
            .unwrap()
            .unwrap()
            .size,
        10
    );
    assert_eq!(table.open(first, new, attr(20)), Err(Replaced));
    assert!(table.open(second.ino, new, attr(20)).is_ok());
    assert_eq!(table.peek(ROOT, "f"), second.ino);
    // When the old one is closed and forgotten, only the new one is left.
    table.release(first);
    table.forget(first, 1);
    assert_eq!(table.len(), 2);
    assert_eq!(look(&mut table, ROOT, "f", FILE), second.ino);
    // When all is forgotten, the name has its first number again.
    table.release(second.ino);
    table.forget(second.ino, 2);
    assert_eq!(table.len(), 1);
    assert!(table.displaced.is_empty());
    assert_eq!(table.peek(ROOT, "f"), first);
}

#[test]
fn an_open_that_finds_another_version_open_frees_the_name() {
    let mut table = InodeTable::new(Identity::Name);
    let first = look(&mut table, ROOT, "f", FILE);
    table.open(first, version(1), attr(1)).unwrap();
    assert_eq!(table.open(first, version(2), attr(2)), Err(Replaced));
    let second = look(&mut table, ROOT, "f", FILE);
    assert_ne!(first, second);
    assert!(!table.open(second, version(2), attr(2)).unwrap().keep_pages);
}

#[test]
fn a_name_that_changed_its_kind_is_looked_up_again() {
    let mut table = InodeTable::new(Identity::Name);
    let thing = look(&mut table, ROOT, "x", FILE);
    assert_eq!(table.attributes(thing, DIR, None), Err(Replaced));
    assert_eq!(look(&mut table, ROOT, "x", DIR), thing);
    assert_eq!(table.attributes(thing, DIR, None), Ok(None));
}

/// Few numbers at first, so that collisions are common.
fn weak(parent: u64, name: &str, attempt: u32) -> u64 {
    match attempt {
        0..3 => derive_ino(parent, name, attempt) % 8,
        _ => derive_ino(parent, name, attempt),
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Look up name `1` in the `0`-th live directory.
    Lookup(usize, u8),
    /// Forget up to `1` lookups of the `0`-th live inode.
    Forget(usize, u64),
    /// Free the name of the `0`-th live inode.
    Detach(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (any::<usize>(), 0..6u8).prop_map(|(at, name)| Step::Lookup(at, name)),
        3 => (any::<usize>(), 1..4u64).prop_map(|(at, count)| Step::Forget(at, count)),
        1 => any::<usize>().prop_map(Step::Detach),
    ];
    prop::collection::vec(step, 1..120)
}

#[derive(Debug, Clone)]
struct Known {
    parent: u64,
    name: String,
    lookups: u64,
    attached: bool,
}

/// The inodes that must be present: those with lookups, and their ancestors.
fn needed(model: &HashMap<u64, Known>) -> HashSet<u64> {
    let mut needed = HashSet::from([ROOT]);
    for (ino, known) in model {
        if known.lookups > 0 {
            let mut at = *ino;
            while needed.insert(at) {
                at = model[&at].parent;
            }
        }
    }
    needed
}

proptest! {
    #[test]
    fn the_table_holds_exactly_what_the_kernel_knows(steps in steps()) {
        let mut table = InodeTable::with_derivation(Identity::Name, weak);
        let mut model: HashMap<u64, Known> = HashMap::new();
        for step in steps {
            let mut live: Vec<u64> = model.keys().copied().collect();
            live.sort_unstable();
            match step {
                Step::Lookup(at, name) => {
                    live.push(ROOT);
                    let parent = live[at % live.len()];
                    let name = format!("n{name}");
                    let peeked = table.peek(parent, &name);
                    let ino = look(&mut table, parent, &name, DIR);
                    prop_assert_eq!(peeked, ino);
                    let expected = model.iter().find(|(_, known)| {
                        known.attached && known.parent == parent && known.name == name
                    });
                    match expected.map(|(ino, _)| *ino) {
                        Some(expected) => prop_assert_eq!(ino, expected),
                        None => prop_assert!(ino > ROOT && !model.contains_key(&ino)),
                    }
                    let known = model.entry(ino).or_insert(Known {
                        parent,
                        name,
                        lookups: 0,
                        attached: true,
                    });
                    known.lookups += 1;
                }
                Step::Forget(at, count) if !live.is_empty() => {
                    let ino = live[at % live.len()];
                    let known = model.get_mut(&ino).unwrap();
                    let count = count.min(known.lookups);
                    known.lookups -= count;
                    table.forget(ino, count);
                }
                Step::Detach(at) if !live.is_empty() => {
                    let ino = live[at % live.len()];
                    model.get_mut(&ino).unwrap().attached = false;
                    table.detach(ino);
                }
                Step::Forget(..) | Step::Detach(_) => {}
            }
            let needed = needed(&model);
            model.retain(|ino, _| needed.contains(ino));
            prop_assert_eq!(table.len(), needed.len());
            for (ino, known) in &model {
                prop_assert_eq!(table.parent(*ino), Some(known.parent));
                let path = table.child_path(known.parent, &known.name);
                prop_assert_eq!(table.path(*ino), path);
            }
        }
    }
}

#[test]
fn an_inode_that_stands_for_a_version_never_changes_it() {
    let mut table = InodeTable::new(Identity::Version);
    let (old, new) = (version(1), version(2));
    let look = |table: &mut InodeTable, version, size| {
        let looked = table.lookup(ROOT, "f", FILE, Some(version)).unwrap();
        if looked.pinned.is_none() {
            table.keep(looked.ino, &attr(size));
        }
        looked
    };
    let first = look(&mut table, old, 10);
    assert_eq!((first.pinned, table.version(first.ino)), (None, Some(old)));
    // The same again, also where the version is not told.
    assert_eq!(look(&mut table, old, 99).pinned.unwrap().size, 10);
    let untold = table.lookup(ROOT, "f", FILE, None).unwrap();
    assert_eq!(
        (untold.ino, table.version(first.ino)),
        (first.ino, Some(old))
    );
    // Nobody told that it is open, and yet it may be.
    let second = look(&mut table, new, 20);
    assert_ne!(second.ino, first.ino);
    assert_eq!(
        (second.pinned, table.version(second.ino)),
        (None, Some(new))
    );
    assert_eq!(table.pinned(first.ino).unwrap().size, 10);
    let given = table.attributes(first.ino, FILE, Some(new)).unwrap();
    assert_eq!(given.unwrap().size, 10);
    assert_eq!(table.entry(first.ino), Some((ROOT, "f")));
    // What was a file is a directory now.
    let third = table.lookup(ROOT, "f", DIR, None).unwrap();
    assert!(third.ino != first.ino && third.ino != second.ino);
    assert_eq!((third.pinned, table.version(third.ino)), (None, None));
    // Each goes when the kernel forgot it.
    assert!(!table.forget(first.ino, 2) && table.forget(first.ino, 1));
    assert!(table.forget(second.ino, 1) && table.forget(third.ino, 1));
    assert_eq!(table.len(), 1);
    assert!(table.displaced.is_empty());
}

#[test]
fn an_inode_that_was_shown_before_its_version_was_known_takes_the_first_that_is() {
    let mut table = InodeTable::new(Identity::Version);
    let shown = table.lookup(ROOT, "f", FILE, None).unwrap();
    table.keep(shown.ino, &attr(10));
    assert_eq!((shown.pinned, table.version(shown.ino)), (None, None));
    let known = table.lookup(ROOT, "f", FILE, Some(version(1))).unwrap();
    assert_eq!((known.ino, known.pinned), (shown.ino, None));
    table.keep(known.ino, &attr(20));
    assert_eq!(table.version(known.ino), Some(version(1)));
    // Shown again in the moment after a change: still the old one, until it is looked up.
    let again = table.lookup(ROOT, "f", FILE, None).unwrap();
    assert_eq!((again.ino, again.pinned.unwrap().size), (known.ino, 20));
    let next = table.lookup(ROOT, "f", FILE, Some(version(2))).unwrap();
    assert_ne!(next.ino, known.ino);
    assert_eq!(table.version(known.ino), Some(version(1)));
}
