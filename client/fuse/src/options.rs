//! How a mount looks to its users.

use std::sync::Arc;

use crate::metrics::FuseMetrics;

/// How a mount looks: owners and modes where the store has none, who may use it. How long
/// the kernel believes names and attributes follows from the client's metadata modes: as long
/// as the client itself still would.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// Owner of everything whose store knows no owner; the user of this process by default.
    pub uid: u32,
    /// Group of everything whose store knows no group; that of this process by default.
    pub gid: u32,
    /// Permission bits of files whose store knows none, before `umask`; 0644 by default.
    pub file_mode: u32,
    /// Permission bits of directories whose store knows none, before `umask`; 0755 by
    /// default.
    pub dir_mode: u32,
    /// Bits taken away from `file_mode` and `dir_mode`; 0 by default.
    pub umask: u32,
    /// Users other than the one who mounts may use the mount, as far as modes let them.
    /// Needs root, or `user_allow_other` in `/etc/fuse.conf`. Off by default.
    pub allow_other: bool,
    /// What `df` and `mount` show after `millpond:`, such as the UFS's URI.
    pub fs_name: String,
    /// Threads that read requests from the kernel and answer hits, 1 to 64; by default the
    /// number of CPUs, at least 2 and at most 4.
    pub threads: usize,
    /// The kernel's readahead for one sequential reader in KiB, set after mounting where
    /// permitted; 0 leaves the kernel's default of 128 KiB. 4096 by default.
    pub read_ahead_kb: u32,
    /// The kernel opens and closes files by itself, without asking: opening costs what it
    /// costs on a local file system. Each version of a file then has an inode of its own,
    /// and a file is as fresh at `open` as its name. Only for mounts that are read-only. Off
    /// by default: the kernel asks at each open, which passing files through to a local tier
    /// needs.
    pub kernel_opens: bool,
    /// The mount refuses every change with EROFS, before anybody is asked; on by default. Off,
    /// the stores decide, and the kernel asks at each open.
    pub read_only: bool,
    /// The directory of the namespace that is the mount's root, `/` by default.
    pub subtree: String,
    /// The limit of the process's memory that `.millpond/config` shows, if there is one.
    pub memory_limit: Option<u64>,
    /// The kernel reads files that are whole in the local disk tier itself, where it can and
    /// this process may have it do so; on by default. Not where
    /// [`kernel_opens`](Self::kernel_opens).
    pub passthrough: bool,
    /// Where the mount counts; metrics that nobody reads by default.
    pub metrics: Option<Arc<FuseMetrics>>,
}

impl Default for MountOptions {
    fn default() -> Self {
        let cpus = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            file_mode: 0o644,
            dir_mode: 0o755,
            umask: 0,
            allow_other: false,
            fs_name: String::new(),
            threads: cpus.clamp(2, 4),
            read_ahead_kb: 4096,
            kernel_opens: false,
            read_only: true,
            subtree: "/".to_owned(),
            memory_limit: None,
            passthrough: true,
            metrics: None,
        }
    }
}

impl MountOptions {
    /// The source that the kernel lists for the mount: `millpond`, or `millpond:` and
    /// [`fs_name`](Self::fs_name). By it a mount is known to be ours.
    pub(crate) fn source(&self) -> String {
        // fusermount takes its options as one list separated by commas.
        let name: String = self
            .fs_name
            .chars()
            .map(|c| if c == ',' || c.is_control() { '_' } else { c })
            .take(512)
            .collect();
        match name.as_str() {
            "" => crate::unmount::SOURCE_PREFIX.to_owned(),
            name => format!("{}:{name}", crate::unmount::SOURCE_PREFIX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_marks_the_mount_as_ours_and_is_one_option() {
        let named = |name: &str| MountOptions {
            fs_name: name.to_owned(),
            ..MountOptions::default()
        };
        assert_eq!(named("").source(), "millpond");
        assert_eq!(named("s3://b/p").source(), "millpond:s3://b/p");
        assert_eq!(named("a,rw\nb").source(), "millpond:a_rw_b");
    }
}
