//! What the kernel is asked for: at the mount, at its first request, at each open. Public so
//! that whatever a mount is measured beside asks for the same.

use fuser::{Config, FopenFlags, InitFlags, KernelConfig, MountOption, SessionACL};

use crate::kernel;
use crate::kernel_dirs::Caching;
use crate::options::MountOptions;

/// The options of the mount and the threads that serve it.
pub fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        if options.read_only {
            MountOption::RO
        } else {
            MountOption::RW
        },
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        MountOption::DefaultPermissions,
        MountOption::FSName(options.source()),
        MountOption::Subtype("millpond".to_owned()),
    ];
    config.acl = if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    config.n_threads = Some(options.threads);
    config.clone_fd = true;
    config
}

/// Asks the kernel for what it can do; what an older kernel lacks is done without.
pub fn negotiate(config: &mut KernelConfig) {
    let wanted = [
        InitFlags::FUSE_ASYNC_READ,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_READDIRPLUS_AUTO,
        InitFlags::FUSE_MAX_PAGES,
        InitFlags::FUSE_CACHE_SYMLINKS,
        // Pages go when an open finds another version, and only then: with the default the
        // kernel would also drop them when a listing shows another time.
        InitFlags::FUSE_EXPLICIT_INVAL_DATA,
        // A file that is opened to be emptied is so in one request.
        InitFlags::FUSE_ATOMIC_O_TRUNC,
        InitFlags::FUSE_BIG_WRITES,
    ];
    for flag in wanted {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(?flag, "the kernel lacks a FUSE capability");
        }
    }
    // The nearest possible value is as good.
    let _ = config.set_max_write(MAX_REQUEST);
    let _ = config.set_max_background(MAX_BACKGROUND);
    let _ = config.set_congestion_threshold(MAX_BACKGROUND * 3 / 4);
}

/// How a file is opened whose pages the kernel may, or may not, keep from before, for reading
/// or for writing too: then its `close` has something to wait for.
pub const fn open_flags(keep_pages: bool, writes: bool) -> FopenFlags {
    let flags = match writes {
        true => FopenFlags::empty(),
        false => FopenFlags::FOPEN_NOFLUSH,
    };
    match keep_pages {
        true => flags.union(FopenFlags::FOPEN_KEEP_CACHE),
        false => flags,
    }
}

/// How a directory is opened of whose listing the kernel may do so much.
pub(crate) const fn open_dir_flags(caching: Caching) -> FopenFlags {
    match caching {
        Caching::No => FopenFlags::empty(),
        Caching::Fill => FopenFlags::FOPEN_CACHE_DIR,
        Caching::Keep => FopenFlags::FOPEN_CACHE_DIR.union(FopenFlags::FOPEN_KEEP_CACHE),
    }
}

/// How a file is opened that the kernel reads itself. A reader who passes the page cache by
/// (`O_DIRECT`) is served from our side all the same: what the tier's file system has in
/// memory is nearer than its disk. Mappings are the kernel's in both cases.
pub const fn passed_flags(direct: bool) -> FopenFlags {
    if direct {
        FopenFlags::FOPEN_NOFLUSH.union(FopenFlags::FOPEN_DIRECT_IO)
    } else {
        FopenFlags::FOPEN_NOFLUSH
    }
}

/// Sets the readahead of the mount on `device` (major, minor) as `options` say, where this
/// process may.
pub fn raise_read_ahead(device: (u32, u32), options: &MountOptions) {
    let kb = options.read_ahead_kb;
    if kb == 0 {
        return;
    }
    match kernel::raise_read_ahead(device, kb) {
        Ok(before) => tracing::debug!(before, kb, "raised the kernel's readahead"),
        Err(error) => tracing::debug!(
            %error,
            "the kernel's readahead stays at its default; root can raise it in /sys/class/bdi"
        ),
    }
}

/// The largest request: a piece of a block that never crosses one.
pub const MAX_REQUEST: u32 = 1 << 20;

/// Requests that the kernel sends ahead of readers (readahead) at one time.
const MAX_BACKGROUND: u16 = 64;
