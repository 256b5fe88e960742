//! What becomes of a file that could not be sent.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use crate::error::ClientError;

use super::draft::Draft;

/// The directory in the staging directory for files that could not be sent.
const UNSENT: &str = "unsent";

/// Bytes that are copied at a time.
const STEP: u64 = 4 << 20;

impl Draft {
    /// Sends what the last handle left; where that fails, keeps it where an operator finds it.
    pub(super) async fn finish(&self) {
        let Err(error) = self.flush().await else {
            return self.let_go();
        };
        let path = self.path().unwrap_or_default();
        let kept = self.rescue(&path).await;
        let error = &error as &dyn std::error::Error;
        match kept {
            Ok(Some(kept)) => tracing::error!(
                path,
                error,
                kept = %kept.display(),
                "a file could not be sent after its last handle was closed; what was written is \
                 kept in the staging directory"
            ),
            Ok(None) => tracing::error!(
                path,
                error,
                "what was written is lost: a file could not be sent after its last handle was \
                 closed, and there is no --staging-dir to keep it in"
            ),
            Err(why) => tracing::error!(
                path,
                error,
                %why,
                "what was written is lost: a file could not be sent after its last handle was \
                 closed, nor kept in the staging directory"
            ),
        }
    }

    /// Copies the file as it is to the staging directory, under a name of its own.
    async fn rescue(&self, path: &str) -> Result<Option<PathBuf>, ClientError> {
        let Some(dir) = self.core.staging.dir() else {
            return Ok(None);
        };
        let (dir, name) = (dir.join(UNSENT), name_of(path));
        let making = self.blocking("make", move || make(&dir, &name));
        let (file, kept) = making.await?;
        let file = std::sync::Arc::new(file);
        let size = self.size();
        for at in (0..size).step_by(STEP as usize) {
            let data = self.read_range(at..size.min(at + STEP)).await?;
            let file = std::sync::Arc::clone(&file);
            let writing = self.blocking("keep", move || file.write_all_at(&data, at));
            writing.await?;
        }
        self.blocking("keep", move || file.sync_all()).await?;
        Ok(Some(kept))
    }
}

/// A new file in `dir` whose name ends with `name`.
fn make(dir: &Path, name: &str) -> io::Result<(File, PathBuf)> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let path = dir.join(format!("{:016x}-{name}", rand::random::<u64>()));
    Ok((File::create_new(&path)?, path))
}

/// The path, as one name that is not too long.
fn name_of(path: &str) -> String {
    let name = path.trim_start_matches('/').replace('/', "_");
    let from = name.len().saturating_sub(200);
    let from = (from..=name.len()).find(|at| name.is_char_boundary(*at));
    name[from.unwrap_or(0)..].to_owned()
}
