//! Notes on local disk of directory renames that are under way.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_proto::change;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::tree;
use crate::core::Core;
use crate::error::ClientError;
use crate::filesystem::FileSystem;
use crate::namespace::Place;
use crate::target::Target;

/// One directory rename, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// The URIs of the two directories in the store: what a mount finishes is what it shows.
    from_uri: String,
    to_uri: String,
    /// The same as paths of the namespace.
    from: String,
    to: String,
}

/// The directory of the notes; none if nothing is to be written down.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    dir: Option<PathBuf>,
    next: AtomicU64,
}

/// The note of one rename under way. Its file is locked, so that nobody takes the rename for
/// one that was interrupted.
#[derive(Debug)]
pub(super) struct Note(Option<(PathBuf, File)>);

impl Journal {
    /// Notes in `dir`, which is made when it is needed.
    pub(crate) fn new(dir: Option<PathBuf>) -> Self {
        Self {
            dir,
            next: AtomicU64::new(0),
        }
    }

    /// Writes down that `source` is about to become `target`. Returns when the note would
    /// survive a power failure.
    pub(super) async fn begin(
        &self,
        source: &Target,
        target: &Target,
    ) -> Result<Note, ClientError> {
        let Some(dir) = self.dir.clone() else {
            return Ok(Note(None));
        };
        let entry = Entry {
            from_uri: source.ufs.object_uri(&source.below),
            to_uri: target.ufs.object_uri(&target.below),
            from: source.path.clone(),
            to: target.path.clone(),
        };
        // Several mounts may share the directory.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            "{:08x}-{}-{number}.json",
            rand::random::<u32>(),
            std::process::id()
        );
        let path = dir.join(name);
        let failed = |source: io::Error, at: &Path| ClientError::State {
            action: "write",
            path: at.display().to_string(),
            source: Arc::new(source),
        };
        let at = path.clone();
        let written = tokio::task::spawn_blocking(move || write(&at, &entry)).await;
        match written.map_err(io::Error::other).and_then(|result| result) {
            Ok(file) => Ok(Note(Some((path, file)))),
            Err(error) => Err(failed(error, &path)),
        }
    }

    /// The notes of renames that nobody is at.
    fn entries(dir: &Path) -> io::Result<Vec<(Note, Entry)>> {
        let files = match std::fs::read_dir(dir) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut entries = Vec::new();
        for file in files {
            let path = file?.path();
            if path.extension().is_none_or(|ext| ext != "json") {
                continue;
            }
            let file = File::open(&path)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            let text = std::fs::read(&path)?;
            match serde_json::from_slice(&text) {
                Ok(entry) => entries.push((Note(Some((path, file))), entry)),
                Err(error) => tracing::warn!(
                    note = %path.display(),
                    %error,
                    "a note of a directory rename cannot be read"
                ),
            }
        }
        Ok(entries)
    }
}

impl Note {
    /// The rename is over.
    pub(super) async fn end(self) {
        let Some((path, file)) = self.0 else {
            return;
        };
        let at = path.clone();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_file(at)).await;
        drop(file);
        if let Ok(Err(error)) = removed {
            tracing::warn!(
                note = %path.display(),
                %error,
                "the note of a rename that is over stays"
            );
        }
    }

    fn path(&self) -> String {
        let path = self.0.as_ref().map(|(path, _)| path.display().to_string());
        path.unwrap_or_default()
    }
}

fn write(path: &Path, entry: &Entry) -> io::Result<File> {
    use std::io::Write as _;
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(dir)?;
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    file.write_all(&serde_json::to_vec(entry)?)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}

impl FileSystem {
    /// Finishes the directory renames that a client before this one was interrupted in, as far
    /// as the stores of this namespace are concerned. Returns how many were finished; those
    /// that cannot be are logged, and tried again by the next client.
    pub async fn finish_renames(&self) -> usize {
        let core = self.core();
        let Some(dir) = core.journal.dir.clone() else {
            return 0;
        };
        let at = dir.clone();
        let read = tokio::task::spawn_blocking(move || Journal::entries(&at)).await;
        let entries = match read.map_err(io::Error::other).and_then(|result| result) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(
                    dir = %dir.display(),
                    %error,
                    "cannot look for directory renames that were interrupted"
                );
                return 0;
            }
        };
        let mut finished = 0;
        for (note, entry) in entries {
            match core.finish_rename(&entry).await {
                Ok(true) => {
                    tracing::info!(
                        from = entry.from,
                        to = entry.to,
                        "finished a directory rename"
                    );
                    note.end().await;
                    finished += 1;
                }
                Ok(false) => tracing::debug!(note = note.path(), "of another namespace"),
                Err(error) => tracing::error!(
                    from = entry.from,
                    to = entry.to,
                    note = note.path(),
                    error = &error as &dyn std::error::Error,
                    "a directory rename that was interrupted cannot be finished: its members lie \
                     at both paths"
                ),
            }
        }
        finished
    }
}

impl Core {
    /// Whether the rename was this namespace's, and is finished.
    async fn finish_rename(self: &Arc<Self>, entry: &Entry) -> Result<bool, ClientError> {
        let snapshot = self.snapshot();
        let mounts = &snapshot.view().mounts;
        if [&entry.from, &entry.to]
            .iter()
            .any(|path| Place::of(mounts, path).mount.is_none())
        {
            return Ok(false);
        }
        let source = self.target("rename", &entry.from).await?;
        let target = self.target("rename", &entry.to).await?;
        if source.ufs.object_uri(&source.below) != entry.from_uri
            || target.ufs.object_uri(&target.below) != entry.to_uri
            || source.mount != target.mount
        {
            return Ok(false);
        }
        tree::resume(&source, &target).await?;
        let tree = |path: &str| change::Change {
            path: path.to_owned(),
            recursive: true,
        };
        self.changed(&[tree(&entry.from), tree(&entry.to)], None)
            .await;
        Ok(true)
    }
}
