//! The end of a process whose parent is gone.

use std::io::Read;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};
use rustix::fs::{FileType, fstat};

/// How long an orderly end may take.
const ORDERLY: Duration = Duration::from_secs(15);

/// Has this process end when its parent does, however that happens: the parent holds the
/// other end of its stdin. Nothing if stdin is no pipe.
pub fn end_with_parent() {
    let stdin = std::io::stdin();
    let is_pipe = fstat(&stdin).is_ok_and(|stat| {
        // The type of the field differs between platforms.
        #[allow(clippy::useless_conversion, reason = "it is u32 on some")]
        let mode = stat.st_mode.into();
        FileType::from_raw_mode(mode) == FileType::Fifo
    });
    if is_pipe {
        std::thread::spawn(wait_for_the_end);
    }
}

fn wait_for_the_end() {
    let mut byte = [0; 64];
    while matches!(std::io::stdin().read(&mut byte), Ok(n) if n > 0) {}
    let _ = raise(Signal::SIGTERM);
    let deadline = Instant::now() + ORDERLY;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
    let _ = raise(Signal::SIGKILL);
}
