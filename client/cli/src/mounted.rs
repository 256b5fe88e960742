//! Mounts of ours as other commands see them: by their directory, through their control
//! files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use millpond_fuse::control::{Config, DIRECTORY, Stats};
use millpond_fuse::mountinfo::{self, MountEntry};
use rustix::fs::OFlags;

/// What the kernel lists as the source of a mount of ours, if it is one: what is behind
/// `millpond:`, which is empty if nothing is.
pub(crate) fn source_of(entry: &MountEntry) -> Option<&str> {
    let is_fuse = entry.fs_type == "fuse" || entry.fs_type == "fuse.millpond";
    let named = entry.source.strip_prefix("millpond").filter(|_| is_fuse)?;
    match named {
        "" => Some(named),
        _ => named.strip_prefix(':'),
    }
}

/// A mount of ours on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OurMount {
    dir: PathBuf,
}

impl OurMount {
    /// The mount that `path` lies in, and where in it.
    ///
    /// # Errors
    /// Those of reading the kernel's table of mounts. A path that is in no mount of ours, or
    /// does not exist, is none.
    pub(crate) fn of(path: &Path) -> io::Result<Option<(Self, PathBuf)>> {
        // Asks no mount but the one that the path leads into.
        let Ok(path) = mountinfo::locate(path).and_then(|path| path.canonicalize()) else {
            return Ok(None);
        };
        let mounts = mountinfo::mounts()?;
        let around = mounts
            .iter()
            .filter(|entry| path.starts_with(&entry.mount_point));
        // The deepest, and of several at one place the last.
        let entry = around.max_by_key(|entry| entry.mount_point.components().count());
        let Some(entry) = entry.filter(|entry| source_of(entry).is_some()) else {
            return Ok(None);
        };
        let dir = entry.mount_point.clone();
        let below = path
            .strip_prefix(&dir)
            .unwrap_or_else(|_| Path::new(""))
            .to_owned();
        Ok(Some((Self { dir }, below)))
    }

    /// The mount that `path` lies in and where in it, whether anything is there or not; a link
    /// at its end is not followed.
    ///
    /// # Errors
    /// Those of [`of`](Self::of).
    pub(crate) fn of_name(path: &Path) -> io::Result<Option<(Self, PathBuf)>> {
        let itself = Self::of(path)?;
        if let Some((_, below)) = &itself
            && below.as_os_str().is_empty()
        {
            return Ok(itself);
        }
        let absolute = std::path::absolute(path)?;
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Ok(itself);
        };
        let around = Self::of(parent)?;
        Ok(around.map(|(mount, below)| (mount, below.join(name))))
    }

    /// The mount that `path` lies in.
    ///
    /// # Errors
    /// If it lies in none of ours.
    pub(crate) fn around(path: &Path) -> anyhow::Result<Self> {
        match Self::of(path)? {
            Some((mount, _)) => Ok(mount),
            None => bail!(
                "{} is in no mount of millpond on this host; `findmnt` lists all mounts",
                path.display()
            ),
        }
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it did so far.
    pub(crate) fn stats(&self) -> anyhow::Result<Stats> {
        self.read("stats")
    }

    /// How it is set.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        self.read("config")
    }

    /// Has it fetch the paths of `list`.
    pub(crate) fn prefetch(&self, list: &[u8]) -> anyhow::Result<()> {
        self.write("prefetch", list)
    }

    /// Has it forget what it knows of `below`, and of all below that. Does not wait until it
    /// did.
    ///
    /// # Errors
    /// If the path has a line break, or the mount takes nothing.
    pub(crate) fn refresh(&self, below: &Path, recursive: bool) -> anyhow::Result<()> {
        let mut line = self.dir.join(below).into_os_string().into_vec();
        while line.ends_with(b"/") {
            line.pop();
        }
        if line.contains(&b'\n') {
            bail!("a path with a line break cannot be named: name the directory above it");
        }
        if recursive {
            line.push(b'/');
        }
        line.push(b'\n');
        self.write("refresh", &line)
    }

    /// Writes `text` to the pipe `name`.
    fn write(&self, name: &str, text: &[u8]) -> anyhow::Result<()> {
        let path = self.dir.join(DIRECTORY).join(name);
        let no_reader = || {
            format!(
                "the mount at {} takes nothing: it was made without CAP_SYS_ADMIN (run as root), \
                 or by an older millpond",
                self.dir.display()
            )
        };
        // Without a reader the open fails at once instead of waiting for one.
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NONBLOCK);
        let mut pipe = options.open(&path).with_context(no_reader)?;
        rustix::fs::fcntl_setfl(&pipe, OFlags::empty())?;
        pipe.write_all(text)
            .with_context(|| format!("cannot write to {}", path.display()))
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> anyhow::Result<T> {
        let path = self.dir.join(DIRECTORY).join(name);
        let file = File::open(&path)
            .with_context(|| format!("cannot read {}: is it an older millpond?", path.display()))?;
        serde_json::from_reader(io::BufReader::new(file))
            .with_context(|| format!("cannot understand {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_ours_are_known_by_type_and_source() {
        let source = |fs_type: &str, source: &str| {
            let entry = MountEntry {
                device: (0, 1),
                mount_point: PathBuf::from("/m"),
                fs_type: fs_type.to_owned(),
                source: source.to_owned(),
            };
            source_of(&entry).map(str::to_owned)
        };
        assert_eq!(source("fuse", "millpond:s3://b").as_deref(), Some("s3://b"));
        assert_eq!(source("fuse.millpond", "millpond").as_deref(), Some(""));
        assert_eq!(source("fuse", "millpondx"), None);
        assert_eq!(source("ext4", "millpond:x"), None);
    }

    #[test]
    fn what_is_not_mounted_by_us_is_said_to_be_so() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(OurMount::of(dir.path()).unwrap(), None);
        assert_eq!(OurMount::of(&dir.path().join("missing")).unwrap(), None);
        let error = OurMount::around(dir.path()).unwrap_err().to_string();
        assert!(error.contains("no mount of millpond"), "{error}");
    }
}
