//! What a key is, by the beginning of a listing of all that begins with it. Pure.

use super::{ObjectMeta, RawPage};

/// Names that are asked for to find out what one of them is: a listing of few costs a store
/// what a listing of one does.
pub(super) const NAMES: usize = 16;

/// What the first [`NAMES`] names that begin with a key say of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Around {
    /// The object with exactly this key; it is certain that there is none if there is none
    /// here.
    pub(super) object: Option<ObjectMeta>,
    /// Whether anything is below the key; none if the names do not reach that far.
    pub(super) is_directory: Option<bool>,
}

impl Around {
    /// `below` is the key with a slash. Listings are in byte order: the key itself is the
    /// first that begins with it, and a name behind `below` shows that all before it was
    /// listed.
    pub(super) fn of(key: &str, below: &str, page: RawPage) -> Self {
        let is_directory = if page.prefixes.iter().any(|prefix| prefix == below) {
            Some(true)
        } else {
            let keys = page.objects.iter().map(|object| object.key.as_str());
            let mut names = keys.chain(page.prefixes.iter().map(String::as_str));
            let reaches = page.next.is_none() || names.any(|name| name > below);
            reaches.then_some(false)
        };
        let mut objects = page.objects.into_iter();
        Self {
            object: objects.find(|object| object.key == key),
            is_directory,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The first `max` names of a store with these keys that begin with `prefix`.
    fn page(keys: &BTreeSet<String>, prefix: &str, max: usize) -> RawPage {
        let mut names = BTreeSet::new();
        for rest in keys.iter().filter_map(|key| key.strip_prefix(prefix)) {
            names.insert(match rest.split_once('/') {
                Some((name, _)) => format!("{prefix}{name}/"),
                None => format!("{prefix}{rest}"),
            });
        }
        let mut raw = RawPage {
            next: (names.len() > max).then(String::new),
            ..RawPage::default()
        };
        for name in names.into_iter().take(max) {
            if name.ends_with('/') {
                raw.prefixes.push(name);
            } else {
                raw.objects.push(ObjectMeta {
                    key: name,
                    size: 1,
                    version: None,
                    mtime: None,
                });
            }
        }
        raw
    }

    proptest! {
        /// It is never wrong, and does not reach far enough only where names sort between the
        /// key and its slash.
        #[test]
        fn what_is_told_is_so(
            keys in proptest::collection::btree_set("[ab](-|b|/a|/b){0,3}", 0..12),
            key in "[ab](-|b|/a){0,2}",
            max in 1_usize..5,
        ) {
            let below = format!("{key}/");
            let around = Around::of(&key, &below, page(&keys, &key, max));
            prop_assert_eq!(around.object.is_some(), keys.contains(&key));
            if let Some(object) = around.object {
                prop_assert_eq!(&object.key, &key);
            }
            let is_directory = keys.iter().any(|other| other.starts_with(&below));
            match around.is_directory {
                Some(told) => prop_assert_eq!(told, is_directory),
                None => {
                    let between = keys.iter().filter(|other| {
                        **other == key || other.starts_with(&format!("{key}-"))
                    });
                    prop_assert!(between.count() >= max);
                }
            }
        }
    }
}
