//! Whose `close` of a file sends it.
//!
//! The kernel reports each descriptor that is closed. A process that starts another has all of its
//! descriptors for a moment in the child too, which closes them without having written: were the
//! file sent then, others would see a part of it. So a close counts that comes from the process
//! that opened the file, or from one that wrote to it.

use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

/// The processes whose `close` of a handle counts.
#[derive(Debug, Default)]
pub(crate) struct Closers {
    /// The process that opened it; 0 if that is not known, and any close counts then.
    opener: u32,
    /// The thread that wrote last.
    last: AtomicU32,
    /// Threads that wrote, and their processes. Short: a file has few writers.
    writers: Mutex<Vec<(u32, u32)>>,
}

/// The most threads that are remembered. Beyond them the first are asked for again.
const MAX_WRITERS: usize = 256;

impl Closers {
    /// Of a handle that the thread `pid` opened. A thread in a namespace that this process does
    /// not see is 0.
    pub(crate) fn opened_by(pid: u32) -> Self {
        Self {
            opener: process_of(pid),
            ..Self::default()
        }
    }

    /// The thread `pid` writes.
    pub(crate) fn writes(&self, pid: u32) {
        if pid == 0 || self.last.swap(pid, Ordering::Relaxed) == pid {
            return;
        }
        let mut writers = self.writers.lock();
        if writers.iter().any(|(thread, _)| *thread == pid) {
            return;
        }
        if writers.len() == MAX_WRITERS {
            writers.swap_remove(0);
        }
        writers.push((pid, process_of(pid)));
    }

    /// Whether a close by the thread `pid` counts.
    pub(crate) fn count(&self, pid: u32) -> bool {
        if pid == 0 || self.opener == 0 {
            return true;
        }
        let process = process_of(pid);
        process == 0
            || process == self.opener
            || self.writers.lock().iter().any(|(_, of)| *of == process)
    }
}

/// The process that the thread `pid` belongs to; 0 if it is gone or cannot be seen.
fn process_of(pid: u32) -> u32 {
    if pid == 0 {
        return 0;
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|tgid| tgid.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_opener_and_those_who_wrote_count_and_a_child_that_did_not_does_not() {
        let own = std::process::id();
        let mut child = Command::new("sleep")
            .arg("60")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let closers = Closers::opened_by(own);
        assert!(closers.count(own) && closers.count(0));
        assert!(!closers.count(child.id()));
        closers.writes(child.id());
        closers.writes(child.id());
        assert!(closers.count(child.id()));
        assert!(Closers::opened_by(0).count(own), "nothing is known");
        child.kill().unwrap();
        child.wait().unwrap();
        // Threads of one process are one.
        let of_thread = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let link = std::fs::read_link("/proc/thread-self").unwrap();
                let tid = link.file_name().unwrap().to_str().unwrap();
                let tid: u32 = tid.parse().unwrap();
                (tid, closers.count(tid))
            });
            thread.join().unwrap()
        });
        assert!(of_thread.0 != own && of_thread.1, "{of_thread:?}");
    }
}
