//! One live mount.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use fuser::Session;
use millpond_client::FileSystem;
use millpond_proto::ErrorKind;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::adapter::Adapter;
use crate::metrics::Op;
use crate::options::MountOptions;
use crate::passthrough::Passthrough;
use crate::shared::Shared;
use crate::unmount::{Force, UnmountError, detach};
use crate::whole_dir::MARGIN;
use crate::{control, invalidation, mountinfo, preflight, session};

/// A [`FileSystem`] mounted at a directory. Dropping it unmounts (lazily, without
/// waiting); [`MountedFs::unmount`] does so in order.
#[derive(Debug)]
pub struct MountedFs {
    dir: PathBuf,
    shared: Arc<Shared>,
    /// Set until the mount was taken away by us.
    device: Option<(u32, u32)>,
    session: Option<JoinHandle<()>>,
    ended: watch::Receiver<bool>,
}

/// What a mount did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountStats {
    /// Bytes of file data given to the kernel.
    pub read_bytes: u64,
    /// Read requests from the kernel.
    pub reads: u64,
    /// Requests of all kinds.
    pub requests: u64,
    /// Inodes that the kernel knows, the root included.
    pub inodes: usize,
    /// Files that are open, as far as the kernel tells; where it opens files by itself, those
    /// that were read lately.
    pub open_files: usize,
    /// Directories that are open.
    pub open_dirs: usize,
    /// Whether the kernel reads files of the local disk tier itself.
    pub passthrough: Passthrough,
    /// Opens of files that it then read itself.
    pub passthrough_opens: u64,
}

/// How a mount went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounted {
    /// Nobody used it.
    Clean,
    /// It was in use: it is out of sight, and its users get errors when the process ends.
    Lazy,
    /// Somebody else had taken it away before.
    Before,
}

/// Why a mount could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no FUSE in this kernel or container.
    #[error(
        "cannot open /dev/fuse, so nothing can be mounted: load the module (`modprobe fuse`), or \
         start the container with `--device /dev/fuse --cap-add SYS_ADMIN`"
    )]
    NoDevice {
        /// The kernel's answer.
        source: io::Error,
    },
    /// This user may not use FUSE.
    #[error(
        "no right to open /dev/fuse: run as root, or let the user read and write it (mode 0666 is \
         usual); in a container add `--device /dev/fuse --cap-add SYS_ADMIN`"
    )]
    DeviceDenied {
        /// The kernel's answer.
        source: io::Error,
    },
    /// This process may not mount anywhere.
    #[error(
        "no right to mount: this process has neither CAP_SYS_ADMIN (run as root; in a container \
         with `--cap-add SYS_ADMIN`) nor fusermount3 (package fuse3) to do it"
    )]
    NoRight,
    /// This user may not mount.
    #[error(
        "no right to mount at {}: run as root (in a container with `--cap-add SYS_ADMIN`), or \
         install fusermount3 (package fuse3)",
        dir.display()
    )]
    MountDenied {
        /// The mount point.
        dir: PathBuf,
        /// The kernel's or the helper's answer.
        source: io::Error,
    },
    /// The mount point does not exist.
    #[error(
        "mount point {} does not exist; create it with `mkdir -p {}`",
        dir.display(),
        dir.display()
    )]
    Missing {
        /// The mount point.
        dir: PathBuf,
    },
    /// The mount point is a file.
    #[error("mount point {} is not a directory; use an empty directory", dir.display())]
    NotADirectory {
        /// The mount point.
        dir: PathBuf,
    },
    /// The mount would hide files.
    #[error("mount point {} is not empty; use an empty directory", dir.display())]
    NotEmpty {
        /// The mount point.
        dir: PathBuf,
    },
    /// Something is mounted there already.
    #[error(
        "{} is a mount point already: {source_name} (type {fs_type}) is mounted there; use another \
         directory, or unmount it first (`millpond umount {}` if it is one of ours)",
        dir.display(),
        dir.display()
    )]
    AlreadyMounted {
        /// The mount point.
        dir: PathBuf,
        /// What is mounted there.
        source_name: String,
        /// Of what type.
        fs_type: String,
    },
    /// A mount is there whose process has ended.
    #[error(
        "{} holds a mount whose process has ended (\"transport endpoint is not connected\"); take \
         it away with `umount --lazy {}`",
        dir.display(),
        dir.display()
    )]
    Dead {
        /// The mount point.
        dir: PathBuf,
    },
    /// The mount point cannot be looked at.
    #[error("cannot look at mount point {}", dir.display())]
    Unreadable {
        /// The mount point.
        dir: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel or the helper refused for another reason.
    #[error("cannot mount at {}", dir.display())]
    Failed {
        /// The mount point.
        dir: PathBuf,
        /// The kernel's or the helper's answer.
        source: io::Error,
    },
    /// A setting is wrong.
    #[error("{setting} is not usable: {why}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl MountError {
    /// What the caller should do.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NoDevice { .. } => ErrorKind::Unsupported,
            Self::DeviceDenied { .. } | Self::NoRight | Self::MountDenied { .. } => {
                ErrorKind::Denied
            }
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::NotADirectory { .. } | Self::NotEmpty { .. } | Self::Setting { .. } => {
                ErrorKind::Invalid
            }
            Self::AlreadyMounted { .. } | Self::Dead { .. } => ErrorKind::Busy,
            Self::Unreadable { .. } | Self::Failed { .. } => ErrorKind::Internal,
        }
    }
}

impl MountedFs {
    /// Mounts `fs` at `dir`, which must be an empty directory. Requests that must wait run
    /// as tasks on `runtime`. Blocks for some milliseconds.
    ///
    /// # Errors
    /// `Unsupported` or `Denied` when this process cannot mount; `NotFound`, `Invalid` or
    /// `Busy` for the mount point; each says what to do.
    pub fn mount(
        fs: FileSystem,
        runtime: Handle,
        dir: &Path,
        options: &MountOptions,
    ) -> Result<Self, MountError> {
        validate(options)?;
        let dir = preflight::check_mount_point(dir)?;
        preflight::check_device()?;
        let shared = Arc::new(Shared::new(fs, runtime, &dir, options));
        let adapter = Adapter::new(Arc::clone(&shared));
        let session = Session::new(adapter, &dir, &session::config(options))
            .map_err(|source| refused(&dir, source))?;
        // The session answers nothing before it runs, so no request comes without it.
        let _ = shared.notifier.set(session.notifier());
        let device = mountinfo::mount_at(&dir)
            .ok()
            .flatten()
            .map(|entry| entry.device);
        let (ending, ended) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("fuse-session".to_owned())
            .spawn(move || {
                if let Err(error) = session.run() {
                    tracing::warn!(%error, "the FUSE session ended with an error");
                }
                let _ = ending.send(true);
            })
            .map_err(|source| MountError::Failed {
                dir: dir.clone(),
                source,
            })?;
        shared.spawn(sweep(Arc::clone(&shared), ended.clone()));
        let following = invalidation::follow(Arc::clone(&shared), ended.clone());
        shared.spawn(following);
        if let Some(device) = device {
            shared.spawn(control::serve(Arc::clone(&shared), device));
            session::raise_read_ahead(device, options);
        }
        tracing::info!(mount = %dir.display(), source = options.source(), "mounted");
        Ok(Self {
            dir,
            shared,
            device,
            session: Some(thread),
            ended,
        })
    }

    /// Where it is mounted: absolute, without links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it did so far. Counters are those of the metrics that were handed in, so they
    /// are sums if several mounts share these.
    pub fn stats(&self) -> MountStats {
        let shared = &self.shared;
        MountStats {
            read_bytes: shared.metrics.read_bytes(),
            reads: shared.metrics.requests_of(Op::Read),
            requests: shared.metrics.requests(),
            inodes: shared.inodes.lock().len(),
            open_files: shared.files.len() + shared.held.len(),
            open_dirs: shared.dirs.len(),
            passthrough: shared.passing.state(),
            passthrough_opens: shared.metrics.passthrough_opens.get(),
        }
    }

    /// Returns when the mount is gone, whoever took it away.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that the session thread is gone: it has ended, too.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Takes the mount away: cleanly if nobody uses it within half a second, else out of
    /// sight at once. Waits a bounded time for requests under way.
    ///
    /// # Errors
    /// [`UnmountError::Denied`] and [`UnmountError::Failed`]; the mount is then still there.
    pub async fn unmount(mut self) -> Result<Unmounted, UnmountError> {
        self.shared.control.inbox.close();
        let how = self.take_away().await?;
        self.device = None;
        let drain = if how == Unmounted::Lazy {
            LINGER
        } else {
            DRAIN
        };
        let ended = tokio::time::timeout(drain, self.ended()).await.is_ok();
        self.shared.tasks.close();
        let _ = tokio::time::timeout(LINGER, self.shared.tasks.wait()).await;
        if ended && let Some(session) = self.session.take() {
            let _ = session.join();
        }
        tracing::info!(mount = %self.dir.display(), ?how, "unmounted");
        Ok(how)
    }

    async fn take_away(&self) -> Result<Unmounted, UnmountError> {
        for attempt in 0..ATTEMPTS {
            if !self.is_there() {
                return Ok(Unmounted::Before);
            }
            match detach(&self.dir, Force::Clean) {
                Ok(()) => return Ok(Unmounted::Clean),
                Err(UnmountError::NotMounted { .. }) => return Ok(Unmounted::Before),
                // Often something that only looked in passing, like an indexer.
                Err(UnmountError::Busy { .. }) if attempt + 1 < ATTEMPTS => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(UnmountError::Busy { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        tracing::warn!(
            mount = %self.dir.display(),
            "the mount is in use; taking it out of sight, its users get errors"
        );
        detach(&self.dir, Force::Lazy)?;
        Ok(Unmounted::Lazy)
    }

    /// Whether what is mounted at the directory is still ours.
    fn is_there(&self) -> bool {
        if *self.ended.borrow() || self.device.is_none() {
            return false;
        }
        let entry = mountinfo::mount_at(&self.dir);
        entry.is_ok_and(|entry| entry.map(|entry| entry.device) == self.device)
    }
}

impl Drop for MountedFs {
    fn drop(&mut self) {
        self.shared.control.inbox.close();
        if self.is_there()
            && let Err(error) = detach(&self.dir, Force::Lazy)
        {
            tracing::warn!(%error, "the mount stays behind");
        }
    }
}

/// Lets go of files that nobody reads, and has the kernel let go of listings that are over,
/// until the mount has ended.
async fn sweep(shared: Arc<Shared>, mut ended: watch::Receiver<bool>) {
    loop {
        let gone = ended.wait_for(|ended| *ended);
        match tokio::time::timeout(SWEEP, gone).await {
            Ok(_) => return,
            Err(_) => {
                shared.held.sweep();
                shared.drop_old_listings();
            }
        }
    }
}

fn validate(options: &MountOptions) -> Result<(), MountError> {
    if !(1..=64).contains(&options.threads) {
        return Err(MountError::Setting {
            setting: "threads",
            why: "it must be 1 to 64",
        });
    }
    if options.kernel_opens && !options.read_only {
        return Err(MountError::Setting {
            setting: "kernel opens",
            why: "a mount that can be written has to be asked at each open",
        });
    }
    for (setting, mode) in [
        ("file mode", options.file_mode),
        ("directory mode", options.dir_mode),
        ("umask", options.umask),
    ] {
        if mode & !0o7777 != 0 {
            return Err(MountError::Setting {
                setting,
                why: "it must be permission bits, 0 to 7777 octal",
            });
        }
    }
    Ok(())
}

/// What the failure of fuser's mount means. It falls back from `mount(2)` to `fusermount3`
/// when the kernel answers EPERM, and fails with `NotFound` when that is not installed.
fn refused(dir: &Path, source: io::Error) -> MountError {
    let dir = dir.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            MountError::MountDenied { dir, source }
        }
        _ => MountError::Failed { dir, source },
    }
}

/// How long a file is held at least, and twice as long at most, without being read; how long
/// before its end a listing goes.
const SWEEP: Duration = MARGIN;

/// Clean unmounts that are tried before a lazy one, with a pause between.
const ATTEMPTS: u32 = 6;

const PAUSE: Duration = Duration::from_millis(100);

/// How long a clean unmount may take to end the session.
const DRAIN: Duration = Duration::from_secs(5);

/// How long users of a mount that is out of sight may hold up its end.
const LINGER: Duration = Duration::from_secs(1);
