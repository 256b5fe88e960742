//! Comparing what is read with a directory of the same files.

use std::path::Path;

use anyhow::Result;

use super::layout::Layout;
use super::report::VerifyReport;
use super::source::Source;

/// Reads every file from both and compares every byte.
///
/// # Errors
/// When a reader cannot be made. A file that cannot be read on one side counts as different.
pub(super) fn verify(source: &Source, layout: &Layout, dir: &Path) -> Result<VerifyReport> {
    let expected = Source::Dir(dir.to_owned());
    let (mut ours, mut theirs) = (source.reader(layout)?, expected.reader(layout)?);
    let mut report = VerifyReport {
        files: layout.files.len() as u64,
        ..VerifyReport::default()
    };
    let mut bad = None;
    for number in 0..layout.blocks() {
        let piece = layout.piece(number);
        if bad == Some(piece.file) {
            continue;
        }
        let same = match (ours.read(piece), theirs.read(piece)) {
            (Ok(ours), Ok(theirs)) if ours == theirs && ours.len() == piece.len => Ok(()),
            (Ok(_), Ok(_)) => Err("bytes differ".to_owned()),
            (Err(error), _) | (_, Err(error)) => Err(format!("{error:#}")),
        };
        match same {
            Ok(()) => report.bytes += piece.len as u64,
            Err(why) => {
                report.mismatches += 1;
                bad = Some(piece.file);
                let path = &layout.files[piece.file].path;
                report
                    .first
                    .get_or_insert_with(|| format!("{path} at {}: {why}", piece.offset));
            }
        }
    }
    for info in &*layout.files {
        let size = dir
            .join(&info.path)
            .metadata()
            .map(|metadata| metadata.len())
            .ok();
        if size != Some(info.size) {
            report.mismatches += 1;
            let size = size.map_or_else(|| "missing".to_owned(), |size| size.to_string());
            let why = format!("{}: {} bytes against {size}", info.path, info.size);
            report.first.get_or_insert(why);
        }
    }
    Ok(report)
}
