//! The files, local and in a store, and the mounts of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use millpond_process::Size;
use millpond_s3_fixture::{FixtureConfig, S3Fixture};
use parking_lot::Mutex;

use super::{FieldArgs, MIB, Setup};
use crate::cluster::{Cluster, ClusterSpec, Kind, standalone_mount};
use crate::process_cluster::{Mount, peak_rss};
use crate::read::dataset::Dataset;
use crate::read::kernel;
use crate::read::layout::FileInfo;
use crate::scenario::Context;

const BUCKET: &str = "field";
/// Directories of small files.
const DIRS: usize = 20;
/// Bytes of a small file.
const SMALL: u64 = 128 << 10;
/// Memory of mounts that do not hold all data in it.
const LITTLE: Size = Size::mib(256);
/// How long mounts believe attributes: as a user who reads datasets would have it.
const TTL: [&str; 2] = ["--metadata-ttl", "10m"];

/// Everything but the mounts.
pub(super) struct Scene<'a> {
    pub(super) context: &'a Context,
    pub(super) data: Dataset,
    large: Vec<PathBuf>,
    small: Vec<FileInfo>,
    store: S3Fixture,
    could_not_drop: Mutex<Option<String>>,
}

impl<'a> Scene<'a> {
    /// Writes the data to a directory and puts it into a store.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn new(context: &'a Context, args: &FieldArgs) -> Result<Self> {
        let usual = Size::mib(context.pick(256, 64));
        let size = args.size.unwrap_or(usual).bytes();
        let count = args.files.unwrap_or_else(|| context.pick(2000, 400));
        context.step("writing the data");
        let large: Vec<FileInfo> = (0..4)
            .map(|number| FileInfo {
                path: format!("big/f{number}.bin"),
                size,
            })
            .collect();
        let small: Vec<FileInfo> = (0..count)
            .map(|number| FileInfo {
                path: format!(
                    "small/d{:02}/s{number:05}.bin",
                    number * DIRS.min(count) / count
                ),
                size: SMALL,
            })
            .collect();
        let files: Arc<[FileInfo]> = large.iter().chain(&small).cloned().collect();
        let data = Dataset::write(&context.new_dir("field")?, files, context.seed)?;
        let store = context
            .runtime
            .block_on(S3Fixture::start_with(FixtureConfig { anonymous: true }));
        store.create_bucket(BUCKET);
        for info in &**data.files() {
            let bytes = std::fs::read(data.dir().join(&info.path))?;
            store.put(BUCKET, &info.path, bytes);
        }
        Ok(Self {
            context,
            large: large.into_iter().map(|info| info.path.into()).collect(),
            small,
            data,
            store,
            could_not_drop: Mutex::default(),
        })
    }

    /// The large files below `root`.
    pub(super) fn large(&self, root: &Path) -> Vec<PathBuf> {
        self.large.iter().map(|path| root.join(path)).collect()
    }

    /// The small files.
    pub(super) fn small(&self) -> &[FileInfo] {
        &self.small
    }

    /// Where the store has the large files.
    pub(super) fn large_urls(&self) -> Vec<String> {
        self.urls(&self.data.files()[..self.large.len()])
    }

    /// Where the store has the small files.
    pub(super) fn small_urls(&self) -> Vec<String> {
        self.urls(&self.small)
    }

    fn urls(&self, files: &[FileInfo]) -> Vec<String> {
        let endpoint = self.store.endpoint();
        let url = |info: &FileInfo| format!("{endpoint}/{BUCKET}/{}", info.path);
        files.iter().map(url).collect()
    }

    /// Has the kernel drop what it holds of all files, wherever they are.
    pub(super) fn drop_caches(&self) {
        self.context.step("dropping the page cache");
        if let Err(error) = kernel::drop_everything() {
            self.could_not_drop
                .lock()
                .get_or_insert(format!("{error:#}"));
        }
    }

    /// Why the kernel did not drop what it should have, if so.
    pub(super) fn could_not_drop(&self) -> Option<String> {
        self.could_not_drop.lock().clone()
    }

    /// A new mount, of a new cluster if it needs one, that has read nothing yet.
    ///
    /// # Errors
    /// When it does not come up.
    pub(super) fn mount(&self, setup: Setup) -> Result<Mounted> {
        let uri = format!("s3://{BUCKET}");
        let total: u64 = self.data.files().iter().map(|info| info.size).sum();
        let ample = Size::mib((total + total / 4) / MIB + 64);
        // As curl asks: the store takes no signatures.
        let mut options = self.store.options();
        options.retain(|key, _| !key.contains("key"));
        options.insert("credentials".to_owned(), "anonymous".to_owned());
        let flags: Vec<String> = options
            .iter()
            .map(|(key, value)| format!("--option={key}={value}"))
            .collect();
        let mut flags: Vec<&str> = flags.iter().map(String::as_str).chain(TTL).collect();
        let memory = match setup {
            Setup::Memory => ample,
            Setup::Disk | Setup::Cluster => LITTLE,
        };
        let memory = Size(memory.bytes() + millpond::MEMORY_BESIDE_DATA.bytes());
        let text = memory.to_string();
        flags.extend(["--memory-limit", text.as_str()]);
        if setup == Setup::Cluster {
            let each = Size::mib(ample.bytes() / MIB / 2).to_string();
            let spec = ClusterSpec {
                nodes: 3,
                block_size: "4MiB".to_owned(),
                node_memory: each,
                node_disk: "0".to_owned(),
                log_level: "warn".to_owned(),
                ..ClusterSpec::default()
            };
            let cluster = Cluster::start(self.context, spec, Kind::Processes)?;
            cluster.add_ufs("/data", &uri, &options)?;
            let mount = cluster.mount(&flags[options.len()..])?;
            return Ok(Mounted {
                root: mount.path().join("data"),
                mount,
                cluster: Some(cluster),
                limit: memory.bytes(),
                _cache: None,
            });
        }
        let cache = match setup {
            Setup::Disk => Some(tempfile::tempdir_in(self.context.dir())?),
            Setup::Memory | Setup::Cluster => None,
        };
        let dir = cache.as_ref().map(|dir| dir.path().join("tier"));
        let (dir, capacity) = (dir.as_deref().map(Path::to_string_lossy), ample.to_string());
        if let Some(dir) = &dir {
            flags.extend(["--cache-dir", dir, "--cache-size", &capacity]);
        }
        let mount = standalone_mount(self.context, &uri, &flags)?;
        Ok(Mounted {
            root: mount.path().to_owned(),
            mount,
            cluster: None,
            limit: memory.bytes(),
            _cache: cache,
        })
    }
}

/// A mount and what it reads from.
pub(super) struct Mounted {
    pub(super) root: PathBuf,
    mount: Mount,
    // After the mount: what it reads from.
    cluster: Option<Cluster>,
    limit: u64,
    _cache: Option<tempfile::TempDir>,
}

impl Mounted {
    /// All processes that serve it.
    pub(super) fn pids(&self) -> Vec<u32> {
        let mut pids = self.cluster.as_ref().map(Cluster::pids).unwrap_or_default();
        pids.push(self.mount.pid());
        pids
    }

    /// The most memory that the mount used so far, by what its limit allows.
    ///
    /// # Errors
    /// When it does not run any more.
    pub(super) fn memory(&self) -> Result<f64> {
        let peak = peak_rss(self.mount.pid()).context("the mount ended")?;
        Ok(peak as f64 / (self.limit + 64 * MIB) as f64)
    }
}
