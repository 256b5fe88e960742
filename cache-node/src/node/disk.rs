//! The directories of the disk tier and their size.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tracing::warn;

use millpond_process::{Size, UsageError};

use crate::config::{NodeConfig, default_disk_capacity};
use crate::error::NodeError;
use crate::fill::error_chain;

/// A disk tier of fewer bytes is not worth having when nobody asked for it.
const WORTHWHILE: Size = Size::mib(64);

/// A directory of the disk tier and its limit in bytes.
pub(super) type Disk = (PathBuf, u64);

/// The directories of the disk tier, made and known to be writable, with their capacity; none
/// for no disk tier.
///
/// # Errors
/// When no directory can be written, a file system is smaller than the capacity that was
/// asked for, or two are on one file system and no capacity was asked for.
pub(super) fn prepare(config: &NodeConfig) -> anyhow::Result<Vec<Disk>> {
    let mut devices: Vec<(u64, &Path)> = Vec::new();
    let mut disks = Vec::new();
    let mut broken = None;
    for dir in &config.disks {
        let made = make(dir)
            .and_then(|()| fs::metadata(dir).map_err(failed(dir, "look at the directory")));
        let device = match made {
            Ok(device) => device,
            Err(error) => {
                let cause = error_chain(&error);
                warn!(dir = %dir.display(), %cause, "a directory of the disk tier is left out");
                broken.get_or_insert(error);
                continue;
            }
        };
        if let Some((_, other)) = devices.iter().find(|(dev, _)| *dev == device.dev()) {
            let same = format!(
                "{} and {} are on one file system: two are no faster and no safer than one",
                other.display(),
                dir.display()
            );
            if config.disk_capacity.is_none() {
                let advice = "leave one out of --disk, or say what each may hold with \
                              --disk-capacity";
                return Err(UsageError::new(format!("{same}; {advice}")).into());
            }
            warn!("{same}");
        }
        devices.push((device.dev(), dir));
        if let Some(capacity) = capacity(dir, config.disk_capacity)? {
            disks.push((dir.clone(), capacity));
        }
    }
    match broken {
        // One dead disk of several does not keep a node from starting.
        Some(error) if devices.is_empty() => Err(error.into()),
        _ => Ok(disks),
    }
}

/// Makes a directory, and sure that it can be written.
fn make(dir: &Path) -> Result<(), NodeError> {
    fs::create_dir_all(dir).map_err(failed(dir, "create the directory of the disk tier"))?;
    let probe = dir.join(".probe");
    fs::write(&probe, b"x").map_err(failed(dir, "write to the directory of the disk tier"))?;
    fs::remove_file(&probe).map_err(failed(dir, "delete in the directory of the disk tier"))
}

/// How much a directory may hold; none if that is not worth while.
fn capacity(dir: &Path, asked: Option<Size>) -> anyhow::Result<Option<u64>> {
    let space = rustix::fs::statvfs(dir)
        .map_err(|errno| failed(dir, "ask for the free space of")(errno.into()))?;
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
        return Ok(Some(capacity.0));
    }
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let capacity = default_disk_capacity(free, held(dir));
    if capacity < WORTHWHILE {
        warn!(dir = %dir.display(), free_bytes = free, "no disk tier here: the disk is almost full");
        return Ok(None);
    }
    Ok(Some(capacity.0))
}

fn failed(dir: &Path, doing: &'static str) -> impl Fn(std::io::Error) -> NodeError {
    move |source| NodeError::Io {
        doing,
        path: dir.to_owned(),
        source,
    }
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
            disk: vec![disk.to_owned()],
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
    fn one_of_several_that_cannot_be_made_is_left_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&file.path().join("blocks"), Some(Size::mib(64)));
        config.disks.push(dir.path().join("b"));
        let expected = (dir.path().join("b"), Size::mib(64).bytes());
        assert_eq!(prepare(&config).unwrap(), [expected]);
    }

    #[test]
    fn more_than_the_disk_has_is_a_usage_error() {
        let dir = tempfile::tempdir().unwrap();
        let much = Size::gib(1 << 30);
        let error = prepare(&config(dir.path(), Some(much))).unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("--disk-capacity"));
    }

    #[test]
    fn two_directories_on_one_file_system_need_a_capacity() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir.path().join("a"), None);
        config.disks.push(dir.path().join("b"));
        let error = prepare(&config).unwrap_err();
        assert!(
            error.is::<UsageError>() && error.to_string().contains("--disk"),
            "{error}"
        );
        config.disk_capacity = Some(Size::mib(64));
        assert_eq!(prepare(&config).unwrap().len(), 2);
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
