//! Ctrl-C: measurements end between two runs, so that clusters and mounts are taken down.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};

/// A signal is for the whole process, and so is this.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Has all measurements end at the next [`check`].
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Called between runs and in long loops.
///
/// # Errors
/// After [`interrupt`].
pub fn check() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
