//! What all requests of one mount share.

use std::ffi::OsString;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use fuser::{Errno, FileAttr, FileType, Generation, INodeNo, Notifier, ReplyEntry};
use millpond_client::{Attr, ClientError, Directory, Draft, FileHandle, FileSystem, Found, Writer};
use millpond_proto::{ErrorKind, Refusal};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::attr::{AttrStyle, file_type};
use crate::closers::Closers;
use crate::control::Control;
use crate::dir::DirCursor;
use crate::errno::{errno_of, errno_of_refusal};
use crate::handles::Handles;
use crate::held::HeldFiles;
use crate::inode::{Identity, InodeTable, Live, Replaced};
use crate::kernel_dirs::KernelDirs;
use crate::metrics::{FuseMetrics, OpTimer, Outcome};
use crate::options::MountOptions;
use crate::passthrough::Passing;
use crate::whole_dir::{MARGIN, WholeDir};

/// The state of one mount, and the helpers by which handlers answer.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) fs: FileSystem,
    pub(crate) style: AttrStyle,
    /// How long the kernel believes the attributes of a version that is held open.
    pub(crate) ttl: Duration,
    /// Whether the kernel opens files without asking.
    pub(crate) kernel_opens: bool,
    /// Whether every change is refused.
    pub(crate) read_only: bool,
    pub(crate) inodes: Mutex<InodeTable>,
    pub(crate) files: Handles<OpenFile>,
    /// What is read of files that the kernel opened by itself.
    pub(crate) held: HeldFiles,
    pub(crate) dirs: Handles<OpenDir>,
    pub(crate) kernel_dirs: KernelDirs<Directory>,
    pub(crate) control: Control,
    /// Which files the kernel reads itself.
    pub(crate) passing: Passing,
    pub(crate) metrics: Arc<FuseMetrics>,
    /// Set right after the session exists, before its first request.
    pub(crate) notifier: OnceLock<Notifier>,
    pub(crate) tasks: TaskTracker,
    runtime: Handle,
}

/// A file handle that the kernel holds.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) ino: u64,
    /// The version that it reads while the file is not written; none if the store had none when
    /// it was opened, or it may write.
    pub(crate) file: Option<Arc<FileHandle>>,
    /// What it reads and writes, if it was opened while the file was written, or for that.
    pub(crate) draft: Option<Arc<Draft>>,
    /// There if it may write.
    pub(crate) writer: Option<Writer>,
    /// Whose close of it counts.
    pub(crate) closers: Closers,
    /// Shared by all handles on the inode.
    pub(crate) live: Arc<Live>,
    /// Whether the first read through this handle is still to tell that the kernel has dropped
    /// the pages of earlier versions.
    pub(crate) unsettled: AtomicBool,
}

impl OpenFile {
    /// What is read through the handle, if the file is written or was since it was opened.
    pub(crate) fn draft(&self) -> Option<Arc<Draft>> {
        let own = self.draft.as_ref().map(Arc::clone);
        own.or_else(|| self.live.draft())
    }
}

/// A directory handle that the kernel holds.
#[derive(Debug)]
pub(crate) enum OpenDir {
    /// Read from the store. The lock is held while the listing is waited for: two readers of
    /// one handle take turns, as the kernel makes them do anyway.
    Stream(tokio::sync::Mutex<DirCursor>),
    /// Read from memory.
    Whole(WholeDir),
}

impl Shared {
    pub(crate) fn new(fs: FileSystem, runtime: Handle, dir: &Path, options: &MountOptions) -> Self {
        let metrics = options.metrics.as_ref().map_or_else(
            || Arc::new(FuseMetrics::new(&mut Default::default())),
            Arc::clone,
        );
        let identity = if options.kernel_opens {
            Identity::Version
        } else {
            Identity::Name
        };
        let wants_passthrough = options.passthrough && !options.kernel_opens && fs.has_disk();
        Self {
            ttl: kernel_ttl(fs.metadata_ttl()),
            fs,
            style: AttrStyle::new(options, SystemTime::now()),
            kernel_opens: options.kernel_opens,
            read_only: options.read_only,
            inodes: Mutex::new(InodeTable::new(identity).below(&options.subtree)),
            files: Handles::new(),
            held: HeldFiles::new(),
            dirs: Handles::new(),
            kernel_dirs: KernelDirs::new(),
            control: Control::new(dir.to_owned(), options.clone()),
            passing: Passing::new(wants_passthrough),
            metrics,
            notifier: OnceLock::new(),
            tasks: TaskTracker::new(),
            runtime,
        }
    }

    /// Runs a request that may have to wait. It is tried once on this thread, so that what
    /// is at hand is answered without a hop; the rest of it becomes a task.
    pub(crate) fn run(&self, request: impl Future<Output = ()> + Send + 'static) {
        let mut request = Box::pin(request);
        let _runtime = self.runtime.enter();
        match request
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(()) => {}
            Poll::Pending => self.spawn(request),
        }
    }

    /// Runs a request that is known to wait as a task.
    pub(crate) fn spawn(&self, request: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(request, &self.runtime);
    }

    /// Runs what may block for a while on a thread of its own.
    pub(crate) fn blocking(
        &self,
        work: impl FnOnce() + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        self.tasks.spawn_blocking_on(work, &self.runtime)
    }

    /// Looks up what the kernel is told about `name`, and counts the lookup.
    pub(crate) fn remember(&self, parent: u64, name: &str, attr: &Attr) -> Result<FileAttr, Errno> {
        let kind = file_type(attr.kind);
        let mut inodes = self.inodes.lock();
        let looked = inodes
            .lookup(parent, name, kind, attr.file_id)
            .ok_or(Errno::ESTALE)?;
        self.metrics.inodes.set(inodes.len() as i64);
        if let Some(pinned) = looked.pinned {
            return Ok(pinned);
        }
        let fresh = self.style.file_attr(looked.ino, attr);
        inodes.keep(looked.ino, &fresh);
        Ok(fresh)
    }

    /// Has the kernel look up the name of `ino` before it uses it again: it was seen to hold
    /// something else than the inode stands for.
    pub(crate) fn expire(self: &Arc<Self>, ino: u64) {
        let entry = {
            let inodes = self.inodes.lock();
            let entry = inodes.entry(ino);
            entry.map(|(parent, name)| (parent, OsString::from(name)))
        };
        let Some((parent, name)) = entry else {
            return;
        };
        let shared = Arc::clone(self);
        // The kernel takes the directory's lock, which look-ups under way in it hold.
        let notify = move || {
            if let Some(notifier) = shared.notifier.get()
                && let Err(error) = notifier.inval_entry(INodeNo(parent), &name)
            {
                tracing::debug!(%error, ?name, "the kernel did not drop a name");
            }
        };
        self.tasks.spawn_blocking_on(notify, &self.runtime);
    }

    /// Has the kernel drop the pages and attributes of `ino`: it had its data in another place.
    pub(crate) fn drop_pages(self: &Arc<Self>, ino: u64) {
        let shared = Arc::clone(self);
        // The kernel takes locks of pages, which requests under way hold.
        let notify = move || {
            if let Some(notifier) = shared.notifier.get()
                && let Err(error) = notifier.inval_inode(INodeNo(ino), 0, 0)
            {
                tracing::debug!(%error, "the kernel did not drop pages");
            }
        };
        self.tasks.spawn_blocking_on(notify, &self.runtime);
    }

    /// Has the kernel drop the listings that open handles could go on reading from it when
    /// they are over.
    pub(crate) fn drop_old_listings(self: &Arc<Self>) {
        let soon = Instant::now() + MARGIN;
        let over = |listing: &Directory| listing.valid(soon).is_zero();
        let dirs = self.kernel_dirs.open_with(over);
        if dirs.is_empty() {
            return;
        }
        let shared = Arc::clone(self);
        let notify = move || {
            let Some(notifier) = shared.notifier.get() else {
                return;
            };
            for ino in dirs {
                if let Err(error) = notifier.inval_inode(INodeNo(ino), 0, 0) {
                    tracing::debug!(%error, "the kernel did not drop a listing");
                }
            }
        };
        self.tasks.spawn_blocking_on(notify, &self.runtime);
    }

    /// The attributes that the kernel is given for `ino`, whose path has `attr` now.
    pub(crate) fn attributes(&self, ino: u64, attr: &Attr) -> Result<FileAttr, Errno> {
        let kind = file_type(attr.kind);
        match self.inodes.lock().attributes(ino, kind, attr.file_id) {
            Ok(pinned) => Ok(pinned.unwrap_or_else(|| self.style.file_attr(ino, attr))),
            // The kernel looks the name up again and asks for what it finds there.
            Err(Replaced) => Err(Errno::ESTALE),
        }
    }

    pub(crate) fn path(&self, ino: INodeNo) -> Result<String, Errno> {
        self.inodes.lock().path(ino.0).ok_or(Errno::ESTALE)
    }

    /// Answers a lookup with what was found, counting it.
    pub(crate) fn reply_entry(
        &self,
        parent: u64,
        name: &str,
        found: Result<Found, ClientError>,
        reply: ReplyEntry,
        timer: OpTimer,
        outcome: Outcome,
    ) {
        match found {
            Ok(Found {
                attr: Some(attr),
                valid,
            }) => match self.remember(parent, name, &attr) {
                Ok(attr) => {
                    timer.finish(outcome);
                    reply.entry(&kernel_ttl(valid), &attr, GENERATION);
                }
                Err(errno) => {
                    timer.finish(Outcome::Error);
                    reply.error(errno);
                }
            },
            Ok(Found { attr: None, valid }) => {
                timer.finish(Outcome::NotFound);
                // Inode 0 is "there is nothing".
                reply.entry(&valid.min(LONGEST_ABSENCE), &nothing(), GENERATION);
            }
            Err(error) => {
                timer.finish(Outcome::Error);
                reply.error(errno_logged("lookup", &error));
            }
        }
    }
}

/// How long the kernel is told to believe what the client believes for `valid`.
pub(crate) fn kernel_ttl(valid: Duration) -> Duration {
    valid.min(LONGEST_TTL)
}

/// The kernel asks again at least this often; a client that still knows answers from memory.
const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);

/// The kernel asks again for what it believes absent at least this often: it does not tell which
/// such names it has, so they cannot be dropped when all below a directory changes.
const LONGEST_ABSENCE: Duration = Duration::from_secs(1);

/// The errno of a failure that is about to be the application's; logged here, once.
pub(crate) fn errno_logged(op: &'static str, error: &ClientError) -> Errno {
    if let Some(refusal) = error.refusal() {
        if matches!(refusal, Refusal::NoSpace | Refusal::Quota) {
            tracing::warn!(op, error = %chain(error), "request refused");
        } else {
            tracing::debug!(op, %error, "request refused");
        }
        return errno_of_refusal(refusal);
    }
    let kind = error.kind();
    match kind {
        ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Denied | ErrorKind::Unsupported => {
            tracing::debug!(op, %error, "request failed");
        }
        ErrorKind::Stale => tracing::info!(op, %error, "file changed while it was open"),
        ErrorKind::Busy
        | ErrorKind::Unavailable
        | ErrorKind::Timeout
        | ErrorKind::Corrupt
        | ErrorKind::Internal => {
            tracing::warn!(op, error = %chain(error), "request failed");
        }
    }
    errno_of(kind)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// Inode numbers are not reused for other names, so one generation is enough.
pub(crate) const GENERATION: Generation = Generation(0);
