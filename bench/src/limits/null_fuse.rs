//! A FUSE file system that has nothing to do: files whose bytes lie ready in memory, served
//! from a process of its own with the settings of a Millpond mount. What no mount can exceed.

mod filesystem;
mod passthrough;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use fuser::{Filesystem, Session};
use millpond_fuse::unmount::{Force, unmount};
use millpond_fuse::{MountOptions, mountinfo, preflight, session};
use millpond_process::announce_ready;
use serde::{Deserialize, Serialize};

use super::child::{self, Child, Role};
use super::content::Content;
use crate::process_cluster::unmount_lazily;

use filesystem::NullFiles;
use passthrough::Passthrough;

/// The content of all null files repeats after so many bytes at the latest: as much memory
/// does the serving process need.
pub const MAX_PERIOD: u64 = 256 << 20;

/// How the null file system differs from a mount of Millpond with default settings: not at
/// all, by default.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NullFuseSettings {
    /// Files, named `0`, `1` and so on, all of the same size and content.
    pub files: u64,
    /// Seed of the content.
    pub seed: u64,
    /// Threads that serve; as many as a mount has by default if none.
    pub threads: Option<usize>,
    /// How long the kernel believes attributes; as long as with a mount by default if none.
    pub metadata_ttl: Option<Duration>,
    /// The kernel's readahead in KiB; as with a mount by default if none.
    pub read_ahead_kb: Option<u32>,
    /// Reads go past the kernel's pages (`FOPEN_DIRECT_IO`), as they do not with a mount.
    pub direct_io: bool,
}

impl Default for NullFuseSettings {
    fn default() -> Self {
        Self {
            files: 1,
            seed: 1,
            threads: None,
            metadata_ttl: None,
            read_ahead_kb: None,
            direct_io: false,
        }
    }
}

impl NullFuseSettings {
    fn mount_options(&self) -> MountOptions {
        let usual = MountOptions::default();
        MountOptions {
            threads: self.threads.unwrap_or(usual.threads),
            read_ahead_kb: self.read_ahead_kb.unwrap_or(usual.read_ahead_kb),
            fs_name: "limit".to_owned(),
            ..usual
        }
    }
}

/// A mounted null file system. It is unmounted and its process ended when this is dropped;
/// when this process dies, too.
#[derive(Debug)]
pub struct NullFuse {
    // Ends before the directory is looked after.
    child: Option<Child>,
    dir: PathBuf,
    content: Content,
    size: u64,
}

impl NullFuse {
    /// Mounts files of `size` bytes at `dir`, an empty directory that is made if need be.
    ///
    /// # Errors
    /// When this process may not mount, or the mount fails.
    pub fn start(dir: &Path, size: u64, settings: &NullFuseSettings) -> Result<Self> {
        let period = size.clamp(1, MAX_PERIOD);
        let serving = Serving {
            dir: child::text(dir)?,
            size,
            settings: settings.clone(),
            source: BytesOf::Memory { period },
        };
        let child = mount(dir, serving)?;
        Ok(Self {
            child: Some(child),
            dir: dir.to_owned(),
            content: Content::new(settings.seed, period),
            size,
        })
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// File number `index`.
    pub fn file(&self, index: u64) -> PathBuf {
        self.dir.join(index.to_string())
    }

    /// The size of each file in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What each file holds.
    pub const fn content(&self) -> Content {
        self.content
    }

    /// The process that serves it.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::pid)
    }
}

impl Drop for NullFuse {
    fn drop(&mut self) {
        drop(self.child.take());
        // Nothing to do unless it was killed.
        unmount_lazily(&self.dir);
    }
}

/// One local file that the kernel reads itself for a FUSE file system, which only opens it
/// (`FOPEN_PASSTHROUGH`; Linux 6.9 and `CAP_SYS_ADMIN`).
#[derive(Debug)]
pub struct PassthroughFuse {
    child: Option<Child>,
    dir: PathBuf,
}

impl PassthroughFuse {
    /// Mounts the file `backing` as `dir/0`.
    ///
    /// # Errors
    /// When this process may not mount. Whether it may pass files through, an open says.
    pub fn start(dir: &Path, backing: &Path) -> Result<Self> {
        let serving = Serving {
            dir: child::text(dir)?,
            size: std::fs::metadata(backing)?.len(),
            settings: NullFuseSettings::default(),
            source: BytesOf::File {
                backing: child::text(backing)?,
            },
        };
        Ok(Self {
            child: Some(mount(dir, serving)?),
            dir: dir.to_owned(),
        })
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.dir.join("0")
    }

    /// The process that opens it.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::pid)
    }
}

impl Drop for PassthroughFuse {
    fn drop(&mut self) {
        drop(self.child.take());
        unmount_lazily(&self.dir);
    }
}

fn mount(dir: &Path, serving: Serving) -> Result<Child> {
    preflight::check_right()?;
    let cannot = || format!("cannot mount at {}", dir.display());
    std::fs::create_dir_all(dir).with_context(cannot)?;
    Child::start(&Role::Fuse(serving)).with_context(cannot)
}

/// What the child serves.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Serving {
    dir: String,
    size: u64,
    settings: NullFuseSettings,
    source: BytesOf,
}

#[derive(Debug, Serialize, Deserialize)]
enum BytesOf {
    Memory { period: u64 },
    File { backing: String },
}

/// The child's side: mounts, and unmounts when `stop` comes.
pub(super) async fn serve(serving: Serving, stop: impl Future<Output = ()>) -> Result<()> {
    let options = serving.settings.mount_options();
    let dir = preflight::check_mount_point(Path::new(&serving.dir))?;
    match &serving.source {
        BytesOf::Memory { period } => {
            let content = Content::new(serving.settings.seed, *period);
            let files = NullFiles::new(serving.size, &content, *period, &serving.settings);
            until(files, &dir, &options, stop).await
        }
        BytesOf::File { backing } => {
            let file =
                Passthrough::new(Path::new(backing), serving.size, (options.uid, options.gid))?;
            until(file, &dir, &options, stop).await
        }
    }
}

async fn until(
    filesystem: impl Filesystem + 'static,
    dir: &Path,
    options: &MountOptions,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let session = Session::new(filesystem, dir, &session::config(options))?;
    let session = session.spawn()?;
    if let Some(entry) = mountinfo::mount_at(dir)? {
        session::raise_read_ahead(entry.device, options);
    }
    announce_ready(&[]);
    stop.await;
    // Readers that still have it open go on until this process ends, and then get errors.
    unmount(dir, Force::Lazy)?;
    drop(session);
    Ok(())
}
