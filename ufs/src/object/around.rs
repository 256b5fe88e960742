//! What a key is, by the beginning of a listing of all that begins with it. Pure.

use super::{ObjectMeta, RawPage};

/// Names that are asked for to find out what one of them is.
pub(super) const NAMES: usize = 4;

/// What a key is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Around<'a> {
    /// An object, and nothing is below it.
    File(&'a ObjectMeta),
    /// Something is below it.
    Directory,
    /// Neither.
    Nothing,
    /// The listing does not reach far enough, or does not tell the version.
    Unclear,
}

impl<'a> Around<'a> {
    /// `below` is the key with a slash. Listings are in byte order, so what sorts behind it
    /// shows that all before it was listed.
    pub(super) fn of(key: &str, below: &str, page: &'a RawPage) -> Self {
        if page.prefixes.iter().any(|prefix| prefix == below) {
            return Self::Directory;
        }
        let keys = page.objects.iter().map(|object| object.key.as_str());
        let mut names = keys.chain(page.prefixes.iter().map(String::as_str));
        let is_complete = page.next.is_none() || names.any(|name| name > below);
        if page.hidden > 0 || !is_complete {
            return Self::Unclear;
        }
        match page.objects.iter().find(|object| object.key == key) {
            Some(object) if object.version.is_some() => Self::File(object),
            Some(_) => Self::Unclear,
            None => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use millpond_proto::FileVersion;
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
                    version: Some(FileVersion::ETag(name.clone())),
                    key: name,
                    size: 1,
                    mtime: None,
                });
            }
        }
        raw
    }

    proptest! {
        /// It is never wrong, and only unclear where names sort between the key and its slash.
        #[test]
        fn what_is_told_is_so(
            keys in proptest::collection::btree_set("[ab](-|b|/a|/b){0,3}", 0..12),
            key in "[ab](-|b|/a){0,2}",
        ) {
            let below = format!("{key}/");
            let page = page(&keys, &key, NAMES);
            let is_directory = keys.iter().any(|other| other.starts_with(&below));
            let between = keys.iter().filter(|other| other.starts_with(&format!("{key}-")));
            match Around::of(&key, &below, &page) {
                Around::Directory => prop_assert!(is_directory),
                Around::File(object) => {
                    prop_assert!(keys.contains(&key) && !is_directory);
                    prop_assert_eq!(&object.key, &key);
                }
                Around::Nothing => prop_assert!(!keys.contains(&key) && !is_directory),
                Around::Unclear => prop_assert!(between.count() >= NAMES - 1),
            }
        }
    }

    #[test]
    fn what_does_not_tell_enough_is_unclear() {
        let keys = BTreeSet::from(["k".to_owned()]);
        let unclear = |change: fn(&mut RawPage)| {
            let mut page = page(&keys, "k", NAMES);
            change(&mut page);
            Around::of("k", "k/", &page) == Around::Unclear
        };
        assert!(!unclear(|_| {}));
        assert!(unclear(|page| page.objects[0].version = None));
        assert!(unclear(|page| page.hidden = 1));
        assert!(unclear(|page| page.next = Some(String::new())));
    }
}
