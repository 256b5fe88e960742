//! Contents of the moment, each an inode until the kernel forgets it.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

use super::place::FIRST_SNAPSHOT;

/// What is kept at most: a kernel that holds on to more reads ESTALE.
const MOST: usize = 64;
const MOST_BYTES: usize = 16 << 20;

/// Contents by inode number. Numbers are never used twice.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    given: u64,
    bytes: usize,
    contents: BTreeMap<u64, (Bytes, u16)>,
}

impl Snapshots {
    /// Keeps `content` and returns its number. The oldest go when there is too much.
    pub(super) fn insert(&self, content: Bytes, mode: u16) -> u64 {
        let mut kept = self.kept.lock();
        let number = FIRST_SNAPSHOT + kept.given;
        kept.given += 1;
        kept.bytes += content.len();
        kept.contents.insert(number, (content, mode));
        while kept.contents.len() > MOST || (kept.bytes > MOST_BYTES && kept.contents.len() > 1) {
            let Some((_, (gone, _))) = kept.contents.pop_first() else {
                break;
            };
            kept.bytes -= gone.len();
        }
        number
    }

    pub(super) fn content(&self, number: u64) -> Option<Bytes> {
        let kept = self.kept.lock();
        kept.contents
            .get(&number)
            .map(|(content, _)| content.clone())
    }

    pub(super) fn size_and_mode(&self, number: u64) -> Option<(u64, u16)> {
        let kept = self.kept.lock();
        let (content, mode) = kept.contents.get(&number)?;
        Some((content.len() as u64, *mode))
    }

    /// The kernel forgot `number`: it is looked up once only.
    pub(super) fn remove(&self, number: u64) {
        let mut kept = self.kept.lock();
        if let Some((gone, _)) = kept.contents.remove(&number) {
            kept.bytes -= gone.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_kept_until_forgotten_and_few() {
        let snapshots = Snapshots::default();
        let first = snapshots.insert(Bytes::from_static(b"abc"), 0o444);
        assert_eq!(snapshots.content(first).as_deref(), Some(&b"abc"[..]));
        assert_eq!(snapshots.size_and_mode(first), Some((3, 0o444)));
        snapshots.remove(first);
        assert_eq!(snapshots.content(first), None);
        let numbers: Vec<_> = (0..1000)
            .map(|_| snapshots.insert(Bytes::from(vec![0; 1 << 20]), 0o400))
            .collect();
        assert!(!numbers.contains(&first));
        let kept = snapshots.kept.lock();
        assert!(kept.bytes <= MOST_BYTES && kept.contents.len() == MOST_BYTES >> 20);
    }
}
