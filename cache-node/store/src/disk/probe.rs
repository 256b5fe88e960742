//! Tries out a sick disk, and takes a directory again that was lost.

use std::io;
use std::time::Instant;

use millpond_disk::{DirLock, DiskError, Tenure};
use tracing::warn;

use super::blocks::Blocks;
use super::device::Access;
use super::scan;

/// What is written: one unit of what file systems give out.
const PROBE_LEN: usize = 4096;

/// What a probe showed; each failure with its cause.
#[derive(Debug, Clone)]
pub(super) struct Probed {
    pub(super) read: Result<(), String>,
    pub(super) write: Result<(), String>,
}

impl Probed {
    /// Nothing worked.
    pub(super) fn failed(why: &str) -> Self {
        Self {
            read: Err(why.to_owned()),
            write: Err(why.to_owned()),
        }
    }
}

impl Blocks {
    /// Writes, forces to the medium and reads a small file; reads another from the medium.
    /// Blocks the thread for as long as the disk does.
    pub(super) fn probe(&self) -> Probed {
        if let Err(why) = self.keep_tenure() {
            return Probed::failed(&why);
        }
        Probed {
            read: self.probe_read().map_err(|error| error.to_string()),
            write: self.probe_write().map_err(|error| error.to_string()),
        }
    }

    /// Takes note of what a probe that was about these kinds of access has shown.
    pub(super) fn probed(&self, about: &[Access], probed: &Probed) {
        let now = Instant::now();
        for access in about {
            let outcome = match access {
                Access::Read => &probed.read,
                Access::Write => &probed.write,
            };
            self.device.probed(*access, outcome, now);
        }
    }

    /// Makes sure that the directory is ours. One that was removed is begun anew, unless what
    /// is in its place is another file system: that of the mount point, perhaps.
    fn keep_tenure(&self) -> Result<(), String> {
        let mut lock = self.lock.lock();
        let dir = self.layout.dir();
        match dir.tenure(&lock).map_err(|error| error.to_string())? {
            Tenure::Ours => Ok(()),
            Tenure::Replaced => {
                let why = "another file system is in its place; mount the right one, or restart \
                           the node to use this one";
                Err(why.to_owned())
            }
            Tenure::Lost => {
                self.forget_all();
                *lock = self.begin_anew().map_err(|error| with_cause(&error))?;
                let dir = self.device.dir().display();
                let blocks = self.index.len();
                warn!(%dir, blocks, "the directory was removed: begun anew with what is there");
                Ok(())
            }
        }
    }

    fn begin_anew(&self) -> Result<DirLock, DiskError> {
        let lock = self.layout.claim(self.cluster.as_ref())?;
        self.restore(scan::scan(&self.layout)?);
        Ok(lock)
    }

    fn probe_read(&self) -> io::Result<()> {
        let marker = self.layout.dir().marker();
        let file = self.files.open(&marker)?;
        file.forget();
        match file.read(0, 1)? {
            Some(_) => Ok(()),
            None => Err(io::Error::other("the directory's marker is empty")),
        }
    }

    fn probe_write(&self) -> io::Result<()> {
        self.layout.ensure_tmp(&self.files)?;
        // Always the same name: one that could not be removed is not left beside the next.
        let path = self.layout.probe();
        match self.files.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let pattern: Vec<u8> = (0..PROBE_LEN).map(|at| (at % 251) as u8).collect();
        let tried = self.files.create(&path, 0o600).and_then(|mut file| {
            file.write(&pattern)?;
            file.sync()?;
            file.forget();
            Ok(file.read(0, PROBE_LEN)? == Some(pattern))
        });
        let removed = self.files.remove(&path);
        if !tried? {
            return Err(io::Error::other("what was written reads differently"));
        }
        removed
    }
}

fn with_cause(error: &DiskError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
