//! A mount for one test, which goes away whatever happens.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_client::{ClientConfig, FileSystem};
use millpond_fuse::{MountOptions, MountedFs, preflight};
use millpond_ufs::memory::MemoryStore;
use nix::mount::{MntFlags, umount2};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Attributes are believed this long, by the client and by the kernel each.
pub(crate) const TTL: Duration = Duration::from_millis(50);

/// A live mount with its own runtime. Dropping it unmounts, also in a panic.
pub(crate) struct Rig {
    pub(crate) fs: FileSystem,
    pub(crate) mounted: Option<MountedFs>,
    pub(crate) runtime: Runtime,
    dir: PathBuf,
    _temp: TempDir,
}

impl Rig {
    /// Mounts `uri`; `None` (after a line that says so) where FUSE cannot be used.
    pub(crate) fn new(uri: &str) -> Option<Self> {
        Self::with(uri, BTreeMap::new(), |_| {})
    }

    /// Mounts `uri` such that it can be written.
    pub(crate) fn writable(uri: &str) -> Option<Self> {
        Self::with(uri, BTreeMap::new(), |options| options.read_only = false)
    }

    pub(crate) fn with(
        uri: &str,
        ufs_options: BTreeMap<String, String>,
        adjust: impl FnOnce(&mut MountOptions),
    ) -> Option<Self> {
        Self::with_client(uri, ufs_options, |_| {}, adjust)
    }

    pub(crate) fn with_client(
        uri: &str,
        ufs_options: BTreeMap<String, String>,
        adjust_client: impl FnOnce(&mut ClientConfig),
        adjust: impl FnOnce(&mut MountOptions),
    ) -> Option<Self> {
        if !fuse_is_usable() {
            return None;
        }
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap().join("mnt");
        std::fs::create_dir(&dir).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut config = ClientConfig {
            memory: 64 << 20,
            metadata_ttl: TTL,
            ..ClientConfig::default()
        };
        adjust_client(&mut config);
        let registry = Mutex::new(Registry::default());
        let fs = runtime
            .block_on(FileSystem::standalone(uri, ufs_options, config, &registry))
            .unwrap();
        let mut options = MountOptions {
            fs_name: "test".to_owned(),
            ..MountOptions::default()
        };
        adjust(&mut options);
        let mounted = MountedFs::mount(fs.clone(), runtime.handle().clone(), &dir, &options);
        Some(Self {
            fs,
            mounted: Some(mounted.unwrap()),
            runtime,
            dir,
            _temp: temp,
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn mounted(&self) -> &MountedFs {
        self.mounted.as_ref().unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A test that failed may hold files open.
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
        drop(self.mounted.take());
        self.runtime.block_on(self.fs.shutdown());
    }
}

/// Whether mounts can be made here.
pub(crate) fn fuse_is_usable() -> bool {
    let Err(error) = preflight::check_right() else {
        return true;
    };
    let required = std::env::var_os("MILLPOND_REQUIRE_FUSE").is_some_and(|value| value == "1");
    assert!(!required, "MILLPOND_REQUIRE_FUSE=1, but: {error}");
    skip(&error.to_string());
    false
}

/// Says on the real stderr that the test was skipped: the test harness hides what passing
/// tests print.
pub(crate) fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let line = format!("SKIPPED: {name}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// An empty memory store of its own, and its URI.
pub(crate) fn memory() -> (Arc<MemoryStore>, String) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("fuse-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    (MemoryStore::named(&name), format!("memory:///{name}"))
}

/// A local directory and its URI.
pub(crate) fn local() -> (TempDir, String) {
    let temp = tempfile::tempdir().unwrap();
    let uri = temp.path().canonicalize().unwrap();
    let uri = uri.to_str().unwrap().to_owned();
    (temp, uri)
}

/// Bytes that differ at each place and for each seed.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Waits until `condition` holds.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited 20 s for: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// The errno of a failure.
pub(crate) fn errno<T>(result: std::io::Result<T>) -> i32 {
    result.err().and_then(|e| e.raw_os_error()).unwrap_or(0)
}
