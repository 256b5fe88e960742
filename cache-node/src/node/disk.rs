//! The disk tier's directory and size.

use std::fs;
use std::path::{Path, PathBuf};

use tracing::warn;

use millpond_process::{Size, UsageError};

use crate::config::{NodeConfig, default_disk_capacity};
use crate::error::NodeError;

/// A disk tier of fewer bytes is not worth having when nobody asked for it.
const WORTHWHILE: Size = Size::mib(64);

/// Directory and capacity of the disk tier, the directory made and known to be writable;
/// none for no disk tier.
///
/// # Errors
/// When the directory cannot be written, or the file system is smaller than the capacity
/// that was asked for.
pub(super) fn prepare(config: &NodeConfig) -> anyhow::Result<Option<(PathBuf, u64)>> {
    let Some((dir, asked)) = &config.disk else {
        return Ok(None);
    };
    let failed = |doing| {
        move |source| NodeError::Io {
            doing,
            path: dir.clone(),
            source,
        }
    };
    fs::create_dir_all(dir).map_err(failed("create the directory of the disk tier"))?;
    let probe = dir.join(".probe");
    fs::write(&probe, b"x").map_err(failed("write to the directory of the disk tier"))?;
    fs::remove_file(&probe).map_err(failed("delete in the directory of the disk tier"))?;

    let space = rustix::fs::statvfs(dir)
        .map_err(|errno| failed("ask for the free space of")(errno.into()))?;
    let total = space.f_blocks.saturating_mul(space.f_frsize);
    if let Some(capacity) = asked {
        if capacity.0 > total {
            let usage = UsageError::new(format!(
                "disk capacity of {capacity} is more than the file system of {} has ({}MiB); \
                 lower --disk-capacity or name another --disk",
                dir.display(),
                total >> 20
            ));
            return Err(usage.into());
        }
        return Ok(Some((dir.clone(), capacity.0)));
    }
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let capacity = default_disk_capacity(free, held(dir));
    if capacity < WORTHWHILE {
        warn!(dir = %dir.display(), free_bytes = free, "no disk tier: the disk is almost full");
        return Ok(None);
    }
    Ok(Some((dir.clone(), capacity.0)))
}

/// Bytes in files at and below `dir`; what cannot be read counts as nothing.
fn held(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => held(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn config(disk: &Path, capacity: Option<Size>) -> NodeConfig {
        Settings {
            join: vec!["c".to_owned()],
            disk: Some(disk.to_owned()),
            disk_capacity: capacity,
            ..Settings::default()
        }
        .validate()
        .unwrap()
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let below = file.path().join("blocks");
        let error = prepare(&config(&below, None)).unwrap_err().to_string();
        assert!(error.contains(&below.display().to_string()), "{error}");
    }

    #[test]
    fn more_than_the_disk_has_is_a_usage_error() {
        let dir = tempfile::tempdir().unwrap();
        let much = Size::gib(1 << 30);
        let error = prepare(&config(dir.path(), Some(much))).unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("--disk-capacity"));
    }

    #[test]
    fn what_the_tier_holds_is_counted_at_any_depth() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/c"), [0; 300]).unwrap();
        fs::write(dir.path().join("d"), [0; 7]).unwrap();
        assert!(held(dir.path()) >= 307);
    }
}
