//! From pages of keys to pages of directory entries.

use std::collections::HashSet;

use crate::metadata::{Entry, Metadata};
use crate::name;
use crate::object::backend::RawPage;

/// Turns the pages of one listing into entries: leaves out what cannot be shown, and lets a
/// directory hide the object of the same name even when the two are pages apart.
///
/// In byte order the object `a` comes before `a-b`, and that before `a/`. So a file is held
/// back as long as its directory may still come: while `name/` is greater than the last key
/// seen. All such names are prefixes of that key, so there are few.
#[derive(Debug)]
pub(crate) struct Pager {
    prefix: String,
    held: Vec<Entry>,
    last_directory: Option<String>,
    exists: bool,
}

/// Entries that are certain, and how many names were left out on the way.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    pub(crate) hidden: u64,
}

impl Pager {
    /// For the listing of all keys that begin with `prefix` (empty, or ending in `/`).
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            held: Vec::new(),
            last_directory: None,
            exists: false,
        }
    }

    /// Whether any key was seen, shown or not: whether the directory exists.
    pub(crate) fn exists(&self) -> bool {
        self.exists
    }

    /// The entries that are certain after the next page.
    pub(crate) fn take(&mut self, raw: RawPage) -> Page {
        self.exists |= raw.has_keys();
        let mut hidden = raw.hidden;
        let is_last = raw.next.is_none();

        let mut directories = HashSet::new();
        let mut entries = Vec::with_capacity(raw.prefixes.len() + raw.objects.len());
        for prefix in raw.prefixes {
            match self.name_in(prefix.strip_suffix('/').unwrap_or(&prefix)) {
                Some(name) if self.last_directory.as_deref() == Some(name) => {}
                Some(name) => {
                    directories.insert(name.to_owned());
                    entries.push(Entry {
                        name: name.to_owned(),
                        metadata: Metadata::directory(),
                    });
                }
                None => hidden += 1,
            }
        }
        for object in raw.objects {
            if object.key == self.prefix {
                // The directory's own marker.
                continue;
            }
            match self.name_in(&object.key) {
                Some(name) => entries.push(Entry {
                    name: name.to_owned(),
                    metadata: Metadata::file(object.size, object.version, object.mtime),
                }),
                None => hidden += 1,
            }
        }

        let last_key = entries.iter().map(sort_key).max();
        entries.append(&mut self.held);
        let before = entries.len();
        entries.retain(|entry| entry.metadata.is_directory() || !directories.contains(&entry.name));
        hidden += (before - entries.len()) as u64;
        entries.sort_by_cached_key(sort_key);
        if !is_last {
            let uncertain = |entry: &Entry| {
                !entry.metadata.is_directory()
                    && last_key
                        .as_ref()
                        .is_none_or(|last| format!("{}/", entry.name) > *last)
            };
            (self.held, entries) = entries.into_iter().partition(uncertain);
        }
        if let Some(directory) = entries.iter().rfind(|entry| entry.metadata.is_directory()) {
            self.last_directory = Some(directory.name.clone());
        }
        Page { entries, hidden }
    }

    fn name_in<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.prefix)
            .filter(|name| name::fault(name).is_none())
    }
}

/// The entry's key below the prefix.
fn sort_key(entry: &Entry) -> String {
    match entry.metadata.is_directory() {
        true => format!("{}/", entry.name),
        false => entry.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::backend::ObjectMeta;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn raw(prefix: &str, keys: &BTreeSet<String>, page: usize, index: usize) -> RawPage {
        let mut items: Vec<(String, bool)> = Vec::new();
        for key in keys.iter().filter(|key| key.starts_with(prefix)) {
            let item = match key[prefix.len()..].split_once('/') {
                Some((name, _)) => (format!("{prefix}{name}/"), true),
                None => (key.clone(), false),
            };
            if items.last() != Some(&item) {
                items.push(item);
            }
        }
        items.sort();
        let mut out = RawPage::default();
        for (key, is_prefix) in items.iter().skip(page * index).take(page) {
            if *is_prefix {
                out.prefixes.push(key.clone());
            } else {
                out.objects.push(ObjectMeta {
                    key: key.clone(),
                    size: 1,
                    version: None,
                    mtime: None,
                });
            }
        }
        out.next = (items.len() > page * (index + 1)).then(|| (index + 1).to_string());
        out
    }

    fn list(prefix: &str, keys: &[&str], page: usize) -> (Vec<String>, u64) {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let mut pager = Pager::new(prefix);
        let (mut names, mut hidden) = (Vec::new(), 0);
        for index in 0.. {
            let raw = raw(prefix, &keys, page, index);
            let more = raw.next.is_some();
            let out = pager.take(raw);
            names.extend(out.entries.iter().map(sort_key));
            hidden += out.hidden;
            if !more {
                break;
            }
        }
        (names, hidden)
    }

    #[test]
    fn directory_hides_the_object_of_its_name_across_pages() {
        let keys = ["a", "a b", "a-c", "a.d", "a/x", "b"];
        for page in 1..=6 {
            let (mut names, hidden) = list("", &keys, page);
            names.sort();
            assert_eq!(names, ["a b", "a-c", "a.d", "a/", "b"], "pages of {page}");
            assert_eq!(hidden, 1);
        }
    }

    #[test]
    fn odd_names_are_hidden_and_counted() {
        let keys = ["d/", "d/.", "d/..", "d//x", "d/ok", "d/../y", "d/a\nb"];
        assert_eq!(list("d/", &keys, 100), (vec!["ok".into()], 5));
    }

    proptest! {
        #[test]
        fn any_paging_gives_each_name_once_with_directories_first_in_right(
            keys in proptest::collection::btree_set("[ab.-](/|[ab.-]){0,4}", 0..24),
            page in 1_usize..6,
        ) {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let mut expected: BTreeMap<String, bool> = BTreeMap::new();
            for key in &keys {
                match key.split_once('/') {
                    Some((name, _)) => { expected.insert(name.to_owned(), true); }
                    None => { expected.entry((*key).to_owned()).or_insert(false); }
                }
            }
            expected.retain(|name, _| name::fault(name).is_none());
            let mut expected: Vec<String> = expected
                .into_iter()
                .map(|(name, directory)| if directory { format!("{name}/") } else { name })
                .collect();
            expected.sort();
            let (mut names, _) = list("", &keys, page);
            names.sort();
            prop_assert_eq!(names, expected);
        }
    }
}
