//! A whole directory as it was listed.

use std::time::{Duration, Instant};

use millpond_proto::{FileVersion, Trust};

use crate::attr::{Attr, DirEntry};

/// What an entry costs beside its texts: its place here, its attributes, two texts' heads.
const ENTRY_OVERHEAD: usize = 360;

/// A directory, complete, as its store listed it once. Immutable; shared by all who use it.
#[derive(Debug)]
pub struct Directory {
    entries: Box<[DirEntry]>,
    /// The places of `entries` in the order of their names.
    by_name: Box<[u32]>,
    asked_at: Instant,
    trust: Trust,
    weight: u32,
}

impl Directory {
    /// The directory that consists of `entries` and was asked for at `asked_at`; none if it
    /// has more entries than a directory in memory may have.
    pub(crate) fn new(entries: Vec<DirEntry>, asked_at: Instant, trust: Trust) -> Option<Self> {
        let count = u32::try_from(entries.len()).ok()?;
        let mut by_name: Box<[u32]> = (0..count).collect();
        by_name.sort_unstable_by(|a, b| {
            let name = |place: &u32| &entries[*place as usize].name;
            name(a).cmp(name(b))
        });
        let weight = entries.iter().map(weight_of).sum::<u64>();
        Some(Self {
            entries: entries.into(),
            by_name,
            asked_at,
            trust,
            weight: u32::try_from(weight).ok()?,
        })
    }

    /// Its entries in the order of the listing.
    pub fn entries(&self) -> &[DirEntry] {
        &self.entries
    }

    /// The entry called `name`.
    pub fn get(&self, name: &str) -> Option<&DirEntry> {
        let name_at = |place: &u32| &*self.entries[*place as usize].name;
        let found = self
            .by_name
            .binary_search_by(|place| name_at(place).cmp(name));
        Some(&self.entries[self.by_name[found.ok()?] as usize])
    }

    /// How long it is still believed at `now`: what the kernel may be told of its entries.
    pub fn valid(&self, now: Instant) -> Duration {
        remaining(self.asked_at, self.trust.presence(), now)
    }

    /// How long it is still believed at `now` that a name which it does not have is absent.
    pub fn absence_valid(&self, now: Instant) -> Duration {
        remaining(self.asked_at, self.trust.absence_from_listing(), now)
    }

    /// When its store was asked for it; for its first page if there were several.
    pub(crate) const fn asked_at(&self) -> Instant {
        self.asked_at
    }

    pub(crate) const fn trust(&self) -> Trust {
        self.trust
    }

    pub(crate) const fn weight(&self) -> u32 {
        self.weight
    }
}

/// What is left at `now` of a belief that began at `since` and lasts for `span`.
pub(crate) fn remaining(since: Instant, span: Duration, now: Instant) -> Duration {
    span.saturating_sub(now.saturating_duration_since(since))
}

/// Bytes of memory that `entry` takes.
pub(crate) fn weight_of(entry: &DirEntry) -> u64 {
    (ENTRY_OVERHEAD + entry.name.len() + weight_of_texts(&entry.attr)) as u64
}

/// Bytes of memory that the texts of `attr` take.
pub(super) fn weight_of_texts(attr: &Attr) -> usize {
    let version = match &attr.version {
        Some(FileVersion::Id(text) | FileVersion::ETag(text)) => text.len() + 16,
        Some(FileVersion::Local { .. } | FileVersion::Modified(_)) | None => 0,
    };
    attr.ufs_uri.len() + version
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millpond_proto::MetadataMode;
    use proptest::prelude::*;

    use super::*;

    fn directory(names: &[String], trust: Trust, at: Instant) -> Directory {
        let entry = |name: &String| DirEntry {
            name: name.as_str().into(),
            attr: Arc::new(Attr::virtual_directory()),
        };
        Directory::new(names.iter().map(entry).collect(), at, trust).unwrap()
    }

    const TRUST: Trust = Trust {
        mode: MetadataMode::Ttl,
        ttl: Duration::from_secs(4),
    };

    proptest! {
        #[test]
        fn finds_what_it_has_and_nothing_else(
            names in proptest::collection::hash_set("[ab/.é]{1,4}", 0..40),
            others in proptest::collection::vec("[ab/.é]{1,4}", 0..20),
        ) {
            let listed: Vec<String> = names.iter().cloned().collect();
            let directory = directory(&listed, TRUST, Instant::now());
            prop_assert_eq!(directory.entries().len(), listed.len());
            for (entry, name) in directory.entries().iter().zip(&listed) {
                prop_assert_eq!(&*entry.name, name.as_str());
            }
            for name in names.iter().chain(&others) {
                let found = directory.get(name).map(|entry| &*entry.name);
                prop_assert_eq!(found, names.get(name).map(String::as_str));
            }
        }
    }

    #[test]
    fn belief_is_counted_from_the_question() {
        let at = Instant::now();
        let directory = directory(&[], TRUST, at);
        let later = |s| at + Duration::from_secs(s);
        assert_eq!(directory.valid(later(3)), Duration::from_secs(1));
        assert_eq!(directory.valid(later(4)), Duration::ZERO);
        assert_eq!(directory.absence_valid(later(1)), Duration::from_secs(1));
        assert_eq!(directory.absence_valid(later(3)), Duration::ZERO);
    }
}
