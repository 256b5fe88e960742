//! Has the kernel drop what changed.
//!
//! The kernel answers an invalidation only when it has the locks of what is invalidated, and
//! requests under way hold these. So invalidations are sent from a thread that serves no
//! request, with no lock of ours held.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;

use fuser::{INodeNo, Notifier};
use millpond_proto::Change;
use tokio::sync::watch;

use crate::inode::Affected;
use crate::shared::Shared;

/// Follows the client's changes until the mount has `ended`.
pub(crate) async fn follow(shared: Arc<Shared>, mut ended: watch::Receiver<bool>) {
    let mut changes = shared.fs.changes();
    loop {
        let change = tokio::select! {
            // An error means that the session is gone.
            _ = ended.wait_for(|ended| *ended) => return,
            change = changes.next() => change,
        };
        let Some(change) = change else {
            return;
        };
        let in_thread = Arc::clone(&shared);
        // One at a time: a burst of changes is many small calls to the kernel.
        let dropped = shared.blocking(move || drop_all(&in_thread, &change));
        if dropped.await.is_err() {
            return;
        }
    }
}

fn drop_all(shared: &Shared, change: &Change) {
    let Some(notifier) = shared.notifier.get() else {
        return;
    };
    let affected = shared.inodes.lock().affected(change);
    for affected in affected {
        if let Err(error) = drop_one(notifier, &affected) {
            tracing::debug!(%error, path = change.path, "the kernel did not drop what changed");
        }
    }
}

/// - The name, unless it is a directory's: the kernel would cut those off who are in it. Its
///   attributes and its entries go instead.
/// - The attributes of a file go with its name; its pages stay with their version, and are
///   dropped when another is opened.
fn drop_one(notifier: &Notifier, affected: &Affected) -> io::Result<()> {
    if let Some((parent, name)) = &affected.entry {
        // What the kernel keeps of the listing that has the name.
        unless_unknown(notifier.inval_inode(INodeNo(*parent), 0, 0))?;
        if !affected.is_dir {
            let name = OsStr::new(&**name);
            unless_unknown(notifier.inval_entry(INodeNo(*parent), name))?;
        }
    }
    match affected.ino {
        Some(ino) if affected.is_dir => unless_unknown(notifier.inval_inode(INodeNo(ino), 0, 0)),
        // Offset -1 is "attributes only".
        Some(ino) => unless_unknown(notifier.inval_inode(INodeNo(ino), -1, 0)),
        None => Ok(()),
    }
}

/// What the kernel does not know it need not drop.
fn unless_unknown(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}
