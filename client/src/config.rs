//! Settings of a client.

use std::path::PathBuf;
use std::time::Duration;

use millpond_proto::{BlockSize, MetadataMode};

use crate::error::ClientError;

/// Settings of a [`FileSystem`](crate::FileSystem).
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Coordinators as `host:port`; empty for a standalone client.
    pub coordinators: Vec<String>,
    /// File with a token that gets the client its first certificate, where the coordinators
    /// are on other machines.
    pub token_file: Option<PathBuf>,
    /// Directory for the client's certificate and the last cluster view. Created if missing;
    /// not used by a standalone client.
    pub state_dir: PathBuf,
    /// Bytes of memory for data: the local memory tier together with all data in flight.
    /// At least [`ClientConfig::MIN_MEMORY`].
    pub memory: u64,
    /// Directory and capacity in bytes of the local disk tier; none by default.
    pub disk: Option<(PathBuf, u64)>,
    /// How attributes and listings are believed on mounts that do not say it themselves.
    pub metadata_mode: MetadataMode,
    /// How long attributes and listings are believed in mode `ttl` on mounts that do not say
    /// it themselves. Absence is believed for half of it.
    pub metadata_ttl: Duration,
    /// Bytes of memory for attributes and listings, beside `memory`. At least 1 MiB.
    pub metadata_memory: u64,
    /// How long one read or metadata call may take before it fails.
    pub deadline: Duration,
    /// The most bytes that are read ahead of one reader. How many are follows from how fast
    /// the source is and how far away, and from the memory that all readers share.
    pub readahead: u64,
    /// Size of a block for a standalone client; a cluster has its own.
    pub block_size: BlockSize,
    /// Whether blocks of cache nodes on this host are read through their Unix sockets, where
    /// those let this user in.
    pub local_socket: bool,
    /// Whether every change is refused, before any store is asked.
    pub read_only: bool,
    /// Directory for what is written and not in a store yet; the system's directory for
    /// temporary files by default.
    pub staging_dir: Option<PathBuf>,
    /// The most bytes of all that is in the staging directory.
    pub staging_size: u64,
    /// Whether a file that was replaced in its store since it was opened for writing is kept:
    /// who closes later gets `Stale`. Else what is closed last is what is there.
    pub if_match: bool,
    /// The most files and directories below a directory that is renamed where the store has to
    /// copy each; one with more is refused.
    pub rename_limit: u64,
    /// Directory for notes of such renames, by which an interrupted one is finished; none are
    /// made without it.
    pub rename_journal: Option<PathBuf>,
}

impl ClientConfig {
    /// The least memory that a client works with: 8 MiB.
    pub const MIN_MEMORY: u64 = 8 << 20;

    /// Checks what types cannot.
    ///
    /// # Errors
    /// [`ClientError::Config`] that names the setting.
    pub fn validate(&self) -> Result<(), ClientError> {
        let wrong = |setting, why| Err(ClientError::Config { setting, why });
        if self.memory < Self::MIN_MEMORY {
            return wrong("memory", "it must be at least 8MiB".to_owned());
        }
        if self.metadata_memory < 1 << 20 {
            return wrong("metadata-memory", "it must be at least 1MiB".to_owned());
        }
        if self.deadline < Duration::from_millis(100) {
            return wrong("deadline", "it must be at least 100ms".to_owned());
        }
        if let Some((dir, capacity)) = &self.disk
            && *capacity < 4 * self.block_size.bytes()
        {
            let least = 4 * self.block_size.bytes();
            return wrong(
                "cache-size",
                format!(
                    "the disk tier in {} needs at least {least} bytes",
                    dir.display()
                ),
            );
        }
        Ok(())
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            coordinators: Vec::new(),
            token_file: None,
            state_dir: PathBuf::new(),
            memory: 256 << 20,
            disk: None,
            metadata_mode: MetadataMode::Ttl,
            metadata_ttl: Duration::from_secs(1),
            metadata_memory: 32 << 20,
            deadline: Duration::from_secs(30),
            readahead: 256 << 20,
            block_size: BlockSize::DEFAULT,
            local_socket: true,
            read_only: false,
            staging_dir: None,
            staging_size: 16 << 30,
            if_match: false,
            rename_limit: 100_000,
            rename_journal: None,
        }
    }
}
