//! What this machine can do at best: the same reads of a local file in the page cache.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};

use super::job::Workload;
use super::layout::{FileInfo, Layout};
use super::report::{LimitReport, RunReport};
use super::source::Source;

/// The largest local file.
const MAX_FILE: u64 = 256 << 20;
/// How long it is read.
const DURATION: Duration = Duration::from_millis(700);

/// Measures the limit with the workload's pattern, block size, jobs and seed.
///
/// # Errors
/// When the temporary directory cannot take the file.
pub(super) fn measure(workload: &Workload<'_>) -> Result<LimitReport> {
    let layout = workload.layout;
    let size = layout
        .bytes()
        .min(MAX_FILE)
        .max(layout.block().min(MAX_FILE));
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    fill(&dir.path().join("limit"), size).context("cannot write the file of the limit")?;
    let local = Layout::new(
        vec![FileInfo {
            path: "limit".to_owned(),
            size,
        }],
        layout.block(),
    );
    let source = Source::Dir(dir.path().to_owned());
    let once = Workload {
        layout: &local,
        duration: None,
        ..*workload
    };
    once.run(&source, "limit, warming up")?;
    let measured = Workload {
        duration: Some(DURATION),
        ..once
    }
    .run(&source, "limit")?;
    Ok(LimitReport {
        what: format!(
            "a local file of {} MiB in the page cache, read likewise",
            size >> 20
        ),
        run: RunReport::new(&measured),
    })
}

fn fill(path: &std::path::Path, size: u64) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let chunk: Vec<u8> = (0..1u32 << 20)
        .map(|n| (n.wrapping_mul(0x9e37_79b1) >> 24) as u8)
        .collect();
    let mut left = size;
    while left > 0 {
        let len = left.min(chunk.len() as u64);
        file.write_all(&chunk[..len as usize])?;
        left -= len;
    }
    Ok(())
}
