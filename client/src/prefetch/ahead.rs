//! Fetching one file, or a part of it, before a reader asks.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::core::Core;
use crate::error::ClientError;
use crate::fetch::{How, OpenFile};

/// The most bytes of a file that are fetched because its neighbours were read: a reader of
/// more has the stream's own readahead by then.
pub(super) const MOST_OF_A_SIBLING: u64 = 4 << 20;

/// Between two looks for memory.
const PAUSE: Duration = Duration::from_millis(5);

/// How many looks for memory are made before the rest is left to the reader.
const LOOKS: u32 = 2000;

/// Looks up and fetches the next file of a directory.
pub(super) async fn fetch_sibling(core: &Arc<Core>, path: &str) -> Result<(), ClientError> {
    let (file, _) = core.open_file(path).await?;
    let end = file.size.min(MOST_OF_A_SIBLING);
    fetch(core, &Arc::new(file), 0..end).await
}

/// Fetches `range` of `file` into memory, as memory for reading ahead comes free, and waits
/// until it is there.
///
/// # Errors
/// That of the first piece that no source had.
pub(super) async fn fetch(
    core: &Arc<Core>,
    file: &Arc<OpenFile>,
    range: Range<u64>,
) -> Result<(), ClientError> {
    let mut from = range.start;
    let mut looks = 0;
    while from < range.end {
        let reached = core.fetch_ahead(file, from..range.end, How::default());
        core.landed(file, from..reached).await?;
        if reached < range.end {
            looks += 1;
            if looks > LOOKS {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
        from = reached;
    }
    Ok(())
}
