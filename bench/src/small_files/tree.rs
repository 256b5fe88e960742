//! So many files in so many directories. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::read::layout::FileInfo;

/// `count` files of `size` bytes, spread evenly over `dirs` directories (at least 1), in the
/// order of their paths.
pub(super) fn files(count: usize, size: u64, dirs: usize) -> Arc<[FileInfo]> {
    let dirs = dirs.min(count.max(1));
    let file = |number: usize| {
        // Consecutive numbers share a directory, the first ones being fuller by one.
        let dir = number * dirs / count;
        FileInfo {
            path: format!("dir-{dir:04}/file-{number:08}"),
            size,
        }
    };
    (0..count).map(file).collect()
}

/// The directories that hold the files, relative like these, in order.
pub(super) fn dirs(files: &[FileInfo]) -> Vec<String> {
    let parent = |info: &FileInfo| match info.path.rsplit_once('/') {
        Some((dir, _)) => dir.to_owned(),
        None => String::new(),
    };
    let all: BTreeSet<String> = files.iter().map(parent).collect();
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn files_are_spread_evenly(count in 1usize..500, places in 1usize..60) {
            let files = files(count, 7, places);
            prop_assert_eq!(files.len(), count);
            prop_assert!(files.is_sorted_by(|a, b| a.path < b.path));
            let mut full: BTreeMap<&str, usize> = BTreeMap::new();
            for info in &*files {
                *full.entry(info.path.split_once('/').unwrap().0).or_default() += 1;
            }
            prop_assert_eq!(full.len(), places.min(count));
            let (least, most) = (full.values().min().unwrap(), full.values().max().unwrap());
            prop_assert!(most - least <= 1);
            let dirs = dirs(&files);
            prop_assert_eq!(dirs.iter().map(String::as_str).collect::<Vec<_>>(),
                full.keys().copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn files_at_the_top_are_in_a_directory_too() {
        let at = |path: &str| FileInfo {
            path: path.to_owned(),
            size: 1,
        };
        assert_eq!(dirs(&[at("a"), at("b/c/d"), at("b/e")]), ["", "b", "b/c"]);
    }
}
