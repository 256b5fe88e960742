//! The files: some that never change, some that are replaced again and again.
//!
//! Every 8 bytes of a file are its seed, its version and their place, mixed; so any piece of a
//! file tells whether it is right, and two versions can never be taken for one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};

/// Bytes that make a word.
const WORD: u64 = 8;

/// A kind of files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) dir: &'static str,
    pub(super) count: u64,
    /// A multiple of a word.
    pub(super) size: u64,
}

pub(super) const LARGE: Kind = Kind {
    dir: "large",
    count: 8,
    size: 24 << 20,
};
pub(super) const SMALL: Kind = Kind {
    dir: "small",
    count: 300,
    size: 40 << 10,
};
pub(super) const CHANGING: Kind = Kind {
    dir: "changing",
    count: 6,
    size: 3 << 20,
};

/// A local directory that is the store.
#[derive(Debug)]
pub(super) struct Lake {
    root: PathBuf,
    /// The version that each changing file has, or is about to have.
    versions: Vec<AtomicU64>,
}

impl Lake {
    /// Writes all files below `root`.
    ///
    /// # Errors
    /// When there is no room for them.
    pub(super) fn write(root: &Path) -> Result<Self> {
        let lake = Self {
            root: root.to_owned(),
            versions: (0..CHANGING.count).map(|_| AtomicU64::new(0)).collect(),
        };
        for kind in [LARGE, SMALL, CHANGING] {
            let dir = root.join(kind.dir);
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            for number in 0..kind.count {
                let path = dir.join(name(number));
                fs::write(&path, content(kind, number, 0, 0, kind.size))
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        Ok(lake)
    }

    /// Replaces one changing file by its next version, at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn replace(&self, number: u64) -> Result<()> {
        let version = self.versions[number as usize].fetch_add(1, Ordering::SeqCst) + 1;
        let path = self.root.join(CHANGING.dir).join(name(number));
        // Beside the store, so that no listing shows it.
        let aside = self.root.with_extension("aside");
        fs::write(&aside, content(CHANGING, number, version, 0, CHANGING.size))
            .and_then(|()| fs::rename(&aside, &path))
            .with_context(|| format!("cannot replace {}", path.display()))
    }

    /// The latest version of a changing file.
    pub(super) fn version(&self, number: u64) -> u64 {
        self.versions[number as usize].load(Ordering::SeqCst)
    }
}

/// The name of file `number` in its directory.
pub(super) fn name(number: u64) -> String {
    format!("f{number:04}")
}

/// Bytes `[offset, offset + len)` of a file, both multiples of a word.
fn content(kind: Kind, number: u64, version: u64, offset: u64, len: u64) -> Vec<u8> {
    let words = offset / WORD..(offset + len) / WORD;
    words
        .flat_map(|place| word(kind, number, version, place).to_le_bytes())
        .collect()
}

/// How many words of `found`, the bytes of a file from `offset` on, are wrong. Parts of words
/// at both ends are not looked at.
pub(super) fn mismatches(kind: Kind, number: u64, version: u64, offset: u64, found: &[u8]) -> u64 {
    let skipped = (offset.wrapping_neg() % WORD).min(found.len() as u64);
    let words = found[skipped as usize..].chunks_exact(WORD as usize);
    let places = (offset + skipped) / WORD..;
    let is_wrong =
        |(place, bytes): &(u64, &[u8])| *bytes != word(kind, number, version, *place).to_le_bytes();
    places.zip(words).filter(is_wrong).count() as u64
}

/// The version that these bytes of a changing file are of, by their first word, if any of
/// `candidates` is.
pub(super) fn version_of(
    kind: Kind,
    number: u64,
    found: &[u8],
    candidates: std::ops::RangeInclusive<u64>,
) -> Option<u64> {
    let first: [u8; WORD as usize] = found.get(..WORD as usize)?.try_into().ok()?;
    let first = u64::from_le_bytes(first);
    candidates
        .into_iter()
        .rev()
        .find(|version| word(kind, number, *version, 0) == first)
}

/// What is wrong with a listing of a directory, as names and lengths: one text for each name
/// that is missing, there more than once, of another length, or none of its files.
pub(super) fn differences(kind: Kind, found: &[(String, u64)]) -> Vec<String> {
    let mut times: BTreeMap<String, u64> = (0..kind.count).map(|n| (name(n), 0)).collect();
    let mut differences = Vec::new();
    for (name, len) in found {
        match times.get_mut(name) {
            None => differences.push(format!("{name} does not exist")),
            Some(times) => *times += 1,
        }
        if *len != kind.size {
            differences.push(format!("{name} has {len} bytes, not {}", kind.size));
        }
    }
    let counted = times.into_iter().filter(|(_, times)| *times != 1);
    differences.extend(counted.map(|(name, times)| match times {
        0 => format!("{name} is missing"),
        times => format!("{name} is there {times} times"),
    }));
    differences
}

/// splitmix64 of all that names a word; see Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", 2014.
fn word(kind: Kind, number: u64, version: u64, place: u64) -> u64 {
    let seed = kind.size ^ number << 48 ^ version << 32;
    let mut mixed = seed
        .wrapping_add(place)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        dir: "k",
        count: 1,
        size: 4096,
    };

    #[test]
    fn wrong_bytes_and_other_versions_are_told() {
        let right = content(KIND, 3, 7, 0, KIND.size);
        assert_eq!(mismatches(KIND, 3, 7, 0, &right), 0);
        assert_eq!(mismatches(KIND, 3, 7, 13, &right[13..901]), 0);
        assert_eq!(mismatches(KIND, 3, 6, 0, &right), KIND.size / WORD);
        assert_eq!(mismatches(KIND, 2, 7, 0, &right), KIND.size / WORD);
        let mut wrong = right.clone();
        wrong[100] ^= 1;
        assert_eq!(mismatches(KIND, 3, 7, 0, &wrong), 1);
        assert_eq!(version_of(KIND, 3, &right, 0..=9), Some(7));
        assert_eq!(version_of(KIND, 3, &right, 0..=6), None);
        assert_eq!(version_of(KIND, 3, &right[..5], 0..=9), None);
    }

    #[test]
    fn a_listing_says_what_is_wrong_with_it() {
        let kind = Kind { count: 3, ..KIND };
        let listing = |found: &[(u64, u64)]| {
            let found: Vec<_> = found.iter().map(|(n, len)| (name(*n), *len)).collect();
            differences(kind, &found)
        };
        let right = listing(&[(2, 4096), (0, 4096), (1, 4096)]);
        assert_eq!(right, Vec::<String>::new());
        let wrong = listing(&[(0, 4096), (2, 0), (0, 4096), (7, 4096)]);
        let expected = [
            "f0002 has 0 bytes, not 4096",
            "f0007 does not exist",
            "f0000 is there 2 times",
            "f0001 is missing",
        ];
        assert_eq!(wrong, expected);
    }
}
