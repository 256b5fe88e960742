//! The last view on disk: JSON, owner-only because mount options may hold secrets.

use std::path::Path;

use millpond_proto::ClusterView;

use crate::{NetError, file};

/// Reads the view kept at `path`; none if there is none.
pub(super) fn load(path: &Path) -> Result<Option<ClusterView>, NetError> {
    let Some(text) = file::read(path)? else {
        return Ok(None);
    };
    match serde_json::from_str(&text) {
        Ok(view) => Ok(Some(view)),
        Err(error) => Err(NetError::Damaged {
            path: path.to_owned(),
            why: error.to_string(),
        }),
    }
}

/// Replaces the view kept at `path`.
pub(super) fn save(path: &Path, view: &ClusterView) -> Result<(), NetError> {
    let text = serde_json::to_vec_pretty(view).map_err(|e| NetError::Damaged {
        path: path.to_owned(),
        why: e.to_string(),
    })?;
    file::write(path, &text)
}
