//! Comparing what is read with what it should be.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::dataset::Dataset;
use super::layout::{FileInfo, Layout, Piece};
use super::source::Source;
use crate::record::Row;

/// Bytes that are compared at once.
const BLOCK: u64 = 1 << 20;

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Bytes that were equal.
    pub(crate) bytes: u64,
    /// Files that differ.
    pub(crate) mismatches: u64,
    /// The first difference.
    pub(crate) first: Option<String>,
}

impl Verified {
    fn differs(&mut self, path: &str, why: &str) {
        self.mismatches += 1;
        self.first.get_or_insert_with(|| format!("{path}: {why}"));
    }
}

/// Enters what a comparison of all bytes found.
pub(crate) fn enter(verified: &Verified, rows: &mut [Row]) {
    for row in rows {
        row.proof.verified_bytes = Some(verified.bytes);
        row.proof.mismatches = Some(verified.mismatches);
        if let Some(first) = &verified.first {
            let note = row.note.take();
            row.note = Some(match note {
                Some(note) => format!("{first}; {note}"),
                None => first.clone(),
            });
        }
    }
}

/// Reads every file and compares every byte with the dataset's, whose files they are.
pub(crate) fn against_dataset(source: &Source, dataset: &Dataset) -> Verified {
    let layout = Layout::new(dataset.files(), BLOCK);
    let mut reader = source.reader(&layout, false);
    compare(&layout, |piece| {
        let found = reader.read(piece)?;
        let wrong = dataset.mismatches(piece.file, piece.offset, found);
        Ok(found.len() == piece.len && wrong == 0)
    })
}

/// Reads every file and compares every byte with the file of that name in `dir`.
pub(super) fn against_dir(source: &Source, files: &Arc<[FileInfo]>, dir: &Path) -> Verified {
    let layout = Layout::new(files, BLOCK);
    let expected = Source::Dir(dir.to_owned());
    let (mut ours, mut theirs) = (
        source.reader(&layout, false),
        expected.reader(&layout, false),
    );
    let mut verified = compare(&layout, |piece| {
        let (ours, theirs) = (ours.read(piece)?, theirs.read(piece)?);
        Ok(ours == theirs && ours.len() == piece.len)
    });
    for info in &**files {
        let size = dir.join(&info.path).metadata().map(|found| found.len());
        if size.as_ref().ok() != Some(&info.size) {
            let size = size.map_or_else(|_| "missing".to_owned(), |size| format!("{size} bytes"));
            let why = format!("{} bytes, in {} {size}", info.size, dir.display());
            verified.differs(&info.path, &why);
        }
    }
    verified
}

/// Looks at all pieces up to the first bad one of each file. A file that cannot be read is a
/// file that differs.
fn compare(layout: &Layout, mut same: impl FnMut(Piece) -> Result<bool>) -> Verified {
    let mut verified = Verified::default();
    let mut bad = None;
    for number in 0..layout.blocks() {
        let piece = layout.piece(number);
        if bad == Some(piece.file) {
            continue;
        }
        let why = match same(piece) {
            Ok(true) => {
                verified.bytes += piece.len as u64;
                continue;
            }
            Ok(false) => "bytes differ".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        bad = Some(piece.file);
        let path = &layout.files[piece.file].path;
        verified.differs(path, &format!("at {}: {why}", piece.offset));
    }
    verified
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_a_short_file_and_a_missing_one_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let files: Arc<[FileInfo]> = ["good", "wrong", "short", "missing"]
            .map(|path| FileInfo {
                path: path.to_owned(),
                size: 2_500_000,
            })
            .into();
        let dataset = Dataset::write(dir.path(), files, 1).unwrap();
        let source = Source::Dir(dir.path().to_owned());
        let whole = against_dataset(&source, &dataset);
        assert_eq!((whole.bytes, whole.mismatches), (10_000_000, 0));

        let mut bytes = std::fs::read(dir.path().join("wrong")).unwrap();
        bytes[2_000_000] ^= 1;
        std::fs::write(dir.path().join("wrong"), &bytes).unwrap();
        std::fs::write(dir.path().join("short"), &bytes[..100]).unwrap();
        std::fs::remove_file(dir.path().join("missing")).unwrap();
        let found = against_dataset(&source, &dataset);
        assert_eq!(found.mismatches, 3, "{found:?}");
        assert!(found.first.unwrap().starts_with("wrong: at 1048576"));
        let itself = against_dir(&source, dataset.files(), dir.path());
        // The missing one cannot be read, and is missing on the other side too.
        assert_eq!(itself.mismatches, 2 + 2, "{itself:?}");
    }
}
