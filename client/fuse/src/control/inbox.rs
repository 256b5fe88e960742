//! What is written to the control directory, on a mount that is read-only.
//!
//! The kernel refuses to open a file of a read-only mount for writing, but a named pipe is no
//! place where data stays, so anyone whom its mode lets may write there. We hold the reading
//! end. To open it, this process goes through a private copy of the mount (`open_tree(2)`)
//! which is in no directory: a file that is open in the mount itself would keep it busy, and
//! nobody could unmount it. The copy keeps the file system alive, so it is given up as soon as
//! the mount is gone from its directory, which the kernel's table of mounts tells.
//!
//! A text ends when the last who writes closes the pipe.

#![allow(
    unsafe_code,
    reason = "open_tree is a system call without a wrapper here"
)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millpond_client::HintList;
use rustix::fs::OFlags;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use super::apart::open_apart;
use super::place::{DIRECTORY, Place};
use super::refresh::{self, RefreshCounts};
use crate::mountinfo;
use crate::shared::Shared;

/// The longest command to `record`.
const MAX_COMMAND: u64 = 4096;

/// The most bytes of paths that `refresh` takes at once.
const MAX_CHANGES: u64 = 1 << 20;

/// The reading ends of the pipes, and the tasks that serve them.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    token: CancellationToken,
    open: AtomicBool,
    /// What became of what was written to `refresh`.
    pub(super) refreshed: RefreshCounts,
}

impl Inbox {
    /// Whether anything that is written is read.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Closes the pipes, so that the file system can end. Does not wait.
    pub(crate) fn close(&self) {
        self.token.cancel();
    }
}

/// Serves the pipes of the mount on `device` until it is gone or [`Inbox::close`]. The
/// session must run: this process asks its own mount for them.
pub(crate) async fn serve(shared: Arc<Shared>, device: (u32, u32)) {
    let inbox = &shared.control.inbox;
    let served = async {
        let dir = shared.control.dir.clone();
        let tree = tokio::task::spawn_blocking(move || clone_mount(&dir)).await;
        let tree = Arc::new(tree.map_err(io::Error::other)??);
        inbox.open.store(true, Ordering::Relaxed);
        tokio::try_join!(
            lists(&shared, &tree),
            commands(&shared, &tree),
            changes(&shared, &tree),
            gone(&shared.control.dir, device),
        )?;
        io::Result::Ok(())
    };
    let ended = tokio::select! {
        ended = served => ended,
        () = inbox.token.cancelled() => Ok(()),
    };
    inbox.open.store(false, Ordering::Relaxed);
    match ended {
        Ok(()) => {}
        Err(error) if error.kind() == GONE => {}
        Err(error) => tracing::info!(
            %error,
            "hints cannot be written to {DIRECTORY} (this needs CAP_SYS_ADMIN)"
        ),
    }
}

/// How [`gone`] ends: not as a success, because all ends with it.
const GONE: io::ErrorKind = io::ErrorKind::NotConnected;

async fn lists(shared: &Arc<Shared>, tree: &Arc<OwnedFd>) -> io::Result<()> {
    let mut pipe = open_pipe(tree, Place::Prefetch).await?;
    loop {
        let limit = shared.fs.hint_list_limit();
        let (text, is_cut) = receive(&mut pipe, limit).await?;
        // Opened anew before the old end is closed, so that nobody writes to nobody.
        pipe = open_pipe(tree, Place::Prefetch).await?;
        if is_cut {
            tracing::warn!(limit, "the end of a hint list was left out: it is too long");
        }
        let task = Arc::clone(shared);
        // Millions of lines take a moment.
        let work = tokio::task::spawn_blocking(move || take_list(&task, &text));
        work.await.map_err(io::Error::other)?;
    }
}

fn take_list(shared: &Shared, text: &[u8]) {
    // One list at a time is in memory.
    shared.fs.prefetch(HintList::default());
    let text = String::from_utf8_lossy(text);
    let inside = shared.control.dir.to_string_lossy();
    let root = shared.inodes.lock().root().to_owned();
    shared
        .fs
        .prefetch(HintList::parse_mounted(&text, &root, &inside));
}

async fn commands(shared: &Arc<Shared>, tree: &Arc<OwnedFd>) -> io::Result<()> {
    let mut pipe = open_pipe(tree, Place::Record).await?;
    loop {
        let (text, _) = receive(&mut pipe, MAX_COMMAND).await?;
        pipe = open_pipe(tree, Place::Record).await?;
        for line in String::from_utf8_lossy(&text).lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some("start"), Some(name), None) => {
                    if let Err(error) = shared.fs.record(name) {
                        tracing::warn!(%error, "nothing is recorded");
                    }
                }
                (Some("stop"), None, None) => shared.fs.stop_record(),
                (None, ..) => {}
                _ => tracing::warn!(line, "record takes `start NAME` or `stop`"),
            }
        }
    }
}

async fn changes(shared: &Arc<Shared>, tree: &Arc<OwnedFd>) -> io::Result<()> {
    let mut pipe = open_pipe(tree, Place::Refresh).await?;
    loop {
        let (text, is_cut) = receive(&mut pipe, MAX_CHANGES).await?;
        pipe = open_pipe(tree, Place::Refresh).await?;
        if is_cut {
            tracing::warn!(
                limit = MAX_CHANGES,
                "the end of what was written to refresh was left out: name a directory above"
            );
        }
        refresh::take(shared, &text).await;
    }
}

/// Fails when the mount of `device` is no longer at `dir`.
async fn gone(dir: &Path, device: (u32, u32)) -> io::Result<()> {
    let table = File::open("/proc/self/mountinfo")?;
    // SAFETY: a `File` has one descriptor for life, and the `AsyncFd` owns it.
    let table = unsafe { AsyncFd::register_with_interest(table, Interest::PRIORITY) }?;
    loop {
        let entry = mountinfo::mount_at(dir).ok().flatten();
        if entry.map(|entry| entry.device) != Some(device) {
            return Err(GONE.into());
        }
        // The kernel tells once of a change, to whoever has the table open.
        let mut changed = table.ready(Interest::PRIORITY).await?;
        changed.clear_ready();
    }
}

/// What is written until nobody has the pipe open for writing; at most `limit` bytes of it,
/// and whether there was more.
async fn receive(pipe: &mut pipe::Receiver, limit: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut text = Vec::new();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut is_cut = false;
    let mut part = vec![0; 64 << 10];
    loop {
        match pipe.read(&mut part).await? {
            0 => return Ok((text, is_cut)),
            len if text.len() + len <= limit => text.extend_from_slice(&part[..len]),
            _ => is_cut = true,
        }
    }
}

async fn open_pipe(tree: &Arc<OwnedFd>, place: Place) -> io::Result<pipe::Receiver> {
    let tree = Arc::clone(tree);
    let open = move || {
        let path = format!("{DIRECTORY}/{}", place.name());
        open_apart(&tree, &path, OFlags::RDONLY | OFlags::NONBLOCK)
    };
    let opened = tokio::task::spawn_blocking(open).await;
    let pipe = opened.map_err(io::Error::other)??;
    pipe::Receiver::from_file(File::from(pipe))
}

/// A copy of the mount at `dir` that is in no directory.
fn clone_mount(dir: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path is a C string that lives through the call; nothing else is handed over.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    let tree = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    tracing::debug!(fd = tree.as_raw_fd(), "hints are taken");
    Ok(tree)
}
