//! Opening a file: its attributes, its store, its version.

use std::sync::Arc;

use crate::attr::{Attr, FileKind};
use crate::core::Core;
use crate::error::ClientError;
use crate::fetch::OpenFile;
use crate::namespace::Place;

impl Core {
    /// All that is needed to read the normalized `path` in its present version.
    ///
    /// # Errors
    /// As of [`Core::look_up`]; `Invalid` if it is no file.
    pub(crate) async fn open_file(
        self: &Arc<Self>,
        path: &str,
    ) -> Result<(OpenFile, Arc<Attr>), ClientError> {
        let attr = self.look_up(path).await?;
        let not_a_file = || ClientError::NotAFile {
            path: path.to_owned(),
        };
        if attr.kind != FileKind::File {
            return Err(not_a_file());
        }
        let (Some(version), Some(id)) = (attr.version.clone(), attr.file_id) else {
            return Err(not_a_file());
        };
        let snapshot = self.snapshot();
        let place = Place::of(&snapshot.view().mounts, path);
        let (mount, below) = place.mount.ok_or_else(|| ClientError::NotFound {
            path: path.to_owned(),
        })?;
        let pace = snapshot.store(mount).map(|store| Arc::clone(&store.pace));
        let file = OpenFile {
            path: path.to_owned(),
            pace: pace.unwrap_or_default(),
            ufs: self.open_store(&snapshot, mount).await?,
            size: attr.size,
            below,
            mount,
            version,
            id,
        };
        Ok((file, attr))
    }
}
