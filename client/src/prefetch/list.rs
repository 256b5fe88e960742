//! A hint list: which files, or parts of files, will be read, in order. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use crate::namespace;

/// Files in the order in which they will be read, one to a line:
///
/// ```text
/// train/0007.jpg
/// train/0003.jpg
/// shards/a.tar<TAB>1048576<TAB>65536
/// ```
///
/// - A line is a path, or a path, an offset and a length in bytes with tabs between them.
/// - Empty lines and lines that start with `#` are passed over.
/// - A line that is no path of the namespace counts in [`HintList::bad_lines`], and the rest
///   of the list holds.
#[derive(Debug, Default)]
pub struct HintList {
    /// The normalized paths, one after the other.
    paths: String,
    /// Where the path of each entry ends in `paths`.
    ends: Vec<u32>,
    /// The part of each entry; empty while all entries are whole files.
    parts: Vec<Range<u64>>,
    /// Entries by the hash of their path, and then in order.
    by_path: Vec<(u32, u32)>,
    bad_lines: u64,
}

/// All of a file.
const WHOLE: Range<u64> = 0..u64::MAX;

impl HintList {
    /// Reads `text`. Each path is taken as one below the directory `root` of the namespace,
    /// whether it starts with `/` or not.
    pub fn parse(text: &str, root: &str) -> Self {
        Self::parse_mounted(text, root, "")
    }

    /// The same for a mount at the directory `dir` of this host: paths that begin with it are
    /// taken from there.
    pub fn parse_mounted(text: &str, root: &str, dir: &str) -> Self {
        // "" for the namespace's own.
        let root = root.trim_end_matches('/');
        let mut list = Self::default();
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (path, part) = split(line);
            let path = path.strip_prefix("./").unwrap_or(path);
            let inside = path.strip_prefix(dir).filter(|rest| rest.starts_with('/'));
            let path = inside.unwrap_or(path);
            let path = format!("{root}/{}", path.trim_start_matches('/'));
            match namespace::normal(&path) {
                Ok(path) if path != "/" && path.len() > root.len() => list.push(path, part),
                Ok(_) | Err(_) => list.bad_lines += 1,
            }
        }
        list.by_path = (0..list.len())
            .map(|index| (hash(list.path(index)), index))
            .collect();
        list.by_path.sort_unstable();
        list
    }

    /// Entries.
    pub fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Lines that are no paths.
    pub fn bad_lines(&self) -> u64 {
        self.bad_lines
    }

    /// Whether any entry is a part of a file.
    pub(crate) fn has_parts(&self) -> bool {
        !self.parts.is_empty()
    }

    /// The path of entry `index`.
    pub(crate) fn path(&self, index: u32) -> &str {
        let at = index as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.paths[start as usize..self.ends[at] as usize]
    }

    /// The bytes of its file that entry `index` is about; they may lie beyond its end.
    pub(crate) fn part(&self, index: u32) -> Range<u64> {
        self.parts.get(index as usize).cloned().unwrap_or(WHOLE)
    }

    /// The entries for `path` that a read at `offset` fits, in order; with no offset, as at
    /// an open, those for whole files.
    pub(crate) fn find(&self, path: &str, offset: Option<u64>) -> impl Iterator<Item = u32> {
        let hash = hash(path);
        let first = self.by_path.partition_point(|(h, _)| *h < hash);
        let same = self.by_path[first..]
            .iter()
            .take_while(move |e| e.0 == hash);
        same.map(|(_, index)| *index).filter(move |index| {
            let part = self.part(*index);
            let fits = match offset {
                Some(offset) => part != WHOLE && part.contains(&offset),
                None => part == WHOLE,
            };
            fits && self.path(*index) == path
        })
    }

    fn push(&mut self, path: &str, part: Option<Range<u64>>) {
        // More text than that is refused where lists come in.
        let Ok(end) = u32::try_from(self.paths.len() + path.len()) else {
            self.bad_lines += 1;
            return;
        };
        if part.is_some() && self.parts.is_empty() {
            self.parts.resize(self.ends.len(), WHOLE);
        }
        self.paths.push_str(path);
        self.ends.push(end);
        if part.is_some() || !self.parts.is_empty() {
            self.parts.push(part.unwrap_or(WHOLE));
        }
    }
}

/// A line's path and part.
fn split(line: &str) -> (&str, Option<Range<u64>>) {
    let mut fields = line.rsplitn(3, '\t');
    let (len, offset, path) = (fields.next(), fields.next(), fields.next());
    let (Some(len), Some(offset), Some(path)) = (len, offset, path) else {
        return (line, None);
    };
    match (offset.trim().parse::<u64>(), len.trim().parse::<u64>()) {
        (Ok(offset), Ok(len)) => (path, Some(offset..offset.saturating_add(len))),
        _ => (line, None),
    }
}

fn hash(path: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    (hasher.finish() >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(list: &HintList) -> Vec<&str> {
        (0..list.len()).map(|i| list.path(i)).collect()
    }

    #[test]
    fn paths_are_taken_below_the_root_however_they_begin() {
        let text = "a/b c\n/a/b\n./x\n\n# no\na//b\n../up\n/\nü\r\n";
        let list = HintList::parse(text, "/data/");
        assert_eq!(
            paths(&list),
            ["/data/a/b c", "/data/a/b", "/data/x", "/data/ü"]
        );
        assert_eq!(list.bad_lines(), 3, "a//b, ../up and /");
        assert!(!list.has_parts());
        assert_eq!(paths(&HintList::parse("/x\ny", "/")), ["/x", "/y"]);
    }

    #[test]
    fn paths_of_this_host_are_taken_from_the_mount() {
        let text = "/mnt/d/a\n/mnt/dx/b\nmnt/d/c\n/d\n/\n";
        let list = HintList::parse_mounted(text, "/", "/mnt/d");
        assert_eq!(paths(&list), ["/a", "/mnt/dx/b", "/mnt/d/c", "/d"]);
        assert_eq!(list.bad_lines(), 1);
    }

    #[test]
    fn parts_are_an_offset_and_a_length_behind_tabs() {
        let list = HintList::parse("a\nb\t10\t5\nc\td\t1\t2\ne\tf\n", "/");
        assert_eq!(paths(&list), ["/a", "/b", "/c\td", "/e\tf"]);
        let parts: Vec<_> = (0..4).map(|i| list.part(i)).collect();
        assert_eq!(parts, [WHOLE, 10..15, 1..3, WHOLE]);
    }

    #[test]
    fn entries_are_found_by_path_and_place() {
        let list = HintList::parse("a\nb\na\nb\t0\t10\nb\t10\t10\n", "/");
        let find = |path, offset| list.find(path, offset).collect::<Vec<_>>();
        assert_eq!(find("/a", None), [0, 2]);
        assert_eq!(find("/b", None), [1]);
        assert_eq!(find("/b", Some(10)), [4]);
        assert_eq!(find("/b", Some(20)), [] as [u32; 0]);
        assert_eq!(find("/c", None), [] as [u32; 0]);
    }
}
