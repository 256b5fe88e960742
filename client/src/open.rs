//! Opening a file: its attributes, its store, its version.

use std::sync::Arc;

use millpond_proto::MountId;
use millpond_ufs::Ufs;

use crate::attr::{Attr, FileKind};
use crate::core::Core;
use crate::error::ClientError;
use crate::fetch::OpenFile;
use crate::namespace::Place;
use crate::target::Target;

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
        let snapshot = self.snapshot();
        let place = Place::of(&snapshot.view().mounts, path);
        let (mount, below) = place.mount.ok_or_else(|| not_a_file(path))?;
        let ufs = self.open_store(&snapshot, mount).await?;
        let file = self.file_at(path, mount, below, ufs, &attr)?;
        Ok((file, attr))
    }

    /// All that is needed to read the file at `target` in the version that `attr` tells.
    ///
    /// # Errors
    /// `Invalid` if it is no file, or `attr` does not tell its version.
    pub(crate) fn file_of(&self, target: &Target, attr: &Attr) -> Result<OpenFile, ClientError> {
        let (below, ufs) = (target.below.clone(), Arc::clone(&target.ufs));
        self.file_at(&target.path, target.mount, below, ufs, attr)
    }

    fn file_at(
        &self,
        path: &str,
        mount: MountId,
        below: String,
        ufs: Arc<dyn Ufs>,
        attr: &Attr,
    ) -> Result<OpenFile, ClientError> {
        let (Some(version), Some(id)) = (attr.version.clone(), attr.file_id) else {
            return Err(not_a_file(path));
        };
        if attr.kind != FileKind::File {
            return Err(not_a_file(path));
        }
        let store = self.snapshot().store(mount);
        let pace = store.map(|store| Arc::clone(&store.pace));
        Ok(OpenFile {
            path: path.to_owned(),
            pace: pace.unwrap_or_default(),
            ufs,
            size: attr.size,
            below,
            mount,
            version,
            id,
        })
    }
}

fn not_a_file(path: &str) -> ClientError {
    ClientError::NotAFile {
        path: path.to_owned(),
    }
}
