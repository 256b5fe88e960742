//! Files that the kernel reads itself, from the local disk tier (FUSE passthrough).
//!
//! It is decided at open, and for a whole file: one that the tier holds whole and verified. All
//! reads and mappings of it are then those of the file in the tier, and nobody asks us.
//!
//! The kernel refuses to mix: while an inode is open in one way, cached by FUSE or passed
//! through to a file, all further opens must be in that way, and to that file; an answer that
//! is not makes the application's `open` fail with `EIO`. So what the first of the handles
//! open at one time got, the others get. Handles count until their release arrives, which the
//! kernel sends after it has let go of its own state: we never believe an inode free too
//! early.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use fuser::{BackingId, InitFlags, KernelConfig};
use millpond_client::Backing;
use parking_lot::Mutex;

/// Whether the kernel may read files of the local disk tier itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Passthrough {
    /// It may.
    Available,
    /// This process may not have it do so: it lacks CAP_SYS_ADMIN.
    NoRight,
    /// The kernel cannot, or not for the file system of the tier.
    NoKernel,
    /// There is no local disk tier, or it is switched off.
    Off,
}

impl Passthrough {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 4] = [Self::Available, Self::NoRight, Self::NoKernel, Self::Off];

    /// As metrics and logs say it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::NoRight => "no_right",
            Self::NoKernel => "no_kernel",
            Self::Off => "off",
        }
    }
}

/// What is passed through on one mount, and whether anything is.
#[derive(Debug)]
pub(crate) struct Passing {
    state: AtomicU8,
    /// Why it was given up, once it was.
    why: OnceLock<&'static str>,
    open: Mutex<OpenInodes<Passed>>,
}

/// A file in the tier that the kernel knows. Fields are dropped in order: the kernel forgets
/// it before it may be evicted.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) id: BackingId,
    _file: Backing,
}

impl Passing {
    pub(crate) fn new(wanted: bool) -> Self {
        let state = if wanted {
            Passthrough::Available
        } else {
            Passthrough::Off
        };
        Self {
            state: AtomicU8::new(state as u8),
            why: OnceLock::new(),
            open: Mutex::new(OpenInodes::new()),
        }
    }

    pub(crate) fn state(&self) -> Passthrough {
        Passthrough::ALL[usize::from(self.state.load(Ordering::Relaxed))]
    }

    /// Why nothing is passed through, where that is so, on a mount that has a local disk tier or
    /// not.
    pub(crate) fn why_off(&self, has_tier: bool) -> &'static str {
        match self.why.get() {
            Some(why) => why,
            None if has_tier => "it is switched off",
            None => "there is no cache directory",
        }
    }

    /// Asks the kernel whether it can, and says once how it stands.
    pub(crate) fn negotiate(&self, config: &mut KernelConfig) {
        if self.state() == Passthrough::Off {
            return;
        }
        let can = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(STACK_DEPTH).is_ok();
        if !can {
            self.give_up(Passthrough::NoKernel, "the kernel does not offer it");
        } else if !has_right() {
            self.give_up(Passthrough::NoRight, "this process lacks CAP_SYS_ADMIN");
        } else {
            tracing::info!("files that are whole in the cache directory are read by the kernel");
        }
    }

    /// Counts an open of `ino`, whose version is open already or is the one of `file`. Returns
    /// what it is to be passed through to; none if it is to be cached. Every call is paired
    /// with one of [`leave`](Self::leave).
    pub(crate) fn enter(
        &self,
        ino: u64,
        file: impl FnOnce() -> Option<Backing>,
        register: impl FnOnce(&Backing) -> io::Result<BackingId>,
    ) -> Option<Arc<Passed>> {
        if self.state() == Passthrough::Off {
            return None;
        }
        self.open.lock().enter(ino, || {
            if self.state() != Passthrough::Available {
                return None;
            }
            let file = file()?;
            match register(&file) {
                Ok(id) => Some(Passed { id, _file: file }),
                Err(error) => {
                    self.refused(&error);
                    None
                }
            }
        })
    }

    /// Counts a release of what [`enter`](Self::enter) counted.
    pub(crate) fn leave(&self, ino: u64) {
        if self.state() != Passthrough::Off {
            let gone = self.open.lock().leave(ino);
            // Closing the file may take a moment.
            drop(gone);
        }
    }

    fn refused(&self, error: &io::Error) {
        match error.raw_os_error() {
            Some(libc::EPERM) => self.give_up(Passthrough::NoRight, "the kernel refuses (EPERM)"),
            Some(libc::ELOOP | libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL) => {
                self.give_up(
                    Passthrough::NoKernel,
                    "the kernel cannot for the file system of the cache directory",
                );
            }
            _ => tracing::debug!(%error, "a file is not passed through"),
        }
    }

    fn give_up(&self, state: Passthrough, why: &'static str) {
        // The first reason is the one.
        let _ = self.why.set(why);
        self.state.store(state as u8, Ordering::Relaxed);
        tracing::info!(
            why,
            "files in the cache directory are not read by the kernel itself"
        );
    }
}

/// File systems below ours that may be stacked: the tier's own is not.
const STACK_DEPTH: u32 = 1;

/// Whether this process has CAP_SYS_ADMIN, as far as it can tell: the kernel decides when a
/// file is registered.
fn has_right() -> bool {
    const SYS_ADMIN: u32 = 21;
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return true;
    };
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_none_or(|set| set & 1 << SYS_ADMIN != 0)
}

/// In which way inodes are open.
///
/// Invariant: all opens of an inode that are not closed got the same answer.
#[derive(Debug)]
struct OpenInodes<T> {
    inodes: HashMap<u64, OpenInode<T>>,
}

#[derive(Debug)]
struct OpenInode<T> {
    opens: u32,
    passed: Option<Arc<T>>,
}

impl<T> OpenInodes<T> {
    fn new() -> Self {
        Self {
            inodes: HashMap::new(),
        }
    }

    fn enter(&mut self, ino: u64, pass: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
        let inode = self.inodes.entry(ino).or_insert_with(|| OpenInode {
            opens: 0,
            passed: pass().map(Arc::new),
        });
        inode.opens += 1;
        inode.passed.clone()
    }

    /// Returns what nobody uses any more.
    fn leave(&mut self, ino: u64) -> Option<Arc<T>> {
        let inode = self.inodes.get_mut(&ino)?;
        inode.opens -= 1;
        if inode.opens > 0 {
            return None;
        }
        self.inodes.remove(&ino)?.passed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is opened and closed in whatever order: no inode is open in two ways, and
        /// the way is chosen anew when all handles are closed.
        #[test]
        fn an_inode_is_open_in_one_way(
            ops in proptest::collection::vec((0u64..3, any::<bool>(), any::<bool>()), 0..100),
        ) {
            let mut inodes = OpenInodes::new();
            let mut held: HashMap<u64, Vec<Option<Arc<usize>>>> = HashMap::new();
            for (step, (ino, open, whole)) in ops.into_iter().enumerate() {
                let handles = held.entry(ino).or_default();
                if open {
                    let got = inodes.enter(ino, || whole.then_some(step));
                    match handles.first() {
                        Some(first) => prop_assert_eq!(&got, first),
                        None => prop_assert_eq!(got.as_deref(), whole.then_some(&step)),
                    }
                    handles.push(got);
                } else if let Some(handle) = handles.pop() {
                    let gone = inodes.leave(ino);
                    prop_assert_eq!(gone.is_some(), handles.is_empty() && handle.is_some());
                }
            }
            held.retain(|_, handles| !handles.is_empty());
            prop_assert_eq!(inodes.inodes.len(), held.len());
        }
    }
}
